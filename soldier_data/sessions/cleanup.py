"""Removing what time alone leaves behind in Redis."""

from __future__ import annotations

from soldier_data.sessions.client import RedisRunner, load_script
from soldier_data.sessions.entries import IndexWalk, remove_dead
from soldier_data.sessions.keys import SessionKeys

_EXPIRE = load_script("expire", common=True)

_ACTION = "cleaning up sessions"
# Redis serves others between two batches; one takes it a few milliseconds.
_BATCH = 500


async def remove_old_sessions(redis: RedisRunner, keys: SessionKeys, created_until: int) -> int:
    """Remove the sessions created then (in ms) or before. Redis does so itself unless max_session_age was lowered."""
    removed = 0
    async for page in redis.scan(_ACTION, keys.pattern("persist"), "string"):
        ids = [session_id for key in page if (session_id := keys.session_id(key, "persist")) is not None]
        for start in range(0, len(ids), _BATCH):
            calls = [
                (keys.session(session_id), (created_until,)) for session_id in ids[start : start + _BATCH]
            ]
            removed += sum(await redis.scripts(_ACTION, _EXPIRE, calls))
    return removed


async def remove_dead_entries(redis: RedisRunner, keys: SessionKeys) -> int:
    """Remove the index entries that lead to no session."""
    removed = 0
    async for page in redis.scan(_ACTION, keys.pattern("*"), "zset"):
        for key in page:
            if keys.is_index(key):
                walk = IndexWalk(redis, _ACTION, key)
                while not walk.is_over:
                    removed += await remove_dead(redis, keys, _ACTION, key, await walk.page(_BATCH))
    return removed
