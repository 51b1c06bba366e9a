"""The mapped classes and vectors on an SQLAlchemy engine of the service's own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import pytest
from pgvector.sqlalchemy import VECTOR
from sqlalchemy import Column, Integer, MetaData, Table, insert, select
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine

from soldier_data import DataLayer, prepare_engine
from soldier_data.config.orm import RuleRow
from soldier_data.postgres.engine import driver_url
from tests.conftest import DIMENSIONS
from tests.factories.config import AgentFactory, RuleFactory

QUERY = [1.0, *[0.0] * (DIMENSIONS - 1)]


@pytest.fixture
async def engine(database_url: str) -> AsyncIterator[AsyncEngine]:
    own = prepare_engine(
        create_async_engine(driver_url(database_url).replace("postgresql://", "postgresql+asyncpg://"))
    )
    yield own
    await own.dispose()


@pytest.fixture
async def rules(data: DataLayer, tenant_id: UUID) -> list[Any]:
    agent = AgentFactory(tenant_id=tenant_id)
    await data.config.save_agent(agent)
    made = [
        RuleFactory(
            tenant_id=tenant_id,
            agent_id=agent.id,
            embedding=[1.0, float(number), *[0.0] * (DIMENSIONS - 2)],
        )
        for number in range(4)
    ]
    await data.config.save_many(made)
    return made


@pytest.mark.parametrize(
    ("distance", "expected"),
    [
        ("cosine_distance", [0.0, 1 - 2**-0.5, 1 - 5**-0.5, 1 - 10**-0.5]),
        ("l2_distance", [0.0, 1.0, 2.0, 3.0]),
        ("max_inner_product", [-1.0] * 4),
    ],
)
async def test_rules_are_ordered_by_each_distance(
    engine: AsyncEngine, rules: list[Any], distance: str, expected: list[float]
) -> None:
    column = getattr(RuleRow.embedding, distance)(QUERY).label("distance")
    query = select(RuleRow.id, RuleRow.embedding, column).order_by(column, RuleRow.embedding)
    async with AsyncSession(engine) as session:
        rows = (await session.execute(query)).all()
    assert [row.distance for row in rows] == pytest.approx(expected)
    assert [row.id for row in rows] == [rule.id for rule in rules]
    assert [row.embedding for row in rows] == [rule.embedding for rule in rules]


async def test_a_vector_that_was_read_is_compared_with_and_a_distance_is_computed_with(
    engine: AsyncEngine, rules: list[Any]
) -> None:
    async with AsyncSession(engine) as session:
        stored = await session.scalar(select(RuleRow.embedding).where(RuleRow.id == rules[2].id))
        near = 1 - RuleRow.embedding.cosine_distance(stored)
        found = (await session.scalars(select(RuleRow.id).where(near > 0.999))).all()
    assert found == [rules[2].id]


async def test_columns_of_pgvectors_own_type_work_beside_ours(engine: AsyncEngine) -> None:
    places = Table("places", MetaData(), Column("id", Integer, primary_key=True), Column("at", VECTOR(3)))
    async with engine.begin() as connection:
        await connection.run_sync(places.metadata.create_all)
        await connection.execute(insert(places), [{"id": 1, "at": [1.0, 2.0, 3.0]}, {"id": 2, "at": None}])
        query = select(places.c.at, places.c.at.l2_distance([1.0, 2.0, 4.0]).label("far")).order_by(
            places.c.id
        )
        assert (await connection.execute(query)).all() == [([1.0, 2.0, 3.0], 1.0), (None, None)]


async def test_an_engine_is_prepared_once(engine: AsyncEngine) -> None:
    assert prepare_engine(engine) is engine
    async with engine.connect() as connection:
        raw = await connection.get_raw_connection()
        assert list(raw.info) == ["soldier_data.vector_codec"]
