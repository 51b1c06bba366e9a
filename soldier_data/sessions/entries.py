"""The entries of an index: read page by page, removed where they are stale."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import Any

from soldier_data.sessions.client import RedisRunner, load_script
from soldier_data.sessions.keys import SessionKeys

REPAIR = load_script("repair")

Entry = tuple[bytes, float]
"""Session id and score."""


class IndexWalk:
    """Reads an index page by page, last activity first.

    The position is a score and the members that were seen with it, no number of entries: other readers remove
    entries meanwhile.
    """

    def __init__(self, redis: RedisRunner, action: str, index: str | bytes) -> None:
        self._redis = redis
        self._action = action
        self._index = index
        self._top = self._position = "+inf"
        self._seen_there: set[bytes] = set()
        self.pages = 0
        self.is_over = False

    async def page(self, size: int) -> list[Entry]:
        """The next entries, `size` or more unless the index ends before."""
        # Those at the position come again.
        count = size + len(self._seen_there)

        def call() -> Awaitable[Any]:
            return self._redis.client.zrevrangebyscore(
                self._index, self._position, "-inf", start=0, num=count, withscores=True
            )

        read: list[Entry] = await self._redis.run(self._action, call)
        self.pages += 1
        self.is_over = len(read) < count
        page = [(member, score) for member, score in read if member not in self._seen_there]
        if page:
            if self.pages == 1:
                self._top = repr(page[0][1])
            self._position = repr(page[-1][1])
            self._seen_there = {member for member, score in read if repr(score) == self._position}
        return page

    async def risen(self) -> list[Entry]:
        """The entries above the first page: of sessions saved since then, which the walk may have missed."""

        def call() -> Awaitable[Any]:
            return self._redis.client.zrevrangebyscore(self._index, "+inf", f"({self._top}", withscores=True)

        entries: list[Entry] = await self._redis.run(self._action, call)
        return entries


async def remove_dead(
    redis: RedisRunner, keys: SessionKeys, action: str, index: str | bytes, entries: Sequence[Entry]
) -> int:
    """Remove those of the entries that lead to no session; returns how many there were."""
    exists = await redis.pipeline(
        action, [("EXISTS", keys.session(member.decode())[1]) for member, _ in entries]
    )
    # With the scores that were seen: an entry that a save has renewed since leads somewhere.
    dead = [
        part
        for (member, score), alive in zip(entries, exists, strict=True)
        if not alive
        for part in (member, repr(score))
    ]
    removed: int = await redis.script(action, REPAIR, (index,), "call", *dead) if dead else 0
    return removed
