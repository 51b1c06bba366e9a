"""Look-ups of sessions, whose cost must depend on the result and not on the number of stored sessions."""

from __future__ import annotations

import asyncio
from itertools import cycle
from urllib.parse import urlsplit, urlunsplit
from uuid import UUID

from benchmarks import samples, trips
from benchmarks.harness import Bar, Bench, Case, Row, interleave
from benchmarks.sessions import redis_store
from soldier_data import Channel, DataLayer, Session
from soldier_data.base.models import new_id
from soldier_data.sessions import RedisSessionStore
from soldier_data.sessions.connections import create_redis_client

# The design specifies no limit here; the limit for a page of turns, which must not depend on the size either, is 1.2.
# It is a little higher because a hundred sessions fit into the processor's caches.
BY_SIZE = Bar(1.3)

_ANSWER = 20
_SIZES = (100, 10_000, 100_000)


async def measure(bench: Bench) -> None:
    """Measure equal results from stores of different sizes, in separate databases so that they can alternate."""
    sizes = _SIZES[:2] if bench.quick else _SIZES
    tenant_id, agent_id, scenario_id = new_id(), new_id(), new_id()
    step_hash = "5e" * 16

    def make_wanted() -> list[Session]:
        found = [samples.session(tenant_id, agent_id, step_hash=step_hash) for _ in range(_ANSWER)]
        for session in found:
            session.active_scenario_id = scenario_id
        return found

    cases: dict[str, dict[int, Case]] = {}
    stores: list[RedisSessionStore] = []
    for database, size in enumerate(sizes, start=1):
        store = _in_database(bench.data, database)
        stores.append(store)
        wanted = make_wanted()
        await _fill(store, wanted, tenant_id, size)
        for operation, case in _searches(store, wanted, step_hash).items():
            cases.setdefault(operation, {})[size] = case
    async with trips.counting(bench.data.settings) as counted:
        wanted = make_wanted()
        for session in wanted:
            await counted.data.sessions.save(session)
        near = _searches(redis_store(counted.data), wanted, step_hash)
        bench.round_trips |= await counted.count(near)
    for operation, by_size in cases.items():
        await _by_size(bench, operation, by_size)
    for store in stores:
        await store.client.flushdb()
        await store.client.aclose()


def _searches(store: RedisSessionStore, wanted: list[Session], step_hash: str) -> dict[str, Case]:
    first = wanted[0]
    tenant_id, scenario_id = first.tenant_id, first.active_scenario_id
    assert scenario_id is not None
    return {
        "get_by_channel": Case(
            lambda: store.get_by_channel(tenant_id, Channel.WEBCHAT, first.user_channel_id)
        ),
        f"list_by_agent, {_ANSWER} found": Case(lambda: store.list_by_agent(tenant_id, first.agent_id)),
        f"find_sessions_by_step_hash, {_ANSWER} found": Case(
            lambda: store.find_sessions_by_step_hash(tenant_id, scenario_id, 2, step_hash)
        ),
    }


async def _by_size(bench: Bench, operation: str, cases: dict[int, Case]) -> None:
    spreads = await interleave({str(size): case for size, case in cases.items()}, bench.seconds)
    smallest, *larger = cases
    for size in larger:
        bench.add(
            Row(
                f"{operation}, {size:,} stored",
                spreads[str(size)],
                f"{smallest:,} stored",
                spreads[str(smallest)],
                BY_SIZE,
                round_trips=bench.round_trips.get(operation),
            )
        )


async def _fill(store: RedisSessionStore, wanted: list[Session], tenant_id: UUID, size: int) -> None:
    """Store `wanted`, interspersed with sessions of a hundred other agents."""
    agents = cycle([new_id() for _ in range(100)])
    other = samples.session(tenant_id, new_id(), visits=1)
    pending: list[Session] = [*wanted]
    for _ in range(size - len(wanted)):
        pending.append(
            other.model_copy(
                update={"session_id": new_id(), "agent_id": next(agents), "user_channel_id": str(new_id())}
            )
        )
        if len(pending) >= 500:
            await asyncio.gather(*(store.save(session) for session in pending))
            pending.clear()
    await asyncio.gather(*(store.save(session) for session in pending))


def _in_database(data: DataLayer, number: int) -> RedisSessionStore:
    url = urlunsplit(urlsplit(data.settings.redis_url)._replace(query=f"db={number}"))
    client = create_redis_client(data.settings.model_copy(update={"redis_url": url}))
    return RedisSessionStore(client, redis_store(data).config)
