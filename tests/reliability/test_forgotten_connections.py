"""Connections that the network forgot or that the server closed: one call pays for them, and the others go on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any
from uuid import uuid4

import pytest

from soldier_data.config import PostgresConfigStore
from soldier_data.data_layer import DataLayer
from soldier_data.errors import StoreConnectionError
from soldier_data.postgres.database import Database
from tests.backends.connections import administrator, pool_of
from tests.backends.redis_helpers import wait_until
from tests.conftest import settings_for
from tests.reliability.conftest import Found
from tests.reliability.faulty_proxy import FaultyProxy, faulty_proxy

IDLE = 6
"""Connections that are open and free when something happens to them."""


@pytest.fixture
async def passing(shared_database_url: str) -> AsyncIterator[FaultyProxy]:
    async with faulty_proxy(shared_database_url) as running:
        yield running


async def fill(database: Database) -> None:
    """Open `IDLE` connections, and leave them free."""
    async with AsyncExitStack() as opened:
        for _ in range(IDLE):
            await opened.enter_async_context(database.transaction())
    assert len(pool_of(database)._free) == IDLE


@asynccontextmanager
async def filled(passing: FaultyProxy, **values: Any) -> AsyncIterator[DataLayer]:
    """A data layer with `IDLE` free connections, by way of the proxy, that tries nothing twice."""
    limits = {"retry_budget": 0, "session_backend": "inmemory", "pool_size": IDLE, "pool_overflow": 0}
    async with DataLayer.open(settings_for(passing.url, **(limits | values))) as data:
        assert data._database is not None
        await fill(data._database)
        yield data


async def calls(data: DataLayer, how_many: int) -> int:
    """Make calls one after the other; returns how many failed."""
    failed = 0
    for _ in range(how_many):
        try:
            assert await data.config.get_agent(uuid4(), uuid4()) is None
        except StoreConnectionError:
            failed += 1
    return failed


async def test_connections_that_a_firewall_forgot_cost_one_caller_the_time_out(
    passing: FaultyProxy, report: Found
) -> None:
    async with filled(passing, command_timeout=2) as data:
        passing.forget()
        failed = await calls(data, 2 * IDLE)
    assert failed == 1
    report(
        f"{IDLE} free connections to PostgreSQL forgotten by a firewall",
        bar="one caller waits for the command time-out, the others go on",
        found=f"{failed} of {2 * IDLE} calls failed",
    )


async def test_connections_that_were_reset_cost_one_call_that_is_not_repeated(passing: FaultyProxy) -> None:
    async with filled(passing) as data:
        passing.reset()
        assert await calls(data, 2 * IDLE) == 1


async def test_no_unit_of_work_fails_for_a_connection_that_was_reset_while_it_was_free(
    passing: FaultyProxy, report: Found
) -> None:
    async with filled(passing) as data:
        passing.reset()
        for _ in range(IDLE):
            async with data.unit_of_work() as unit:
                assert await unit.config.get_agent(uuid4(), uuid4()) is None
    report(
        f"{IDLE} free connections reset, then units of work",
        bar="each takes another connection",
        found=f"0 of {IDLE} units of work failed",
    )


async def test_callers_with_deadlines_get_through_after_the_server_closed_all_connections(
    shared_database_url: str, report: Found
) -> None:
    async with faulty_proxy(shared_database_url) as passing:
        database = Database(settings_for(passing.url, pool_size=IDLE, pool_overflow=0))
        await fill(database)
        passing.latency = 0.02
        async with administrator(shared_database_url) as connection:
            ended = await connection.fetchval(
                "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        assert ended >= IDLE
        store, opened, rounds, through = PostgresConfigStore(database), passing.opened, 0, 0

        async def call() -> bool:
            try:
                async with asyncio.timeout(0.1):
                    return await store.get_agent(uuid4(), uuid4()) is None
            except TimeoutError:
                return False

        while through < IDLE:
            rounds += 1
            assert rounds < 100
            through = sum(await asyncio.gather(*(call() for _ in range(IDLE))))
        made = passing.opened - opened
        assert made < 2 * IDLE
        await database.close()
    report(
        "callers with deadlines of 100 ms, 20 ms from the server, after it closed all connections",
        bar="they get through, and no more connections are opened than are used",
        found=f"all {IDLE} callers got through in round {rounds}, {made} connections opened",
    )


async def test_closing_leaves_no_connection_that_was_being_opened(database_url: str) -> None:
    async with faulty_proxy(database_url) as passing, administrator(database_url) as connection:
        passing.latency = 0.2
        database = Database(settings_for(passing.url))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await PostgresConfigStore(database).get_agent(uuid4(), uuid4())
        assert pool_of(database)._opening_tasks
        await database.close()
        assert not pool_of(database)._opening_tasks

        async def none_is_left() -> bool:
            left = await connection.fetchval(
                "SELECT count(*) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
            return bool(left == 0)

        await wait_until(none_is_left)
