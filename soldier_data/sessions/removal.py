"""Removing sessions with all their traces from Redis."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from uuid import UUID

from soldier_data.sessions.client import RedisRunner, load_script
from soldier_data.sessions.codec import unreadable
from soldier_data.sessions.keys import SessionKeys
from soldier_data.sessions.lookup import LOADED_AT_ONCE, SessionLookup
from soldier_data.sessions.models import MILLISECOND, Session, SessionStatus
from soldier_data.sessions.semantics import new_write_id

DELETE = load_script("delete", common=True)

_ACTION = "deleting sessions"

# Longer than a call goes on trying, so that a deletion that is repeated knows that it was done.
_REMEMBERED = timedelta(minutes=1)


def deletion(
    keys: SessionKeys, session_id: UUID, tenant_id: UUID | None, indexes: Iterable[str] = ()
) -> tuple[tuple[str, ...], tuple[str, str, int]]:
    """The keys and arguments that `DELETE` takes; without a tenant, whosever session it is."""
    stored_at = (*keys.session(session_id), keys.deleted(session_id))
    tenant = "" if tenant_id is None else str(tenant_id)
    return (*stored_at, *indexes), (tenant, new_write_id(), _REMEMBERED // MILLISECOND)


async def delete_sessions(
    redis: RedisRunner, keys: SessionKeys, lookup: SessionLookup, tenant_id: UUID, session_ids: Iterable[UUID]
) -> int:
    """Remove the tenant's sessions with their index entries; returns how many there were."""
    removed = 0
    ids = list(dict.fromkeys(session_ids))
    for start in range(0, len(ids), LOADED_AT_ONCE):
        removed += await _delete_batch(redis, keys, lookup, tenant_id, ids[start : start + LOADED_AT_ONCE])
    return removed


async def _delete_batch(
    redis: RedisRunner, keys: SessionKeys, lookup: SessionLookup, tenant_id: UUID, ids: list[UUID]
) -> int:
    stored_at = [keys.session(session_id)[1] for session_id in ids]
    values = await lookup.values(stored_at)
    sessions = [lookup.decoded(value, key) for value, key in zip(values, stored_at, strict=True)]
    indexes = [_indexes(keys, session, tenant_id) for session in sessions]
    if redis.is_cluster:
        # The indexes lie in other slots. The last one goes after the session: a deletion that is broken off leaves
        # the session where a repeated one finds it.
        await _remove_entries(redis, ids, [of_session[:-1] for of_session in indexes])
        calls = [deletion(keys, session_id, tenant_id) for session_id in ids]
    else:
        calls = [
            deletion(keys, id_, tenant_id, of_session) for id_, of_session in zip(ids, indexes, strict=True)
        ]
    replies = await redis.scripts(_ACTION, DELETE, calls)
    for key, reply in zip(stored_at, replies, strict=True):
        if reply < 0:
            raise unreadable(key)
    if redis.is_cluster:
        await _remove_entries(redis, ids, [of_session[-1:] for of_session in indexes])
    return sum(replies)


async def _remove_entries(redis: RedisRunner, ids: list[UUID], indexes: list[list[str]]) -> None:
    commands = [
        ("ZREM", index, str(session_id))
        for session_id, of_session in zip(ids, indexes, strict=True)
        for index in of_session
    ]
    if commands:
        await redis.pipeline(_ACTION, commands)


def _indexes(keys: SessionKeys, session: Session | None, tenant_id: UUID) -> list[str]:
    """Where there may be entries for the session, the one by which it is its customer's last.

    Entries of its former statuses are stale, and still there.
    """
    if session is None or session.tenant_id != tenant_id:
        return []
    if session.customer_profile_id is None:
        last = keys.channel(tenant_id, session.channel, session.user_channel_id)
    else:
        last = keys.customer(tenant_id, session.customer_profile_id)
    every = {
        *keys.indexes(session),
        *(keys.agent(tenant_id, session.agent_id, status) for status in SessionStatus),
    }
    return [*sorted(every - {last}), last]
