"""The production store: two tiers in Redis, written together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import aclosing
from datetime import timedelta
from typing import Literal
from uuid import UUID

from soldier_data.base.channels import Channel
from soldier_data.base.models import utcnow
from soldier_data.base.paging import check_page
from soldier_data.base.scope_filters import ScopeFilter
from soldier_data.base.values import check_revision, check_storable, check_text
from soldier_data.errors import ConflictError, StoreConnectionError, StoreError
from soldier_data.logging import get_logger
from soldier_data.sessions.cleanup import remove_dead_entries, remove_old_sessions
from soldier_data.sessions.client import RETRY_BUDGET, WAIT_TIMEOUT, RedisRunner, load_script
from soldier_data.sessions.cluster_entries import ClusterEntries
from soldier_data.sessions.codec import decode, encode, hot_value, persistent_value, unreadable
from soldier_data.sessions.connections import RedisClient
from soldier_data.sessions.entries import IndexWalk
from soldier_data.sessions.keys import SessionKeys
from soldier_data.sessions.lookup import LOADED_AT_ONCE, SessionLookup
from soldier_data.sessions.models import (
    MILLISECOND,
    PendingMigration,
    Session,
    SessionStatus,
    SessionTierConfig,
)
from soldier_data.sessions.removal import DELETE, delete_sessions, deletion
from soldier_data.sessions.removed_keys import watch_removed_keys
from soldier_data.sessions.semantics import (
    check_place,
    in_scope,
    mark_saved,
    microseconds,
    milliseconds,
    milliseconds_to_live,
    new_write_id,
    past_max_age,
    refusal,
)
from soldier_data.sessions.store import SessionStore
from soldier_data.sessions.unconfirmed import UnconfirmedSaves

_GET = load_script("get", common=True)
_SAVE = load_script("save", common=True)
_PROMOTE = load_script("promote", common=True)
_DEMOTE = load_script("demote")
_TIER = load_script("tier")
_MARK = load_script("mark", common=True)

# Each one fails only if somebody saves the session within a millisecond or so.
_MARK_ATTEMPTS = 20

_STATUSES = " ".join(SessionStatus)

Tier = Literal["hot", "persistent"]


class RedisSessionStore(SessionStore):
    """Keeps each session twice, in one atomic step: hot as JSON, persistent compressed.

    Nothing has to run for a session to leave the hot tier: its hot key expires, the persistent one stays. A
    read that finds only the persistent key copies it to the hot one in the same round trip.

    Indexes are sorted sets of session ids, which live at least as long as every session in them. Each entry is
    checked against the session that it leads to, and removed when it is stale; saves trim what leads nowhere.

    Args:
        client: From `create_redis_client`, or any `redis.asyncio.Redis` or `RedisCluster` made without
            `decode_responses`. An operation takes at most the client's `socket_timeout` (else its
            `socket_connect_timeout`, else 5 s), and waits when all connections are in use. The store does
            not close it.
        config: Lifetimes and key prefix.
        retry_budget: How long a call is repeated while Redis cannot be reached or fails over.
        wait_replicas: How many replicas must have a save before it counts.
        wait_timeout: The longest wait for them; shorter than the time that an operation may take.

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
        """Close the client. A data layer does it for its own store."""
        await self._redis.close()

    async def get(self, session_id: UUID, *, tenant_id: UUID | None = None) -> Session | None:
        session = await self._read(session_id, tenant_id)
        self._log.debug("session_get", session_id=str(session_id), found=session is not None)
        return session

    async def save(self, session: Session, *, if_revision: int | None = None) -> UUID:
        check_revision(if_revision)
        now, write_id = utcnow(), new_write_id()
        if self._unconfirmed:
            write_id, now = self._unconfirmed.take(session, now, if_revision) or (write_id, now)
        persist_ttl = milliseconds_to_live(session, self.config, now)
        body = encode(session, now)
        session_id, tenant_id = str(session.session_id), str(session.tenant_id)
        keys = self._keys.session(session_id)
        indexes = self._keys.indexes(session)
        score = microseconds(now)
        created_at = milliseconds(session.created_at)
        # What was last saved a whole persist_ttl ago is gone, unless another process has a longer one.
        dead_score = score - self._persist_ttl * 1000
        index_ttl = max(self._max_age, persist_ttl)
        entries = None
        try:
            if self._redis.is_cluster:
                entries = ClusterEntries(
                    self._redis,
                    self._keys,
                    session,
                    score=score,
                    dead_score=dead_score,
                    needed=persist_ttl,
                    given=index_ttl,
                )
                await entries.enter()
            reply = await self._redis.replicated_script(
                f"saving session {session_id}",
                _SAVE,
                keys if self._redis.is_cluster else (*keys, *indexes),
                f"{'-' if if_revision is None else if_revision} {write_id} {tenant_id}"
                f" {min(self._hot_ttl, persist_ttl)} {persist_ttl} {score} {index_ttl} {dead_score} {_STATUSES}",
                persistent_value(tenant_id, created_at, body),
                hot_value(tenant_id, body),
            )
            if isinstance(reply, list):
                raise refusal(session, if_revision, *reply, key=keys[1])
            if entries is not None:
                await entries.settle()
        except (StoreConnectionError, asyncio.CancelledError):
            self._unconfirmed.keep(session, write_id, now, if_revision, body)
            raise
        revision: int = reply
        mark_saved(session, now, revision)
        self._log.debug("session_saved", session_id=session_id, revision=revision)
        return session.session_id

    async def delete(self, session_id: UUID, *, tenant_id: UUID | None = None) -> bool:
        keys, arguments = deletion(self._keys, session_id, tenant_id)
        removed = await self._redis.script(f"deleting session {session_id}", DELETE, keys, *arguments)
        if removed < 0:
            raise unreadable(keys[1])
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
        for member, _ in await IndexWalk(self._redis, "finding a session", index).page(1):
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
        index = self._keys.agent(tenant_id, agent_id, status)
        found = await self._lookup.first(index, limit)
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
        found = await self._lookup.all(index)
        if scope_filter is not None:
            now = utcnow()
            found = [session for session in found if in_scope(session, scope_filter, now)]
        self._log.debug("session_find_by_step", scenario_id=str(scenario_id), found=len(found))
        return found

    async def mark_pending_migration(
        self, tenant_id: UUID, session_ids: Sequence[UUID], pending: PendingMigration
    ) -> int:
        check_storable(pending)
        left = list(dict.fromkeys(session_ids))
        marked = 0
        for _ in range(_MARK_ATTEMPTS):
            changed: list[UUID] = []
            for start in range(0, len(left), LOADED_AT_ONCE):
                batch = left[start : start + LOADED_AT_ONCE]
                replies = await self._mark(tenant_id, batch, pending)
                marked += sum(reply == 1 for reply in replies.values())
                changed += [session_id for session_id, reply in replies.items() if reply < 0]
            left = changed
            if not left:
                break
        self._log.debug("sessions_marked", tenant_id=str(tenant_id), marked=marked)
        if left:
            raise ConflictError(
                f"{len(left)} sessions changed while they were to be marked, session {left[0]} among them; "
                f"{marked} were marked: try again"
            )
        return marked

    async def _mark(
        self, tenant_id: UUID, session_ids: Sequence[UUID], pending: PendingMigration
    ) -> dict[UUID, int]:
        """What became of each that is there: 1 marked, 0 gone, -1 changed since it was read."""
        keys = [self._keys.session(session_id) for session_id in session_ids]
        values = await self._lookup.values([persistent for _, persistent in keys])
        calls = {}
        tenant = str(tenant_id)
        for session_id, pair, value in zip(session_ids, keys, values, strict=True):
            session = self._lookup.decoded(value, pair[1])
            if (
                session is None
                or session.tenant_id != tenant_id
                or past_max_age(session, self.config, utcnow())
            ):
                continue
            session.pending_migration = pending
            # Lua cannot look into the compressed form, so the values are made here, for that revision alone.
            body = encode(session, session.last_activity_at)
            calls[session_id] = (
                pair,
                (
                    f"{session.revision} {new_write_id()} {tenant}",
                    persistent_value(tenant, milliseconds(session.created_at), body),
                    hot_value(tenant, body),
                ),
            )
        if not calls:
            return {}
        replies = await self._redis.scripts("marking sessions", _MARK, list(calls.values()))
        return dict(zip(calls, replies, strict=True))

    async def ping(self) -> None:
        """Have Redis answer, and be ready for writes, without trying again.

        Raises:
            StoreConnectionError: It does not or is not, and why.
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
            Whether it was moved: False if it is hot already or there is none.
        """
        moved = await self._redis.script(
            f"promoting session {session_id}", _PROMOTE, self._keys.session(session_id), self._hot_ttl
        )
        self._log.debug("session_promoted", session_id=str(session_id), moved=bool(moved))
        return bool(moved)

    async def demote_to_persistent(self, session_id: UUID) -> bool:
        """Take a session out of the hot tier. It stays readable, and a read promotes it again.

        Returns:
            Whether it was moved: False if it is not hot or there is none.
        """
        moved = await self._redis.script(
            f"demoting session {session_id}", _DEMOTE, self._keys.session(session_id)
        )
        self._log.debug("session_demoted", session_id=str(session_id), moved=bool(moved))
        return bool(moved)

    async def tier(self, session_id: UUID) -> Tier | None:
        """The tier that a read would find the session in, or None if there is none. Does not promote."""
        reply = await self._redis.script(
            f"looking for session {session_id}", _TIER, self._keys.session(session_id)
        )
        if reply is None:
            return None
        return "hot" if reply == b"hot" else "persistent"

    async def peek(self, session_id: UUID) -> Session | None:
        """The session, as `get` returns it (or raises), but without promoting it: for operators."""
        keys = self._keys.session(session_id)
        for key, value in zip(keys, await self._lookup.values(keys), strict=True):
            if value is not None:
                session = decode(value, key)
                return None if past_max_age(session, self.config, utcnow()) else session
        return None

    async def stats(self) -> dict[Tier, int]:
        """How many sessions each tier holds; a hot one is not counted as persistent too.

        Scans the whole key space in small steps: for operators, not for the serving path. Sessions saved or
        expired meanwhile may or may not be counted.
        """
        hot = await self._stored_ids("hot")
        persistent = await self._stored_ids("persist")
        counts: dict[Tier, int] = {"hot": len(hot), "persistent": len(persistent - hot)}
        self._log.debug("session_stats", **counts)
        return counts

    async def cleanup_expired(self) -> int:
        """Remove what reads leave aside: sessions past `max_session_age`, and index entries that lead nowhere.

        Both go away by themselves in time; this is for after `max_session_age` was lowered, and for indexes
        that nobody reads. Scans the whole key space in small steps, between which Redis serves others.

        Returns:
            How many sessions and entries were removed.
        """
        sessions = await remove_old_sessions(self._redis, self._keys, milliseconds(utcnow()) - self._max_age)
        entries = await remove_dead_entries(self._redis, self._keys)
        self._log.debug("session_cleanup", sessions=sessions, entries=entries)
        return sessions + entries

    async def watch_demotions(self) -> AsyncGenerator[UUID, None]:
        """Ids of sessions as they leave the hot tier, for observers: nothing depends on it.

        Best effort. Redis has to emit the events (`notify-keyspace-events` with at least `Egx`; this does not
        set it), tells of an expiry when it notices it, and tells nobody who is not connected just then. What
        happens from the first step of the iteration on is seen.

        Raises:
            StoreConnectionError: The connection broke, and could not be made anew.
        """
        # Closed with this one, and with it its connections.
        async with aclosing(watch_removed_keys(self._redis)) as removed:
            async for key in removed:
                session_id = self._keys.session_id(key, "hot")
                # A deleted session, or one that is over, has left its hot key too.
                if session_id is not None and await self.tier(session_id) == "persistent":
                    self._log.debug("session_demotion_seen", session_id=str(session_id))
                    yield session_id

    async def _stored_ids(self, tier: str) -> set[UUID]:
        pages = self._redis.scan("counting sessions", self._keys.pattern(tier))
        ids = {self._keys.session_id(key, tier) async for page in pages for key in page}
        return {session_id for session_id in ids if session_id is not None}

    async def _read(self, session_id: UUID, tenant_id: UUID | None) -> Session | None:
        """The session, promoted if it was not hot."""
        keys = self._keys.session(session_id)
        value = await self._redis.script(
            f"reading session {session_id}", _GET, keys, self._hot_ttl, _or_empty(tenant_id)
        )
        if value is None:
            return None
        session = decode(value, keys[0])
        if (tenant_id is not None and session.tenant_id != tenant_id) or past_max_age(
            session, self.config, utcnow()
        ):
            return None
        return session


def _or_empty(tenant_id: UUID | None) -> str:
    return "" if tenant_id is None else str(tenant_id)
