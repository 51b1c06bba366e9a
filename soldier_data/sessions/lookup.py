"""Finding sessions in Redis by way of the indexes."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import Any
from uuid import UUID

from soldier_data.base.models import utcnow
from soldier_data.errors import StoreError
from soldier_data.logging import get_logger
from soldier_data.sessions.client import RedisRunner, load_script
from soldier_data.sessions.codec import decode
from soldier_data.sessions.keys import SessionKeys
from soldier_data.sessions.models import Session, SessionTierConfig
from soldier_data.sessions.semantics import past_max_age

REPAIR = load_script("repair")

LOADED_AT_ONCE = 1000

Entry = tuple[bytes, float]
"""Session id and score."""


class SessionLookup:
    """Reads indexes, checks each entry against the session that it leads to, and removes stale ones.

    Does not promote: looking at a list is no activity of the sessions in it.
    """

    def __init__(self, redis: RedisRunner, keys: SessionKeys, config: SessionTierConfig) -> None:
        self._redis = redis
        self._keys = keys
        self._config = config
        self._log = get_logger(__name__)

    async def first(self, index: str, limit: int) -> list[Session]:
        """The `limit` sessions of an index that were last active."""
        found: dict[UUID, Session] = {}
        start = 0
        # Once around, unless stale entries took the place of sessions further down.
        while (wanted := limit - len(found)) > 0:
            entries = await self.entries(index, start, start + wanted - 1)
            sessions, removed = await self._resolve(index, entries)
            found.update((session.session_id, session) for session in sessions)
            if len(entries) < wanted:
                break
            start += len(entries) - removed
        return list(found.values())

    async def all(self, index: str) -> list[Session]:
        """Every session of an index, last activity first."""
        found, _ = await self._resolve(index, await self.entries(index, 0, -1))
        return found

    async def entries(self, index: str, start: int, stop: int) -> list[Entry]:
        """Entries of an index, last activity first."""

        def call() -> Awaitable[Any]:
            return self._redis.client.zrevrange(index, start, stop, withscores=True)

        entries: list[Entry] = await self._redis.run("reading an index of sessions", call)
        return entries

    def belongs(self, session: Session | None, index: str) -> bool:
        """Whether an entry for the session in that index is right."""
        return (
            session is not None
            and index in self._keys.indexes(session)
            and not past_max_age(session, self._config, utcnow())
        )

    async def repair(self, index: str, stale: Sequence[Entry]) -> int:
        """Remove stale entries, unless a save has renewed them meanwhile; returns how many went."""
        pairs = [part for member, score in stale for part in (member, repr(score))]
        try:
            removed: int = await self._redis.script(
                "removing stale entries from an index of sessions", REPAIR, (index,), *pairs
            )
        except StoreError:
            # The answer is right without it, and the next reader tries again.
            return 0
        self._log.debug("session_index_repaired", removed=removed)
        return removed

    async def values(self, keys: Sequence[str]) -> list[bytes | None]:
        """The values of keys, in one round trip (one a node on Cluster)."""
        action = "reading sessions"
        if self._redis.is_cluster:
            return await self._redis.pipeline(action, [("GET", key) for key in keys])

        def call() -> Awaitable[Any]:
            return self._redis.client.mget(keys)

        values: list[bytes | None] = await self._redis.run(action, call)
        return values

    def decoded(self, value: bytes | None, key: str) -> Session | None:
        """The session, or None if there is none or it cannot be read.

        One bad value must not make the others unreachable; reading it by id tells the caller.
        """
        try:
            return None if value is None else decode(value, key)
        except StoreError as error:
            self._log.error("session_unreadable", key=key, error=str(error))
            return None

    async def _resolve(self, index: str, entries: Sequence[Entry]) -> tuple[list[Session], int]:
        """The sessions that `entries` rightly lead to, and how many stale entries were removed."""
        found: list[Session] = []
        stale: list[Entry] = []
        for start in range(0, len(entries), LOADED_AT_ONCE):
            chunk = entries[start : start + LOADED_AT_ONCE]
            keys = [self._keys.session(UUID(member.decode()))[1] for member, _ in chunk]
            for entry, key, value in zip(chunk, keys, await self.values(keys), strict=True):
                session = self.decoded(value, key)
                if session is not None and self.belongs(session, index):
                    found.append(session)
                elif session is not None or value is None:
                    stale.append(entry)
        return found, await self.repair(index, stale) if stale else 0
