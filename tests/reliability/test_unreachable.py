"""Servers that refuse, never answer or stop in the middle of an answer: every method fails, in time and cleanly."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from time import monotonic
from typing import Any
from uuid import uuid4

import pytest

from soldier_data.errors import StoreConnectionError, StoreError, ValidationError
from soldier_data.postgres.database import Database
from soldier_data.sessions import RedisSessionStore
from tests.backends.connections import CANARY, assert_clean, pool_of
from tests.backends.redis_helpers import FaultyRedisProxy, free_port, serving, store_at
from tests.cases.case import Domain, public_methods
from tests.cases.stores import DOMAINS, in_memory
from tests.conftest import settings_for
from tests.reliability.conftest import Found
from tests.reliability.faulty_proxy import faulty_proxy

BAR = "StoreConnectionError within the configured time-out, every method"

FAR_TOO_LONG = 20
"""Seconds after which a call is given up; each should take a fraction of one."""

Call = tuple[str, Callable[[], Awaitable[object]]]


async def calls_of(domain: Domain[Any, Any], store: Any) -> list[Call]:
    """A call of every method, with ids of what a store in memory holds."""
    own, tenant_id = await domain.seed(in_memory(domain), uuid4()), uuid4()
    calls: list[Call] = [
        (case.method, partial(case.call, store, own, tenant_id))
        for case in domain.cases
        # These are refused before the server is asked; and this one says False.
        if case.expected is not ValidationError and case.method != "health_check"
    ]
    assert {name for name, _ in calls} | {"health_check"} >= public_methods(domain.contract)
    return calls


async def assert_each_fails(calls: list[Call], match: str) -> float:
    """Each call ends in a clean StoreConnectionError; returns how many seconds the slowest took."""
    slowest = 0.0

    async def check(name: str, call: Callable[[], Awaitable[object]]) -> None:
        nonlocal slowest
        started = monotonic()
        with pytest.raises(StoreConnectionError, match=match) as failed:
            async with asyncio.timeout(FAR_TOO_LONG):
                await call()
        slowest = max(slowest, monotonic() - started)
        assert_clean(failed.value)
        assert failed.value.cause is not None or "in use" in match, name

    await asyncio.gather(*(check(name, call) for name, call in calls))
    return slowest


async def assert_each_works_again(calls: list[Call]) -> None:
    """The connections on which something hung were given up, and others take their place."""
    for _, call in calls:
        async with asyncio.timeout(FAR_TOO_LONG):
            while True:
                try:
                    await call()
                except StoreConnectionError:
                    # The time-out is so short that a busy machine may exceed it.
                    continue
                except StoreError:
                    # What the case expects.
                    pass
                break


# -- PostgreSQL ------------------------------------------------------------------------------------------------

POSTGRES = [domain for domain in DOMAINS if "postgres" in domain.backends]


async def every_call(database: Database) -> list[Call]:
    return [
        call for domain in POSTGRES for call in await calls_of(domain, domain.backends["postgres"](database))
    ]


@asynccontextmanager
async def database_at(url: str, **values: Any) -> AsyncIterator[Database]:
    limits = {"connect_timeout": 3, "command_timeout": 0.3, "retry_budget": 0.3, "pool_size": 40}
    database = Database(settings_for(url, **(limits | values)))
    yield database
    await asyncio.gather(*pool_of(database)._closing_tasks)
    assert pool_of(database)._in_use == set()
    await database.close()


async def test_postgresql_that_refuses_connections(report: Found) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"postgresql://u:{CANARY}@127.0.0.1:{taken.getsockname()[1]}/db"
        # Refused at once, however busy the machine is.
        async with database_at(url, connect_timeout=10) as database:
            calls = await every_call(database)
            slowest = await assert_each_fails(calls, "SOLDIER_DATABASE_URL")
    report("PostgreSQL refusing connections", bar=BAR, found=told(calls, slowest, "retries of 0.3 s"))


async def test_postgresql_that_never_answers(report: Found) -> None:
    async def swallow(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        while await reader.read(65536):
            pass

    async with serving(swallow) as port:
        url = f"postgresql://u:{CANARY}@127.0.0.1:{port}/db"
        async with database_at(url, connect_timeout=0.3, pool_size=200) as database:
            calls = await every_call(database)
            slowest = await assert_each_fails(calls, "SOLDIER_CONNECT_TIMEOUT")
    report(
        "PostgreSQL accepting and never answering", bar=BAR, found=told(calls, slowest, "time-out of 0.3 s")
    )


@pytest.mark.parametrize("stall_after", [0, 3], ids=["before", "in the middle of"])
async def test_postgresql_that_stops_answering(
    shared_database_url: str, report: Found, request: pytest.FixtureRequest, stall_after: int
) -> None:
    async with faulty_proxy(shared_database_url) as passing, database_at(passing.url) as database:
        calls = await every_call(database)
        async with AsyncExitStack() as opened:
            for _ in range(40):
                await opened.enter_async_context(database.transaction())
        passing.stall_after = stall_after
        slowest = await assert_each_fails(calls, "SOLDIER_COMMAND_TIMEOUT")
        passing.stall_after = None
        await assert_each_works_again(calls)
    where = request.node.callspec.id
    found = told(calls, slowest, "time-out of 0.3 s, 40 connections")
    report(f"PostgreSQL that stops {where} an answer", bar=BAR, found=found)


async def test_postgresql_whose_connections_are_all_in_use(shared_database_url: str, report: Found) -> None:
    limits = {"pool_size": 1, "pool_overflow": 0, "pool_timeout": 0.3}
    async with database_at(shared_database_url, **limits) as database:
        calls = await every_call(database)
        async with database.transaction():
            slowest = await assert_each_fails(
                calls, "all database connections are in use: raise SOLDIER_POOL"
            )
    report("all PostgreSQL connections in use", bar=BAR, found=told(calls, slowest, "wait of 0.3 s"))


# -- Redis -----------------------------------------------------------------------------------------------------

REDIS = next(domain for domain in DOMAINS if "redis" in domain.backends)


async def every_redis_call(store: RedisSessionStore) -> list[Call]:
    operators: list[Call] = [
        ("demote_to_persistent", lambda: store.demote_to_persistent(uuid4())),
        ("promote_to_hot", lambda: store.promote_to_hot(uuid4())),
        ("tier", lambda: store.tier(uuid4())),
        ("peek", lambda: store.peek(uuid4())),
        ("stats", store.stats),
        ("cleanup_expired", store.cleanup_expired),
        ("watch_demotions", lambda: anext(store.watch_demotions())),
        ("ping", store.ping),
    ]
    calls = [*operators, *await calls_of(REDIS, store)]
    assert {name for name, _ in calls} | {"health_check"} >= public_methods(RedisSessionStore) - {"close"}
    return calls


async def test_redis_that_refuses_connections(report: Found) -> None:
    async with store_at(f"redis://:{CANARY}@127.0.0.1:{free_port()}") as store:
        calls = await every_redis_call(store)
        slowest = await assert_each_fails(calls, "cannot be reached|did not answer")
        assert await store.health_check() is False
    report("Redis refusing connections", bar=BAR, found=told(calls, slowest, "time-out of 0.3 s"))


async def test_redis_that_never_answers(report: Found) -> None:
    async def swallow(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        while await reader.read(65536):
            pass

    async with serving(swallow) as port, store_at(f"redis://:{CANARY}@127.0.0.1:{port}") as store:
        calls = await every_redis_call(store)
        slowest = await assert_each_fails(calls, "did not answer within 0.3 s")
        assert await store.health_check() is False
    report("Redis accepting and never answering", bar=BAR, found=told(calls, slowest, "time-out of 0.3 s"))


async def test_redis_that_stops_in_the_middle_of_an_answer(redis_url: str, report: Found) -> None:
    proxy = FaultyRedisProxy(redis_url)
    async with proxy.running() as url, store_at(url, key_prefix=f"t{uuid4().hex}") as store:
        calls = await every_redis_call(store)
        await store.ping()
        proxy.stall_after = 1
        slowest = await assert_each_fails(calls, "did not answer within 0.3 s")
        proxy.stall_after = None
        await assert_each_works_again([(name, call) for name, call in calls if name != "watch_demotions"])
    report(
        "Redis that stops in the middle of an answer",
        bar=BAR,
        found=told(calls, slowest, "time-out of 0.3 s"),
    )


def told(calls: list[Call], slowest: float, limit: str) -> str:
    methods = {name for name, _ in calls}
    return f"{len(calls)} calls of {len(methods)} methods, the slowest {slowest:.1f} s ({limit})"
