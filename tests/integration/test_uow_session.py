"""A service's own SQLAlchemy statements and objects in the transaction of a unit of work."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import ForeignKey, select, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from soldier_data import Agent, ConfigurationError, ConflictError, DataLayer, StoreError, UnitOfWork
from soldier_data.config.orm import AgentRow
from soldier_data.settings import Settings
from tests.backends.connections import bound_role, pool_of
from tests.conftest import settings_for
from tests.factories.config import AgentFactory


class OwnBase(DeclarativeBase):
    """The service's own tables."""


class Ticket(OwnBase):
    """A ticket, and perhaps the one that it follows."""

    __tablename__ = "tickets"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    tenant_id: Mapped[UUID]
    title: Mapped[str] = mapped_column(unique=True)
    follows: Mapped[UUID | None] = mapped_column(ForeignKey("tickets.id"))


@pytest.fixture
async def data(settings: Settings) -> AsyncIterator[DataLayer]:
    async with DataLayer.open(settings) as opened:
        async with opened.unit_of_work() as uow:
            await (await uow.session.connection()).run_sync(OwnBase.metadata.create_all)
        yield opened


async def titles(data: DataLayer) -> list[str]:
    async with data.unit_of_work() as uow:
        return list(await uow.session.scalars(select(Ticket.title).order_by(Ticket.title)))


@pytest.fixture
def agent(tenant_id: UUID) -> Agent:
    made: Agent = AgentFactory(tenant_id=tenant_id)
    return made


async def test_objects_and_stores_commit_together(data: DataLayer, agent: Agent) -> None:
    async with data.unit_of_work() as uow:
        ticket = Ticket(tenant_id=agent.tenant_id, title="first")
        uow.session.add(ticket)
        await uow.config.save_agent(agent)
        assert await titles(data) == []
    assert await titles(data) == ["first"]
    assert await data.config.get_agent(agent.tenant_id, agent.id) == agent
    # Detached, with its attributes.
    assert ticket.title == "first"


async def test_the_isolation_level_can_be_set_first(settings: Settings) -> None:
    async with DataLayer.open(settings) as data:
        for _ in range(2):
            async with data.unit_of_work() as uow:
                await uow.session.execute(text("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE"))
                assert await uow.session.scalar(text("SHOW transaction_isolation")) == "serializable"


async def test_an_error_rolls_both_back(data: DataLayer, agent: Agent) -> None:
    async def work(uow: UnitOfWork) -> None:
        uow.session.add(Ticket(tenant_id=agent.tenant_id, title="first"))
        await uow.session.flush()
        await uow.config.save_agent(agent)
        raise RuntimeError

    with pytest.raises(RuntimeError):
        await data.run_in_transaction(work)
    assert await titles(data) == []
    assert await data.config.get_agent(agent.tenant_id, agent.id) is None


async def test_each_side_sees_what_the_other_wrote(data: DataLayer, agent: Agent) -> None:
    async with data.unit_of_work() as uow:
        await uow.config.save_agent(agent)
        row = await uow.session.get_one(AgentRow, (agent.tenant_id, agent.id))
        assert row.name == agent.name
        row.name = "renamed by the session"
        await uow.session.flush()
        found = await uow.config.get_agent(agent.tenant_id, agent.id)
        assert found is not None
        assert found.name == "renamed by the session"
        count = await uow.connection.scalar(text("SELECT count(*) FROM agents WHERE name LIKE 'renamed%'"))
        assert count == 1


async def test_what_cannot_be_flushed_at_the_end_rolls_everything_back(data: DataLayer, agent: Agent) -> None:
    async def work(uow: UnitOfWork) -> None:
        await uow.config.save_agent(agent)
        uow.session.add(Ticket(tenant_id=agent.tenant_id, title="orphan", follows=uuid4()))

    with pytest.raises(IntegrityError):
        await data.run_in_transaction(work)
    assert await titles(data) == []
    assert await data.config.get_agent(agent.tenant_id, agent.id) is None


