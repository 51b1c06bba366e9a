"""Selects of a service's own on the mapped classes: vectors, tables of its own, and other schemas than public."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

import numpy as np
import pytest
from sqlalchemy import ForeignKeyConstraint, MetaData, Select, select, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, contains_eager, mapped_column, relationship, selectinload

from soldier_data import DataLayer, prepare_engine
from soldier_data.config import Agent, Rule
from soldier_data.migrations import upgrade
from soldier_data.orm import AgentRow, RuleRow
from soldier_data.settings import Settings
from tests.conftest import DIMENSIONS, service_url, settings_for
from tests.factories.config import AgentFactory, RuleFactory

QUERY = [1.0, *[0.0] * (DIMENSIONS - 1)]


class OwnBase(DeclarativeBase):
    """The service's own tables, in a schema that they name."""

    metadata = MetaData(schema="public")


class Ticket(OwnBase):
    """A ticket for an agent, perhaps about a rule."""

    __tablename__ = "tickets"
    __table_args__ = (
        ForeignKeyConstraint(["tenant_id", "agent_id"], [AgentRow.tenant_id, AgentRow.id]),
        ForeignKeyConstraint(["tenant_id", "rule_id"], [RuleRow.tenant_id, RuleRow.id]),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    tenant_id: Mapped[UUID]
    agent_id: Mapped[UUID]
    rule_id: Mapped[UUID | None]
    agent: Mapped[AgentRow] = relationship(AgentRow, viewonly=True)
    rule: Mapped[RuleRow | None] = relationship(RuleRow, viewonly=True)


@dataclass
class Place:
    """A database with the tables in one schema and the extensions in another."""

    data: DataLayer
    settings: Settings

    @asynccontextmanager
    async def session(self, way: str) -> AsyncIterator[AsyncSession]:
        """A session whose transaction is rolled back."""
        if way == "unit of work":
            async with self.data.unit_of_work() as uow:
                yield uow.session
                await uow.rollback()
            return
        engine = self._engine(way)
        async with AsyncSession(engine) as session:
            yield session
        await engine.dispose()

    def _engine(self, way: str) -> AsyncEngine:
        url = service_url(self.settings.database_url)
        schema = self.settings.database_schema
        if way == "translated":
            engine = create_async_engine(url).execution_options(schema_translate_map={None: schema})
        else:
            arguments = {"server_settings": {"search_path": f"public, {schema}"}}
            engine = create_async_engine(url, connect_args=arguments)
        return prepare_engine(engine)


@pytest.fixture(scope="module", params=[("public", "public"), ("soldier", "order")], ids="-".join)
def settings(request: pytest.FixtureRequest, redis_url: str) -> Settings:
    """The schemas of the tables and of the extensions."""
    tables, extensions = request.param
    database = "module_database_url" if tables == "public" else "module_empty_database_url"
    return settings_for(
        request.getfixturevalue(database),
        redis_url=redis_url,
        session_key_prefix=f"t{uuid4().hex}",
        database_schema=tables,
        extensions_schema=extensions,
    )


@pytest.fixture(scope="module")
async def place(settings: Settings) -> AsyncIterator[Place]:
    await upgrade(settings)
    async with DataLayer.open(settings) as data:
        async with data.unit_of_work() as uow:
            await uow.connection.run_sync(OwnBase.metadata.create_all)
        yield Place(data, settings)


@pytest.fixture(params=["unit of work", "search_path", "translated"])
def session(request: pytest.FixtureRequest, place: Place) -> AbstractAsyncContextManager[AsyncSession]:
    """A session of each way to make one."""
    return place.session(request.param)


@pytest.fixture
async def agent(place: Place, tenant_id: UUID) -> Agent:
    saved: Agent = AgentFactory(tenant_id=tenant_id)
    await place.data.config.save_agent(saved)
    return saved


@pytest.fixture
async def rules(place: Place, agent: Agent) -> list[Rule]:
    made: list[Rule] = [
        RuleFactory(
            tenant_id=agent.tenant_id,
            agent_id=agent.id,
            embedding=[1.0, float(number), *[0.0] * (DIMENSIONS - 2)],
        )
        for number in range(4)
    ]
    await place.data.config.save_many(made)
    return made


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("cosine_distance", [0.0, 1 - 2**-0.5, 1 - 5**-0.5, 1 - 10**-0.5]),
        ("l2_distance", [0.0, 1.0, 2.0, 3.0]),
        ("max_inner_product", [-1.0] * 4),
        ("indexed_cosine_distance", [0.0, 1 - 2**-0.5, 1 - 5**-0.5, 1 - 10**-0.5]),
    ],
)
async def test_distances_work_in_every_session_and_schema(
    session: AbstractAsyncContextManager[AsyncSession], rules: list[Rule], name: str, expected: list[float]
) -> None:
    distance = getattr(RuleRow.embedding, name)
    query = select(RuleRow.id, distance(QUERY).label("distance")).where(
        RuleRow.tenant_id == rules[0].tenant_id, distance(np.array(QUERY)) == distance(QUERY)
    )
    async with session as opened:
        rows = (await opened.execute(query.order_by("distance", RuleRow.id))).all()
    assert [row.distance for row in rows] == pytest.approx(expected, abs=1e-3)
    assert [row.id for row in rows] == [rule.id for rule in rules]


