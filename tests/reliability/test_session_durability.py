"""Sessions in PostgreSQL with copies in Redis: no turn without its session, and no update lost."""

from __future__ import annotations

import asyncio
import itertools
import types
from collections.abc import AsyncIterator, Coroutine, Generator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from redis.asyncio import Redis

from soldier_data.data_layer import DataLayer
from soldier_data.errors import ConflictError, StoreError
from soldier_data.sessions import Session
from soldier_data.sessions.durable import DurableSessionStore
from tests.backends.redis_helpers import FaultyRedisProxy
from tests.cases.case import Case
from tests.conftest import settings_for
from tests.factories.audit import TurnRecordFactory
from tests.factories.sessions import SessionFactory
from tests.redis_servers import program, redis_server
from tests.reliability.conftest import Counts, Found
from tests.reliability.faulty_proxy import faulty_proxy
from tests.reliability.mutations import MUTATIONS

SESSIONS = next(domain for domain in MUTATIONS if "redis-durable" in domain.backends)


@asynccontextmanager
async def opened(url: str, redis_url: str, prefix: str, **values: Any) -> AsyncIterator[DataLayer]:
    """A data layer whose sessions are durable in PostgreSQL."""
    settings = settings_for(
        url, redis_url=redis_url, session_key_prefix=prefix, session_durability="postgres", **values
    )
    async with DataLayer.open(settings) as data:
        yield data


@pytest.fixture
async def data(module_database_url: str, redis_url: str) -> AsyncIterator[DataLayer]:
    async with opened(module_database_url, redis_url, f"t{uuid4().hex}", pool_timeout=60) as layer:
        yield layer


@types.coroutine
def interrupted(work: Coroutine[Any, Any, Any], place: int) -> Generator[Any, None, bool]:
    """Await `work`, and cancel its task when it waits for the `place`-th time; return whether it waited that often."""
    steps = work.__await__()
    error: BaseException | None = None
    for waits in itertools.count():
        try:
            future = steps.send(None) if error is None else steps.throw(error)
        except StopIteration:
            return waits > place
        if waits == place:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
        error = None
        try:
            yield future
        except BaseException as raised:  # noqa: BLE001 - passed on to `work`.
            error = raised
    raise AssertionError


class Conversation:
    """A conversation, whose session counts its turns."""

    def __init__(self, data: DataLayer) -> None:
        self._data = data
        assert isinstance(data.sessions, DurableSessionStore)
        self.store = data.sessions
        self.session: Session = SessionFactory()

    async def begin(self) -> None:
        await self.store.save(self.session)

    async def turn(self, by: DataLayer | None = None, *, fresh: bool = False) -> None:
        """Save a turn and its session in one unit of work."""
        data = by or self._data
        found = await data.sessions.get(self.session.session_id, fresh=fresh)
        assert found is not None
        found.turn_count += 1
        async with data.unit_of_work() as uow:
            await uow.sessions.save(found, if_revision=found.revision)
            await uow.audit.save_turn(
                TurnRecordFactory(
                    tenant_id=found.tenant_id, session_id=found.session_id, turn_number=found.turn_count
                )
            )

    async def turns(self) -> int:
        listed = await self._data.audit.list_turns_by_session(
            self.session.tenant_id, self.session.session_id, limit=10_000
        )
        assert sorted(turn.turn_number for turn in listed) == list(range(1, len(listed) + 1))
        return len(listed)

    async def is_behind(self) -> bool:
        """Whether Redis lacks the session of the last turn."""
        copied = await self.store.peek(self.session.session_id)
        return copied is None or copied.turn_count < await self.turns()

    async def assert_repaired(self) -> int:
        """Check that after a repair Redis has the session of the last turn; return the number of turns."""
        await self.store.repair()
        copied = await self.store.peek(self.session.session_id)
        turns = await self.turns()
        assert copied is not None
        assert copied.turn_count == turns
        return turns


async def test_a_turn_that_is_cancelled_at_any_await_has_its_session(
    data: DataLayer, count: Counts, report: Found, monkeypatch: pytest.MonkeyPatch
) -> None:
    conversation = Conversation(data)
    await conversation.begin()
    cancelled = 0
    for _ in range(count(1, 20)):
        for place in itertools.count():
            turn = asyncio.create_task(_run(interrupted(conversation.turn(fresh=True), place)))
            with suppress(asyncio.CancelledError):
                if not await turn:
                    break
            cancelled += 1
            await conversation.assert_repaired()
    assert cancelled > 5

    async def end(*_: object) -> None:
        raise asyncio.CancelledError

    # The process ends before Redis has been asked anything.
    with monkeypatch.context() as ending:
        ending.setattr(conversation.store._redis, "replicated_script", end)
        with pytest.raises(asyncio.CancelledError):
            await conversation.turn()
    assert await conversation.is_behind()
    await conversation.assert_repaired()
    report(
        f"a turn and its session in one unit of work, cancelled at each await ({cancelled:,} cancellations)",
        bar="0 turns without their session after a repair",
        found=f"0 of {await conversation.assert_repaired():,} turns",
    )


async def _run(work: Any) -> bool:
    done: bool = await work
    return done


