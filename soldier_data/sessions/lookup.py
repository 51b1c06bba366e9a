"""Finding sessions in Redis by way of the indexes."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import Any
from uuid import UUID

from soldier_data.base.models import utcnow
from soldier_data.errors import StoreError
from soldier_data.logging import get_logger
from soldier_data.sessions.client import RedisRunner
from soldier_data.sessions.codec import decode
from soldier_data.sessions.entries import REPAIR, Entry, IndexWalk
from soldier_data.sessions.keys import SessionKeys
from soldier_data.sessions.models import Session, SessionTierConfig
from soldier_data.sessions.semantics import past_max_age

LOADED_AT_ONCE = 1000

# Behind stale entries pages grow, up to this or what is asked for.
_GROWTH = 30
_LONGEST_PAGE = 10_000

_READING = "reading an index of sessions"
# More than any index has; Redis counts in 64 bits.
_ALL = 2**62


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
        stale: list[Entry] = []
        walk = IndexWalk(self._redis, _READING, index)
        growth = 1
        while (wanted := limit - len(found)) > 0 and not walk.is_over:
            entries = await walk.page(min(wanted * growth, max(wanted, _LONGEST_PAGE), _ALL))
            await self._resolve(index, entries, limit, found, stale)
            growth *= _GROWTH
        if walk.pages > 1 and len(found) < limit:
            risen: dict[UUID, Session] = {}
            await self._resolve(index, await walk.risen(), limit, risen, stale)
            found = risen | {id_: session for id_, session in found.items() if id_ not in risen}
        if stale:
            await self.repair(index, stale)
        return list(found.values())[:limit]

    async def all(self, index: str) -> list[Session]:
        """Every session of an index, last activity first."""
        return await self.first(index, _ALL)

    def belongs(self, session: Session | None, index: str) -> bool:
        """Whether an entry for the session in that index is right."""
        return (
            session is not None
            and index in self._keys.indexes(session)
            and not past_max_age(session, self._config, utcnow())
        )

    async def repair(self, index: str, stale: Sequence[Entry]) -> int:
        """Remove stale entries, unless a save has renewed them meanwhile; returns how many went."""
        removed = 0
        for start in range(0, len(stale), LOADED_AT_ONCE):
            pairs = [
                part
                for member, score in stale[start : start + LOADED_AT_ONCE]
                for part in (member, repr(score))
            ]
            try:
                removed += await self._redis.script(
                    "removing stale entries from an index of sessions", REPAIR, (index,), "pcall", *pairs
                )
            except StoreError:
                # The answer is right without it, and the next reader tries again.
                break
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

    async def _resolve(
        self,
        index: str,
        entries: Sequence[Entry],
        limit: int,
        found: dict[UUID, Session],
        stale: list[Entry],
    ) -> None:
        """Add the sessions that `entries` rightly lead to, up to `limit` or some more, and the stale entries."""
        for start in range(0, len(entries), LOADED_AT_ONCE):
            if len(found) >= limit:
                break
            chunk = entries[start : start + LOADED_AT_ONCE]
            keys = [self._keys.session(member.decode())[1] for member, _ in chunk]
            for entry, key, value in zip(chunk, keys, await self.values(keys), strict=True):
                session = self.decoded(value, key)
                if session is not None and self.belongs(session, index):
                    found[session.session_id] = session
                # One past our own age stays, for a process that lets its sessions live longer.
                elif value is None or (session is not None and index not in self._keys.indexes(session)):
                    stale.append(entry)
