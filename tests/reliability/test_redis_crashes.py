"""Redis killed while 16 writers save, and sessions that nobody looks at past their time in the hot tier."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from time import monotonic
from uuid import uuid4

import pytest

from soldier_data.sessions import RedisSessionStore, Session
from tests.backends.redis_helpers import store_at
from tests.factories.sessions import SessionFactory
from tests.redis_servers import RedisServer, program, redis_server
from tests.reliability.conftest import Counts, Found

WRITERS = 16


async def test_a_session_outlives_its_time_in_the_hot_tier(
    redis_url: str, count: Counts, report: Found
) -> None:
    hot_ttl = timedelta(milliseconds=300)
    async with store_at(redis_url, seconds=5, key_prefix=f"t{uuid4().hex}", hot_ttl=hot_ttl) as store:
        sessions: list[Session] = [SessionFactory() for _ in range(count(100, 1_000))]
        await asyncio.gather(*(store.save(session) for session in sessions))
        # Nothing of ours runs meanwhile.
        await asyncio.sleep(hot_ttl.total_seconds() + 0.1)
        tiers = await asyncio.gather(*(store.tier(session.session_id) for session in sessions))
        assert set(tiers) == {"persistent"}
        found = await asyncio.gather(*(store.get(session.session_id) for session in sessions))
    there = sum(one == other for one, other in zip(found, sessions, strict=True))
    assert there == len(sessions)
    report(
        "sessions saved, then left past hot_ttl with no process running",
        bar="session still there; 1,000 of 1,000",
        found=f"{there:,} of {len(sessions):,}",
    )


class Writer:
    """Saves one session again and again."""

    def __init__(self, store: RedisSessionStore) -> None:
        self._store = store
        self.session: Session = SessionFactory()
        self.saves = 0

    async def save(self) -> None:
        self.session.turn_count += 1
        await self._store.save(self.session)
        self.saves += 1


@pytest.fixture
async def lasting(tmp_path: Path) -> AsyncIterator[RedisServer]:
    """A server that acknowledges nothing before it is on the disk."""
    with redis_server(program(), tmp_path, appendonly="yes", appendfsync="always") as server:
        yield server


@pytest.mark.timeout(900)
async def test_no_acknowledged_save_is_lost_when_the_server_is_killed(
    lasting: RedisServer, count: Counts, report: Found
) -> None:
    kills, wanted = count(3, 50), count(600, 10_000)
    recoveries: list[float] = []
    async with store_at(lasting.url, seconds=10) as store:
        writers = [Writer(store) for _ in range(WRITERS)]
        ending = False

        async def work(writer: Writer) -> None:
            while not ending:
                await writer.save()
                await asyncio.sleep(0)

        working = asyncio.gather(*map(work, writers))

        async def saved(times: int, each: int = 0) -> None:
            before = [writer.saves for writer in writers]
            while sum(writer.saves for writer in writers) < sum(before) + times or any(
                writer.saves < saves + each for writer, saves in zip(writers, before, strict=True)
            ):
                # An error reached a writer.
                assert not working.done(), working.exception()
                await asyncio.sleep(0.002)

        for _ in range(kills):
            await saved(wanted // kills)
            lasting.kill()
            await asyncio.to_thread(lasting.start)
            up = monotonic()
            await saved(0, each=1)
            recoveries.append(monotonic() - up)
        ending = True
        await working
        for writer in writers:
            assert await store.get(writer.session.session_id) == writer.session
            assert writer.session.revision == writer.session.turn_count == writer.saves
    saves = sum(writer.saves for writer in writers)
    assert saves >= wanted
    # Not in the test command, where other tests keep the machine busy.
    assert not count.soak or max(recoveries) < 1
    report(
        f"{kills} kill -9 of Redis (appendfsync always) under {WRITERS} writers",
        bar="10,000 saves, 0 acknowledged saves lost, recovery < 1 s",
        found=f"0 of {saves:,} saves lost, none counted twice; every writer saved again within "
        f"{max(recoveries):.2f} s of the server's being up",
    )
