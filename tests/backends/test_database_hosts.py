"""Where connections are opened, with what, and how many stay: hosts, parameters, passwords, a server gone read-only."""

from __future__ import annotations

import asyncio
import gc
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import make_url

from soldier_data import migrations
from soldier_data.data_layer import DataLayer
from soldier_data.embedded import EmbeddedServers
from soldier_data.errors import ConfigurationError, StoreConnectionError, StoreError
from soldier_data.postgres.database import Database
from soldier_data.postgres.engine import open_connection
from tests.backends.connections import administrator, assert_clean, opened, pool_of
from tests.backends.redis_helpers import free_port, serving, wait_until
from tests.backends.round_trips import _connect
from tests.conftest import settings_for
from tests.factories.config import AgentFactory

BACKENDS = (
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
)


def with_hosts(url: str, *hosts: str, **parameters: str) -> str:
    """`url` with hosts (as name:port) before its own, and further parameters."""
    parsed = make_url(url)
    own = str(parsed.query.get("host", parsed.host))
    port = str(parsed.query.get("port", parsed.port or 5432))
    places = [place.rsplit(":", 1) for place in hosts]
    query = {
        "host": ",".join([*(name for name, _ in places), own]),
        "port": ",".join([*(number for _, number in places), port]),
    }
    changed = parsed._replace(host=None, port=None).set(query=query | parameters)
    return changed.render_as_string(hide_password=False)


def with_parameters(url: str, parameters: str) -> str:
    return f"{url}{'&' if '?' in url else '?'}{parameters}"


# -- several hosts ---------------------------------------------------------------------------------------------


