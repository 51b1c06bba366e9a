"""The mapped classes and vectors on an SQLAlchemy engine of the service's own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from pgvector.sqlalchemy import VECTOR
from sqlalchemy import Column, Integer, MetaData, Table, insert, select, text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine

from soldier_data import Agent, ConfigurationError, DataLayer, StoreConnectionError, prepare_engine
from soldier_data.config.orm import AgentRow, RuleRow
from soldier_data.profiles import CustomerProfile, ProfileField
from soldier_data.settings import Settings
from tests.conftest import DIMENSIONS, service_url
from tests.factories.config import AgentFactory, RuleFactory
from tests.factories.profiles import CustomerProfileFactory, ProfileFieldFactory

QUERY = [1.0, *[0.0] * (DIMENSIONS - 1)]


@pytest.fixture
async def engine(database_url: str) -> AsyncIterator[AsyncEngine]:
    own = prepare_engine(create_async_engine(service_url(database_url)))
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


async def test_the_stores_use_the_engines_connections(
    engine: AsyncEngine, settings: Settings, tenant_id: UUID
) -> None:
    async with DataLayer.open(settings, engine=engine) as data:
        agent: Agent = AgentFactory(tenant_id=tenant_id)
        await data.config.save_agent(agent)
        rule = RuleFactory(tenant_id=tenant_id, agent_id=agent.id, embedding=QUERY)
        await data.config.save_many([rule])
        assert await data.config.get_rule(tenant_id, rule.id) == rule
        [hit] = await data.config.vector_search_rules(QUERY, tenant_id, agent.id)
        assert hit.rule == rule
        async with data.unit_of_work() as uow:
            agent.description = "renamed"
            await uow.config.save_agent(agent)
            row = await uow.session.get_one(AgentRow, (tenant_id, agent.id))
            assert row.description == "renamed"
        assert (await data.health()).ok
        pool: Any = engine.pool
        assert pool.checkedout() == 0
        assert pool.checkedin() == 1
    # It stays open, and its connections are as the service has them.
    async with AsyncSession(engine) as session:
        assert await session.scalar(select(AgentRow.description)) == "renamed"
        await session.rollback()
        assert await session.scalar(select(AgentRow.description)) == "renamed"


async def test_transactions_of_the_service_are_as_before(
    engine: AsyncEngine, settings: Settings, tenant_id: UUID
) -> None:
    async with DataLayer.open(settings, engine=engine) as data:
        async with data.unit_of_work() as uow:
            await uow.session.scalar(select(1))
        async with AsyncSession(engine) as session:
            await session.execute(text("CREATE TABLE notes (id int)"))
            await session.rollback()
            assert await session.scalar(text("SELECT to_regclass('notes')")) is None
        assert await data.config.get_agents(tenant_id) == ([], 0)


async def test_an_engine_that_was_not_prepared_is_refused_by_the_first_call(
    database_url: str, settings: Settings, tenant_id: UUID
) -> None:
    own = create_async_engine(service_url(database_url))
    async with DataLayer.open(settings, engine=own) as data:
        with pytest.raises(ConfigurationError, match=r"soldier_data\.prepare_engine\(engine\)"):
            await data.config.get_agent(tenant_id, tenant_id)
        prepare_engine(own)
        await own.dispose()
        assert await data.config.get_agent(tenant_id, tenant_id) is None
    await own.dispose()


async def test_an_engine_of_another_driver_is_refused(settings: Settings) -> None:
    with pytest.raises(ConfigurationError, match=r"the driver aiosqlite: .*postgresql\+asyncpg://"):
        async with DataLayer.open(settings, engine=_OfAnotherDriver()):  # type: ignore[arg-type]
            pass


class _OfAnotherDriver:
    class dialect:  # noqa: N801 - as an engine has it.
        driver = "aiosqlite"


async def test_a_full_pool_is_told_as_the_engines(
    database_url: str, settings: Settings, tenant_id: UUID
) -> None:
    own = prepare_engine(
        create_async_engine(service_url(database_url), pool_size=1, max_overflow=0, pool_timeout=0.1)
    )
    settings = settings.model_copy(update={"retry_budget": timedelta(0)})
    async with DataLayer.open(settings, engine=own) as data, data.unit_of_work() as uow:
        await uow.session.connection()
        with pytest.raises(StoreConnectionError, match="all connections of the engine's pool are in use"):
            await data.config.get_agent(tenant_id, tenant_id)
    await own.dispose()


async def test_callers_that_are_cancelled_leave_no_connection_out(
    database_url: str, settings: Settings, tenant_id: UUID
) -> None:
    own = prepare_engine(create_async_engine(service_url(database_url), pool_size=2))
    async with DataLayer.open(settings, engine=own) as data:
        for number in range(60):
            call = asyncio.ensure_future(data.config.get_agents(tenant_id))
            await asyncio.sleep(number / 2_000)
            call.cancel()
            await asyncio.gather(call, return_exceptions=True)
        pool: Any = own.pool
        async with asyncio.timeout(10):
            while pool.checkedout():  # noqa: ASYNC110 - nothing tells.
                await asyncio.sleep(0.01)
        assert await data.config.get_agents(tenant_id) == ([], 0)
    await own.dispose()


async def test_documents_and_times_are_read_right_whatever_the_connections_settings(
    database_url: str, settings: Settings, tenant_id: UUID
) -> None:
    arguments = {"server_settings": {"timezone": "Europe/Amsterdam", "extra_float_digits": "0"}}
    own = prepare_engine(create_async_engine(service_url(database_url), connect_args=arguments))
    # Local time had an offset with seconds then.
    moment = datetime(1900, 1, 1, tzinfo=UTC)
    field: ProfileField = ProfileFieldFactory(
        value={"amount": 1e22, "nested": [0.1 + 0.2]}, confidence=0.1 + 0.2, collected_at=moment
    )
    profile: CustomerProfile = CustomerProfileFactory(tenant_id=tenant_id, fields={field.name: field})
    async with DataLayer.open(settings, engine=own) as data:
        await data.profiles.save(profile)
        assert await data.profiles.get_by_id(tenant_id, profile.id) == profile
    await own.dispose()
