"""How the connections behave when things go wrong: cancellations, unreachable servers, closing, secrets."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Iterator
from datetime import timedelta
from pathlib import Path
from time import monotonic
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import make_url

from soldier_data.base.embedded_texts import TextToEmbed
from soldier_data.config import Agent, ConfigStore, PostgresConfigStore, Rule, Scenario
from soldier_data.data_layer import DataLayer
from soldier_data.embedded import EmbeddedServers
from soldier_data.errors import ConfigurationError, StoreConnectionError, StoreError
from soldier_data.postgres.database import Database
from soldier_data.settings import Settings
from tests.backends.connections import CANARY, administrator, assert_clean, opened
from tests.conftest import DIMENSIONS, settings_for, with_database
from tests.factories.config import AgentFactory, MigrationPlanFactory, RuleFactory, ScenarioFactory

OTHERS = "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"


async def _until_none(connection: Any, condition: str = "") -> None:
    """Wait until no other backend is left: each ends a moment after its connection."""
    deadline = monotonic() + 5
    while await connection.fetchval(f"SELECT count(*) {OTHERS} {condition}"):
        assert monotonic() < deadline
        await asyncio.sleep(0.02)


async def test_a_cancelled_wait_for_a_connection_gives_it_to_the_next(database_url: str) -> None:
    database = Database(settings_for(database_url, pool_size=1, pool_overflow=0))
    store = PostgresConfigStore(database)
    async with database.transaction():
        waiting = [asyncio.ensure_future(store.get_agent(uuid4(), uuid4())) for _ in range(5)]
        await asyncio.sleep(0.05)
        for task in waiting[:4]:
            task.cancel()
    assert await waiting[4] is None
    assert await store.get_agent(uuid4(), uuid4()) is None
    await database.close()


# -- closing ---------------------------------------------------------------------------------------------------


async def test_closing_waits_for_what_is_running_and_leaves_no_backend(settings: Settings) -> None:
    database = Database(settings)
    store = PostgresConfigStore(database)
    agent: Agent = AgentFactory()
    await store.save_agent(agent)
    rules: list[Rule] = [RuleFactory(tenant_id=agent.tenant_id, agent_id=agent.id) for _ in range(40)]
    saves = [asyncio.ensure_future(store.save_rule(rule)) for rule in rules]
    await asyncio.sleep(0)
    async with administrator(settings.database_url) as connection:
        await database.close()
        await _until_none(connection)
        assert await asyncio.gather(*saves) == [rule.id for rule in rules]
        assert await connection.fetchval("SELECT count(*) FROM rules") == 40

    with pytest.raises(StoreError, match="closed"):
        await store.get_agent(agent.tenant_id, agent.id)
    await database.close()


async def test_closing_abandons_what_takes_longer_than_a_command_may(settings: Settings) -> None:
    database = Database(settings.model_copy(update={"command_timeout": timedelta(seconds=0.3)}))
    async with administrator(settings.database_url) as connection:
        with pytest.raises(StoreError):
            async with database.transaction():
                await asyncio.wait_for(database.close(), 3)
        await _until_none(connection)


# -- servers that cannot be used -------------------------------------------------------------------------------


_TEXT = TextToEmbed("rule", uuid4(), uuid4(), "Wants a refund")


def _arguments(method: Callable[..., Any]) -> dict[str, Any]:
    scenario: Scenario = ScenarioFactory()
    made = {
        "agent": AgentFactory(),
        "rule": RuleFactory(),
        "scenario": scenario,
        "plan": MigrationPlanFactory(),
        "entities": [AgentFactory()],
        "older_than": timedelta(0),
        "query_embedding": [1.0] * DIMENSIONS,
        "tenant_id": scenario.tenant_id,
        "name": "a",
        "tool_id": "a",
        "embedding_model": "a",
        "embeddings": [(_TEXT, [1.0] * DIMENSIONS)],
        "version": 1,
        "from_version": 1,
        "to_version": 2,
    }
    parameters = list(inspect.signature(method).parameters.values())
    return {
        parameter.name: made.get(parameter.name, uuid4())
        for parameter in parameters
        if parameter.default is parameter.empty
    }


def _every_call(store: ConfigStore) -> Iterator[tuple[str, Awaitable[Any]]]:
    from tests.factories.config import TemplateFactory, ToolActivationFactory, VariableFactory

    made = {"template": TemplateFactory, "variable": VariableFactory, "activation": ToolActivationFactory}
    for name in sorted(ConfigStore.__abstractmethods__):
        method = getattr(store, name)
        arguments = _arguments(method)
        arguments |= {key: make() for key, make in made.items() if key in arguments}
        yield name, method(**arguments)


async def _assert_every_call_fails(
    store: ConfigStore, error: type[StoreError], match: str, *, within: float
) -> None:
    async def check(name: str, call: Awaitable[Any]) -> None:
        started = monotonic()
        with pytest.raises(error, match=match) as failed:
            await call
        assert monotonic() - started < within, name
        assert_clean(failed.value)

    calls = list(_every_call(store))
    assert len(calls) == len(ConfigStore.__abstractmethods__) > 30
    await asyncio.gather(*(check(name, call) for name, call in calls))


async def test_a_missing_socket_and_an_unknown_host_are_connection_errors(tmp_path: Path) -> None:
    for url in (
        f"postgresql://u:{CANARY}@/db?host={tmp_path}",
        f"postgresql://u:{CANARY}@nowhere.invalid/db",
    ):
        async with opened(url, retry_budget=0.1) as store:
            with pytest.raises(StoreConnectionError, match="could not be reached") as failed:
                await store.get_agent(uuid4(), uuid4())
            assert_clean(failed.value)


async def test_a_database_that_is_not_migrated_says_how_to_migrate(empty_database_url: str) -> None:
    async with opened(empty_database_url) as store:
        await _assert_every_call_fails(store, ConfigurationError, "soldier-data db upgrade", within=10)


async def test_an_unknown_database_is_named_as_the_fault(server_url: str) -> None:
    async with opened(with_database(server_url, "no_such_database")) as store:
        with pytest.raises(StoreConnectionError, match="the database does not exist") as failed:
            await store.get_agent(uuid4(), uuid4())
        assert_clean(failed.value)


@pytest.mark.parametrize(
    "url", [f"postgresql://u:{CANARY}@host:port/db", f"postgresql://u:{CANARY}@a:1,b:x/db"]
)
async def test_a_malformed_url_is_a_configuration_error(url: str) -> None:
    async with opened(url) as store:
        with pytest.raises(ConfigurationError, match="SOLDIER_DATABASE_URL") as failed:
            await store.get_agent(uuid4(), uuid4())
        assert_clean(failed.value)


@pytest.fixture(scope="module")
def guarded_url() -> Iterator[str]:
    """A server that asks everyone but its superuser for a password."""
    try:
        servers = EmbeddedServers.start()
    except ConfigurationError as error:
        pytest.skip(f"no server of the test's own, which it has to reconfigure: {error}")
    with servers:
        rules = servers.path / "postgres" / "pg_hba.conf"
        rules.write_text("local all postgres trust\nlocal all all scram-sha-256\n")
        yield servers.database_url


async def test_a_wrong_password_is_a_connection_error_without_the_password(
    guarded_url: str, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    async with administrator(guarded_url) as connection:
        await connection.execute("SELECT pg_reload_conf()")
        await connection.execute("SET password_encryption = 'scram-sha-256'")
        await connection.execute("CREATE ROLE clerk LOGIN PASSWORD 'right'")
    for user, password in (("clerk", CANARY), ("clerk", None), ("nobody_known", CANARY)):
        url = make_url(guarded_url).set(username=user, password=password)
        settings = settings_for(url.render_as_string(hide_password=False))
        data = DataLayer(settings)
        with pytest.raises(StoreConnectionError, match="user name or password") as failed:
            await data.config.get_agent(uuid4(), uuid4())
        report = await data.health()
        await data.close()
        assert "user name or password" in report.database.detail
        assert_clean(failed.value)
        for shown in (repr(settings), str(settings), repr(data), repr(data.config), repr(report)):
            assert CANARY not in shown
    right = make_url(guarded_url).set(username="clerk", password="right")  # noqa: S106 - of a server of the test's own.
    async with opened(right.render_as_string(hide_password=False)) as store:
        with pytest.raises(ConfigurationError, match="not migrated"):
            await store.get_agent(uuid4(), uuid4())
    out, err = capfd.readouterr()
    assert CANARY not in out + err + caplog.text


# -- limits ----------------------------------------------------------------------------------------------------


async def test_an_exhausted_pool_names_the_setting(database_url: str) -> None:
    limits = {"pool_size": 1, "pool_overflow": 1, "pool_timeout": 0.2}
    database = Database(settings_for(database_url, **limits))
    async with database.transaction(), database.transaction():
        with pytest.raises(StoreConnectionError, match="SOLDIER_POOL_SIZE") as failed:
            await PostgresConfigStore(database).get_agent(uuid4(), uuid4())
        assert_clean(failed.value)
    assert await PostgresConfigStore(database).get_agent(uuid4(), uuid4()) is None
    await database.close()


async def test_more_calls_than_connections_take_turns(shared_database_url: str, tenant_id: UUID) -> None:
    async with opened(shared_database_url, pool_size=2, pool_overflow=1) as store:
        agents = [AgentFactory(tenant_id=tenant_id) for _ in range(100)]
        await asyncio.gather(*(store.save_agent(agent) for agent in agents))
        assert (await store.get_agents(tenant_id))[1] == 100


async def test_a_command_that_takes_too_long_is_given_up(database_url: str) -> None:
    agent: Agent = AgentFactory()
    async with opened(database_url, command_timeout=0.3) as store, administrator(database_url) as connection:
        await store.save_agent(agent)
        async with connection.transaction():
            await connection.execute("LOCK TABLE agents")
            with pytest.raises(StoreConnectionError, match="SOLDIER_COMMAND_TIMEOUT") as failed:
                await store.save_agent(agent)
            assert_clean(failed.value)
            # The server has given up as well: it does not save the agent once the lock is free.
            await _until_none(connection, "AND wait_event_type = 'Lock'")
        assert agent.revision == 1
        await store.save_agent(agent)
        assert agent.revision == 2
