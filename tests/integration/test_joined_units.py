"""Units of work in a transaction that a service's own SQLAlchemy session or connection begins and ends."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, create_async_engine

from soldier_data import Agent, ConfigurationError, ConflictError, DataLayer, StoreError, prepare_engine
from soldier_data.config.orm import AgentRow
from soldier_data.settings import Settings
from tests.conftest import DIMENSIONS, service_url
from tests.factories.config import AgentFactory, RuleFactory

JOINED = ["session", "connection"]


@pytest.fixture
async def engine(database_url: str) -> AsyncIterator[AsyncEngine]:
    url = service_url(database_url)
    own = prepare_engine(create_async_engine(url))
    async with own.begin() as connection:
        await connection.execute(text("CREATE TABLE tickets (title text PRIMARY KEY)"))
    yield own
    await own.dispose()


@pytest.fixture(params=JOINED)
async def joined(request: pytest.FixtureRequest, engine: AsyncEngine) -> AsyncIterator[Any]:
    """The session or connection of the service, in a transaction."""
    opened = AsyncSession(engine) if request.param == "session" else engine.connect()
    async with opened as started:
        yield started


def by(joined: AsyncSession | AsyncConnection) -> dict[str, Any]:
    return {"session" if isinstance(joined, AsyncSession) else "connection": joined}


async def write_ticket(joined: AsyncSession | AsyncConnection, title: str = "first") -> None:
    await joined.execute(text("INSERT INTO tickets VALUES (:title)"), {"title": title})


async def titles(engine: AsyncEngine) -> list[str]:
    async with engine.connect() as connection:
        return list(await connection.scalars(text("SELECT title FROM tickets ORDER BY title")))


@pytest.fixture
def agent(tenant_id: UUID) -> Agent:
    made: Agent = AgentFactory(tenant_id=tenant_id)
    return made


async def test_the_service_commits(
    data: DataLayer, engine: AsyncEngine, joined: AsyncSession | AsyncConnection, agent: Agent
) -> None:
    rule = RuleFactory(tenant_id=agent.tenant_id, agent_id=agent.id, embedding=[1.0] * DIMENSIONS)
    await write_ticket(joined)
    async with data.unit_of_work(**by(joined)) as uow:
        await uow.config.save_many([agent, rule])
        assert await uow.config.get_rule(agent.tenant_id, rule.id) == rule
    assert await data.config.get_agent(agent.tenant_id, agent.id) is None
    await joined.commit()
    assert await data.config.get_agent(agent.tenant_id, agent.id) == agent
    assert await titles(engine) == ["first"]


async def test_the_service_rolls_back(
    data: DataLayer, engine: AsyncEngine, joined: AsyncSession | AsyncConnection, agent: Agent
) -> None:
    # Nothing has been sent yet: the transaction begins with the unit.
    async with data.unit_of_work(**by(joined)) as uow:
        await uow.config.save_agent(agent)
    await write_ticket(joined)
    await joined.rollback()
    assert await data.config.get_agent(agent.tenant_id, agent.id) is None
    assert await titles(engine) == []


async def test_a_rejected_write_spoils_neither_the_unit_nor_the_transaction(
    data: DataLayer, engine: AsyncEngine, joined: AsyncSession | AsyncConnection, agent: Agent
) -> None:
    await write_ticket(joined)
    async with data.unit_of_work(**by(joined)) as uow:
        await uow.config.save_agent(agent)
        with pytest.raises(ConflictError):
            await uow.config.save_agent(AgentFactory(tenant_id=agent.tenant_id, name=agent.name))
        orphan = RuleFactory(tenant_id=agent.tenant_id)
        with pytest.raises(StoreError):
            await uow.config.save_rule(orphan)
        with pytest.raises(StoreError):
            await uow.config.save_many([orphan])
    await write_ticket(joined, "second")
    await joined.commit()
    assert await data.config.get_agents(agent.tenant_id) == ([agent], 1)
    assert await titles(engine) == ["first", "second"]


async def test_an_error_in_the_block_undoes_the_unit_alone(
    data: DataLayer, engine: AsyncEngine, joined: AsyncSession | AsyncConnection, agent: Agent
) -> None:
    await write_ticket(joined)

    async def work() -> None:
        async with data.unit_of_work(**by(joined)) as uow:
            uow.after_commit(pytest.fail)
            await uow.config.save_agent(agent)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        await work()
    await joined.commit()
    assert await data.config.get_agent(agent.tenant_id, agent.id) is None
    assert await titles(engine) == ["first"]


async def test_callbacks_run_after_the_commit_before_it_returns(
    data: DataLayer, joined: AsyncSession | AsyncConnection, agent: Agent
) -> None:
    seen: list[Agent | None] = []

    async def look() -> None:
        seen.append(await data.config.get_agent(agent.tenant_id, agent.id))

    for _ in range(2):
        async with data.unit_of_work(**by(joined)) as uow:
            uow.after_commit(look)
            await uow.config.save_agent(agent)
    assert seen == []
    await joined.commit()
    assert seen == [agent, agent]
    # The next transaction is another one.
    await write_ticket(joined)
    await joined.commit()
    assert len(seen) == 2


async def test_callbacks_do_not_run_after_a_rollback(
    data: DataLayer, joined: AsyncSession | AsyncConnection, agent: Agent
) -> None:
    async with data.unit_of_work(**by(joined)) as uow:
        uow.after_commit(pytest.fail)
        await uow.config.save_agent(agent)
    await joined.rollback()
    await write_ticket(joined)
    await joined.commit()


async def test_callbacks_do_not_run_when_a_savepoint_around_the_unit_is_rolled_back(
    data: DataLayer, engine: AsyncEngine, joined: AsyncSession | AsyncConnection, agent: Agent
) -> None:
    called: list[str] = []
    await write_ticket(joined)
    async with data.unit_of_work(**by(joined)) as uow:
        uow.after_commit(lambda: called.append("outside"))
    async with joined.begin_nested() as savepoint:
        async with data.unit_of_work(**by(joined)) as uow:
            uow.after_commit(lambda: called.append("inside"))
            await uow.config.save_agent(agent)
        await savepoint.rollback()
    assert called == []
    await joined.commit()
    assert called == ["outside"]
    assert await titles(engine) == ["first"]
    assert await data.config.get_agent(agent.tenant_id, agent.id) is None


async def test_callbacks_do_not_run_when_an_error_has_aborted_the_transaction(
    data: DataLayer, engine: AsyncEngine, agent: Agent
) -> None:
    async with engine.connect() as connection:
        async with data.unit_of_work(connection=connection) as uow:
            uow.after_commit(pytest.fail)
            await uow.config.save_agent(agent)
        with pytest.raises(Exception, match="division by zero"):
            await connection.execute(text("SELECT 1 / 0"))
        # Without the check, PostgreSQL would answer COMMIT by a rollback, and nobody would notice.
        with pytest.raises(Exception, match="current transaction is aborted"):
            await connection.commit()
    assert await data.config.get_agent(agent.tenant_id, agent.id) is None


async def test_a_commit_that_fails_calls_nothing_and_raises_sqlalchemys_error(
    data: DataLayer, engine: AsyncEngine, joined: AsyncSession | AsyncConnection, agent: Agent
) -> None:
    async with engine.begin() as connection:
        await connection.execute(
            text("CREATE TABLE parts (title text REFERENCES tickets DEFERRABLE INITIALLY DEFERRED)")
        )
    async with data.unit_of_work(**by(joined)) as uow:
        uow.after_commit(pytest.fail)
        await uow.config.save_agent(agent)
    await joined.execute(text("INSERT INTO parts VALUES ('of no ticket')"))
    with pytest.raises(Exception, match="violates foreign key constraint") as failed:
        await joined.commit()
    assert type(failed.value).__module__ == "sqlalchemy.exc"
    await joined.rollback()
    assert await data.config.get_agent(agent.tenant_id, agent.id) is None


async def test_an_error_of_a_callback_says_that_everything_is_committed(
    data: DataLayer, joined: AsyncSession | AsyncConnection, agent: Agent
) -> None:
    def fail() -> None:
        raise StoreError("Redis is away")

    async with data.unit_of_work(**by(joined)) as uow:
        uow.after_commit(fail)
        await uow.config.save_agent(agent)
    with pytest.raises(StoreError, match="Redis is away") as failed:
        await joined.commit()
    assert failed.value.committed
    assert await data.config.get_agent(agent.tenant_id, agent.id) == agent


async def test_the_units_session_is_the_services(data: DataLayer, engine: AsyncEngine, agent: Agent) -> None:
    async with AsyncSession(engine) as session:
        async with data.unit_of_work(session=session) as uow:
            assert uow.session is session
            await uow.config.save_agent(agent)
            assert (await uow.session.get_one(AgentRow, (agent.tenant_id, agent.id))).name == agent.name
        await session.commit()
        assert await session.scalar(select(AgentRow.name)) == agent.name
    async with engine.connect() as connection, data.unit_of_work(connection=connection) as uow:
        assert uow.connection is connection
        assert await uow.session.scalar(select(AgentRow.name)) == agent.name


async def test_what_the_session_has_not_written_yet_is_there_for_the_stores(
    data: DataLayer, engine: AsyncEngine, agent: Agent
) -> None:
    await data.config.save_agent(agent)
    async with AsyncSession(engine) as session:
        row = await session.get_one(AgentRow, (agent.tenant_id, agent.id))
        row.name = "changed by the session"
        async with data.unit_of_work(session=session) as uow:
            found = await uow.config.get_agent(agent.tenant_id, agent.id)
            assert found is not None
            assert found.name == "changed by the session"


async def test_a_transaction_that_was_ended_inside_the_block_takes_no_more_calls(
    data: DataLayer, engine: AsyncEngine, agent: Agent
) -> None:
    async def work(session: AsyncSession) -> None:
        async with data.unit_of_work(session=session) as uow:
            await session.commit()
            for call in (uow.config.save_agent(agent), uow.config.get_agents(agent.tenant_id)):
                with pytest.raises(StoreError, match="has ended: commit or roll back after"):
                    await call
            raise RuntimeError

    async with AsyncSession(engine) as session:
        with pytest.raises(RuntimeError):
            await work(session)
    assert await data.config.get_agent(agent.tenant_id, agent.id) is None


async def test_stores_are_not_used_after_the_block_and_roll_nothing_back_themselves(
    data: DataLayer, joined: AsyncSession | AsyncConnection, agent: Agent
) -> None:
    async with data.unit_of_work(**by(joined)) as uow:
        with pytest.raises(StoreError, match="the transaction is not the unit's own"):
            await uow.rollback()
        await uow.config.save_agent(agent)
    with pytest.raises(StoreError, match="has ended"):
        await uow.config.get_agent(agent.tenant_id, agent.id)
    await joined.commit()
    assert await data.config.get_agent(agent.tenant_id, agent.id) == agent


async def test_what_cannot_be_joined_is_told(data: DataLayer, engine: AsyncEngine, database_url: str) -> None:
    async def join(**given: Any) -> None:
        async with data.unit_of_work(**given):
            pass

    url = service_url(database_url)
    unprepared = create_async_engine(url)
    async with unprepared.connect() as connection:
        with pytest.raises(ConfigurationError, match=r"soldier_data\.prepare_engine\(engine\)"):
            await join(connection=connection)
    await unprepared.dispose()
    autocommit = engine.execution_options(isolation_level="AUTOCOMMIT")
    async with autocommit.connect() as connection:
        with pytest.raises(ConfigurationError, match="isolation level is AUTOCOMMIT"):
            await join(connection=connection)
    async with AsyncSession(engine) as session, engine.connect() as connection:
        with pytest.raises(ConfigurationError, match="pass session or connection, not both"):
            await join(session=session, connection=connection)


async def test_stores_in_memory_follow_the_services_transaction(
    settings: Settings, engine: AsyncEngine, tenant_id: UUID
) -> None:
    settings = settings.model_copy(update={"config_backend": "inmemory"})
    kept, dropped = AgentFactory(tenant_id=tenant_id), AgentFactory(tenant_id=tenant_id)
    async with DataLayer.open(settings) as data, engine.connect() as connection:
        async with data.unit_of_work(connection=connection) as uow:
            await uow.config.save_agent(dropped)
        await connection.rollback()
        async with data.unit_of_work(connection=connection) as uow:
            await uow.config.save_agent(kept)
        assert await data.config.get_agents(tenant_id) == ([], 0)
        await connection.commit()
        assert await data.config.get_agents(tenant_id) == ([kept], 1)
