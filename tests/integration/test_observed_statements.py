"""SQLAlchemy's listeners and log see the stores' statements."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Connection, Engine, event
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine

from soldier_data import ConflictError, DataLayer, prepare_engine
from soldier_data.settings import Settings
from tests.conftest import service_url
from tests.factories.config import AgentFactory
from tests.factories.memory import EpisodeFactory
from tests.factories.profiles import CustomerProfileFactory


class Seen(NamedTuple):
    event: str
    sql: str
    parameters: Any
    many: bool
    context: Any


@contextmanager
def listening(target: Any) -> Iterator[list[Seen]]:
    seen: list[Seen] = []

    def before(_connection: Any, _cursor: Any, sql: str, given: Any, context: Any, many: bool) -> None:
        seen.append(Seen("before", sql, given, many, context))

    def after(_connection: Any, _cursor: Any, sql: str, given: Any, context: Any, many: bool) -> None:
        seen.append(Seen("after", sql, given, many, context))

    event.listen(target, "before_cursor_execute", before)
    event.listen(target, "after_cursor_execute", after)
    try:
        yield seen
    finally:
        event.remove(target, "before_cursor_execute", before)
        event.remove(target, "after_cursor_execute", after)


def starts(seen: list[Seen]) -> list[str]:
    """The first two words of each statement, which must have ended before the next one began."""
    pairs = list(zip(seen[::2], seen[1::2], strict=True))
    for before, after in pairs:
        assert (before.event, after.event) == ("before", "after")
        assert before[1:] == after[1:]
    return [" ".join(before.sql.split()[:2]) for before, _ in pairs]


@pytest.fixture
async def engine(database_url: str) -> AsyncIterator[AsyncEngine]:
    own = prepare_engine(create_async_engine(service_url(database_url)))
    yield own
    await own.dispose()


@pytest.fixture
async def on_engine(settings: Settings, engine: AsyncEngine) -> AsyncIterator[DataLayer]:
    async with DataLayer.open(settings, engine=engine) as data:
        # The first transaction asks about the server.
        async with data.unit_of_work() as uow:
            await uow.config.get_agents(uuid4())
        yield data


async def test_every_kind_of_statement_is_reported(
    on_engine: DataLayer, engine: AsyncEngine, tenant_id: UUID
) -> None:
    agent = AgentFactory(tenant_id=tenant_id)
    with listening(engine.sync_engine) as seen:
        await on_engine.config.save_agent(agent)
        assert starts(seen) == ["INSERT INTO"]
        assert agent.name in seen[0].parameters
        assert not seen[0].many
        seen.clear()

        await on_engine.memory.add_episodes([EpisodeFactory(tenant_id=tenant_id) for _ in range(3)])
        assert starts(seen) == ["BEGIN", "COPY public.episodes", "COMMIT"]
        assert seen[2].many
        assert [row[0] for row in seen[2].parameters] == [tenant_id] * 3
        seen.clear()

        await on_engine.config.save_many([AgentFactory(tenant_id=tenant_id) for _ in range(3)])
        assert starts(seen) == ["BEGIN", "INSERT INTO", "COMMIT"]
        assert len(seen[2].parameters) == 3
        seen.clear()

        async with on_engine.unit_of_work() as uow:
            await uow.config.get_agent(tenant_id, agent.id)
            await uow.profiles.save(CustomerProfileFactory(tenant_id=tenant_id))
        assert starts(seen)[:2] == ["SELECT public.agents.tenant_id,", "BEGIN; SAVEPOINT"]
        assert starts(seen)[-1] == "COMMIT"
    with listening(engine.sync_engine) as seen:
        pass
    await on_engine.config.get_agent(tenant_id, agent.id)
    assert seen == []


async def test_listeners_for_all_engines_hear_the_library_s_own(data: DataLayer, tenant_id: UUID) -> None:
    agent = AgentFactory(tenant_id=tenant_id)
    with listening(Engine) as seen:
        await data.config.save_agent(agent)
    assert starts(seen) == ["INSERT INTO"]


async def test_listeners_of_a_joined_session_s_connection(
    on_engine: DataLayer, engine: AsyncEngine, tenant_id: UUID
) -> None:
    async with AsyncSession(engine) as session:
        connection = await session.connection()
        with listening(connection.sync_connection) as seen:
            async with on_engine.unit_of_work(session=session) as uow:
                await uow.config.save_agent(AgentFactory(tenant_id=tenant_id))
            heard = [before.sql.split()[0] for before in seen[::2]]
            assert heard.count("INSERT") == 1
            assert "SAVEPOINT" in heard


async def test_a_failure_is_reported_and_raised_as_usual(
    on_engine: DataLayer, engine: AsyncEngine, tenant_id: UUID
) -> None:
    reported: list[Any] = []
    event.listen(engine.sync_engine, "handle_error", reported.append)
    episode = EpisodeFactory(tenant_id=tenant_id)
    await on_engine.memory.add_episode(episode)
    with listening(engine.sync_engine) as seen, pytest.raises(ConflictError) as caught:
        await on_engine.memory.add_episodes([episode])
    [failure] = reported
    copying = next(one for one in seen if one.sql.startswith("COPY"))
    assert failure.execution_context is copying.context
    assert failure.original_exception.sqlstate == "23505"
    assert str(episode.content) not in str(caught.value)
    assert caught.value.__cause__ is None
    assert (await on_engine.memory.get_episode(tenant_id, episode.id)) == episode


async def test_a_listener_may_change_the_text_and_run_statements(
    on_engine: DataLayer, engine: AsyncEngine, tenant_id: UUID
) -> None:
    agent = AgentFactory(tenant_id=tenant_id)
    await on_engine.config.save_agent(agent)
    counted: list[int] = []

    def hide(
        connection: Connection, _cursor: Any, sql: str, given: Any, _context: Any, _many: bool
    ) -> tuple[str, Any]:
        if sql.startswith("SELECT count"):
            return sql, given
        counted.append(connection.exec_driver_sql("SELECT count(*) FROM agents").scalar_one())
        return sql.replace("WHERE", "WHERE false AND", 1), given

    event.listen(engine.sync_engine, "before_cursor_execute", hide, retval=True)
    assert await on_engine.config.get_agent(tenant_id, agent.id) is None
    event.remove(engine.sync_engine, "before_cursor_execute", hide)
    assert await on_engine.config.get_agent(tenant_id, agent.id) == agent
    assert counted == [1]


@pytest.mark.parametrize("hidden", [False, True])
async def test_the_log_shows_statements_and_their_parameters(
    database_url: str, settings: Settings, tenant_id: UUID, hidden: bool, caplog: pytest.LogCaptureFixture
) -> None:
    engine = prepare_engine(create_async_engine(service_url(database_url), hide_parameters=hidden))
    agent = AgentFactory(tenant_id=tenant_id)
    async with DataLayer.open(settings, engine=engine) as data:
        await data.config.save_agent(agent)
        assert caplog.text == ""
        with caplog.at_level(logging.INFO, "sqlalchemy.engine"):
            await data.config.get_agent(tenant_id, agent.id)
    await engine.dispose()
    assert "FROM public.agents" in caplog.text
    assert (str(tenant_id) in caplog.text) is not hidden
