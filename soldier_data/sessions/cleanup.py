"""Removing what time alone leaves behind in Redis."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

from soldier_data.sessions.client import RedisRunner, load_script
from soldier_data.sessions.keys import SessionKeys
from soldier_data.sessions.lookup import REPAIR

_EXPIRE = load_script("expire", common=True)

_ACTION = "cleaning up sessions"
# Redis serves others between two batches; one takes it a few milliseconds.
_BATCH = 500


async def remove_old_sessions(redis: RedisRunner, keys: SessionKeys, created_until: int) -> int:
    """Remove the sessions created then (in ms) or before. Redis does so itself unless max_session_age was lowered."""
    removed = 0
    async for page in redis.scan(_ACTION, keys.pattern("persist"), "string"):
        ids = [session_id for key in page if (session_id := keys.session_id(key)) is not None]
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
                removed += await _remove_dead_entries_of(redis, keys, key)
    return removed


async def _remove_dead_entries_of(redis: RedisRunner, keys: SessionKeys, index: bytes) -> int:
    removed = start = 0
    while True:

        def call(start: int = start) -> Awaitable[Any]:
            return redis.client.zrange(index, start, start + _BATCH - 1, withscores=True)

        entries = await redis.run(_ACTION, call)
        if not entries:
            return removed
        exists = await redis.pipeline(
            _ACTION, [("EXISTS", keys.session(member.decode())[1]) for member, _ in entries]
        )
        # With the scores that were seen: an entry that a save has renewed since leads somewhere.
        dead = [
            part
            for (member, score), alive in zip(entries, exists, strict=True)
            if not alive
            for part in (member, repr(score))
        ]
        gone = await redis.script(_ACTION, REPAIR, (index,), *dead) if dead else 0
        removed += gone
        start += len(entries) - gone
