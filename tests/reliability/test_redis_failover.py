"""Primaries killed, replaced and robbed of their slots while 16 writers save."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from time import monotonic

import pytest
from redis.crc import key_slot
from redis.exceptions import RedisError

from soldier_data.errors import StoreConnectionError
from soldier_data.sessions import RedisSessionStore, Session
from soldier_data.sessions.opening import open_redis_store
from soldier_data.settings import Settings
from tests.factories.sessions import SessionFactory
from tests.redis_servers import SERVICE, RedisServer, program, redis_cluster, redis_sentinels
from tests.reliability.conftest import Counts, Found

WRITERS = 16

BAR = "0 saves acknowledged with WAIT lost; every writer saves again within 5 s of the new primary"


class Writer:
    """Saves one session again and again, each time only over what it saved before."""

    def __init__(self, store: RedisSessionStore) -> None:
        self._store = store
        self.session: Session = SessionFactory()
        self.saves = 0
        self.failures = 0

    async def work(self, is_over: Callable[[], bool]) -> None:
        while not is_over():
            self.session.turn_count += 1
            while True:
                try:
                    # It is refused if an earlier one that failed was stored, and this one not known for the same.
                    await self._store.save(self.session, if_revision=self.session.revision)
                except StoreConnectionError:
                    self.failures += 1
                    await asyncio.sleep(0.05)
                else:
                    break
            self.saves += 1
            await asyncio.sleep(0.001)


class Writers:
    """All of them at work."""

    def __init__(self, store: RedisSessionStore) -> None:
        self._store = store
        self._all = [Writer(store) for _ in range(WRITERS)]
        self._ending = False
        self._working = asyncio.gather(*(writer.work(lambda: self._ending) for writer in self._all))

    async def saved(self, each: int) -> float:
        """Wait until every writer has saved so often once more; returns how long that took."""
        began = monotonic()
        before = [writer.saves for writer in self._all]
        async with asyncio.timeout(60):
            while any(writer.saves < saves + each for writer, saves in zip(self._all, before, strict=True)):
                assert not self._working.done(), self._working.exception()
                await asyncio.sleep(0.002)
        return monotonic() - began

    async def check(self) -> str:
        """End the work: each session is as its writer saved it last, and each save counts once."""
        self._ending = True
        await self._working
        for writer in self._all:
            stored = await self._store.get(writer.session.session_id)
            assert stored == writer.session
            assert writer.session.revision == writer.session.turn_count == writer.saves
            found = await self._store.get_by_channel(
                writer.session.tenant_id, writer.session.channel, writer.session.user_channel_id
            )
            assert found == writer.session
        saves, failures = (sum(getattr(one, name) for one in self._all) for name in ("saves", "failures"))
        return f"0 of {saves:,} saves lost, none counted twice, {failures} failed and were repeated"


@asynccontextmanager
async def writing(url: str, *, wait_replicas: int = 1) -> AsyncIterator[Writers]:
    settings = Settings(
        redis_url=url,
        redis_wait_replicas=wait_replicas,
        redis_wait_timeout=timedelta(seconds=1),
        retry_budget=timedelta(seconds=10),
    )
    store = open_redis_store(settings)
    writers = Writers(store)
    try:
        yield writers
    finally:
        writers._ending = True
        await asyncio.gather(writers._working, return_exceptions=True)
        await store.close()


def role(server: RedisServer) -> str:
    try:
        with server.client() as client:
            return str(client.info("replication")["role"])
    except RedisError:
        return "none"


async def until(is_so: Callable[[], bool]) -> float:
    """Wait for it; returns when it was."""
    async with asyncio.timeout(60):
        while not await asyncio.to_thread(is_so):  # noqa: ASYNC110 - a server tells nobody.
            await asyncio.sleep(0.01)
    return monotonic()


def new_primary(servers: list[RedisServer], old: RedisServer) -> RedisServer | None:
    return next((server for server in servers if server is not old and role(server) == "master"), None)


def sentinel_url(sentinels: list[RedisServer]) -> str:
    return f"redis+sentinel://{','.join(f'127.0.0.1:{one.port}' for one in sentinels)}/{SERVICE}"


def cluster_url(servers: list[RedisServer]) -> str:
    return f"redis+cluster://{','.join(f'127.0.0.1:{one.port}' for one in servers)}"


@pytest.mark.timeout(600)
async def test_sentinel_replaces_a_killed_primary(tmp_path: Path, count: Counts, report: Found) -> None:
    kills = count(1, 5)
    recoveries: list[float] = []
    with redis_sentinels(program(), tmp_path, replicas=2) as (servers, sentinels):
        async with writing(sentinel_url(sentinels)) as writers:
            primary = servers[0]
            for kill in range(kills):
                await writers.saved(20)
                primary.kill()
                await until(lambda old=primary: new_primary(servers, old) is not None)  # type: ignore[misc]
                recoveries.append(await writers.saved(1))
                if kill == kills - 1:
                    break
                killed, primary = primary, new_primary(servers, primary) or primary
                await asyncio.to_thread(killed.start)
                # It comes back as a primary without data, until the sentinels make it a replica.
                await until(killed.is_in_sync)
            found = await writers.check()
    assert not count.soak or max(recoveries) < 5
    report(
        f"{kills} kill -9 of the primary under Sentinel, {WRITERS} writers",
        bar=BAR,
        found=f"{found}; saved again within {max(recoveries):.2f} s",
    )


@pytest.mark.timeout(600)
async def test_sentinel_makes_another_server_the_primary_as_planned(
    tmp_path: Path, count: Counts, report: Found
) -> None:
    changes = count(1, 5)
    recoveries: list[float] = []
    with redis_sentinels(program(), tmp_path, replicas=2) as (servers, sentinels):
        # Both replicas: until the sentinels get to it, one that is not promoted goes on confirming saves for the
        # former primary, which is up.
        async with writing(sentinel_url(sentinels), wait_replicas=2) as writers:
            primary = servers[0]
            for change in range(changes):
                await writers.saved(20)
                with sentinels[0].client() as client:
                    client.execute_command("SENTINEL FAILOVER", SERVICE)
                await until(lambda old=primary: new_primary(servers, old) is not None)  # type: ignore[misc]
                # It has two replicas when the former primary is one: sentinels leave it alone for 8 s.
                await until(primary.is_in_sync)
                recoveries.append(await writers.saved(1))
                if change == changes - 1:
                    break
                primary = new_primary(servers, primary) or primary
                # The sentinels refuse the next one until this one is over for all of them.
                await asyncio.sleep(12)
            found = await writers.check()
    assert not count.soak or max(recoveries) < 5
    report(
        f"{changes} planned fail-overs by Sentinel, {WRITERS} writers, both replicas waited for",
        bar=BAR,
        found=f"{found}; saved again within {max(recoveries):.2f} s of the former primary's being a replica",
    )


@pytest.mark.timeout(600)
async def test_a_cluster_replaces_a_killed_primary(tmp_path: Path, count: Counts, report: Found) -> None:
    kills = count(1, 5)
    recoveries: list[float] = []
    with redis_cluster(program(), tmp_path, replicas=1, cluster_node_timeout="1000") as servers:
        async with writing(cluster_url(servers)) as writers:
            for kill in range(kills):
                await writers.saved(20)
                pair = [servers[kill % 3], servers[kill % 3 + 3]]
                primary = next(server for server in pair if role(server) == "master")
                primary.kill()
                promoted = await until(lambda p=pair, old=primary: new_primary(p, old) is not None)  # type: ignore[misc]
                # The only other server of these slots: without it no save can have its copy.
                await asyncio.to_thread(primary.start)
                await writers.saved(1)
                recoveries.append(monotonic() - promoted)
                await until(primary.is_in_sync)
            found = await writers.check()
    assert not count.soak or max(recoveries) < 5
    report(
        f"{kills} kill -9 of a primary of a six-node Cluster, {WRITERS} writers",
        bar=BAR,
        found=f"{found}; saved again within {max(recoveries):.2f} s, the killed node's return included",
    )


@pytest.mark.timeout(600)
async def test_slots_of_a_cluster_move_under_writers(tmp_path: Path, count: Counts, report: Found) -> None:
    rounds = count(1, 10)
    moved = 0
    with redis_cluster(program(), tmp_path, replicas=1) as servers:
        async with writing(cluster_url(servers)) as writers:
            for turn in range(rounds):
                await writers.saved(5)
                slots = {
                    key_slot(f"session:hot:{{{writer.session.session_id}}}".encode())
                    for writer in writers._all
                }
                for slot in sorted(slots):
                    moved += await asyncio.to_thread(move_slot, servers[:3], slot)
                    if turn == 0:
                        # Before all of them have moved, and not only afterwards.
                        await writers.saved(1)
            found = await writers.check()
    report(
        f"{moved} slots of a six-node Cluster moved, keys and all, {WRITERS} writers",
        bar="0 saves acknowledged with WAIT lost, every writer goes on",
        found=found,
    )


def move_slot(primaries: list[RedisServer], slot: int) -> int:
    """Move a slot to the next primary, key by key, as `redis-cli --cluster reshard` does."""
    clients = [server.client() for server in primaries]
    ids = [client.execute_command("CLUSTER MYID").decode() for client in clients]
    owner = next(
        place
        for place, client in enumerate(clients)
        if any(
            first <= slot <= last
            for first, last, (_, port, *_), *_ in client.execute_command("CLUSTER SLOTS")
            if port == primaries[place].port
        )
    )
    to = (owner + 1) % len(clients)
    clients[to].execute_command("CLUSTER SETSLOT", slot, "IMPORTING", ids[owner])
    clients[owner].execute_command("CLUSTER SETSLOT", slot, "MIGRATING", ids[to])
    # One at a time, so that a session stands in both nodes for a while.
    while keys := clients[owner].execute_command("CLUSTER GETKEYSINSLOT", slot, 1):
        clients[owner].execute_command("MIGRATE", "127.0.0.1", primaries[to].port, keys[0], 0, 5000)
    # The new owner first, or the slot has none for a moment.
    for client in (clients[to], clients[owner], *clients):
        client.execute_command("CLUSTER SETSLOT", slot, "NODE", ids[to])
    for client in clients:
        client.close()
    return 1