async def test_a_savepoint_keeps_a_refused_write_from_spoiling_the_rest(
    data: DataLayer, agent: Agent
) -> None:
    async with data.unit_of_work() as uow:
        uow.session.add(Ticket(tenant_id=agent.tenant_id, title="first"))
        await uow.session.flush()
        with pytest.raises(IntegrityError):
            async with uow.session.begin_nested():
                uow.session.add(Ticket(tenant_id=agent.tenant_id, title="first"))
        await uow.config.save_agent(agent)
        with pytest.raises(ConflictError):
            await uow.config.save_agent(AgentFactory(tenant_id=agent.tenant_id, name=agent.name))
        uow.session.add(Ticket(tenant_id=agent.tenant_id, title="second"))
    assert await titles(data) == ["first", "second"]
    assert await data.config.get_agent(agent.tenant_id, agent.id) == agent


@pytest.mark.parametrize("on", ["session", "connection"])
@pytest.mark.parametrize("name", ["commit", "rollback", "begin"])
async def test_the_transaction_is_ended_by_the_unit_alone(
    data: DataLayer, agent: Agent, on: str, name: str
) -> None:
    async with data.unit_of_work() as uow:
        uow.session.add(Ticket(tenant_id=agent.tenant_id, title="first"))
        end = getattr(getattr(uow, on), name)
        with pytest.raises(StoreError, match=rf"{on}\.{name}\(\): the unit of work commits"):
            await end()
    assert await titles(data) == ["first"]


async def test_a_unit_that_is_rolled_back_by_hand_keeps_nothing(data: DataLayer, agent: Agent) -> None:
    async with data.unit_of_work() as uow:
        uow.session.add(Ticket(tenant_id=agent.tenant_id, title="first"))
        await uow.session.flush()
        uow.session.add(Ticket(tenant_id=agent.tenant_id, title="second"))
        await uow.rollback()
    assert await titles(data) == []


async def test_neither_can_be_used_after_the_unit(data: DataLayer) -> None:
    async with data.unit_of_work() as uow:
        session, connection = uow.session, uow.connection
        await session.scalar(select(1))
    for ended in (session, connection):
        with pytest.raises(StoreError, match="the unit of work has ended"):
            await ended.scalar(select(1))


async def test_a_cancelled_statement_ends_the_unit(data: DataLayer, agent: Agent) -> None:
    async def work(uow: UnitOfWork) -> None:
        await uow.config.save_agent(agent)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await uow.session.execute(text("SELECT pg_sleep(30)"))

    with pytest.raises(StoreError):
        await data.run_in_transaction(work)
    assert await data.config.get_agent(agent.tenant_id, agent.id) is None


async def test_connections_are_used_again_without_a_trace(data: DataLayer, agent: Agent) -> None:
    for number in range(30):
        async with data.unit_of_work() as uow:
            uow.session.add(Ticket(tenant_id=agent.tenant_id, title=f"ticket {number}"))
            await uow.config.save_agent(agent)
    assert len(await titles(data)) == agent.revision == 30
    assert data._database is not None
    [lease] = pool_of(data._database)._free
    assert len(lease.proxy._connection_record.finalize_callback) == 0


async def test_policies_show_the_rows_of_the_units_tenant(database_url: str, tenant_id: UUID) -> None:
    async with bound_role(database_url) as bound:
        settings = settings_for(bound, row_level_security=True, session_backend="inmemory")
        async with DataLayer.open(settings) as data:
            mine, other = AgentFactory(tenant_id=tenant_id), AgentFactory()
            await data.config.save_agent(mine)
            await data.config.save_agent(other)
            async with data.unit_of_work(tenant_id) as uow:
                assert list(await uow.session.scalars(select(AgentRow.id))) == [mine.id]


async def test_in_memory_there_is_none() -> None:
    async with DataLayer.in_memory() as data, data.unit_of_work() as uow:
        for name in ("session", "connection"):
            with pytest.raises(ConfigurationError, match="no store of the data layer uses PostgreSQL"):
                getattr(uow, name)


async def test_units_without_a_session_make_none(data: DataLayer, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError

    monkeypatch.setattr(AsyncSession, "__init__", refuse)
    async with data.unit_of_work() as uow:
        await uow.config.save_agent(AgentFactory())
