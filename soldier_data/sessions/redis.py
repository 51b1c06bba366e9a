"""The production store: two tiers in Redis, written together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import aclosing
from datetime import timedelta
from typing import Literal
from uuid import UUID

from soldier_data.base.channels import Channel
from soldier_data.base.models import mark_saved, utcnow
from soldier_data.base.paging import check_page
from soldier_data.base.scope_filters import ScopeFilter
from soldier_data.base.subjects import DataSubject
from soldier_data.base.values import check_revision, check_storable, check_text
from soldier_data.errors import StoreConnectionError, StoreError
from soldier_data.logging import get_logger
from soldier_data.sessions.client import RETRY_BUDGET, WAIT_TIMEOUT, RedisRunner, load_script
from soldier_data.sessions.cluster_entries import ClusterEntries
from soldier_data.sessions.codec import decode, encode, stored_values
from soldier_data.sessions.connections import RedisClient
from soldier_data.sessions.entries import IndexReader
from soldier_data.sessions.key_events import removed_keys
from soldier_data.sessions.keys import SessionKeys
from soldier_data.sessions.lifetimes import microseconds, milliseconds, milliseconds_to_live
from soldier_data.sessions.lookup import SessionLookup
from soldier_data.sessions.maintenance import remove_dead_entries, remove_old_sessions, stored_ids
from soldier_data.sessions.marking import mark_sessions
from soldier_data.sessions.models import (
    MILLISECOND,
    PendingMigration,
    Session,
    SessionStatus,
    SessionTierConfig,
)
from soldier_data.sessions.refusals import changed_while_marking, refused_save, unreadable
from soldier_data.sessions.removal import DELETE, delete_sessions, deletion
from soldier_data.sessions.step_places import check_place, in_scope
from soldier_data.sessions.store import SessionStore
from soldier_data.sessions.unconfirmed import UnconfirmedSaves, Write

_GET = load_script("get", common=True)
_SAVE = load_script("save", common=True)
_PROMOTE = load_script("promote", common=True)
_DEMOTE = load_script("demote")
_TIER = load_script("tier")

_STATUSES = " ".join(SessionStatus)

Tier = Literal["hot", "persistent"]


class RedisSessionStore(SessionStore):
    """Stores each session in two tiers, written atomically: hot as JSON, and persistent in compressed form.

    Sessions leave the hot tier when their hot key expires, without any background process. A read that finds only
    the persistent key copies it to the hot key in the same round trip.

    Indexes are sorted sets of session ids that live at least as long as every session in them. Lookups check each
    entry against its session and remove stale entries; saves remove some of the entries without a session.

    Args:
        client: The client of `create_redis_client`, or any `redis.asyncio.Redis` or `RedisCluster` made without
            `decode_responses`. An operation takes at most the client's `socket_timeout` (else its
            `socket_connect_timeout`, else 5 s), and waits while all connections are in use. The caller closes it.
        config: Lifetimes and key prefix.
        retry_budget: Time for which a call is retried while Redis is unreachable or fails over; zero disables
            retries.
        wait_replicas: Number of replicas that must confirm a save.
        wait_timeout: Time limit for their confirmation; must be shorter than the timeout of an operation.

    Raises:
        ConfigurationError: The client decodes responses.
    """

    def __init__(
        self,
        client: RedisClient,
        config: SessionTierConfig | None = None,
        *,
        retry_budget: timedelta = RETRY_BUDGET,
        wait_replicas: int = 0,
        wait_timeout: timedelta = WAIT_TIMEOUT,
    ) -> None:
        self.config = config or SessionTierConfig()
        self._redis = RedisRunner(
            client, retry_budget=retry_budget, wait_replicas=wait_replicas, wait_timeout=wait_timeout
        )
        self._probe = RedisRunner(client, retry_budget=timedelta(0))
        self._unconfirmed = UnconfirmedSaves()
        self._log = get_logger(__name__)
        self._keys = SessionKeys(self.config.key_prefix)
        self._lookup = SessionLookup(self._redis, self._keys, self.config)
        self._hot_ttl = self.config.hot_ttl // MILLISECOND
        self._persist_ttl = self.config.persist_ttl // MILLISECOND
        self._max_age = self.config.max_session_age // MILLISECOND

    @property
    def client(self) -> RedisClient:
        """The redis-py client."""
        return self._redis.client

    async def close(self) -> None:
        """Close the client. A data layer does this for its own store."""
        await self._redis.close()

    async def get(
        self,
        session_id: UUID,
        *,
        tenant_id: UUID | None = None,
        fresh: bool = False,  # noqa: ARG002 - there is no other copy.
    ) -> Session | None:
        session = await self._read(session_id, tenant_id)
        self._log.debug("session_get", session_id=str(session_id), found=session is not None)
        return session

    async def save(self, session: Session, *, if_revision: int | None = None) -> UUID:
        check_revision(if_revision)
        write = self._unconfirmed.start(session, if_revision)
        ttl = milliseconds_to_live(session, self.config, write.time)
        body = encode(session, write.time)
        values = stored_values(str(session.tenant_id), session.created_at, body)
        try:
            revision = await self._store(session, write, ttl, values)
        except (StoreConnectionError, asyncio.CancelledError):
            self._unconfirmed.add(session, write, body)
            raise
        mark_saved(session, write.time, revision, "last_activity_at")
        return session.session_id

    async def _store(
        self,
        session: Session,
        write: Write,
        ttl: int,
        values: tuple[bytes, bytes],
        assigned: int | None = None,
    ) -> int:
        """Run `save.lua` and return the stored revision: `assigned` or a later one, or by default the next one."""
        session_id, tenant_id = str(session.session_id), str(session.tenant_id)
        score = microseconds(write.time)
        # Sessions last saved a whole persist_ttl ago have expired, unless another process has a longer one.
        dead_score = score - self._persist_ttl * 1000
        index_ttl = max(self._max_age, ttl)
        keys = self._keys.session(session_id)
        if assigned is not None:
            expected = f"={assigned}"
        else:
            expected = "-" if write.if_revision is None else str(write.if_revision)
        entries = None
        if self._redis.is_cluster:
            # The script reaches only the slot of the session, so the entries are written before and after it.
            entries = ClusterEntries(self._redis, self._keys, session, score, dead_score, ttl, index_ttl)
            await entries.add_missing()
        reply = await self._redis.replicated_script(
            f"saving session {session_id}",
            _SAVE,
            (*keys, *self._keys.indexes(session)) if entries is None else keys,
            f"{expected} {write.id} {tenant_id}"
            f" {min(self._hot_ttl, ttl)} {ttl} {score} {index_ttl} {dead_score} {_STATUSES}",
            *values,
        )
        if isinstance(reply, list):
            raise refused_save(session, write.if_revision, *reply, key=keys[1])
        if entries is not None:
            await entries.update()
        revision: int = reply
        self._log.debug("session_saved", session_id=session_id, revision=revision)
        return revision

    async def delete(self, session_id: UUID, *, tenant_id: UUID | None = None) -> bool:
        keys, arguments = deletion(self._keys, session_id, tenant_id)
        removed = await self._redis.script(f"deleting session {session_id}", DELETE, keys, *arguments)
        if removed < 0:
            raise unreadable(f"Redis key {keys[1]}")
        self._log.debug("session_deleted", session_id=str(session_id), found=removed > 0)
        return bool(removed)

    async def delete_many(self, tenant_id: UUID, session_ids: Iterable[UUID]) -> int:
        removed = await delete_sessions(self._redis, self._keys, self._lookup, tenant_id, session_ids)
        self._log.debug("sessions_deleted", tenant_id=str(tenant_id), removed=removed)
        return removed

    async def get_by_channel(self, tenant_id: UUID, channel: Channel, user_channel_id: str) -> Session | None:
        check_text(user_channel_id, "user_channel_id")
        if channel not in list(Channel):
            return None
        index = self._keys.channel(tenant_id, channel, user_channel_id)
        found: Session | None = None
        for member, _ in await IndexReader(self._redis, "finding a session", index).page(1):
            found = await self._read(UUID(member.decode()), tenant_id)
            if not self._lookup.belongs(found, index):
                found = next(iter(await self._lookup.first(index, 1)), None)
        self._log.debug("session_get_by_channel", tenant_id=str(tenant_id), found=found is not None)
        return found

    async def list_by_channel(
        self, tenant_id: UUID, channel: Channel, user_channel_id: str, *, limit: int = 100
    ) -> list[Session]:
        check_page(limit)
        check_text(user_channel_id, "user_channel_id")
        if channel not in list(Channel):
            return []
        found = await self._lookup.first(self._keys.channel(tenant_id, channel, user_channel_id), limit)
        self._log.debug("session_list_by_channel", tenant_id=str(tenant_id), found=len(found))
        return found

    async def list_by_agent(
        self, tenant_id: UUID, agent_id: UUID, *, status: SessionStatus | None = None, limit: int = 100
    ) -> list[Session]:
        check_page(limit)
        found = await self._lookup.first(self._keys.agent(tenant_id, agent_id, status), limit)
        self._log.debug("session_list_by_agent", agent_id=str(agent_id), found=len(found))
        return found

    async def list_by_customer(
        self, tenant_id: UUID, customer_profile_id: UUID, *, limit: int = 100
    ) -> list[Session]:
        check_page(limit)
        found = await self._lookup.first(self._keys.customer(tenant_id, customer_profile_id), limit)
        self._log.debug(
            "session_list_by_customer", customer_profile_id=str(customer_profile_id), found=len(found)
        )
        return found

    async def list_by_subject(self, subject: DataSubject) -> list[Session]:
        indexes = [self._keys.customer(subject.tenant_id, id_) for id_ in subject.profile_ids]
        indexes += [self._keys.channel(subject.tenant_id, *identity) for identity in subject.identities]
        listed = [await self._lookup.all(index, expired=True) for index in indexes]
        return [session for of_index in listed for session in of_index]

    async def find_sessions_by_step_hash(
        self,
        tenant_id: UUID,
        scenario_id: UUID,
        scenario_version: int,
        step_content_hash: str,
        scope_filter: ScopeFilter | None = None,
    ) -> list[Session]:
        check_place(scenario_version, step_content_hash)
        index = self._keys.step(tenant_id, (scenario_id, scenario_version, step_content_hash))
        now = utcnow()
        found = [one for one in await self._lookup.all(index) if in_scope(one, scope_filter, now)]
        self._log.debug("session_find_by_step", scenario_id=str(scenario_id), found=len(found))
        return found

    async def mark_pending_migration(
        self, tenant_id: UUID, session_ids: Sequence[UUID], pending: PendingMigration
    ) -> int:
        check_storable(pending)
        marked, left = await mark_sessions(
            self._redis, self._keys, self._lookup, tenant_id, session_ids, pending
        )
        self._log.debug("sessions_marked", tenant_id=str(tenant_id), marked=marked)
        if left:
            raise changed_while_marking(left, marked)
        return marked

    async def ping(self) -> None:
        """Check, without retrying, that Redis is reachable and ready for writes.

        Raises:
            StoreConnectionError: It is not; the message gives the reason.
        """
        await self._probe.ping("checking health")

    async def health_check(self) -> bool:
        try:
            await self.ping()
        except StoreError:
            return False
        return True

    async def promote_to_hot(self, session_id: UUID) -> bool:
        """Copy a persistent session to the hot tier.

        Returns:
            Whether the session was moved: False if it is already hot or does not exist.
        """
        moved = await self._redis.script(
            f"promoting session {session_id}", _PROMOTE, self._keys.session(session_id), self._hot_ttl
        )
        self._log.debug("session_promoted", session_id=str(session_id), moved=bool(moved))
        return bool(moved)

    async def demote_to_persistent(self, session_id: UUID) -> bool:
        """Remove a session from the hot tier. It stays readable, and a read promotes it again.

        Returns:
            Whether the session was moved: False if it is not hot or does not exist.
        """
        moved = await self._redis.script(
            f"demoting session {session_id}", _DEMOTE, self._keys.session(session_id)
        )
        self._log.debug("session_demoted", session_id=str(session_id), moved=bool(moved))
        return bool(moved)

    async def tier(self, session_id: UUID) -> Tier | None:
        """Return the tier in which a read would find the session, or None; does not promote it."""
        reply = await self._redis.script(
            f"looking for session {session_id}", _TIER, self._keys.session(session_id)
        )
        if reply is None:
            return None
        return "hot" if reply == b"hot" else "persistent"

    async def peek(self, session_id: UUID) -> Session | None:
        """Return the session like `get`, but without promoting it; for operators."""
        keys = self._keys.session(session_id)
        for key, value in zip(keys, await self._lookup.values(keys), strict=True):
            if value is not None:
                session = decode(value, key)
                return None if self._lookup.is_expired(session) else session
        return None

    async def stats(self) -> dict[Tier, int]:
        """Return the number of sessions in each tier; hot sessions are not counted as persistent.

        Scans the whole key space in small steps: for operators, not for the serving path. Sessions that are saved
        or expire meanwhile may or may not be counted.
        """
        hot = await stored_ids(self._redis, self._keys, "hot")
        persistent = await stored_ids(self._redis, self._keys, "persist")
        counts: dict[Tier, int] = {"hot": len(hot), "persistent": len(persistent - hot)}
        self._log.debug("session_stats", **counts)
        return counts

    async def cleanup_expired(self) -> int:
        """Remove sessions past `max_session_age`, and index entries whose session does not exist.

        Both disappear by themselves in time: use this after lowering `max_session_age`, and for indexes that are
        never read. Scans the whole key space in small steps, between which Redis serves other clients.

        Returns:
            The number of sessions and entries removed.
        """
        sessions = await remove_old_sessions(self._redis, self._keys, milliseconds(utcnow()) - self._max_age)
        entries = await remove_dead_entries(self._redis, self._keys)
        self._log.debug("session_cleanup", sessions=sessions, entries=entries)
        return sessions + entries

    async def watch_demotions(self) -> AsyncGenerator[UUID, None]:
        """Yield the ids of sessions as they leave the hot tier, from the first iteration step on.

        Best effort, for monitoring. Redis must be configured to send the events (`notify-keyspace-events` with at
        least `Egx`). It sends them when it notices an expiry, and only to clients that are connected at the time.

        Raises:
            StoreConnectionError: The connection was lost and could not be restored.
        """
        # Closing this generator also closes the inner one and its connections.
        async with aclosing(removed_keys(self._redis)) as removed:
            async for key in removed:
                session_id = self._keys.session_id(key, "hot")
                # The hot key of a deleted or expired session is removed too.
                if session_id is not None and await self.tier(session_id) == "persistent":
                    self._log.debug("session_demotion_seen", session_id=str(session_id))
                    yield session_id

    async def _read(self, session_id: UUID, tenant_id: UUID | None) -> Session | None:
        """Return the session, promoting it if it is not hot."""
        keys = self._keys.session(session_id)
        value = await self._redis.script(
            f"reading session {session_id}", _GET, keys, self._hot_ttl, str(tenant_id or "")
        )
        if value is None:
            return None
        session = decode(value, keys[0])
        is_foreign = tenant_id is not None and session.tenant_id != tenant_id
        return None if is_foreign or self._lookup.is_expired(session) else session