async def test_a_distance_between_two_columns(place: Place, rules: list[Rule]) -> None:
    distance = RuleRow.embedding.cosine_distance(RuleRow.embedding)
    async with place.session("search_path") as session:
        found = (await session.scalars(select(distance).where(RuleRow.tenant_id == rules[0].tenant_id))).all()
    assert found == pytest.approx([0.0] * 4, abs=1e-3)


async def test_the_vector_index_is_used(
    session: AbstractAsyncContextManager[AsyncSession], rules: list[Rule]
) -> None:
    query = (
        select(RuleRow, RuleRow.embedding.cosine_distance(QUERY).label("distance"))
        .where(RuleRow.tenant_id == rules[0].tenant_id, RuleRow.deleted_at.is_(None))
        .order_by(RuleRow.embedding.indexed_cosine_distance(QUERY))
        .limit(2)
    )
    async with session as opened:
        # The tables are too small for the planner to choose it.
        await opened.execute(text("SET LOCAL enable_sort = off"))
        await opened.execute(text("SET LOCAL hnsw.iterative_scan = 'relaxed_order'"))
        assert "ix_rules_embedding_hnsw" in await _plan(opened, query)
        found = (await opened.scalars(query)).all()
    assert [row.id for row in found] == [rule.id for rule in rules[:2]]
    assert found[0].embedding == QUERY


async def _plan(session: AsyncSession, query: Select[Any]) -> str:
    connection = await session.connection()
    options = await connection.run_sync(lambda sync: sync.get_execution_options())
    translated: Any = options.get("schema_translate_map")
    compiled: Any = query.compile(
        dialect=connection.dialect,
        schema_translate_map=translated,
        render_schema_translate=translated is not None,
    )
    values = tuple(compiled.params[name] for name in compiled.positiontup)
    return "\n".join((await connection.exec_driver_sql(f"EXPLAIN {compiled}", values)).scalars())


async def test_a_table_of_ones_own_refers_to_ours(
    session: AbstractAsyncContextManager[AsyncSession], agent: Agent, rules: list[Rule]
) -> None:
    keys = {"tenant_id": agent.tenant_id, "agent_id": agent.id}
    async with session as opened:
        ticket = Ticket(**keys, rule_id=rules[1].id)
        opened.add_all([ticket, Ticket(**keys)])
        await opened.flush()
        opened.expunge_all()

        loaded = await opened.get_one(
            Ticket,
            ticket.id,
            options=[selectinload(Ticket.agent).selectinload(AgentRow.rules), selectinload(Ticket.rule)],
        )
        assert loaded.agent.name == agent.name
        assert {row.id for row in loaded.agent.rules} == {rule.id for rule in rules}
        assert loaded.rule is not None
        assert loaded.rule.id == rules[1].id

        joined = (
            select(Ticket)
            .join(Ticket.rule)
            .options(contains_eager(Ticket.rule))
            .order_by(RuleRow.embedding.cosine_distance(QUERY))
        )
        assert [found.id for found in await opened.scalars(joined)] == [ticket.id]

        async with opened.begin_nested() as savepoint:
            opened.add(Ticket(tenant_id=uuid4(), agent_id=agent.id))
            with pytest.raises(IntegrityError):
                await opened.flush()
            await savepoint.rollback()
