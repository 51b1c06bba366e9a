"""Tasks cancelled at random moments: nothing leaks, nothing is half written, nobody sees another's data."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from random import Random
from time import monotonic
from typing import Any
from uuid import uuid4

import pytest
from redis.asyncio import Redis

from soldier_data.config import Agent, Rule
from soldier_data.data_layer import DataLayer
from soldier_data.postgres.database import Database
from soldier_data.profiles import CustomerProfile
from soldier_data.sessions import RedisSessionStore, Session
from soldier_data.sessions.codec import decode
from tests.backends.connections import administrator, bound_role, pool_of
from tests.backends.redis_helpers import keys
from tests.conftest import settings_for
from tests.factories.config import AgentFactory, RuleFactory
from tests.factories.memory import EpisodeFactory
from tests.factories.profiles import CustomerProfileFactory, ProfileAssetFactory, ProfileFieldFactory
from tests.factories.sessions import SessionFactory
from tests.reliability.conftest import Counts, Found

AT_ONCE = 16


class Tenant:
    """What one tenant's callers write and read."""

    def __init__(self, data: DataLayer) -> None:
        self._data = data
        self._agent: Agent = AgentFactory()
        self._owner = {"tenant_id": self._agent.tenant_id, "agent_id": self._agent.id}
        self._rule: Rule = RuleFactory(**self._owner, description=None)
        self._profile: CustomerProfile = CustomerProfileFactory(tenant_id=self._agent.tenant_id)
        self.session: Session = SessionFactory(**self._owner, variables={"one": "", "two": ""})
        self._done: set[str] = set()

    async def begin(self) -> None:
        await self._data.config.save_many([self._agent, self._rule])
        await self._data.profiles.save(self._profile)
        await self._data.sessions.save(self.session)

    # Each of these is all or nothing.

    async def save_pair(self) -> None:
        one, two = self._pair()
        await self._data.config.save_many([one, two])
        self._acknowledge(one)

    async def save_pair_in_unit_of_work(self) -> None:
        one, two = self._pair()
        episode = EpisodeFactory(tenant_id=one.tenant_id, group_id="units", content=one.description)
        one.name = two.name = "unit"
        async with self._data.unit_of_work() as unit:
            await unit.config.save_rule(one)
            # A store in memory never waits, so this is where it can be cancelled.
            await asyncio.sleep(0)
            await unit.memory.add_episode(episode)
            await asyncio.sleep(0)
            await unit.config.save_rule(two)
        self._acknowledge(one)

    async def save_profile(self) -> None:
        token = uuid4().hex
        profile = self._profile.model_copy(deep=True)
        profile.fields = {"token": ProfileFieldFactory(name="token", value=token)}
        profile.assets = [ProfileAssetFactory(name=token)]
        await self._data.profiles.save(profile)

    async def save_session(self) -> None:
        token = uuid4().hex
        await self._data.sessions.save(
            self.session.model_copy(update={"variables": {"one": token, "two": token}})
        )

    # And each of these sees this tenant's data alone.

    async def read(self) -> None:
        tenant_id = self._agent.tenant_id
        assert await self._data.config.get_agent(tenant_id, self._agent.id) == self._agent
        assert await self._data.config.get_rule(tenant_id, self._rule.id) == self._rule

    async def read_profile(self) -> None:
        found = await self._data.profiles.get_by_id(self._agent.tenant_id, self._profile.id)
        assert found is not None
        assert found.customer_id == self._profile.customer_id
        assert [found.fields[name].value for name in found.fields if name == "token"] == [
            asset.name for asset in found.assets
        ]

    async def read_session(self) -> None:
        found = await self._data.sessions.get(self.session.session_id)
        assert found is not None
        assert found.user_channel_id == self.session.user_channel_id
        assert found.variables["one"] == found.variables["two"]

    async def list_sessions(self) -> None:
        found = await self._data.sessions.list_by_agent(self.session.tenant_id, self.session.agent_id)
        assert [each.session_id for each in found] == [self.session.session_id]

    async def assert_nothing_is_half_written(self) -> None:
        tenant_id = self._agent.tenant_id
        stored = await self._data.config.get_rules(tenant_id, self._agent.id)
        rules = [rule for rule in stored if rule.id != self._rule.id]
        pairs = Counter(rule.description for rule in rules)
        assert set(pairs.values()) <= {2}
        assert pairs.keys() >= self._done
        episodes = await self._data.memory.get_episodes(tenant_id, "units", limit=10_000)
        assert Counter(episode.content for episode in episodes) == Counter(
            {rule.description for rule in rules if rule.name == "unit"}
        )
        await self.read_profile()
        await self.read_session()

    def _pair(self) -> list[Rule]:
        description = uuid4().hex
        return [RuleFactory(**self._owner, description=description) for _ in range(2)]

    def _acknowledge(self, rule: Rule) -> None:
        assert rule.description is not None
        self._done.add(rule.description)


ON_POSTGRESQL = (
    Tenant.save_pair,
    Tenant.save_pair_in_unit_of_work,
    Tenant.save_profile,
    Tenant.read,
    Tenant.read_profile,
)
IN_REDIS = (Tenant.save_session, Tenant.read_session, Tenant.list_sessions)
# A call in memory is over before it can be cancelled, but for a unit of work that waits for something else.
IN_MEMORY = (Tenant.save_pair_in_unit_of_work, Tenant.read, Tenant.read_session)

Operation = Callable[[Tenant], Awaitable[None]]


