"""The production store: two tiers in Redis, written together."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Sequence
from datetime import datetime, timedelta
from typing import Any, Literal
from uuid import UUID

from soldier_data.base.models import utcnow
from soldier_data.base.shared import Channel, ScopeFilter
from soldier_data.base.values import check_text
from soldier_data.errors import StoreError
from soldier_data.logging import get_logger
from soldier_data.sessions.client import RedisClient, RedisRunner, load_script
from soldier_data.sessions.codec import decode, encode, hot_value, persistent_value, unreadable
from soldier_data.sessions.keys import SessionKeys
from soldier_data.sessions.models import MILLISECOND, Session, SessionStatus, SessionTierConfig
from soldier_data.sessions.semantics import (
    check_limit,
    conflict,
    in_scope,
    mark_saved,
    milliseconds_to_live,
    past_max_age,
    taken,
)
from soldier_data.sessions.store import SessionStore

_GET = load_script("get", common=True)
_SAVE = load_script("save", common=True)
_DELETE = load_script("delete", common=True)
_PROMOTE = load_script("promote", common=True)
_DEMOTE = load_script("demote")
_TIER = load_script("tier")
_REPAIR = load_script("repair")

_LOADED_AT_ONCE = 1000
_EPOCH = datetime.fromisoformat("1970-01-01T00:00:00+00:00")
_MICROSECOND = timedelta(microseconds=1)

Tier = Literal["hot", "persistent"]
_Entry = tuple[bytes, float]


class RedisSessionStore(SessionStore):
    """Keeps each session twice, in one atomic step: hot as JSON, persistent compressed.

    Nothing has to run for a session to leave the hot tier: its hot key expires, the persistent one stays. A
    read that finds only the persistent key copies it to the hot one in the same round trip.

    Indexes are sorted sets of session ids. Each entry is checked against the session that it leads to, and
    removed when it is stale; entries too old to lead anywhere are trimmed by each save.

    Args:
        client: From `create_redis_client`, or any `redis.asyncio.Redis` or `RedisCluster` made without
            `decode_responses`. An operation takes at most the client's `socket_timeout` (else its
            `socket_connect_timeout`, else 5 s), and waits when all connections are in use. The store does
            not close it.
        config: Lifetimes and key prefix.

    Raises:
        ConfigurationError: The client decodes responses.
    """

    def __init__(self, client: RedisClient, config: SessionTierConfig | None = None) -> None:
        self.config = config or SessionTierConfig()
        self._redis = RedisRunner(client)
        self._log = get_logger(__name__)
        self._keys = SessionKeys(self.config.key_prefix)
        self._hot_ttl = self.config.hot_ttl // MILLISECOND
        self._persist_ttl = self.config.persist_ttl // MILLISECOND
        # No session lives longer after its entry was made.
        self._index_ttl = self.config.max_session_age // MILLISECOND

    @property
    def client(self) -> RedisClient:
        """The redis-py client."""
        return self._redis.client

    async def get(self, session_id: UUID, *, tenant_id: UUID | None = None) -> Session | None:
        session = await self._read(session_id, tenant_id)
        self._log.debug("session_get", session_id=str(session_id), found=session is not None)
        return session

    async def save(self, session: Session, *, if_revision: int | None = None) -> UUID:
        now = utcnow()
        persist_ttl = milliseconds_to_live(session, self.config, now)
        body = encode(session, now)
        session_id, tenant_id = str(session.session_id), str(session.tenant_id)
        keys = self._keys.session(session_id)
        indexes = self._keys.indexes(session)
        score = (now - _EPOCH) // _MICROSECOND
        created_at = (session.created_at - _EPOCH) // MILLISECOND
        # An entry that old was last saved a whole persist_ttl ago.
        dead_score = score - self._persist_ttl * 1000
        reply = await self._redis.script(
            f"saving session {session_id}",
            _SAVE,
            keys if self._redis.is_cluster else (*keys, *indexes),
            f"{'-' if if_revision is None else if_revision} {os.urandom(6).hex()} {tenant_id}"
            f" {min(self._hot_ttl, persist_ttl)} {persist_ttl} {score} {dead_score} {self._index_ttl}",
            persistent_value(tenant_id, created_at, body),
            hot_value(tenant_id, body),
        )
        if isinstance(reply, list):
            raise _refusal(session, if_revision, *reply, key=keys[1])
        revision: int = reply
        if self._redis.is_cluster:
            await self._redis.pipeline(
                f"saving the index entries of session {session_id}",
                [
                    command
                    for index in indexes
                    for command in (
                        ("ZADD", index, score, session_id),
                        ("ZREMRANGEBYSCORE", index, "-inf", dead_score),
                        ("PEXPIRE", index, self._index_ttl),
                    )
                ],
            )
        mark_saved(session, now, revision)
        self._log.debug("session_saved", session_id=session_id, revision=revision)
        return session.session_id

    async def delete(self, session_id: UUID, *, tenant_id: UUID | None = None) -> bool:
        keys = self._keys.session(session_id)
        removed = await self._redis.script(
            f"deleting session {session_id}", _DELETE, keys, _or_empty(tenant_id)
        )
        if removed < 0:
            raise unreadable(keys[1])
        self._log.debug("session_deleted", session_id=str(session_id), found=removed > 0)
        return bool(removed)

    async def get_by_channel(self, tenant_id: UUID, channel: Channel, user_channel_id: str) -> Session | None:
        check_text(user_channel_id, "user_channel_id")
        index = self._keys.channel(tenant_id, Channel(channel), user_channel_id)
        start = 0
        found: Session | None = None
        while found is None:
            entries = await self._entries(index, start, start)
            if not entries:
                break
            session = await self._read(UUID(entries[0][0].decode()), tenant_id)
            if self._belongs(session, index):
                found = session
            else:
                start += 1 - await self._repair(index, entries)
        self._log.debug("session_get_by_channel", tenant_id=str(tenant_id), found=found is not None)
        return found

    async def list_by_agent(
        self, tenant_id: UUID, agent_id: UUID, *, status: SessionStatus | None = None, limit: int = 100
    ) -> list[Session]:
        index = self._keys.agent(tenant_id, agent_id, None if status is None else SessionStatus(status))
        found = await self._list(index, limit)
        self._log.debug("session_list_by_agent", agent_id=str(agent_id), found=len(found))
        return found

    async def list_by_customer(
        self, tenant_id: UUID, customer_profile_id: UUID, *, limit: int = 100
    ) -> list[Session]:
        found = await self._list(self._keys.customer(tenant_id, customer_profile_id), limit)
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
        check_text(step_content_hash, "step_content_hash")
        index = self._keys.step(tenant_id, (scenario_id, scenario_version, step_content_hash))
        found, _ = await self._resolve(index, await self._entries(index, 0, -1))
        if scope_filter is not None:
            now = utcnow()
            found = [session for session in found if in_scope(session, scope_filter, now)]
        self._log.debug("session_find_by_step", scenario_id=str(scenario_id), found=len(found))
        return found

    async def ping(self) -> None:
        """Have Redis answer.

        Raises:
            StoreConnectionError: It does not, and why.
        """
        await self._redis.run("checking health", self.client.ping)

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

    async def _stored_ids(self, tier: str) -> set[bytes]:
        pages = self._redis.scan("counting sessions", self._keys.pattern(tier))
        return {key.rpartition(b":")[2] async for page in pages for key in page}

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

    async def _list(self, index: str, limit: int) -> list[Session]:
        check_limit(limit)
        found: dict[UUID, Session] = {}
        start = 0
        # Once around, unless stale entries took the place of sessions further down.
        while (wanted := limit - len(found)) > 0:
            entries = await self._entries(index, start, start + wanted - 1)
            sessions, removed = await self._resolve(index, entries)
            found.update((session.session_id, session) for session in sessions)
            if len(entries) < wanted:
                break
            start += len(entries) - removed
        return list(found.values())

    async def _entries(self, index: str, start: int, stop: int) -> list[_Entry]:
        """Entries of an index with their scores, last activity first."""

        def call() -> Awaitable[Any]:
            return self.client.zrevrange(index, start, stop, withscores=True)

        entries: list[_Entry] = await self._redis.run("reading an index of sessions", call)
        return entries

    async def _resolve(self, index: str, entries: Sequence[_Entry]) -> tuple[list[Session], int]:
        """The sessions that `entries` rightly lead to, and how many stale entries were removed.

        Does not promote: looking at a list is no activity of the sessions in it.
        """
        found: list[Session] = []
        stale: list[_Entry] = []
        for start in range(0, len(entries), _LOADED_AT_ONCE):
            chunk = entries[start : start + _LOADED_AT_ONCE]
            keys = [self._keys.session(UUID(member.decode()))[1] for member, _ in chunk]
            for entry, key, value in zip(chunk, keys, await self._values(keys), strict=True):
                try:
                    session = None if value is None else decode(value, key)
                except StoreError as error:
                    # One bad value must not make the others unreachable; reading it by id tells the caller.
                    self._log.error("session_unreadable", key=key, error=str(error))
                    continue
                if session is not None and self._belongs(session, index):
                    found.append(session)
                else:
                    stale.append(entry)
        return found, await self._repair(index, stale) if stale else 0

    async def _values(self, keys: Sequence[str]) -> list[bytes | None]:
        action = "reading sessions"
        if self._redis.is_cluster:
            return await self._redis.pipeline(action, [("GET", key) for key in keys])

        def call() -> Awaitable[Any]:
            return self.client.mget(keys)

        values: list[bytes | None] = await self._redis.run(action, call)
        return values

    def _belongs(self, session: Session | None, index: str) -> bool:
        return (
            session is not None
            and index in self._keys.indexes(session)
            and not past_max_age(session, self.config, utcnow())
        )

    async def _repair(self, index: str, stale: Sequence[_Entry]) -> int:
        """Remove stale entries, unless a save has renewed them meanwhile; returns how many went."""
        pairs = [part for member, score in stale for part in (member, repr(score))]
        try:
            removed: int = await self._redis.script(
                "removing stale entries from an index of sessions", _REPAIR, (index,), *pairs
            )
        except StoreError:
            # The answer is right without it, and the next reader tries again.
            return 0
        self._log.debug("session_index_repaired", removed=removed)
        return removed


def _refusal(
    session: Session, if_revision: int | None, outcome: bytes, stored: int, *, key: str
) -> StoreError:
    if outcome == b"conflict" and if_revision is not None:
        return conflict(session, if_revision, stored)
    return taken(session) if outcome == b"taken" else unreadable(key)


def _or_empty(tenant_id: UUID | None) -> str:
    return "" if tenant_id is None else str(tenant_id)