async def test_a_turn_of_which_a_reply_is_lost_has_its_session(
    module_database_url: str, redis_url: str, count: Counts, report: Found
) -> None:
    prefix = f"t{uuid4().hex}"
    redis_proxy = FaultyRedisProxy(redis_url)
    lost = 0
    async with (
        faulty_proxy(module_database_url) as passing,
        redis_proxy.running() as far_redis,
        opened(module_database_url, redis_url, prefix) as data,
        opened(passing.url, far_redis, prefix, pool_size=1, retry_budget=1) as far,
    ):
        conversation = Conversation(data)
        await conversation.begin()
        # The first time, connections are made and statements are prepared.
        await conversation.turn(far)
        for _ in range(count(1, 10)):
            for proxy in (passing, redis_proxy):
                for place in itertools.count():
                    before = proxy.lost
                    proxy.lose_reply(place)
                    with suppress(StoreError):
                        await conversation.turn(far, fresh=True)
                    await conversation.assert_repaired()
                    if proxy.lost == before:
                        break
                    lost += 1
                redis_proxy.lose_reply(None)
        turns = await conversation.assert_repaired()
    report(
        f"a turn and its session in one unit of work, each reply of either server lost ({lost:,} replies)",
        bar="0 turns without their session after a repair",
        found=f"0 of {turns:,} turns",
    )


async def test_racing_writers_lose_no_update_while_redis_is_emptied(
    data: DataLayer, redis_url: str, count: Counts, report: Found
) -> None:
    conversation = Conversation(data)
    await conversation.begin()
    writers, each = 16, count(4, 100)
    refused = emptied = 0

    async def write() -> None:
        nonlocal refused
        for _ in range(each):
            fresh = False
            while True:
                try:
                    await conversation.turn(fresh=fresh)
                    break
                except ConflictError:
                    refused += 1
                    fresh = True

    async def empty() -> None:
        nonlocal emptied
        client = conversation.store.client
        assert isinstance(client, Redis)
        while True:
            async for key in client.scan_iter(match=f"{data.settings.session_key_prefix}:*", count=10_000):
                await client.delete(key)
            emptied += 1
            await asyncio.sleep(0.005)

    emptying = asyncio.create_task(empty())
    await asyncio.gather(*(write() for _ in range(writers)))
    emptying.cancel()
    with suppress(asyncio.CancelledError):
        await emptying
    found = await data.sessions.get(conversation.session.session_id, fresh=True)
    assert found is not None
    assert (found.turn_count, found.revision) == (writers * each, writers * each + 1)
    assert await conversation.assert_repaired() == writers * each
    report(
        f"{writers} writers x {each} turns of one session, while Redis is emptied {emptied:,} times",
        bar="0 lost updates",
        found=f"0 lost, {refused:,} refused and repeated",
    )


@pytest.mark.timeout(600)
async def test_racing_writers_lose_no_update_when_redis_falls_back_to_an_earlier_state(
    module_database_url: str, tmp_path: Path, count: Counts, report: Found
) -> None:
    fallbacks = count(2, 20)
    made = refused = 0
    ending = False
    with redis_server(program(), tmp_path) as server:
        async with opened(
            module_database_url, server.url, "session", pool_timeout=60, retry_budget=10
        ) as data:
            conversations = [Conversation(data) for _ in range(4)]
            for conversation in conversations:
                await conversation.begin()

            async def write(conversation: Conversation) -> None:
                nonlocal made, refused
                fresh = False
                while not ending:
                    try:
                        await conversation.turn(fresh=fresh)
                    except ConflictError:
                        refused += 1
                        fresh = True
                    else:
                        made += 1
                        fresh = False

            writing = asyncio.gather(*(write(conversation) for conversation in conversations * 4))

            async def written(turns: int) -> None:
                wanted = made + turns
                while made < wanted:
                    assert not writing.done(), writing.exception()
                    await asyncio.sleep(0.002)

            for _ in range(fallbacks):
                # As a replica that lacks the last saves, and is made the primary.
                with server.client() as client:
                    await asyncio.to_thread(client.save)
                await written(50)
                server.kill()
                await asyncio.to_thread(server.start)
                await written(50)
            ending = True
            await writing
            turns = [await conversation.assert_repaired() for conversation in conversations]
    assert sum(turns) == made
    report(
        f"{fallbacks} times Redis killed and restored to an earlier state, under 16 writers of 4 sessions",
        bar="0 lost updates, 0 turns without their session after a repair",
        found=f"0 of {made:,} turns lost, {refused:,} refused and repeated",
    )


async def test_a_lost_reply_leaves_one_effect(
    module_database_url: str, redis_url: str, report: Found
) -> None:
    prefix = f"t{uuid4().hex}"
    redis_proxy = FaultyRedisProxy(redis_url)
    async with (
        faulty_proxy(module_database_url) as passing,
        redis_proxy.running() as far_redis,
        opened(module_database_url, redis_url, prefix) as data,
        opened(passing.url, far_redis, prefix, pool_size=1) as far,
    ):

        async def outcome(case: Case[Any, Any], proxy: Any, *, lose: int | None = None) -> tuple[object, ...]:
            tenant_id = uuid4()
            own: Session = await SESSIONS.seed(data.sessions, tenant_id)
            if lose is not None:
                proxy.lose_reply(lose)
            returned = await case.call(far.sessions, own, tenant_id)
            redis_proxy.lose_reply(None)
            kept = [await data.sessions.get(own.session_id, fresh=fresh) for fresh in (False, True)]
            assert kept[0] == kept[1]
            listed = await data.sessions.list_by_agent(tenant_id, own.agent_id)
            return returned, kept[0] and (kept[0].revision, kept[0].pending_migration), len(listed)

        for case in SESSIONS.cases:
            for proxy in (passing, redis_proxy):
                # The first time, the connection is made, and scripts and statements are loaded.
                await outcome(case, proxy)
                found = await outcome(case, proxy)
                assert found[0] == case.expected
                for place in itertools.count():
                    before = proxy.lost
                    assert await outcome(case, proxy, lose=place) == found, (case.method, proxy, place)
                    if proxy.lost == before:
                        break
    report(
        f"each reply of either server lost of {len(SESSIONS.cases)} calls, of every method that writes sessions",
        bar="exactly one effect",
        found=f"one effect, {passing.lost + redis_proxy.lost} replies lost",
    )
