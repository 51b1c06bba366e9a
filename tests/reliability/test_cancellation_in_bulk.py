"""Bulk writes cancelled at any moment: the caller is free at once, and nothing is half written or left behind."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from random import Random
from time import monotonic
from typing import Any, NamedTuple, TypeAlias

import pytest

from soldier_data.config import Agent
from soldier_data.data_layer import DataLayer
from soldier_data.errors import StoreConnectionError
from tests.backends.connections import administrator, pool_of
from tests.conftest import settings_for
from tests.factories.audit import TurnRecordFactory
from tests.factories.config import AgentFactory, RuleFactory
from tests.factories.memory import EpisodeFactory
from tests.factories.vectors import EmbeddingFactory
from tests.reliability.conftest import Counts, Found
from tests.reliability.test_cancellation import OTHERS, assert_no_connection_is_leaked, by_way_of

# A busy machine may take that long for what is let go at once; what is not let go takes the command time-out.
_AT_ONCE = 25.0
_BAR = 1.0
# More than the buffers between us and the server take.
_MANY = 1_000
_WORDS = "of some length, so that the server's buffers are soon full: " + 10 * "lorem ipsum dolor sit amet "

_LOCKED = "wait_event_type = 'Lock'"

Call: TypeAlias = Callable[[Any], Awaitable[Any]]
"""Calls a store of the data layer, or of a unit of work, that it is given."""

MODES = ("", "row_level_security", "pgbouncer")


class Written(NamedTuple):
    """A list to write: into which table, and the calls that write all of it, or the first alone."""

    table: str
    all: Call
    first: Call


class Bulk:
    """What one tenant writes in bulk. Each list is written as a whole, or not at all."""

    def __init__(self, data: DataLayer, rows: int) -> None:
        self.data = data
        self.agent: Agent = AgentFactory()
        self._tenant_id = self.agent.tenant_id
        self._rows = rows

    async def begin(self) -> None:
        await self.data.config.save_agent(self.agent)

    # Made before the call, because making thousands of entities takes a while.

    def save_many(self) -> Written:
        rules = self._many(RuleFactory, agent_id=self.agent.id, description=_WORDS)
        return Written(
            "rules", lambda to: to.config.save_many(rules), lambda to: to.config.save_many(rules[:1])
        )

    def add_episodes(self) -> Written:
        episodes = self._many(EpisodeFactory, content=_WORDS)
        return Written(
            "episodes",
            lambda to: to.memory.add_episodes(episodes),
            lambda to: to.memory.add_episodes(episodes[:1]),
        )

    def add_embeddings(self) -> Written:
        embeddings = self._many(EmbeddingFactory, metadata={"words": _WORDS})
        return Written(
            "embeddings",
            lambda to: to.vectors.add_embeddings(embeddings),
            lambda to: to.vectors.add_embeddings(embeddings[:1]),
        )

    def save_turns(self) -> Written:
        turns = self._many(TurnRecordFactory, user_message=_WORDS, agent_response=_WORDS)
        return Written(
            "turn_records", lambda to: to.audit.save_turns(turns), lambda to: to.audit.save_turns(turns[:1])
        )

    async def run(self, call: Call, *, in_unit: bool) -> None:
        if not in_unit:
            await call(self.data)
            return
        async with self.data.unit_of_work(self._tenant_id) as unit:
            await call(unit)

    @asynccontextmanager
    async def in_the_way_of(self, written: Written) -> AsyncIterator[None]:
        """Let whoever writes the list wait: another transaction has written its first row, and undoes that."""
        async with self.data.unit_of_work(self._tenant_id) as unit:
            await written.first(unit)
            await unit.flush()
            yield
            await unit.rollback()

    async def rows_of(self, connection: Any, table: str) -> int:
        count: int = await connection.fetchval(
            f"SELECT count(*) FROM {table} WHERE tenant_id = $1",  # noqa: S608 - our tables.
            self._tenant_id,
        )
        return count

    def _many(self, make: Callable[..., Any], **fields: Any) -> list[Any]:
        return [make(tenant_id=self._tenant_id, **fields) for _ in range(self._rows)]


WRITES = (Bulk.save_many, Bulk.add_episodes, Bulk.add_embeddings, Bulk.save_turns)


@contextmanager
def no_stray_errors() -> Iterator[None]:
    """See that the event loop has nothing to tell: no exception that nobody has looked at."""
    loop = asyncio.get_running_loop()
    told: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: told.append(context))
    try:
        yield
    finally:
        loop.set_exception_handler(None)
    assert told == []


@asynccontextmanager
async def bulk_in(
    database_url: str, mode: str, rows: int, command_timeout: float = 4 * _AT_ONCE
) -> AsyncIterator[tuple[Bulk, Any]]:
    """What writes in bulk, and an administrator's connection. Afterwards, no connection is left."""
    async with by_way_of(database_url, mode) as (url, values), administrator(database_url) as connection:
        known = [row["pid"] for row in await connection.fetch(f"SELECT pid {OTHERS}", [])]
        with no_stray_errors():
            settings = settings_for(
                url, session_backend="inmemory", command_timeout=command_timeout, retry_budget=0, **values
            )
            async with DataLayer.open(settings) as data:
                bulk = Bulk(data, rows)
                await bulk.begin()
                yield bulk, connection
                assert data._database is not None
                await assert_no_connection_is_leaked(data._database, connection, known)


async def is_let_go(task: asyncio.Task[Any]) -> None:
    """See that a cancelled task ends at once, and as a cancelled one."""
    await asyncio.wait([task], timeout=_AT_ONCE)
    assert task.done(), "the cancellation is kept from the caller"
    assert task.cancelled()


