"""Marking sessions for scenario migrations in Redis."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from soldier_data.base.subjects import batches
from soldier_data.sessions.client import RedisRunner, load_script
from soldier_data.sessions.codec import encode, new_write_id, stored_values
from soldier_data.sessions.keys import SessionKeys
from soldier_data.sessions.lookup import BATCH_SIZE, SessionLookup
from soldier_data.sessions.models import PendingMigration, Session

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
        replies: dict[UUID, int] = {}
        for batch in batches(left, BATCH_SIZE):
            calls = {
                session_id: (keys.session(session_id), _arguments(session, pending))
                for session_id, session in zip(batch, await lookup.read(batch), strict=True)
                if session is not None and session.tenant_id == tenant_id and not lookup.is_expired(session)
            }
            if calls:
                outcomes = await redis.scripts("marking sessions", _MARK, list(calls.values()))
                replies.update(zip(calls, outcomes, strict=True))
        marked += sum(reply == 1 for reply in replies.values())
        left = [session_id for session_id, reply in replies.items() if reply < 0]
        if not left:
            break
    return marked, left


def _arguments(session: Session, pending: PendingMigration) -> tuple[str, bytes, bytes]:
    session.pending_migration = pending
    # Lua cannot change the compressed form, so the new values are built here, for this revision only.
    body = encode(session, session.last_activity_at)
    tenant_id = str(session.tenant_id)
    expected = f"{session.revision} {new_write_id()} {tenant_id}"
    return expected, *stored_values(tenant_id, session.created_at, body)
