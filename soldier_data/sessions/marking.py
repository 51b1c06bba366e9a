"""Marking sessions for scenario migrations in Redis."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from soldier_data.sessions.client import RedisRunner, load_script
from soldier_data.sessions.codec import encode, new_write_id, stored_values
from soldier_data.sessions.keys import SessionKeys
from soldier_data.sessions.lookup import BATCH_SIZE, SessionLookup
from soldier_data.sessions.models import PendingMigration

_MARK = load_script("mark", common=True)

# An attempt fails only if the session is saved within about a millisecond.
_ATTEMPTS = 20


async def mark_sessions(
    redis: RedisRunner,
    keys: SessionKeys,
    lookup: SessionLookup,
    tenant_id: UUID,
    session_ids: Sequence[UUID],
    pending: PendingMigration,
) -> tuple[int, list[UUID]]:
    """Set `pending_migration` of sessions of the tenant, without losing what others save meanwhile.

    Returns:
        The number of sessions marked, and the ids of those that changed during every attempt.
    """
    left = list(dict.fromkeys(session_ids))
    marked = 0
    for _ in range(_ATTEMPTS):
        changed: list[UUID] = []
        for start in range(0, len(left), BATCH_SIZE):
            batch = left[start : start + BATCH_SIZE]
            replies = await _mark_batch(redis, keys, lookup, tenant_id, batch, pending)
            marked += sum(reply == 1 for reply in replies.values())
            changed += [session_id for session_id, reply in replies.items() if reply < 0]
        left = changed
        if not left:
            break
    return marked, left


async def _mark_batch(
    redis: RedisRunner,
    keys: SessionKeys,
    lookup: SessionLookup,
    tenant_id: UUID,
    session_ids: Sequence[UUID],
    pending: PendingMigration,
) -> dict[UUID, int]:
    """Return the reply of ``mark.lua`` for each session of the tenant."""
    calls = {}
    for session_id, session in zip(session_ids, await lookup.read(session_ids), strict=True):
        if session is None or session.tenant_id != tenant_id or lookup.is_expired(session):
            continue
        session.pending_migration = pending
        # Lua cannot change the compressed form, so the new values are built here, for this revision only.
        values = stored_values(session, encode(session, session.last_activity_at))
        expected = f"{session.revision} {new_write_id()} {tenant_id}"
        calls[session_id] = keys.session(session_id), (expected, *values)
    if not calls:
        return {}
    replies = await redis.scripts("marking sessions", _MARK, list(calls.values()))
    return dict(zip(calls, replies, strict=True))
