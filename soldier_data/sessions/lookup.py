"""Finding sessions in Redis through the indexes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any
from uuid import UUID

from soldier_data.base.models import utcnow
from soldier_data.base.subjects import batches
from soldier_data.errors import StoreError
from soldier_data.logging import get_logger
from soldier_data.sessions.client import RedisRunner
from soldier_data.sessions.codec import decode
from soldier_data.sessions.entries import Entry, IndexReader, remove_entries
from soldier_data.sessions.keys import SessionKeys
from soldier_data.sessions.lifetimes import past_max_age
from soldier_data.sessions.models import Session, SessionTierConfig

BATCH_SIZE = 1000
"""Number of sessions that one round trip reads or writes."""

# Pages grow while entries are stale, up to this size or the number of sessions still needed.
_GROWTH = 30
_LONGEST_PAGE = 10_000

_READING = "reading an index of sessions"
_REPAIRING = "removing stale entries from an index of sessions"
# More entries than any index has. Redis counts in 64 bits.
_ALL = 2**62


class SessionLookup:
    """Lookups by index. Each entry is checked against its session, and removed if it is stale.

    Lookups do not promote sessions: being listed is not activity.
    """

    def __init__(self, redis: RedisRunner, keys: SessionKeys, config: SessionTierConfig) -> None:
        self._redis = redis
        self._keys = keys
        self._config = config
        self._log = get_logger(__name__)

    async def first(self, index: str, limit: int, *, expired: bool = False) -> list[Session]:
        """Return the `limit` most recently active sessions of an index.

        Args:
            index: Key of the index.
            limit: Maximum number of sessions.
            expired: Include sessions past `max_session_age` that are still stored.
        """
        found: dict[UUID, Session] = {}
        stale: list[Entry] = []
        reader = IndexReader(self._redis, _READING, index)
        growth = 1
        while (missing := limit - len(found)) > 0 and not reader.is_exhausted:
            entries = await reader.page(min(missing * growth, max(missing, _LONGEST_PAGE), _ALL))
            await self._resolve(index, entries, limit, found, stale, expired=expired)
            growth *= _GROWTH
        if reader.pages > 1 and len(found) < limit:
            new: dict[UUID, Session] = {}
            await self._resolve(index, await reader.new_entries(), limit, new, stale, expired=expired)
            found = new | {id_: session for id_, session in found.items() if id_ not in new}
        if stale:
            await self.repair(index, stale)
        return list(found.values())[:limit]

    async def all(self, index: str, *, expired: bool = False) -> list[Session]:
        """Return all sessions of an index, most recent activity first; `expired` as for `first`."""
        return await self.first(index, _ALL, expired=expired)

    def belongs(self, session: Session | None, index: str) -> bool:
        """Return whether the session exists, has not expired and is to be listed in the index."""
        return session is not None and index in self._keys.indexes(session) and not self.is_expired(session)

    def is_expired(self, session: Session) -> bool:
        """Return whether the session is past `max_session_age`; Redis may still store it."""
        return past_max_age(session, self._config, utcnow())

    async def repair(self, index: str, stale: Sequence[Entry]) -> int:
        """Remove stale entries, except those that a save has renewed, and return the number removed."""
        removed = 0
        for batch in batches(stale, BATCH_SIZE):
            try:
                removed += await remove_entries(self._redis, _REPAIRING, index, batch, "pcall")
            except StoreError:
                # The result of the lookup is correct all the same, and the next reader tries again.
                break
        self._log.debug("session_index_repaired", removed=removed)
        return removed

    async def read(self, session_ids: Sequence[UUID]) -> list[Session | None]:
        """Return the stored sessions, expired ones included, with None for those that do not exist.

        Unreadable values are logged and returned as None. Does not promote.
        """
        keys = [self._keys.session(session_id)[1] for session_id in session_ids]
        values = await self.values(keys)
        return [self._decode_or_none(value, key) for value, key in zip(values, keys, strict=True)]

    async def values(self, keys: Sequence[str]) -> list[bytes | None]:
        """Return the values of keys, in one round trip (one per node on Cluster)."""
        action = "reading sessions"
        if self._redis.is_cluster:
            return await self._redis.pipeline(action, [("GET", key) for key in keys])
        mget: Callable[..., Awaitable[Any]] = self._redis.client.mget
        values: list[bytes | None] = await self._redis.run(action, mget, keys)
        return values

    def _decode_or_none(self, value: bytes | None, key: str) -> Session | None:
        """Return the session in a value, or None if there is no value or it is unreadable.

        An unreadable value is logged and must not make other sessions inaccessible; `get` raises an error for it.
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
        *,
        expired: bool,
    ) -> None:
        """Add the sessions of `entries` to `found`, until it has at least `limit`, and stale entries to `stale`."""
        for batch in batches(entries, BATCH_SIZE):
            if len(found) >= limit:
                break
            keys = [self._keys.session(member.decode())[1] for member, _ in batch]
            for entry, key, value in zip(batch, keys, await self.values(keys), strict=True):
                session = self._decode_or_none(value, key)
                if value is None or (session is not None and index not in self._keys.indexes(session)):
                    stale.append(entry)
                # A session past our `max_session_age` keeps its entry: another process may have a longer one.
                elif session is not None and (expired or not self.is_expired(session)):
                    found[session.session_id] = session
