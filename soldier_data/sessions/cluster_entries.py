"""The index entries of a session on Redis Cluster, where they are in other slots than the session."""

from __future__ import annotations

from contextlib import suppress

from soldier_data.errors import StoreError
from soldier_data.sessions.client import RedisRunner, load_script
from soldier_data.sessions.entries import REPAIR, Entry, remove_dead
from soldier_data.sessions.keys import SessionKeys
from soldier_data.sessions.lifetimes import microseconds
from soldier_data.sessions.models import Session, SessionStatus

_ADD_ENTRY = load_script("add_entry")

# Looking for dead entries is worthwhile if at least this many are old.
_MIN_OLD = 100


class ClusterEntries:
    """The index entries of one save, written in one round trip before the session and one after it.

    An entry without a session is harmless, but a session without entries would be missed when its customer's data is
    erased. A save that is interrupted, or that an index refuses, therefore leaves extra entries behind.

    Args:
        redis: The cluster.
        keys: The names of its keys.
        session: The session to be saved.
        score: The score of its entries.
        dead_score: Entries with lower scores may belong to expired sessions.
        session_ttl: The shortest TTL that an index may have, in milliseconds.
        index_ttl: The TTL that an index with a shorter one is given, in milliseconds.
    """

    def __init__(
        self,
        redis: RedisRunner,
        keys: SessionKeys,
        session: Session,
        score: int,
        dead_score: int,
        session_ttl: int,
        index_ttl: int,
    ) -> None:
        self._redis = redis
        self._keys = keys
        self._session = session
        self._id = str(session.session_id)
        self._action = f"writing the index entries of session {self._id}"
        self._indexes = keys.indexes(session)
        self._score = score
        self._arguments = (self._id, session_ttl, index_ttl, dead_score, _MIN_OLD)
        self._added: set[str] = set()
        self._old: dict[str, list[Entry]] = {}

    async def add_missing(self) -> None:
        """Add an entry to each index that lacks one."""
        # A reader that finds no session yet removes entries with this score, but not those that `update` writes.
        score = self._score - 1
        replies = await self._redis.pipeline(
            self._action,
            [("EVAL", _ADD_ENTRY.text, 1, index, "NX", score, *self._arguments) for index in self._indexes],
        )
        for index, (changed, old) in zip(self._indexes, replies, strict=True):
            if changed:
                self._added.add(index)
            if old:
                members, scores = old[::2], map(float, old[1::2])
                self._old[index] = list(zip(members, scores, strict=True))

    async def update(self) -> None:
        """Update all entries after the session is stored, and remove some stale ones."""
        commands: list[tuple[str | int, ...]] = [
            ("EVAL", _ADD_ENTRY.text, 1, index, "CH", self._score, *self._arguments)
            for index in self._indexes
        ]
        session = self._session
        status_index = self._keys.agent(session.tenant_id, session.agent_id, session.status)
        if status_index in self._added:
            # The score of the last save protects entries that another save has written since.
            seen = microseconds(session.last_activity_at)
            commands += [
                ("EVAL", REPAIR.text, 1, index, "pcall", self._id, seen)
                for status in SessionStatus
                if (index := self._keys.agent(session.tenant_id, session.agent_id, status)) != status_index
            ]
        await self._redis.replicated_pipeline(self._action, commands)
        for index, entries in self._old.items():
            # The next save tries again.
            with suppress(StoreError):
                await remove_dead(self._redis, self._keys, self._action, index, entries)