async def test_a_host_that_accepts_and_is_silent_is_left_for_the_next(shared_database_url: str) -> None:
    tried = 0

    async def swallow(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        nonlocal tried
        tried += 1
        while await reader.read(65536):
            pass

    async with serving(swallow) as port:
        url = with_hosts(shared_database_url, f"127.0.0.1:{port}")
        async with opened(url, connect_timeout=0.5, retry_budget=0) as store:
            assert await store.get_agent(uuid4(), uuid4()) is None
            assert tried == 1
            database = store._db
            assert isinstance(database, Database)
            async with AsyncExitStack() as several:
                for _ in range(4):
                    await several.enter_async_context(database.transaction())
            # The last good one first.
            assert tried == 1


async def test_hosts_that_refuse_are_left_for_the_next_in_any_order(shared_database_url: str) -> None:
    nowhere = [f"127.0.0.1:{free_port()}" for _ in range(2)]
    for parameters in ({}, {"load_balance_hosts": "random"}):
        async with opened(with_hosts(shared_database_url, *nowhere, **parameters), retry_budget=0) as store:
            assert await store.get_agent(uuid4(), uuid4()) is None
    with pytest.raises(StoreConnectionError, match="could not be reached") as failed:
        async with opened(f"postgresql://u@{','.join(nowhere)}/x", retry_budget=0) as store:
            await store.get_agent(uuid4(), uuid4())
    assert_clean(failed.value)


async def test_a_server_of_another_kind_than_asked_for_is_named_as_the_fault(
    shared_database_url: str,
) -> None:
    url = with_parameters(shared_database_url, "target_session_attrs=standby")
    async with opened(url, retry_budget=0) as store:
        with pytest.raises(StoreConnectionError, match="target_session_attrs") as failed:
            await store.get_agent(uuid4(), uuid4())
        assert_clean(failed.value)
    for kind in ("any", "primary", "read-write", "prefer-standby"):
        url = with_parameters(shared_database_url, f"target_session_attrs={kind}")
        async with opened(url, retry_budget=0) as store:
            assert await store.get_agent(uuid4(), uuid4()) is None


async def test_migrations_take_the_same_urls(empty_database_url: str) -> None:
    url = with_hosts(empty_database_url, f"127.0.0.1:{free_port()}", connect_timeout="5")
    await migrations.upgrade(settings_for(url))
    assert await migrations.check(settings_for(url)) is None
    with pytest.raises(ConfigurationError, match="gssencmode") as failed:
        await migrations.upgrade(settings_for(with_parameters(url, "gssencmode=require")))
    assert_clean(failed.value)
    with pytest.raises(ConfigurationError, match="the server rejected the parameter pool_size"):
        await migrations.upgrade(settings_for(with_parameters(url, "pool_size=3")))


# -- a server that became read-only ----------------------------------------------------------------------------


async def test_connections_to_a_server_that_became_read_only_are_given_up(
    database_url: str, redis_url: str
) -> None:
    """As after a switch-over: connections lead to a standby, new ones to the primary."""
    name = make_url(database_url).database
    async with administrator(database_url) as connection:
        await connection.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
        async with DataLayer.open(settings_for(database_url, redis_url=redis_url)) as data:
            assert data._database is not None
            async with AsyncExitStack() as several:
                for _ in range(5):
                    await several.enter_async_context(data._database.transaction())
            with pytest.raises(StoreConnectionError, match="read-only") as failed:
                async with data.unit_of_work() as unit:
                    await unit.config.save_agent(AgentFactory())
            assert_clean(failed.value)
            report = await data.health()
            assert not report.database.ok
            assert "read-only" in report.database.detail
            assert report.schema_at_head.ok
            async with AsyncExitStack() as several:
                for _ in range(5):
                    await several.enter_async_context(data._database.transaction())

            await connection.execute("SET default_transaction_read_only = off")
            await connection.execute(f"ALTER DATABASE {name} RESET default_transaction_read_only")
            agent = AgentFactory()
            await data.config.save_agent(agent, if_revision=0)
            await data.run_in_transaction(lambda unit: unit.config.save_agent(AgentFactory()))
            # All that were as old are gone, not the one that met it alone.
            await asyncio.gather(*pool_of(data._database)._closing_tasks)
            assert await connection.fetchval(BACKENDS) == 1
            assert (await data.health()).ok


async def test_health_alone_finds_the_server_that_takes_writes_again(
    database_url: str, redis_url: str
) -> None:
    name = make_url(database_url).database
    async with administrator(database_url) as connection:
        await connection.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
        async with DataLayer.open(settings_for(database_url, redis_url=redis_url)) as data:
            assert not (await data.health()).ok
            await connection.execute("SET default_transaction_read_only = off")
            await connection.execute(f"ALTER DATABASE {name} RESET default_transaction_read_only")
            await data.health()
            assert (await data.health()).ok


# -- parameters ------------------------------------------------------------------------------------------------


async def test_parameters_of_libpq_and_settings_of_the_server_are_taken(shared_database_url: str) -> None:
    parameters = (
        "connect_timeout=5&channel_binding=prefer&keepalives=1&keepalives_idle=20&keepalives_count=3"
        "&keepalives_interval=5&tcp_user_timeout=9000&gssencmode=disable&load_balance_hosts=disable"
        "&fallback_application_name=desk&search_path=tickets&statement_timeout=45s"
        "&options=-c%20work_mem%3D5MB"
    )
    connection = await open_connection(settings_for(with_parameters(shared_database_url, parameters)))
    shown = {
        name: await connection.fetchval(f"SHOW {name}")
        for name in ("application_name", "search_path", "statement_timeout", "work_mem", "timezone")
    }
    await connection.close()
    assert shown == {
        "application_name": "desk",
        "search_path": "tickets",
        "statement_timeout": "45s",
        "work_mem": "5MB",
        "timezone": "UTC",
    }


@pytest.mark.parametrize(
    ("parameter", "named"),
    [
        ("sslmodus=require", "sslmodus"),
        ("statement_timeout=soon", "statement_timeout"),
        ("shared_buffers=1MB", "shared_buffers"),
        ("options=-c%20nosuch%3D1", "a parameter"),
    ],
)
async def test_a_parameter_that_the_server_refuses_is_named(
    shared_database_url: str, parameter: str, named: str
) -> None:
    async with opened(with_parameters(shared_database_url, parameter)) as store:
        with pytest.raises(ConfigurationError, match=f"SOLDIER_DATABASE_URL.*{named}") as failed:
            await store.get_agent(uuid4(), uuid4())
        assert_clean(failed.value)
        assert "db upgrade" not in str(failed.value)


async def test_connections_over_tcp_have_keep_alives(shared_database_url: str) -> None:
    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_reader, server_writer = await _connect(shared_database_url)

        async def copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
            while read := await source.read(65536):
                target.write(read)
                await target.drain()
            target.close()

        try:
            await asyncio.gather(copy(reader, server_writer), copy(server_reader, writer))
        finally:
            server_writer.close()

    async with serving(pass_on) as port:
        name = make_url(shared_database_url).database
        url = f"postgresql://postgres@127.0.0.1:{port}/{name}?sslmode=disable&keepalives_count=4"
        connection = await open_connection(settings_for(url, tcp_user_timeout=7))
        over = connection._transport.get_extra_info("socket")
        assert over.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        wanted = {"TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 4, "TCP_USER_TIMEOUT": 7000}
        for option, value in wanted.items():
            if hasattr(socket, option):
                assert over.getsockopt(socket.IPPROTO_TCP, getattr(socket, option)) == value, option
        await connection.close()


# -- passwords -------------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
async def test_a_function_is_asked_for_the_password_of_each_connection(
    guarded_url: str, is_async: bool
) -> None:
    role = f"clerk_{'async' if is_async else 'sync'}"
    valid, asked = "first", 0

    def password() -> str | Awaitable[str]:
        nonlocal asked
        asked += 1

        async def answer() -> str:
            return valid

        return answer() if is_async else valid

    async with administrator(guarded_url) as connection:
        await connection.execute("SELECT pg_reload_conf()")
        await connection.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'first'")
        url = make_url(guarded_url).set(username=role).render_as_string()
        database = Database(settings_for(url, database_password=password))
        async with database.transaction(), database.transaction():
            assert asked == 2
        await connection.execute(f"ALTER ROLE {role} PASSWORD 'second'")
        await connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1", role
        )
        valid = "second"
        async with database.transaction():
            assert asked == 3
        await database.close()
        fixed = Database(settings_for(url, database_password="second"))  # noqa: S106 - of a test role.
        async with fixed.transaction():
            pass
        await fixed.close()


@pytest.mark.parametrize(
    ("password", "error", "match"),
    [
        (lambda: 5, ConfigurationError, "database_password must return a str, not a int"),
        (lambda: {"a": "b"}["token-canary-8QX!"], StoreConnectionError, "database_password raised KeyError"),
    ],
)
async def test_a_function_that_has_no_password_is_named_as_the_fault(
    shared_database_url: str, password: Callable[[], Any], error: type[StoreError], match: str
) -> None:
    async with opened(shared_database_url, database_password=password, retry_budget=0) as store:
        with pytest.raises(error, match=match) as failed:
            await store.get_agent(uuid4(), uuid4())
        assert_clean(failed.value)


# -- how many, and whose ---------------------------------------------------------------------------------------


async def test_after_a_rush_no_more_connections_stay_than_the_pool_keeps(database_url: str) -> None:
    database = Database(settings_for(database_url, pool_size=3, pool_overflow=7))
    async with administrator(database_url) as connection:
        async with AsyncExitStack() as rush:
            for _ in range(10):
                await rush.enter_async_context(database.transaction())
            assert await connection.fetchval(BACKENDS) == 10

        async def has_shrunk() -> bool:
            return bool(await connection.fetchval(BACKENDS) == 3)

        await wait_until(has_shrunk)
        await database.close()


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
def test_a_second_event_loop_is_refused_each_time(server_url: str) -> None:
    database = Database(settings_for(server_url))

    async def begin(on: Database) -> None:
        async with on.transaction():
            pass

    asyncio.run(begin(database))
    for _ in range(4):
        with pytest.raises(StoreError, match="belongs to another event loop") as failed:
            asyncio.run(begin(database))
        assert_clean(failed.value)
    asyncio.run(database.close())
    with pytest.raises(StoreError, match="closed"):
        asyncio.run(begin(database))
    # What belonged to the first event loop complains that it ended before it was closed: here, where that is expected.
    del database
    gc.collect()
