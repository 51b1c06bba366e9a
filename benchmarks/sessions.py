"""The session store compared with handwritten redis-py code."""

from __future__ import annotations

import asyncio
from itertools import cycle

from redis.asyncio import BlockingConnectionPool, Redis

from benchmarks import samples, session_peers, trips
from benchmarks.harness import BARE_CLIENT, LIMIT, OURS, Bar, Bench, Case, Row, Spread
from benchmarks.session_peers import GET_SESSION, SAVE_SESSION
from soldier_data import DataLayer, Session
from soldier_data.base.models import new_id
from soldier_data.sessions import RedisSessionStore
from soldier_data.sessions.connections import create_redis_client
from soldier_data.sessions.keys import SessionKeys

GET = Bar(1.3)
SAVE = Bar(1.8)
MOVE = Bar(0.050, of="ours")
IDLE_MEMORY = Bar(0.5)
NO_ERRORS = Bar(0, of="ours")

GET_DEMOTED = "session get, demoted (promotes)"
DEMOTE = "session demote"

_SESSIONS = 50
_HOT_TTL_MS = 30 * 60 * 1000
_CONCURRENT = 1_000


async def measure(bench: Bench) -> None:
    """Measure every operation on typical sessions."""
    store = redis_store(bench.data)
    tenant_id, agent_id = new_id(), new_id()
    sessions = [samples.session(tenant_id, agent_id) for _ in range(_SESSIONS)]
    for session in sessions:
        await store.save(session)
    async with trips.counting(bench.data.settings) as counted:
        bench.round_trips |= await counted.count(ours(redis_store(counted.data), sessions))
    indexes = len(SessionKeys(store.config.key_prefix).indexes(sessions[0]))
    bench.note(
        f"A session has {len(sessions[0].model_dump_json()):,} bytes of JSON, and {indexes} "
        "index entries, which the limit does not write."
    )
    client = Redis.from_url(bench.data.settings.redis_url)
    cases = ours(store, sessions)
    limits = limit(client, sessions)
    # redis-py's timeout is a third of the cost of a short call, so a comparison with timeouts alone would flatter ours.
    bare_client = create_redis_client(bench.data.settings)
    assert isinstance(bare_client, Redis), "the embedded server is one server"
    bare = limit(bare_client, sessions)
    bars = {GET_SESSION: GET, SAVE_SESSION: SAVE, GET_DEMOTED: MOVE, DEMOTE: MOVE}
    async with session_peers.opened(bench, client) as others:
        for operation, case in cases.items():
            await bench.compare(
                operation,
                {OURS: case} | ({LIMIT: limits[operation]} if operation in limits else {}),
                bar=bars[operation],
                peers=({BARE_CLIENT: bare[operation]} if operation in bare else {})
                | others.get(operation, {}),
            )
    await bare_client.aclose()
    await _memory(bench, store, client, sessions)
    await client.aclose()
    await _concurrently(bench, store, sessions)


def ours(store: RedisSessionStore, sessions: list[Session]) -> dict[str, Case]:
    """Return the operations with the store."""
    read, written = cycle(sessions[: _SESSIONS // 2]), cycle(sessions[_SESSIONS // 2 :])
    moved = sessions[-1].session_id
    return {
        GET_SESSION: Case(lambda: store.get(next(read).session_id)),
        SAVE_SESSION: Case(lambda: store.save(next(written))),
        GET_DEMOTED: Case(lambda: store.get(moved), lambda: store.demote_to_persistent(moved)),
        DEMOTE: Case(lambda: store.demote_to_persistent(moved), lambda: store.promote_to_hot(moved)),
    }


def limit(client: Redis, sessions: list[Session]) -> dict[str, Case]:
    """Handwritten code: GET and validation, dump and SET."""
    mine = cycle(sessions)

    async def get() -> Session:
        value = await client.get(f"hand:{next(mine).session_id}")
        assert value is not None
        return Session.model_validate_json(value)

    async def save() -> None:
        session = next(mine)
        await client.set(f"hand:{session.session_id}", session.model_dump_json(), px=_HOT_TTL_MS)

    async def save_all() -> None:
        for _ in sessions:
            await save()

    stored = False

    async def once() -> None:
        nonlocal stored
        if not stored:
            stored = True
            await save_all()

    return {GET_SESSION: Case(get, once), SAVE_SESSION: Case(save)}


async def _memory(bench: Bench, store: RedisSessionStore, client: Redis, sessions: list[Session]) -> None:
    keys = SessionKeys(store.config.key_prefix)
    hot, idle = [], []
    for session in sessions:
        await store.save(session)
        hot_key, idle_key = keys.session(session.session_id)
        hot.append(float(await client.memory_usage(hot_key) or 0))
        idle.append(float(await client.memory_usage(idle_key) or 0))
    bench.add(
        Row("memory of an idle session", Spread.of(idle), "hot value", Spread.of(hot), IDLE_MEMORY, "bytes")
    )


async def _concurrently(bench: Bench, store: RedisSessionStore, sessions: list[Session]) -> None:
    errors = 0
    pool = BlockingConnectionPool.from_url(
        bench.data.settings.redis_url, max_connections=bench.data.settings.redis_max_connections, timeout=30
    )
    async with Redis.from_pool(pool) as client:
        cases, limits = ours(store, sessions), limit(client, sessions)
        await limits[GET_SESSION].prepare()  # type: ignore[misc] # Set above.

        async def run(cases: dict[str, Case]) -> None:
            nonlocal errors
            calls = [
                cases[GET_SESSION].call() if n % 2 else cases[SAVE_SESSION].call() for n in range(_CONCURRENT)
            ]
            results = await asyncio.gather(*calls, return_exceptions=True)
            errors += sum(isinstance(result, BaseException) for result in results)

        await bench.compare(
            f"{_CONCURRENT:,} session operations at once",
            {OURS: Case(lambda: run(cases)), "limit, pool of 100": Case(lambda: run(limits))},
        )
    failed = Spread.of([float(errors)])
    bench.add(Row(f"{_CONCURRENT:,} session operations at once: errors", failed, bar=NO_ERRORS, unit="count"))


def redis_store(data: DataLayer) -> RedisSessionStore:
    """Return the session store with the type of the one on Redis."""
    assert isinstance(data.sessions, RedisSessionStore)
    return data.sessions
