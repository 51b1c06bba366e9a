"""What the Redis session store does about many sessions at once: clean up, mark, watch."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

from redis.asyncio import Redis

from soldier_data.base.models import utcnow
from soldier_data.sessions import (
    PendingMigration,
    RedisSessionStore,
    SessionTierConfig,
    create_redis_client,
)
from soldier_data.settings import Settings
from tests.backends.redis_helpers import keys, wait_until
from tests.factories.sessions import SessionFactory
from tests.redis_servers import program, redis_server


class TestCleanup:
    async def test_sessions_past_a_lowered_age_are_removed_with_their_entries(
        self, store: RedisSessionStore, client: Redis, prefix: str
    ) -> None:
        old = [SessionFactory(created_at=utcnow() - timedelta(hours=2)) for _ in range(3)]
        young = SessionFactory()
        for session in [*old, young]:
            await store.save(session)
        assert await store.cleanup_expired() == 0
        stricter = RedisSessionStore(
            client, store.config.model_copy(update={"max_session_age": timedelta(hours=1)})
        )
        # Each has five index entries.
        assert await stricter.cleanup_expired() == 3 * (1 + 5)
        assert await stricter.cleanup_expired() == 0
        assert len(await client.keys(f"{prefix}*")) == 2 + 5
        assert await store.get(young.session_id) == young

    async def test_entries_that_lead_nowhere_are_removed_in_batches(
        self, store: RedisSessionStore, client: Redis, prefix: str
    ) -> None:
        alive = SessionFactory()
        await store.save(alive)
        index = f"{prefix}:agent:{alive.tenant_id.hex}:{alive.agent_id.hex}"
        await client.zadd(index, {str(uuid4()): number for number in range(1200)})
        assert await store.cleanup_expired() == 1200
        assert await store.list_by_agent(alive.tenant_id, alive.agent_id) == [alive]

    async def test_what_is_not_ours_stays(self, store: RedisSessionStore, client: Redis, prefix: str) -> None:
        await client.set(f"{prefix}:persist:{{x}}", "1")
        await client.rpush(f"{prefix}:persist:{{{uuid4()}}}", "1")
        await client.set(f"{prefix}:persist:{{{uuid4()}}}", "garbage")
        await client.zadd(f"{prefix}:leaders", {"somebody": 1})
        assert await store.cleanup_expired() == 0
        assert len(await client.keys(f"{prefix}*")) == 4


class TestMarking:
    async def test_a_mark_is_no_activity(self, client: Redis, prefix: str) -> None:
        store = RedisSessionStore(
            client, SessionTierConfig(key_prefix=prefix, persist_ttl=timedelta(hours=1))
        )
        session = SessionFactory()
        await store.save(session)
        mark = PendingMigration(target_version=2, anchor_content_hash="x", migration_plan_id=uuid4())
        hot, persistent = keys(store, session)
        await client.pexpire(persistent, 50_000)
        await client.pexpire(hot, 40_000)
        for tier in ("hot", "persistent"):
            await store.mark_pending_migration(session.tenant_id, [session.session_id], mark)
            assert await store.tier(session.session_id) == tier
            assert 45_000 < await client.pttl(persistent) <= 50_000
            assert await client.pttl(hot) <= 40_000
            await store.demote_to_persistent(session.session_id)
        found = await store.get(session.session_id)
        session.pending_migration, session.revision = mark, 3
        assert found == session

    async def test_a_thousand_sessions_take_two_round_trips(self, store: RedisSessionStore) -> None:
        tenant_id = uuid4()
        sessions = [SessionFactory(tenant_id=tenant_id) for _ in range(1000)]
        await asyncio.gather(*(store.save(session) for session in sessions))
        run = store._redis.run
        actions = []

        async def counted(action: str, *call: Any) -> Any:
            actions.append(action)
            return await run(action, *call)

        store._redis.run = counted  # type: ignore[method-assign,assignment] # To count.
        mark = PendingMigration(target_version=2, anchor_content_hash="x", migration_plan_id=uuid4())
        ids = [session.session_id for session in sessions]
        assert await store.mark_pending_migration(tenant_id, ids, mark) == 1000
        assert actions == ["reading sessions", "marking sessions"]

    async def test_a_mark_whose_reply_is_lost_counts_once(self, store: RedisSessionStore) -> None:
        session = SessionFactory()
        await store.save(session)
        scripts = store._redis.scripts

        async def twice(*call: Any) -> Any:
            assert await scripts(*call) == [1]
            return await scripts(*call)

        store._redis.scripts = twice  # type: ignore[method-assign,assignment] # As a retry would.
        mark = PendingMigration(target_version=2, anchor_content_hash="x", migration_plan_id=uuid4())
        assert await store.mark_pending_migration(session.tenant_id, [session.session_id], mark) == 1
        found = await store.get(session.session_id)
        assert found is not None
        assert found.revision == 2


class TestWatching:
    async def test_sessions_that_leave_the_hot_tier_are_seen(self, tmp_path: Path, prefix: str) -> None:
        ttl = timedelta(milliseconds=50)
        with redis_server(program(), tmp_path, notify_keyspace_events="Egx") as server:
            client = create_redis_client(Settings(redis_url=server.url))
            store = RedisSessionStore(client, SessionTierConfig(key_prefix=prefix, hot_ttl=ttl))
            watched = store.watch_demotions()
            expired, moved, gone = [SessionFactory() for _ in range(3)]
            first = asyncio.ensure_future(anext(watched))
            channel = b"__keyevent@0__:del"

            async def is_subscribed() -> bool:
                return bool(await client.pubsub_numsub(channel) == [(channel, 1)])

            await wait_until(is_subscribed)
            await client.set(f"{prefix}:hot:{{{uuid4()}}}", "of nobody", px=1)
            await store.save(gone)
            await store.delete(gone.session_id)
            await store.save(moved)
            await store.demote_to_persistent(moved.session_id)
            assert await first == moved.session_id
            await store.save(expired)
            assert await anext(watched) == expired.session_id
            await watched.aclose()
            await client.aclose()