@pytest.mark.parametrize("in_unit", [False, True], ids=["call", "unit_of_work"])
@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode or "plain")
@pytest.mark.parametrize("write", WRITES, ids=lambda write: write.__name__)
async def test_a_bulk_write_that_waits_for_the_server_is_let_go(
    database_url: str, write: Callable[[Bulk], Written], mode: str, in_unit: bool
) -> None:
    async with bulk_in(database_url, mode, _MANY) as (bulk, connection):
        written = write(bulk)
        async with bulk.in_the_way_of(written):
            task = asyncio.ensure_future(bulk.run(written.all, in_unit=in_unit))
            await _until_locked(connection)
            # All buffers up to the server are full by now, or everything is sent.
            await asyncio.sleep(0.1)
            task.cancel()
            await is_let_go(task)
            # The server has given up as well, though what it waited for goes on.
            await _until_none(connection)
        assert await bulk.rows_of(connection, written.table) == 0
        await bulk.run(written.all, in_unit=in_unit)
        assert await bulk.rows_of(connection, written.table) == _MANY


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode or "plain")
async def test_a_bulk_write_is_let_go_at_any_moment(
    database_url: str, count: Counts, report: Found, mode: str
) -> None:
    chance = Random()  # noqa: S311 - not for secrets.
    rows, slowest, outcomes = count(300, 10_000), 0.0, Counter[str]()
    async with bulk_in(database_url, mode, rows) as (bulk, connection):
        assert bulk.data._database is not None
        for write in WRITES:
            started = monotonic()
            await bulk.run(write(bulk).all, in_unit=True)
            longest = monotonic() - started
            stored = rows
            for number in range(count(6, 50)):
                written = write(bulk)
                call = bulk.run(written.all, in_unit=number % 2 == 0)
                outcome, late = await _given_up(call, chance.uniform(0, longest), by_time_out=number % 4 < 2)
                outcomes[outcome] += 1
                slowest = max(slowest, late)
                # What is under way would be out of time while thousands of entities are made, in which the loop
                # does nothing else.
                pool = pool_of(bulk.data._database)
                await asyncio.gather(*pool._closing_tasks, *pool._opening_tasks)
                before, stored = stored, await bulk.rows_of(connection, written.table)
                # The reply to a COMMIT may not have come in time.
                assert stored - before in ((rows,) if outcome == "done" else (0, rows)), (
                    "half of a list is written"
                )
    if count.soak:
        assert slowest < _BAR
    report(
        f"bulk writes of {rows:,} rows cancelled or out of time at random moments{mode and f', {mode}'}",
        bar="over within 1 s, all or nothing, no connection leaked",
        found=f"{outcomes['cancelled']} cancelled and {outcomes['out of time']} out of time beside "
        f"{outcomes['done']} completed ones, the slowest {slowest * 1000:.0f} ms",
    )


@pytest.mark.parametrize("write", [Bulk.save_many, Bulk.add_episodes], ids=lambda write: write.__name__)
async def test_a_bulk_write_whose_connection_is_lost_fails_at_once(
    database_url: str, write: Callable[[Bulk], Written]
) -> None:
    async with bulk_in(database_url, "", _MANY) as (bulk, connection):
        written = write(bulk)
        async with bulk.in_the_way_of(written):
            task = asyncio.ensure_future(bulk.run(written.all, in_unit=True))
            await _until_locked(connection)
            await asyncio.sleep(0.1)
            await connection.execute(f"SELECT pg_terminate_backend(pid) {OTHERS} AND {_LOCKED}", [])
            await asyncio.wait([task], timeout=_AT_ONCE)
            assert task.done()
            with pytest.raises(StoreConnectionError, match=r"shutting down|connection was lost"):
                task.result()


@pytest.mark.parametrize("write", [Bulk.save_many, Bulk.add_episodes], ids=lambda write: write.__name__)
async def test_a_bulk_write_that_takes_too_long_is_given_up_in_time(
    database_url: str, write: Callable[[Bulk], Written]
) -> None:
    async with bulk_in(database_url, "", _MANY, command_timeout=2) as (bulk, connection):
        written = write(bulk)
        for in_unit in (False, True):
            async with bulk.in_the_way_of(written):
                with pytest.raises(StoreConnectionError, match="SOLDIER_COMMAND_TIMEOUT"):
                    await asyncio.wait_for(bulk.run(written.all, in_unit=in_unit), _AT_ONCE)
                await _until_none(connection)
            assert await bulk.rows_of(connection, written.table) == 0


async def _given_up(call: Awaitable[None], seconds: float, *, by_time_out: bool) -> tuple[str, float]:
    """Cancel a call after so many seconds, from within or from outside; how it ended, and how late."""

    async def with_time_out() -> None:
        async with asyncio.timeout(seconds if by_time_out else None):
            await call

    due = monotonic() + seconds
    task = asyncio.ensure_future(with_time_out())
    if not by_time_out:
        asyncio.get_running_loop().call_later(seconds, task.cancel)
    await asyncio.wait([task], timeout=seconds + 2 * _AT_ONCE)
    late = monotonic() - due
    assert task.done(), "the cancellation is kept from the caller"
    if task.cancelled():
        return "cancelled", late
    if isinstance(task.exception(), TimeoutError):
        return "out of time", late
    task.result()
    return "done", 0.0


async def _until_locked(connection: Any) -> None:
    await _until(connection, "> 0")


async def _until_none(connection: Any) -> None:
    await _until(connection, "= 0")


async def _until(connection: Any, how_many: str) -> None:
    async with asyncio.timeout(30):
        while not await connection.fetchval(  # noqa: ASYNC110 - no event tells.
            f"SELECT count(*) {how_many} {OTHERS} AND {_LOCKED}", []
        ):
            await asyncio.sleep(0.02)
