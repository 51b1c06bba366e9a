"""Index entries: their scores, reading them page by page, and removing stale ones."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import Any, NamedTuple

from soldier_data.sessions.client import RedisRunner, load_script
from soldier_data.sessions.keys import SessionKeys

REPAIR = load_script("repair")

Entry = tuple[bytes, float]
"""Session id and score."""


class EntryUpdate(NamedTuple):
    """What a save writes to each index of its session.

    Attributes:
        score: The time of the save, in microseconds.
        dead_score: Entries with lower scores may belong to expired sessions.
        session_ttl: The shortest TTL that an index may have, in milliseconds.
        index_ttl: The TTL that an index with a shorter one is given, in milliseconds.
    """

    score: int
    dead_score: int
    session_ttl: int
    index_ttl: int


class IndexReader:
    """Reader of an index, page by page, most recent activity first.

    Its position is a score and the members already seen with that score, not an offset, because others may remove
    entries between two pages.
    """

    def __init__(self, redis: RedisRunner, action: str, index: str | bytes) -> None:
        self._redis = redis
        self._action = action
        self._index = index
        self._top = self._position = "+inf"
        self._seen_there: set[bytes] = set()
        self.pages = 0
        self.is_exhausted = False

    async def page(self, size: int) -> list[Entry]:
        """Return the next entries: at least `size`, unless the index ends earlier."""
        # The entries at the position are read again.
        count = size + len(self._seen_there)

        def call() -> Awaitable[Any]:
            return self._redis.client.zrevrangebyscore(
                self._index, self._position, "-inf", start=0, num=count, withscores=True
            )

        read: list[Entry] = await self._redis.run(self._action, call)
        self.pages += 1
        self.is_exhausted = len(read) < count
        page = [(member, score) for member, score in read if member not in self._seen_there]
        if page:
            if self.pages == 1:
                self._top = repr(page[0][1])
            self._position = repr(page[-1][1])
            self._seen_there = {member for member, score in read if repr(score) == self._position}
        return page

    async def new_entries(self) -> list[Entry]:
        """Return the entries above the first page: sessions saved since then, which the pages may lack."""

        def call() -> Awaitable[Any]:
            return self._redis.client.zrevrangebyscore(self._index, "+inf", f"({self._top}", withscores=True)

        entries: list[Entry] = await self._redis.run(self._action, call)
        return entries


async def remove_dead(
    redis: RedisRunner, keys: SessionKeys, action: str, index: str | bytes, entries: Sequence[Entry]
) -> int:
    """Remove the entries whose session does not exist, and return their number."""
    exists = await redis.pipeline(
        action, [("EXISTS", keys.session(member.decode())[1]) for member, _ in entries]
    )
    # The scores protect entries that a save has renewed meanwhile.
    dead = [
        part
        for (member, score), alive in zip(entries, exists, strict=True)
        if not alive
        for part in (member, repr(score))
    ]
    removed: int = await redis.script(action, REPAIR, (index,), "call", *dead) if dead else 0
    return removed