async def cancel_many(
    tenants: list[Tenant], operations: tuple[Operation, ...], wanted: int
) -> tuple[int, int]:
    """Cancel `wanted` calls, each at some moment of its run; returns how many, and how many completed."""
    chance = Random()  # noqa: S311 - not for secrets.
    outcomes: Counter[type] = Counter()
    longest = 0.0
    for _ in range(2):
        # The first time, connections are made.
        started = monotonic()
        await asyncio.gather(*(operation(tenant) for operation in operations for tenant in tenants))
        longest = 2 * (monotonic() - started)

    async def with_time_out(call: Awaitable[None]) -> None:
        async with asyncio.timeout(chance.uniform(0, longest)):
            await call

    while outcomes[asyncio.CancelledError] + outcomes[TimeoutError] < wanted:
        calls = [chance.choice(operations)(chance.choice(tenants)) for _ in range(AT_ONCE)]
        timed = [asyncio.ensure_future(with_time_out(call)) for call in calls[: AT_ONCE // 2]]
        tasks = [asyncio.ensure_future(call) for call in calls[AT_ONCE // 2 :]]
        for task in tasks:
            asyncio.get_running_loop().call_later(chance.uniform(0, longest), task.cancel)
        outcomes.update(map(type, await asyncio.gather(*timed, *tasks, return_exceptions=True)))
        # Nothing but these: no error of a store, and no assertion about what was read.
        assert outcomes.keys() <= {asyncio.CancelledError, TimeoutError, type(None)}, outcomes
    return outcomes[asyncio.CancelledError] + outcomes[TimeoutError], outcomes[type(None)]


async def begun(data: DataLayer) -> list[Tenant]:
    tenants = [Tenant(data) for _ in range(4)]
    for tenant in tenants:
        await tenant.begin()
    return tenants


OTHERS = (
    "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() AND pid <> ALL($1)"
)


async def assert_no_connection_is_leaked(database: Database, connection: Any, known: list[int]) -> None:
    """All are free, none is in a transaction, and when the database is closed none is left."""
    pool = pool_of(database)
    # Those that are being closed, or asked whether they are still there, are in nobody's hands.
    while pending := {*pool._closing_tasks, *pool._opening_tasks}:
        await asyncio.gather(*pending)
    assert pool._in_use == set()
    free = {(lease.driver.get_server_pid(), "idle") for lease in pool._free}
    async with asyncio.timeout(10):
        # The server hears of the end of a statement or a connection a moment later.
        while free != set(await connection.fetch(f"SELECT pid, state {OTHERS}", known)):  # noqa: ASYNC110 - no event tells.
            await asyncio.sleep(0.02)
    await database.close()
    async with asyncio.timeout(10):
        # Each ends a moment after its connection.
        while await connection.fetchval(f"SELECT count(*) {OTHERS}", known):  # noqa: ASYNC110 - no event tells.
            await asyncio.sleep(0.02)


@asynccontextmanager
async def by_way_of(url: str, mode: str) -> AsyncIterator[tuple[str, dict[str, bool]]]:
    """The URL and the settings of a mode."""
    if mode == "row_level_security":
        async with bound_role(url) as bound:
            yield bound, {mode: True}
    else:
        yield url, {mode: True} if mode else {}


@pytest.mark.parametrize("mode", ["", "row_level_security", "pgbouncer"], ids=lambda mode: mode or "plain")
async def test_cancellations_on_postgresql(
    database_url: str, redis_url: str, count: Counts, report: Found, mode: str
) -> None:
    async with by_way_of(database_url, mode) as (url, values), administrator(database_url) as connection:
        known = [row["pid"] for row in await connection.fetch(f"SELECT pid {OTHERS}", [])]
        settings = settings_for(url, redis_url=redis_url, session_key_prefix=f"t{uuid4().hex}", **values)
        async with DataLayer.open(settings) as data:
            tenants = await begun(data)
            cancelled, completed = await cancel_many(tenants, ON_POSTGRESQL, count(150, 2_000))
            for tenant in tenants:
                await tenant.assert_nothing_is_half_written()
            assert data._database is not None
            await assert_no_connection_is_leaked(data._database, connection, known)
    report(
        f"cancellations at random moments, PostgreSQL{mode and f' with {mode}'}",
        bar="no cross-talk, no half-written entity, no connection leaked",
        found=f"none of {cancelled:,} cancelled calls beside {completed:,} completed ones",
    )


async def test_cancellations_in_redis(data: DataLayer, count: Counts, report: Found) -> None:
    tenants = await begun(data)
    store = data.sessions
    assert isinstance(store, RedisSessionStore)
    cancelled, completed = await cancel_many(tenants, IN_REDIS, count(150, 2_000))
    for tenant in tenants:
        hot, persistent = await store.client.mget(*keys(store, tenant.session))
        assert isinstance(hot, bytes)
        assert isinstance(persistent, bytes)
        assert decode(hot, "hot") == decode(persistent, "persistent")
        await tenant.assert_nothing_is_half_written()
        assert await store.delete(tenant.session.session_id) is True
    assert isinstance(store.client, Redis)
    assert not store.client.connection_pool._in_use_connections
    report(
        "cancellations at random moments, Redis",
        bar="no cross-talk, no half-written entity, no connection leaked",
        found=f"none of {cancelled:,} cancelled calls beside {completed:,} completed ones",
    )


async def test_cancellations_in_memory(count: Counts, report: Found) -> None:
    async with DataLayer.in_memory(settings_for("postgresql://")) as data:
        tenants = await begun(data)
        cancelled, completed = await cancel_many(tenants, IN_MEMORY, count(150, 2_000))
        for tenant in tenants:
            await tenant.assert_nothing_is_half_written()
    report(
        "cancellations at random moments, in memory",
        bar="no cross-talk, no half-written entity",
        found=f"none of {cancelled:,} cancelled calls beside {completed:,} completed ones",
    )
