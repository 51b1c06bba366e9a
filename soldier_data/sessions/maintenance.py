"""Counting and cleaning up by scans of the whole key space."""

from __future__ import annotations

from uuid import UUID

from soldier_data.base.subjects import batches
from soldier_data.sessions.client import RedisRunner, load_script
from soldier_data.sessions.entries import IndexReader, remove_dead
from soldier_data.sessions.keys import SessionKeys

_EXPIRE = load_script("expire", common=True)

_ACTION = "cleaning up sessions"
# Redis serves other clients between two batches; a batch takes it a few milliseconds.
_BATCH = 500


async def stored_ids(redis: RedisRunner, keys: SessionKeys, kind: str) -> set[UUID]:
    """Return the ids of the sessions with a key of a kind, "hot" or "persist"."""
    pages = redis.scan("counting sessions", keys.pattern(kind))
    ids = {keys.session_id(key, kind) async for page in pages for key in page}
    return {session_id for session_id in ids if session_id is not None}


async def remove_old_sessions(redis: RedisRunner, keys: SessionKeys, created_until: int) -> int:
    """Remove sessions created at or before a time (in ms since 1970), and return their number.

    Redis removes them by itself unless `max_session_age` was lowered.
    """
    removed = 0
    async for page in redis.scan(_ACTION, keys.pattern("persist"), "string"):
        ids = [session_id for key in page if (session_id := keys.session_id(key, "persist")) is not None]
        for batch in batches(ids, _BATCH):
            calls = [(keys.session(session_id), (created_until,)) for session_id in batch]
            removed += sum(await redis.scripts(_ACTION, _EXPIRE, calls))
    return removed


async def remove_dead_entries(redis: RedisRunner, keys: SessionKeys) -> int:
    """Remove index entries whose session does not exist, and return their number."""
    removed = 0
    async for page in redis.scan(_ACTION, keys.pattern("*"), "zset"):
        for key in page:
            if keys.is_index(key):
                reader = IndexReader(redis, _ACTION, key)
                while not reader.is_exhausted:
                    removed += await remove_dead(redis, keys, _ACTION, key, await reader.page(_BATCH))
    return removed
