"""Sessions in PostgreSQL with copies in Redis: what the copies may lose, and what it costs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from redis.asyncio import Redis, RedisCluster
from sqlalchemy.ext.asyncio import create_async_engine

from soldier_data import prepare_engine
from soldier_data.base.subjects import DataSubject
from soldier_data.data_layer import DataLayer
from soldier_data.errors import (
    ConfigurationError,
    ConflictError,
    StoreConnectionError,
    StoreError,
    ValidationError,
)
from soldier_data.postgres.database import Database
from soldier_data.sessions import PendingMigration, RedisSessionStore, Session, SessionTierConfig
from soldier_data.sessions.durable import DurableSessionStore
from soldier_data.settings import Settings
from tests.backends.connections import administrator, bound_role
from tests.backends.redis_helpers import keys
from tests.backends.round_trips import Proxy, transaction_pooler
from tests.conftest import DIMENSIONS, service_url, settings_for
from tests.factories.audit import TurnRecordFactory
from tests.factories.sessions import SessionFactory


@pytest.fixture
def durable(client: Redis, database: Database, prefix: str) -> DurableSessionStore:
    return DurableSessionStore(client, database, SessionTierConfig(key_prefix=prefix))


@pytest.fixture
async def layer(shared_database_url: str, redis_url: str, prefix: str) -> AsyncIterator[DataLayer]:
    async with opened(shared_database_url, redis_url, prefix) as data:
        yield data


@asynccontextmanager
async def opened(url: str, redis_url: str, prefix: str, **values: Any) -> AsyncIterator[DataLayer]:
    """A data layer whose sessions are durable in PostgreSQL."""
    settings = settings_for(
        url, redis_url=redis_url, session_key_prefix=prefix, session_durability="postgres", **values
    )
    async with DataLayer.open(settings) as data:
        yield data


async def empty(client: Redis, prefix: str) -> None:
    """Remove all that Redis has of one test."""
    async for key in client.scan_iter(match=f"{prefix}:*"):
        await client.delete(key)


async def saved(store: Any, **values: Any) -> Session:
    session: Session = SessionFactory(**values)
    await store.save(session)
    return session


async def everything(store: DurableSessionStore, session: Session) -> list[object]:
    """What each way of finding the session returns."""
    tenant_id, last = session.tenant_id, session.step_history[-1]
    assert session.customer_profile_id is not None
    assert session.active_scenario_id is not None
    assert last.step_content_hash is not None
    identity = (session.channel, session.user_channel_id)
    return [
        await store.get_by_channel(tenant_id, *identity),
        await store.list_by_channel(tenant_id, *identity),
        await store.list_by_agent(tenant_id, session.agent_id),
        await store.list_by_agent(tenant_id, session.agent_id, status=session.status),
        await store.list_by_customer(tenant_id, session.customer_profile_id),
        await store.find_sessions_by_step_hash(
            tenant_id, session.active_scenario_id, 1, last.step_content_hash
        ),
        (await store.list_by_subject(DataSubject(tenant_id, frozenset(), identities=frozenset([identity]))))[
            -1:
        ],
        await store.get(session.session_id),
    ]


class TestAnEmptiedRedis:
    async def test_everything_is_found_as_before(
        self, durable: DurableSessionStore, client: Redis, prefix: str
    ) -> None:
        first = await saved(durable)
        second: Session = first.model_copy(update={"session_id": uuid4(), "revision": 0})
        await durable.save(second)
        before = await everything(durable, second)
        assert before[:3] == [second, [second, first], [second, first]]
        await empty(client, prefix)
        assert await everything(durable, second) == before

    async def test_a_read_copies_the_session_to_redis(
        self, durable: DurableSessionStore, client: Redis, prefix: str
    ) -> None:
        session = await saved(durable)
        await durable.save(session)
        await empty(client, prefix)
        assert await durable.tier(session.session_id) is None
        assert await durable.get(session.session_id, tenant_id=uuid4()) is None
        assert await durable.tier(session.session_id) is None
        assert await durable.get(session.session_id) == session
        assert await durable.tier(session.session_id) == "hot"
        assert await durable.peek(session.session_id) == session
        ttl = timedelta(milliseconds=await client.pttl(keys(durable, session)[1]))
        assert timedelta(days=6.9) < ttl <= timedelta(days=7)
        await durable.save(session, if_revision=2)
        assert session.revision == 3

    async def test_a_redis_that_accepts_no_writes_does_not_prevent_reads(
        self, durable: DurableSessionStore, client: Redis, prefix: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def fail(*_: object) -> int:
            raise StoreConnectionError("no writes")

        session = await saved(durable)
        await empty(client, prefix)
        monkeypatch.setattr(durable, "_store", fail)
        assert await durable.get(session.session_id) == session
        with pytest.raises(StoreConnectionError):
            await durable.get(session.session_id, fresh=True)

    async def test_a_mark_reaches_sessions_that_redis_lacks(
        self, durable: DurableSessionStore, client: Redis, prefix: str
    ) -> None:
        session = await saved(durable)
        await empty(client, prefix)
        pending = PendingMigration(target_version=2, anchor_content_hash="abc", migration_plan_id=uuid4())
        assert await durable.mark_pending_migration(session.tenant_id, [session.session_id], pending) == 1
        for fresh in (False, True):
            found = await durable.get(session.session_id, fresh=fresh)
            assert found is not None
            assert (found.pending_migration, found.revision) == (pending, 2)
            assert found.last_activity_at == session.last_activity_at

    async def test_a_deleted_session_does_not_come_back(
        self, durable: DurableSessionStore, client: Redis, prefix: str
    ) -> None:
        session = await saved(durable)
        await empty(client, prefix)
        read = await durable._rows.get(session.session_id, None)
        assert read is not None
        assert await durable.delete(session.session_id) is True
        # Another caller has read the row before it was deleted, and copies it now.
        await durable._write_copy(read)
        assert await durable.get(session.session_id) is None
        assert await durable.tier(session.session_id) is None
        await durable.save(session, if_revision=0)
        assert await durable.get(session.session_id) == session
        assert await durable.delete_many(session.tenant_id, [session.session_id]) == 1


class TestACopyThatIsBehind:
    async def behind(self, durable: DurableSessionStore, client: Redis) -> Session:
        """Save a session twice, the second time only in PostgreSQL."""
        session = await saved(durable)
        copies = [(key, await client.dump(key) or b"") for key in keys(durable, session)]
        session.turn_count = 1
        await durable.save(session)
        for key, value in copies:
            await client.restore(key, 60_000, value, replace=True)
        return session

    async def test_a_conditional_save_refuses_it_and_a_fresh_read_replaces_it(
        self, durable: DurableSessionStore, client: Redis
    ) -> None:
        session = await self.behind(durable, client)
        stale = await durable.get(session.session_id)
        assert stale is not None
        assert (stale.revision, stale.turn_count) == (1, 0)
        with pytest.raises(ConflictError, match=r"revision 2, not 1: .* get\(\.\.\., fresh=True\)"):
            await durable.save(stale, if_revision=stale.revision)
        assert await durable.get(session.session_id, fresh=True) == session
        assert await durable.get(session.session_id) == session

    async def test_a_repair_replaces_it(self, durable: DurableSessionStore, client: Redis) -> None:
        session = await self.behind(durable, client)
        lost = await saved(durable)
        await client.delete(*keys(durable, lost))
        done = await durable.repair()
        assert done.copied >= 2
        for one in (session, lost):
            assert await RedisSessionStore.get(durable, one.session_id) == one
        assert (await durable.repair()).only_in_redis == 0

    async def test_a_late_copy_does_not_replace_a_later_one(self, durable: DurableSessionStore) -> None:
        session = await saved(durable)
        early = await durable._rows.get(session.session_id, None)
        assert early is not None
        await durable.save(session)
        await durable._write_copy(early)
        assert await durable.get(session.session_id) == session


class TestSessionsThatOnlyRedisHas:
    async def test_a_repair_keeps_adopts_or_deletes_them(
        self, durable: DurableSessionStore, store: RedisSessionStore
    ) -> None:
        # An index of PostgreSQL cannot hold its address.
        too_long = await saved(store, user_channel_id="x" * 3_000)
        await durable.repair("adopt")
        assert await store.delete(too_long.session_id)
        alone = await saved(store)
        ahead = await saved(durable)
        await store.save(ahead)
        assert (await durable.repair()).only_in_redis == 2
        assert await durable.get(alone.session_id) == alone
        assert await durable.list_by_agent(alone.tenant_id, alone.agent_id) == []
        assert (await durable.repair("adopt")).only_in_redis == 2
        for session in (alone, ahead):
            assert await durable.list_by_agent(session.tenant_id, session.agent_id) == [session]
            await durable.save(session, if_revision=session.revision)
        other = await saved(store)
        assert (await durable.repair("delete")).only_in_redis == 1
        assert await durable.get(other.session_id) is None
        assert (await durable.repair()).only_in_redis == 0

    async def test_what_postgresql_has_lost_is_not_kept_as_a_later_revision(
        self, durable: DurableSessionStore, store: RedisSessionStore, client: Redis
    ) -> None:
        session = await saved(durable)
        lost: Session = session.model_copy(update={"turn_count": 9})
        for _ in range(2):
            await store.save(lost)
        assert await durable.get(session.session_id, fresh=True) == session
        assert await durable.get(session.session_id) == session
        # A different save under the revision that comes next.
        await empty(client, store.config.key_prefix)
        await durable.get(session.session_id)
        await store.save(lost)
        await durable.save(session)
        assert session.revision == lost.revision == 2
        assert await durable.get(session.session_id) == session

    async def test_an_erasure_finds_them_but_goes_by_postgresql(
        self, durable: DurableSessionStore, store: RedisSessionStore, client: Redis
    ) -> None:
        session = await saved(durable)
        assert session.customer_profile_id is not None
        former = DataSubject(session.tenant_id, frozenset([session.customer_profile_id]))
        copies = {key: await client.get(key) or b"" for key in keys(durable, session)}
        session.customer_profile_id = None
        await durable.save(session)
        await client.mset(copies)
        assert await durable.list_by_subject(former) == []
        alone = await saved(
            store, tenant_id=session.tenant_id, customer_profile_id=next(iter(former.profile_ids))
        )
        assert await durable.list_by_subject(former) == [alone]
        assert await durable.delete_many(session.tenant_id, [alone.session_id]) == 1

    async def test_another_tenants_session_in_redis_does_not_hide_ones_own(
        self, durable: DurableSessionStore, store: RedisSessionStore, client: Redis
    ) -> None:
        session = await saved(durable)
        await empty(client, store.config.key_prefix)
        await saved(store, session_id=session.session_id)
        assert await durable.get(session.session_id, tenant_id=session.tenant_id) == session
        await durable.save(session, if_revision=1)
        assert await durable.get(session.session_id, tenant_id=session.tenant_id) == session


class TestExpiredSessions:
    async def test_they_are_not_found_and_may_begin_anew(
        self, client: Redis, database: Database, prefix: str
    ) -> None:
        brief = timedelta(milliseconds=30)
        config = SessionTierConfig(key_prefix=prefix, hot_ttl=brief, persist_ttl=brief)
        durable = DurableSessionStore(client, database, config)
        session = await saved(durable)
        await asyncio.sleep(0.05)
        assert await durable.get(session.session_id, fresh=True) is None
        assert await durable.list_by_agent(session.tenant_id, session.agent_id) == []
        with pytest.raises(ConflictError, match="revision 0, not 1"):
            await durable.save(session, if_revision=1)
        assert await durable.delete(session.session_id) is False
        session = await saved(durable)
        await asyncio.sleep(0.05)
        await durable.save(session, if_revision=0)
        assert session.revision == 1
        other = await saved(durable)
        await asyncio.sleep(0.05)
        assert await durable.cleanup_expired() >= 2
        found = [row["id"] for row in await rows_of(database, other.tenant_id, session.tenant_id)]
        assert found == []


async def rows_of(database: Database, *tenant_ids: UUID) -> list[Any]:
    async with administrator(database.settings.database_url) as connection:
        rows: list[Any] = await connection.fetch(
            "SELECT id FROM sessions WHERE tenant_id = ANY($1)", list(tenant_ids)
        )
        return rows


class TestUnitsOfWork:
    async def test_a_session_commits_with_its_turn(self, layer: DataLayer) -> None:
        sessions = layer.sessions
        assert isinstance(sessions, DurableSessionStore)
        session: Session = SessionFactory()
        turn = TurnRecordFactory(tenant_id=session.tenant_id, session_id=session.session_id)
        async with layer.unit_of_work() as uow:
            await uow.audit.save_turn(turn)
            await uow.sessions.save(session, if_revision=0)
            assert await uow.sessions.get(session.session_id) == session
            assert await sessions.get(session.session_id) is None
            as_saved = session.model_copy(deep=True)
            session.step_history.clear()
        assert await sessions.tier(session.session_id) == "hot"
        assert await sessions.get(session.session_id) == as_saved

    async def test_a_unit_that_fails_leaves_neither(self, layer: DataLayer) -> None:
        session: Session = SessionFactory()
        turn = TurnRecordFactory(tenant_id=session.tenant_id, session_id=session.session_id)
        with suppress(ZeroDivisionError):
            async with layer.unit_of_work() as uow:
                await uow.audit.save_turn(turn)
                await uow.sessions.save(session)
                raise ZeroDivisionError
        async with layer.unit_of_work() as uow:
            await uow.sessions.save(session)
            await uow.rollback()
        assert await layer.sessions.get(session.session_id) is None
        assert await layer.audit.get_turn(session.tenant_id, turn.turn_id) is None

    async def test_a_refused_save_leaves_the_unit_usable(self, layer: DataLayer) -> None:
        session = await saved(layer.sessions)
        stale = session.model_copy(deep=True)
        await layer.sessions.save(session)
        turn = TurnRecordFactory(tenant_id=session.tenant_id, session_id=session.session_id)
        async with layer.unit_of_work() as uow:
            await uow.audit.save_turn(turn)
            await uow.sessions.save(stale, if_revision=1)
            with pytest.raises(ConflictError, match="revision 2, not 1"):
                await uow.flush()
        assert await layer.audit.get_turn(session.tenant_id, turn.turn_id) == turn
        assert await layer.sessions.get(session.session_id) == session

    async def test_a_unit_in_a_services_transaction_writes_redis_after_its_commit(
        self, layer: DataLayer, shared_database_url: str
    ) -> None:
        url = service_url(shared_database_url)
        engine = prepare_engine(create_async_engine(url))
        session = await saved(layer.sessions)
        before = session.model_copy(deep=True)
        async with engine.connect() as connection:
            async with layer.unit_of_work(connection=connection) as uow:
                await uow.sessions.save(session, if_revision=1)
            assert await layer.sessions.get(session.session_id, fresh=True) == before
            await connection.commit()
        assert isinstance(layer.sessions, DurableSessionStore)
        assert await layer.sessions.peek(session.session_id) == session
        await engine.dispose()

    async def test_they_are_refused_where_redis_alone_has_the_sessions(
        self, shared_database_url: str, redis_url: str
    ) -> None:
        async with (
            DataLayer.open(settings_for(shared_database_url, redis_url=redis_url)) as data,
            data.unit_of_work() as uow,
        ):
            with pytest.raises(ConfigurationError, match="SOLDIER_SESSION_DURABILITY=postgres"):
                _ = uow.sessions

    async def test_sessions_in_memory_roll_back_too(self) -> None:
        async with DataLayer.in_memory(Settings(embedding_dimensions=DIMENSIONS)) as data:
            session = await saved(data.sessions)
            before = session.model_copy(deep=True)
            with suppress(ZeroDivisionError):
                async with data.unit_of_work() as uow:
                    await uow.sessions.save(session, if_revision=1)
                    assert await uow.sessions.get(session.session_id) == session
                    raise ZeroDivisionError
            assert await data.sessions.get(session.session_id) == before
            session = before

            async def race() -> None:
                async with data.unit_of_work() as uow:
                    await uow.sessions.save(session)
                    await data.sessions.save(before.model_copy())

            with pytest.raises(ConflictError):
                await race()
            async with data.unit_of_work() as uow:
                ended = uow.sessions
                await ended.save(session, if_revision=2)
            assert await data.sessions.get(session.session_id) == session
            with pytest.raises(StoreError, match="ended"):
                await ended.save(session)


class TestCosts:
    async def test_round_trips_to_postgresql(
        self, behind: tuple[Proxy, Database], client: Redis, prefix: str
    ) -> None:
        passing, far = behind
        durable = DurableSessionStore(client, far, SessionTierConfig(key_prefix=prefix))

        async def trips() -> list[int]:
            session: Session = SessionFactory()
            return [
                await passing.count(lambda: durable.save(session)),
                await passing.count(lambda: durable.save(session, if_revision=1)),
                await passing.count(lambda: durable.get(session.session_id)),
                await passing.count(lambda: durable.get(session.session_id, fresh=True)),
                await passing.count(lambda: durable.list_by_agent(session.tenant_id, session.agent_id)),
                await passing.count(
                    lambda: durable.get_by_channel(
                        session.tenant_id, session.channel, session.user_channel_id
                    )
                ),
                await passing.count(lambda: durable.delete(session.session_id)),
            ]

        # The first time, statements are prepared.
        await trips()
        assert await trips() == [1, 1, 0, 1, 1, 1, 1]


class TestOtherSetUps:
    async def test_with_row_level_security_each_tenant_has_its_own(
        self, shared_database_url: str, redis_url: str, client: Redis, prefix: str
    ) -> None:
        async with (
            bound_role(shared_database_url) as url,
            opened(url, redis_url, prefix, row_level_security=True) as data,
        ):
            session = await saved(data.sessions)
            tenant_id, session_id = session.tenant_id, session.session_id
            await empty(client, prefix)
            with pytest.raises(ValidationError, match="tenant_id is required"):
                await data.sessions.get(session_id)
            assert await data.sessions.get(session_id, tenant_id=uuid4()) is None
            assert await data.sessions.get(session_id, tenant_id=tenant_id) == session
            async with data.unit_of_work(tenant_id) as uow:
                await uow.sessions.save(session, if_revision=1)
                assert await uow.sessions.get(session_id, tenant_id=tenant_id) == session
            assert await data.sessions.list_by_agent(tenant_id, session.agent_id) == [session]
            assert isinstance(data.sessions, DurableSessionStore)
            for work in (data.sessions.repair, data.sessions.cleanup_expired):
                with pytest.raises(ConfigurationError, match="row-level-security"):
                    await work()
            assert await data.sessions.delete(session_id, tenant_id=tenant_id) is True

    async def test_behind_pgbouncer(self, shared_database_url: str, redis_url: str, prefix: str) -> None:
        async with (
            transaction_pooler(shared_database_url) as pooler,
            opened(pooler.url, redis_url, prefix, pgbouncer=True, pool_size=2) as data,
        ):
            session = await saved(data.sessions)
            async with data.unit_of_work() as uow:
                await uow.sessions.save(session, if_revision=1)
            assert await data.sessions.get(session.session_id, fresh=True) == session
            assert await data.sessions.list_by_agent(session.tenant_id, session.agent_id) == [session]

    async def test_on_redis_cluster(self, redis_cluster_url: str, database: Database, prefix: str) -> None:
        client = RedisCluster.from_url(redis_cluster_url)
        durable = DurableSessionStore(client, database, SessionTierConfig(key_prefix=prefix))
        session = await saved(durable)
        read = await durable._rows.get(session.session_id, None)
        assert read is not None
        await durable.save(session)
        await durable._write_copy(read)
        assert await durable.peek(session.session_id) == session
        await RedisSessionStore.delete_many(durable, session.tenant_id, [session.session_id])
        assert await durable.get(session.session_id) == session
        assert await durable.tier(session.session_id) is None
        assert await durable.delete_many(session.tenant_id, [session.session_id]) == 1
        await durable._write_copy(read)
        assert await durable.get(session.session_id) is None
        await client.aclose()

    async def test_without_other_stores_on_postgresql(
        self, database_url: str, redis_url: str, prefix: str
    ) -> None:
        backends = {
            f"{name}_backend": "inmemory"
            for name in ("config", "memory", "audit", "profile", "run", "vector")
        }
        async with opened(database_url, redis_url, prefix, **backends) as data:
            session = await saved(data.sessions)
            async with data.unit_of_work() as uow:
                await uow.sessions.save(session, if_revision=1)
            assert await data.sessions.get(session.session_id, fresh=True) == session
            assert (await data.health()).ok


async def test_a_value_too_long_for_an_index_is_refused_by_name(durable: DurableSessionStore) -> None:
    with pytest.raises(ValidationError) as caught:
        await durable.save(SessionFactory(user_channel_id="x" * 3_000))
    assert caught.value.field == "user_channel_id"
