"""The entries of an index: reading them page by page, and removing stale ones."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

from soldier_data.sessions.client import RedisRunner, load_script
from soldier_data.sessions.keys import SessionKeys

REPAIR = load_script("repair")

Entry = tuple[bytes, float]
"""Session id and score."""


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
        read = await self._read(self._position, "-inf", count)
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
        return await self._read("+inf", f"({self._top}")

    async def _read(self, highest: str, lowest: str, count: int | None = None) -> list[Entry]:
        start = None if count is None else 0
        call: Callable[..., Awaitable[Any]] = partial(
            self._redis.client.zrevrangebyscore, self._index, highest, lowest, start, count, withscores=True
        )
        entries: list[Entry] = await self._redis.run(self._action, call)
        return entries


async def remove_dead(
    redis: RedisRunner, keys: SessionKeys, action: str, index: str | bytes, entries: Sequence[Entry]
) -> int:
    """Remove the entries whose session does not exist, and return their number."""
    exists = await redis.pipeline(
        action, [("EXISTS", keys.session(member.decode())[1]) for member, _ in entries]
    )
    dead = [entry for entry, alive in zip(entries, exists, strict=True) if not alive]
    return await remove_entries(redis, action, index, dead, "call") if dead else 0


async def remove_entries(
    redis: RedisRunner, action: str, index: str | bytes, entries: Sequence[Entry], call: str
) -> int:
    """Remove entries, except those that a save has renewed, and return the number removed.

    With `call` set to "pcall" instead of "call", do nothing on a server that does not accept writes.
    """
    pairs = [part for member, score in entries for part in (member, repr(score))]
    removed: int = await redis.script(action, REPAIR, (index,), call, *pairs)
    return removed
