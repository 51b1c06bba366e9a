"""The index entries of a session on Redis Cluster, where they lie in other slots than the session."""

from __future__ import annotations

from contextlib import suppress

from soldier_data.errors import StoreError
from soldier_data.sessions.client import RedisRunner, load_script
from soldier_data.sessions.entries import REPAIR, Entry, remove_dead
from soldier_data.sessions.keys import SessionKeys
from soldier_data.sessions.models import Session, SessionStatus
from soldier_data.sessions.semantics import microseconds

_ENTER = load_script("enter")

# So many old entries make it worth while to look for dead ones among them.
_WORTH_LOOKING = 100


class ClusterEntries:
    """Writes the index entries of one save, in one round trip before the session and one after it.

    An entry that leads nowhere does no harm. A session that no entry leads to would be missed by the erasure of its
    customer: therefore a save that is broken off, or refused an index, leaves entries alone.

    Args:
        redis: The cluster.
        keys: The names of its keys.
        session: As it is to be saved.
        score: Of its entries.
        dead_score: Entries with less may be dead.
        needed: How long an index must live, in ms.
        given: How long one lives that would not.
    """

    def __init__(
        self,
        redis: RedisRunner,
        keys: SessionKeys,
        session: Session,
        *,
        score: int,
        dead_score: int,
        needed: int,
        given: int,
    ) -> None:
        self._redis = redis
        self._keys = keys
        self._session = session
        self._id = str(session.session_id)
        self._indexes = keys.indexes(session)
        self._status_index = keys.agent(session.tenant_id, session.agent_id, session.status)
        self._score = score
        self._rest = (self._id, needed, given, dead_score, _WORTH_LOOKING)
        self._entered: set[str] = set()
        self._old: dict[str, list[Entry]] = {}

    async def enter(self) -> None:
        """Enter the session where it is not entered yet."""
        # A reader that finds no session at this score removes the entry by it: not the one that `settle` makes.
        replies = await self._redis.pipeline(
            f"writing the index entries of session {self._id}",
            [("EVAL", _ENTER.text, 1, index, "NX", self._score - 1, *self._rest) for index in self._indexes],
        )
        for index, (changed, old) in zip(self._indexes, replies, strict=True):
            if changed:
                self._entered.add(index)
            if old:
                self._old[index] = [
                    (member, float(score)) for member, score in zip(old[::2], old[1::2], strict=True)
                ]

    async def settle(self) -> None:
        """Bring the entries up to date, now that the session is stored, and remove some of those that are stale."""
        commands: list[tuple[str | int, ...]] = [
            ("EVAL", _ENTER.text, 1, index, "CH", self._score, *self._rest) for index in self._indexes
        ]
        if self._status_index in self._entered:
            # By the score that the last save gave it: an entry that somebody else's save made since stays.
            seen = microseconds(self._session.last_activity_at)
            commands += [
                ("EVAL", REPAIR.text, 1, index, "pcall", self._id, seen)
                for status in SessionStatus
                if (index := self._keys.agent(self._session.tenant_id, self._session.agent_id, status))
                != self._status_index
            ]
        action = f"writing the index entries of session {self._id}"
        await self._redis.replicated_pipeline(action, commands)
        for index, entries in self._old.items():
            # The next save tries again.
            with suppress(StoreError):
                await remove_dead(self._redis, self._keys, action, index, entries)
