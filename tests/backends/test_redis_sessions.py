"""What the Redis session store alone does: tiers, lifetimes, keys, faults."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from datetime import timedelta
from time import monotonic
from typing import Any
from uuid import uuid4

import pytest
from redis.asyncio import Redis

from soldier_data.base.models import utcnow
from soldier_data.errors import StoreError
from soldier_data.sessions import (
    RedisSessionStore,
    SessionTierConfig,
)
from soldier_data.sessions.entries import IndexReader
from tests.backends.redis_helpers import keys
from tests.factories.sessions import SessionFactory, StepVisitFactory


async def commands(store: RedisSessionStore, operation: Awaitable[Any]) -> list[str]:
    """The names of the commands that the operation sends about keys of the store."""
    client, prefix = store.client, store.config.key_prefix
    assert isinstance(client, Redis)
    names: list[str] = []
    async with client.monitor() as monitor:
        await operation
        await client.get(f"{prefix}:end")
        while True:
            seen = await monitor.next_command()
            if f"{prefix}:end" in seen["command"]:
                return names
            if prefix in seen["command"] and seen["client_type"] != "lua":
                names.append(seen["command"].split(" ", 1)[0].upper())


class TestTiers:
    async def test_a_save_writes_both_tiers_with_lifetimes_exact_to_the_millisecond(
        self, client: Redis, prefix: str
    ) -> None:
        store = RedisSessionStore(
            client,
            SessionTierConfig(
                key_prefix=prefix,
                hot_ttl=timedelta(milliseconds=400),
                persist_ttl=timedelta(milliseconds=90_001),
            ),
        )
        session = SessionFactory()
        started = monotonic()
        await store.save(session)
        hot, persistent = keys(store, session)
        left = [await client.pttl(hot), await client.pttl(persistent)]
        elapsed = (monotonic() - started) * 1000 + 1
        assert 400 - elapsed <= left[0] <= 400
        assert 90_001 - elapsed <= left[1] <= 90_001

    async def test_a_session_is_demoted_by_expiry_alone_and_promoted_by_reading(
        self, client: Redis, prefix: str
    ) -> None:
        store = RedisSessionStore(
            client, SessionTierConfig(key_prefix=prefix, hot_ttl=timedelta(milliseconds=50))
        )
        sessions = [SessionFactory() for _ in range(100)]
        await asyncio.gather(*(store.save(session) for session in sessions))
        await asyncio.sleep(0.08)
        assert await store.stats() == {"hot": 0, "persistent": 100}
        assert await store.tier(sessions[0].session_id) == "persistent"
        assert await store.get(sessions[0].session_id) == sessions[0]
        assert await store.tier(sessions[0].session_id) == "hot"
        assert await store.get(sessions[0].session_id) == sessions[0]
        assert await asyncio.gather(*(store.get(session.session_id) for session in sessions)) == sessions

    async def test_a_promoted_session_is_hot_for_hot_ttl_but_never_longer_than_persistent(
        self, client: Redis, prefix: str
    ) -> None:
        config = SessionTierConfig(
            key_prefix=prefix, hot_ttl=timedelta(seconds=20), persist_ttl=timedelta(seconds=100)
        )
        store = RedisSessionStore(client, config)
        session = SessionFactory()
        await store.save(session)
        hot, persistent = keys(store, session)
        await store.demote_to_persistent(session.session_id)
        await store.get(session.session_id)
        assert 19_000 < await client.pttl(hot) <= 20_000
        await store.demote_to_persistent(session.session_id)
        await client.pexpire(persistent, 5_000)
        await store.get(session.session_id)
        assert 4_000 < await client.pttl(hot) <= 5_000

    async def test_a_session_is_gone_after_persist_ttl(self, client: Redis, prefix: str) -> None:
        ttl = timedelta(milliseconds=40)
        store = RedisSessionStore(client, SessionTierConfig(key_prefix=prefix, hot_ttl=ttl, persist_ttl=ttl))
        session = SessionFactory()
        await store.save(session)
        await asyncio.sleep(0.06)
        assert await store.get(session.session_id) is None
        assert await store.tier(session.session_id) is None
        assert await store.list_by_agent(session.tenant_id, session.agent_id) == []

    async def test_moving_by_hand_says_whether_something_moved(self, store: RedisSessionStore) -> None:
        session = SessionFactory()
        assert await store.promote_to_hot(session.session_id) is False
        assert await store.demote_to_persistent(session.session_id) is False
        await store.save(session)
        assert await store.promote_to_hot(session.session_id) is False
        assert await store.demote_to_persistent(session.session_id) is True
        assert await store.demote_to_persistent(session.session_id) is False
        assert await store.tier(session.session_id) == "persistent"
        assert await store.promote_to_hot(session.session_id) is True
        assert await store.tier(session.session_id) == "hot"
        assert await store.get(session.session_id) == session

    async def test_peeking_does_not_promote(self, store: RedisSessionStore) -> None:
        session = SessionFactory()
        assert await store.peek(session.session_id) is None
        await store.save(session)
        assert await store.peek(session.session_id) == session
        await store.demote_to_persistent(session.session_id)
        assert await store.peek(session.session_id) == session
        assert await store.tier(session.session_id) == "persistent"

    async def test_a_promoted_session_can_be_saved_conditionally(self, store: RedisSessionStore) -> None:
        session = SessionFactory()
        await store.save(session)
        await store.demote_to_persistent(session.session_id)
        found = await store.get(session.session_id)
        assert found is not None
        await store.save(found, if_revision=1)
        assert found.revision == 2
        assert await store.get(session.session_id) == found

    async def test_a_demotion_never_loses_a_session_that_has_no_persistent_copy(
        self, store: RedisSessionStore, client: Redis
    ) -> None:
        session = SessionFactory()
        await store.save(session)
        await client.delete(keys(store, session)[1])
        assert await store.demote_to_persistent(session.session_id) is False
        assert await store.get(session.session_id) == session
        await store.save(session, if_revision=1)

    async def test_an_idle_session_takes_half_the_memory_of_a_hot_one(
        self, store: RedisSessionStore, client: Redis
    ) -> None:
        visits = StepVisitFactory.build_batch(8, transition_reason="the customer gave the order number")
        session = SessionFactory(step_history=visits)
        await store.save(session)
        hot, persistent = [await client.memory_usage(key) or 0 for key in keys(store, session)]
        assert 0 < persistent <= 0.5 * hot


class TestAge:
    async def test_no_key_outlives_max_session_age(self, client: Redis, prefix: str) -> None:
        store = RedisSessionStore(
            client, SessionTierConfig(key_prefix=prefix, max_session_age=timedelta(hours=1))
        )
        session = SessionFactory(created_at=utcnow() - timedelta(minutes=59))
        await store.save(session)
        for key in keys(store, session):
            assert 55_000 < await client.pttl(key) <= 60_000

    async def test_a_session_past_a_lowered_age_is_not_returned(
        self, store: RedisSessionStore, client: Redis
    ) -> None:
        session = SessionFactory(created_at=utcnow() - timedelta(hours=2))
        await store.save(session)
        stricter = RedisSessionStore(
            client, store.config.model_copy(update={"max_session_age": timedelta(hours=1)})
        )
        assert await stricter.get(session.session_id) is None
        assert await stricter.list_by_agent(session.tenant_id, session.agent_id) == []
        assert (
            await stricter.get_by_channel(session.tenant_id, session.channel, session.user_channel_id) is None
        )


class TestRoundTrips:
    async def test_each_operation_takes_as_many_as_promised(self, store: RedisSessionStore) -> None:
        session = SessionFactory()
        assert await commands(store, store.save(session)) == ["EVALSHA"]
        assert await commands(store, store.save(session, if_revision=1)) == ["EVALSHA"]
        assert await commands(store, store.get(session.session_id)) == ["EVALSHA"]
        await store.demote_to_persistent(session.session_id)
        assert await commands(store, store.get(session.session_id)) == ["EVALSHA"]
        for _ in range(20):
            await store.save(SessionFactory(tenant_id=session.tenant_id, agent_id=session.agent_id))
        by_channel = store.get_by_channel(session.tenant_id, session.channel, session.user_channel_id)
        assert await commands(store, by_channel) == ["ZREVRANGEBYSCORE", "EVALSHA"]
        by_agent = store.list_by_agent(session.tenant_id, session.agent_id)
        assert await commands(store, by_agent) == ["ZREVRANGEBYSCORE", "MGET"]
        by_step = store.find_sessions_by_step_hash(
            session.tenant_id, session.active_scenario_id, 1, session.step_history[-1].step_content_hash
        )
        assert await commands(store, by_step) == ["ZREVRANGEBYSCORE", "MGET"]
        assert await commands(store, store.delete(session.session_id)) == ["EVALSHA"]

    @pytest.fixture(autouse=True)
    async def scripts_known(self, store: RedisSessionStore) -> None:
        """A server that meets a script for the first time takes one more."""
        session = SessionFactory()
        await store.save(session)
        await store.get(session.session_id)
        await store.delete(session.session_id)


class TestIndexes:
    async def test_entries_that_lead_nowhere_are_removed_on_sight(
        self, store: RedisSessionStore, client: Redis, prefix: str
    ) -> None:
        tenant_id, agent_id = uuid4(), uuid4()
        sessions = [SessionFactory(tenant_id=tenant_id, agent_id=agent_id) for _ in range(10)]
        for session in sessions:
            await store.save(session)
        for session in sessions[5:]:
            await client.delete(*keys(store, session))
        assert await store.list_by_agent(tenant_id, agent_id, limit=3) == sessions[4:1:-1]
        # Reading for a list does not promote.
        assert await store.tier(sessions[9].session_id) is None
        assert await client.zcard(f"{prefix}:agent:{tenant_id.hex}:{agent_id.hex}") == 5
        by_channel = (tenant_id, sessions[9].channel, sessions[9].user_channel_id)
        assert await store.get_by_channel(*by_channel) is None
        assert await client.keys(f"{prefix}:channel:*{sessions[9].user_channel_id}") == []

    async def test_an_entry_renewed_meanwhile_is_not_removed(
        self, store: RedisSessionStore, client: Redis, prefix: str
    ) -> None:
        session = SessionFactory()
        await store.save(session)
        index = f"{prefix}:agent:{session.tenant_id.hex}:{session.agent_id.hex}"
        seen = await IndexReader(store._redis, "looking", index).page(1)
        await store.save(session)
        assert await store._lookup.repair(index, seen) == 0
        assert await client.zcard(index) == 1

    async def test_dead_entries_are_trimmed_and_dead_indexes_expire(self, client: Redis, prefix: str) -> None:
        ttl, age = timedelta(milliseconds=80), timedelta(milliseconds=300)
        store = RedisSessionStore(
            client, SessionTierConfig(key_prefix=prefix, hot_ttl=ttl, persist_ttl=ttl, max_session_age=age)
        )
        tenant_id, agent_id = uuid4(), uuid4()
        index = f"{prefix}:agent:{tenant_id.hex}:{agent_id.hex}"
        busy = SessionFactory(tenant_id=tenant_id, agent_id=agent_id)
        await store.save(SessionFactory(tenant_id=tenant_id, agent_id=agent_id))
        for _ in range(4):
            await asyncio.sleep(0.03)
            await store.save(busy)
        await store.save(SessionFactory(tenant_id=tenant_id, agent_id=agent_id))
        assert await client.zcard(index) == 2
        await asyncio.sleep(0.32)
        assert await client.keys(f"{prefix}*") == []

    async def test_a_refused_save_leaves_no_trace(
        self, store: RedisSessionStore, client: Redis, prefix: str
    ) -> None:
        with pytest.raises(StoreError):
            await store.save(SessionFactory(), if_revision=1)
        assert await client.keys(f"{prefix}*") == []

    async def test_characters_with_a_meaning_are_plain_in_ids_and_prefixes(self, client: Redis) -> None:
        store = RedisSessionStore(client, SessionTierConfig(key_prefix=f"*?[a-z]\\{uuid4().hex}"))
        session = SessionFactory(user_channel_id="*:{x}\n 'ü")
        await store.save(session)
        assert await store.get_by_channel(session.tenant_id, session.channel, "*:{x}\n 'ü") == session
        assert await store.get_by_channel(session.tenant_id, session.channel, "*:{x}") is None
        assert await store.stats() == {"hot": 1, "persistent": 0}


class TestWhatIsNotASession:
    @pytest.mark.parametrize(
        "value",
        [
            b"garbage",
            b"{}",
            b'{"v":2,"revision":1}',
            b"2 1 a b 0\n",
            b'{"v":1,"revision":1,"writes":"","tenant_id":"5d1b6f4a-0000-4000-8000-000000000000","x":1}',
            b"1 1 aa 5d1b6f4a-0000-4000-8000-000000000000 0\nnot zlib",
        ],
    )
    async def test_it_is_reported_with_its_key_and_left_alone(
        self, store: RedisSessionStore, client: Redis, value: bytes
    ) -> None:
        session = SessionFactory()
        for key in keys(store, session):
            await client.set(key, value)
        with pytest.raises(StoreError, match=f"{store.config.key_prefix}:hot:.*{session.session_id}"):
            await store.get(session.session_id)
        with pytest.raises(StoreError):
            await store.save(session)
        assert [await client.get(key) for key in keys(store, session)] == [value, value]

    async def test_a_key_of_another_type_is_reported_and_left_alone(
        self, store: RedisSessionStore, client: Redis
    ) -> None:
        session = SessionFactory()
        persistent = keys(store, session)[1]
        await client.rpush(persistent, "x")
        for operation in (
            store.get(session.session_id),
            store.save(session),
            store.delete(session.session_id, tenant_id=session.tenant_id),
        ):
            with pytest.raises(StoreError, match=f"WRONGTYPE.*{session.session_id}"):
                await operation
        assert await client.lrange(persistent, 0, -1) == [b"x"]

    async def test_it_does_not_hide_the_rest_of_a_list(self, store: RedisSessionStore, client: Redis) -> None:
        good = SessionFactory()
        bad = SessionFactory(tenant_id=good.tenant_id, agent_id=good.agent_id)
        await store.save(good)
        await store.save(bad)
        await client.set(keys(store, bad)[1], b"garbage")
        assert await store.list_by_agent(good.tenant_id, good.agent_id, limit=1) == [good]
        with pytest.raises(StoreError):
            await store.delete(bad.session_id, tenant_id=bad.tenant_id)
        assert await store.delete(bad.session_id) is True

    async def test_another_tenant_does_not_promote(self, store: RedisSessionStore) -> None:
        session = SessionFactory()
        await store.save(session)
        await store.demote_to_persistent(session.session_id)
        assert await store.get(session.session_id, tenant_id=uuid4()) is None
        assert await store.tier(session.session_id) == "persistent"
