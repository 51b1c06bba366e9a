"""Marking sessions for scenario migrations in Redis."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from soldier_data.base.models import utcnow
from soldier_data.sessions.client import RedisRunner, load_script
from soldier_data.sessions.codec import encode, new_write_id, stored_values
from soldier_data.sessions.keys import SessionKeys
from soldier_data.sessions.lifetimes import past_max_age
from soldier_data.sessions.lookup import BATCH_SIZE, SessionLookup
from soldier_data.sessions.models import PendingMigration, SessionTierConfig

_MARK = load_script("mark", common=True)

# An attempt fails only if the session is saved within about a millisecond.
_ATTEMPTS = 20


class SessionMarker:
    """Sets `pending_migration` of stored sessions, without losing what others save meanwhile."""

    def __init__(
        self, redis: RedisRunner, keys: SessionKeys, lookup: SessionLookup, config: SessionTierConfig
    ) -> None:
        self._redis = redis
        self._keys = keys
        self._lookup = lookup
        self._config = config

    async def mark(
        self, tenant_id: UUID, session_ids: Sequence[UUID], pending: PendingMigration
    ) -> tuple[int, list[UUID]]:
        """Mark the tenant's sessions.

        Returns:
            The number of sessions marked, and the ids of those that changed during every attempt.
        """
        left = list(dict.fromkeys(session_ids))
        marked = 0
        for _ in range(_ATTEMPTS):
            changed: list[UUID] = []
            for start in range(0, len(left), BATCH_SIZE):
                batch = left[start : start + BATCH_SIZE]
                replies = await self._mark_batch(tenant_id, batch, pending)
                marked += sum(reply == 1 for reply in replies.values())
                changed += [session_id for session_id, reply in replies.items() if reply < 0]
            left = changed
            if not left:
                break
        return marked, left

    async def _mark_batch(
        self, tenant_id: UUID, session_ids: Sequence[UUID], pending: PendingMigration
    ) -> dict[UUID, int]:
        """Return an outcome per existing session: 1 marked, 0 no longer there, -1 changed since it was read."""
        keys = [self._keys.session(session_id) for session_id in session_ids]
        values = await self._lookup.values([persistent for _, persistent in keys])
        calls = {}
        for session_id, pair, value in zip(session_ids, keys, values, strict=True):
            session = self._lookup.decode_or_none(value, pair[1])
            if (
                session is None
                or session.tenant_id != tenant_id
                or past_max_age(session, self._config, utcnow())
            ):
                continue
            session.pending_migration = pending
            # Lua cannot change the compressed form, so the new values are built here, for this revision only.
            body = encode(session, session.last_activity_at)
            expected = f"{session.revision} {new_write_id()} {tenant_id}"
            calls[session_id] = pair, (expected, *stored_values(session, body))
        if not calls:
            return {}
        replies = await self._redis.scripts("marking sessions", _MARK, list(calls.values()))
        return dict(zip(calls, replies, strict=True))
