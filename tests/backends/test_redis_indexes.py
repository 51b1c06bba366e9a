"""The indexes of the Redis session store: how long they live, what is left in them, how they are read and written."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from redis.asyncio import Redis, RedisCluster

from soldier_data.base.models import utcnow
from soldier_data.errors import StoreError
from soldier_data.sessions import (
    RedisSessionStore,
    Session,
    SessionStatus,
    SessionTierConfig,
    create_redis_client,
)
from soldier_data.sessions.connections import RedisClient
from soldier_data.settings import Settings
from tests.factories.sessions import SessionFactory

DAY = timedelta(days=1)


@pytest.fixture(params=["redis", "redis-on-path", "redis-cluster"])
def url(request: pytest.FixtureRequest) -> str:
    """Each server in turn."""
    fixtures = {
        "redis": "redis_url",
        "redis-on-path": "redis_on_path_url",
        "redis-cluster": "redis_cluster_url",
    }
    given: str = request.getfixturevalue(fixtures[request.param])
    return given


@pytest.fixture
async def any_client(url: str, request: pytest.FixtureRequest) -> AsyncIterator[Any]:
    """A client of each server in turn."""
    client: RedisClient
    if "redis-cluster" in request.node.callspec.id:
        client = RedisCluster.from_url(url)
    else:
        client = create_redis_client(Settings(redis_url=url))
    yield client
    await client.aclose()


@pytest.fixture
def any_store(any_client: Any, prefix: str) -> RedisSessionStore:
    """A session store on each server in turn."""
    return RedisSessionStore(any_client, SessionTierConfig(key_prefix=prefix))


def with_limits(store: RedisSessionStore, **limits: timedelta) -> RedisSessionStore:
    """A store of another process, with limits of its own."""
    return RedisSessionStore(store.client, store.config.model_copy(update=limits))


async def everything(client: Any, prefix: str) -> dict[bytes, bytes]:
    """What is stored under the prefix, lifetimes left aside."""
    options = {"target_nodes": RedisCluster.PRIMARIES} if isinstance(client, RedisCluster) else {}
    return {key: await client.dump(key) for key in await client.keys(f"{prefix}*", **options)}


async def check_found(store: RedisSessionStore, session: Session) -> None:
    """Every look-up finds the session."""
    tenant_id = session.tenant_id
    by_channel = (tenant_id, session.channel, session.user_channel_id)
    assert session.customer_profile_id is not None
    assert await store.get_by_channel(*by_channel) == session
    assert session in await store.list_by_channel(*by_channel)
    assert session in await store.list_by_agent(tenant_id, session.agent_id)
    assert session in await store.list_by_agent(tenant_id, session.agent_id, status=session.status)
    assert session in await store.list_by_customer(tenant_id, session.customer_profile_id)


class TestLifetimes:
    async def test_an_index_lives_as_long_as_its_sessions_whatever_limits_they_are_saved_with(
        self, any_store: RedisSessionStore, any_client: Any
    ) -> None:
        dice = random.Random(1)  # noqa: S311 - to be repeated, not to be safe.
        tenant_id, agent_id = uuid4(), uuid4()
        sessions: list[Session] = [
            SessionFactory(tenant_id=tenant_id, agent_id=agent_id, created_at=utcnow() - DAY / 2)
            for _ in range(5)
        ]
        keys = any_store._keys
        for _ in range(40):
            store = with_limits(
                any_store,
                max_session_age=DAY * dice.choice([1, 7, 30]),
                persist_ttl=DAY * dice.choice([0.1, 1, 7, 30]),
            )
            session = dice.choice(sessions)
            session.status = dice.choice(list(SessionStatus))
            await store.save(session)
            for other in sessions:
                left = await any_client.pttl(keys.session(other.session_id)[1])
                for index in keys.indexes(other) if other.revision else []:
                    assert await any_client.zscore(index, str(other.session_id)) is not None
                    # Asked for later.
                    assert await any_client.pttl(index) > left - 2_000

    async def test_sessions_are_found_after_max_session_age_was_raised(
        self, any_store: RedisSessionStore
    ) -> None:
        before = with_limits(any_store, max_session_age=timedelta(seconds=2))
        session = SessionFactory()
        await before.save(session)
        await any_store.save(session)
        await asyncio.sleep(2.1)
        await check_found(any_store, session)

    async def test_a_shorter_persist_ttl_trims_no_entry_of_a_living_session(
        self, any_store: RedisSessionStore, any_client: Any
    ) -> None:
        session = SessionFactory()
        await any_store.save(session)
        short = with_limits(
            any_store, hot_ttl=timedelta(milliseconds=1), persist_ttl=timedelta(milliseconds=1)
        )
        await asyncio.sleep(0.01)
        # More than are looked at together, of the same customer, and gone at once.
        others = session.model_dump(exclude={"session_id", "revision", "created_at", "last_activity_at"})
        for _ in range(120):
            await short.save(Session.model_validate(others))
        await asyncio.sleep(0.01)
        await check_found(any_store, session)
        await short.save(Session.model_validate(others))
        for index in any_store._keys.indexes(session):
            assert await any_client.zcard(index) <= 110

    async def test_a_reader_with_a_lower_age_leaves_the_entries_of_others(
        self, any_store: RedisSessionStore
    ) -> None:
        session = SessionFactory(created_at=utcnow() - 2 * DAY)
        await any_store.save(session)
        strict = with_limits(any_store, max_session_age=DAY)
        by_channel = (session.tenant_id, session.channel, session.user_channel_id)
        assert await strict.get_by_channel(*by_channel) is None
        assert await strict.list_by_channel(*by_channel) == []
        assert await strict.list_by_agent(session.tenant_id, session.agent_id) == []
        assert await strict.list_by_customer(session.tenant_id, session.customer_profile_id) == []
        await check_found(any_store, session)


class TestAllOrNothing:
    @pytest.mark.parametrize("place", range(5))
    async def test_a_save_refused_an_index_changes_nothing(
        self, any_store: RedisSessionStore, any_client: Any, place: int
    ) -> None:
        session = SessionFactory()
        index = any_store._keys.indexes(session)[place]
        await any_client.set(index, "of somebody else")
        with pytest.raises(StoreError):
            await any_store.save(session)
        assert session.revision == 0
        assert await any_store.get(session.session_id) is None
        assert await any_client.get(index) == b"of somebody else"

    @pytest.mark.parametrize(
        "command",
        ["getrange", "set", "setrange", "zadd", "zrem", "pttl", "pexpire", "exists", "zrangebyscore"],
    )
    @pytest.mark.parametrize("saved_before", [False, True])
    async def test_a_role_without_a_command_saves_all_or_nothing(
        self, any_store: RedisSessionStore, any_client: Any, prefix: str, command: str, saved_before: bool
    ) -> None:
        session = SessionFactory()
        if saved_before:
            session.status = SessionStatus.IDLE
            await any_store.save(session)
            session.status = SessionStatus.ACTIVE
        before = await everything(any_client, prefix)
        async with role(any_client, f"-{command}") as client:
            store = RedisSessionStore(client, any_store.config)
            try:
                await store.save(session)
            except StoreError:
                found = await any_store.get(session.session_id)
                assert session.revision == int(saved_before)
                assert found == (
                    session.model_copy(update={"status": SessionStatus.IDLE}) if saved_before else None
                )
                if not isinstance(any_client, RedisCluster):
                    assert await everything(any_client, prefix) == before
            else:
                assert command in ("zrem", "exists", "zrangebyscore")
                assert await any_store.get(session.session_id) == session
                await check_found(any_store, session)

    async def test_a_deletion_refused_an_index_removes_nothing(
        self, any_store: RedisSessionStore, any_client: Any
    ) -> None:
        session = SessionFactory()
        await any_store.save(session)
        async with role(any_client, "-zrem") as client:
            with pytest.raises(StoreError):
                await RedisSessionStore(client, any_store.config).delete_many(
                    session.tenant_id, [session.session_id]
                )
        await check_found(any_store, session)


@asynccontextmanager
async def role(client: Any, *rules: str) -> AsyncIterator[RedisClient]:
    """A client that logs in as a user of those rules, who may do all else."""
    name = f"user{uuid4().hex}"
    cluster = isinstance(client, RedisCluster)
    everywhere = {"target_nodes": RedisCluster.ALL_NODES} if cluster else {}
    await client.execute_command(
        "ACL SETUSER", name, "on", "nopass", "~*", "&*", "+@all", *rules, **everywhere
    )
    mine: RedisClient
    if isinstance(client, RedisCluster):
        [node, *_] = client.get_primaries()
        mine = RedisCluster(host=node.host, port=node.port, username=name, password=name)
    else:
        options = {**client.connection_pool.connection_kwargs, "username": name, "password": name}
        mine = Redis.from_pool(
            type(client.connection_pool)(client.connection_pool.connection_class, **options)
        )
    yield mine
    await mine.aclose()
    await client.execute_command("ACL DELUSER", name, **everywhere)


class TestStaleEntries:
    async def test_a_changed_status_leaves_no_entry_behind(
        self, any_store: RedisSessionStore, any_client: Any
    ) -> None:
        session = SessionFactory()
        for status in (*SessionStatus, *SessionStatus):
            session.status = status
            await any_store.save(session)
            for other in SessionStatus:
                index = any_store._keys.agent(session.tenant_id, session.agent_id, other)
                score = await any_client.zscore(index, str(session.session_id))
                assert (score is not None) == (other == status)

    async def test_the_right_entry_survives_two_writers_with_two_states(
        self, any_store: RedisSessionStore
    ) -> None:
        session: Session = SessionFactory()
        await any_store.save(session)
        for _ in range(30):
            copies = [session.model_copy(update={"status": status}) for status in SessionStatus]
            await asyncio.gather(*(any_store.save(copy) for copy in copies))
            found = await any_store.get(session.session_id)
            assert found is not None
            listed = await any_store.list_by_agent(found.tenant_id, found.agent_id, status=found.status)
            assert listed == [found]
            session = found

    @pytest.mark.parametrize("limit", [1, 3])
    async def test_a_list_behind_thousands_of_stale_entries_takes_few_round_trips(
        self, any_store: RedisSessionStore, any_client: Any, limit: int
    ) -> None:
        session = SessionFactory()
        keys = any_store._keys
        tenant_id, agent_id = session.tenant_id, session.agent_id
        customer, by_channel = session.customer_profile_id, (session.channel, session.user_channel_id)
        lists: dict[str, Callable[[], Awaitable[list[Session]]]] = {
            keys.agent(tenant_id, agent_id): lambda: any_store.list_by_agent(
                tenant_id, agent_id, limit=limit
            ),
            keys.agent(tenant_id, agent_id, session.status): lambda: any_store.list_by_agent(
                tenant_id, agent_id, status=session.status, limit=limit
            ),
            keys.customer(tenant_id, customer): lambda: any_store.list_by_customer(
                tenant_id, customer, limit=limit
            ),
            keys.channel(tenant_id, *by_channel): lambda: any_store.list_by_channel(
                tenant_id, *by_channel, limit=limit
            ),
        }
        trips = 0
        run = any_store._redis.run

        async def counted(*call: Any) -> Any:
            nonlocal trips
            trips += 1
            return await run(*call)

        any_store._redis.run = counted  # type: ignore[method-assign,assignment] # To count.
        for index, listed in lists.items():
            await any_store.save(session)
            await any_client.zadd(index, {str(uuid4()): 2**52 + number for number in range(5_000)})
            trips = 0
            assert await listed() == [session]
            assert trips <= 20
            assert await any_client.zcard(index) == 1
        await any_client.zadd(index, {str(uuid4()): 2**52 + number for number in range(5_000)})
        trips = 0
        assert await any_store.get_by_channel(tenant_id, *by_channel) == session
        assert trips <= 20

    async def test_many_entries_of_one_score_are_all_read(
        self, any_store: RedisSessionStore, any_client: Any
    ) -> None:
        tenant_id, agent_id = uuid4(), uuid4()
        sessions: list[Session] = [SessionFactory(tenant_id=tenant_id, agent_id=agent_id) for _ in range(40)]
        for session in sessions:
            await any_store.save(session)
        index = any_store._keys.agent(tenant_id, agent_id)
        await any_client.zadd(index, {str(session.session_id): 1 for session in sessions})
        await any_client.zadd(index, {str(uuid4()): 1 for _ in range(40)})
        found = await any_store.list_by_agent(tenant_id, agent_id, limit=40)
        expected = sorted(sessions, key=lambda session: str(session.session_id), reverse=True)
        assert [session.session_id for session in found] == [session.session_id for session in expected]

    async def test_two_clean_ups_at_once_leave_no_dead_entry_and_every_living_one(
        self, any_store: RedisSessionStore, any_client: Any
    ) -> None:
        tenant_id, agent_id = uuid4(), uuid4()
        index = any_store._keys.agent(tenant_id, agent_id)
        for _ in range(3):
            await any_store.save(SessionFactory(tenant_id=tenant_id, agent_id=agent_id))
        await any_client.zadd(index, {str(uuid4()): number for number in range(3_000)})
        removed = await asyncio.gather(*(any_store.cleanup_expired() for _ in range(3)))
        assert sum(removed) == 3_000
        assert await any_client.zcard(index) == 3

    async def test_a_session_saved_while_a_list_is_read_is_not_missed(
        self, any_store: RedisSessionStore, any_client: Any
    ) -> None:
        tenant_id, agent_id = uuid4(), uuid4()
        last, first = [SessionFactory(tenant_id=tenant_id, agent_id=agent_id) for _ in range(2)]
        await any_store.save(last)
        await any_store.save(first)
        index = any_store._keys.agent(tenant_id, agent_id)
        await any_client.zadd(index, {str(uuid4()): 2**52 + i for i in range(10)})
        values = any_store._lookup.values

        async def values_then_save(keys: Any) -> Any:
            found = await values(keys)
            if len(keys) == 2:
                await any_client.zrem(index, str(last.session_id))
                await any_client.zadd(index, {str(last.session_id): 2**53})
            return found

        any_store._lookup.values = values_then_save  # type: ignore[method-assign] # At the worst moment.
        found = await any_store.list_by_agent(tenant_id, agent_id, limit=2)
        assert {session.session_id for session in found} == {last.session_id, first.session_id}


class TestPrefixes:
    @pytest.mark.parametrize(
        "more", ["agent", "hot", "persist", "channel", "channel:hot", "customer", "step", "x:agent"]
    )
    async def test_a_prefix_that_begins_with_ours_is_another_deployment(
        self, any_client: Any, prefix: str, more: str
    ) -> None:
        ours = RedisSessionStore(
            any_client, SessionTierConfig(key_prefix=prefix, max_session_age=timedelta(hours=1))
        )
        theirs = RedisSessionStore(any_client, SessionTierConfig(key_prefix=f"{prefix}:{more}"))
        session = SessionFactory(created_at=utcnow() - timedelta(hours=2))
        await theirs.save(session)
        assert await ours.cleanup_expired() == 0
        assert await ours.stats() == {"hot": 0, "persistent": 0}
        assert await theirs.stats() == {"hot": 1, "persistent": 0}
        await check_found(theirs, session)
        mine = SessionFactory()
        await ours.save(mine)
        await any_client.delete(*ours._keys.session(mine.session_id))
        assert await ours.cleanup_expired() == 5
        await check_found(theirs, session)
