"""Deleting sessions and their index entries from Redis."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import timedelta
from uuid import UUID

from soldier_data.base.subjects import batches
from soldier_data.sessions.client import RedisRunner, load_script
from soldier_data.sessions.codec import new_write_id
from soldier_data.sessions.keys import SessionKeys
from soldier_data.sessions.lookup import BATCH_SIZE, SessionLookup
from soldier_data.sessions.models import MILLISECOND, Session, SessionStatus
from soldier_data.sessions.refusals import unreadable

DELETE = load_script("delete", common=True)

_ACTION = "deleting sessions"

# Longer than the retries of a call, so that a retry recognizes a deletion that was done.
_REMEMBERED_FOR = timedelta(minutes=1)


def deletion(
    keys: SessionKeys,
    session_id: UUID,
    tenant_id: UUID | None,
    indexes: Iterable[str] = (),
    *,
    durable: bool = False,
) -> tuple[tuple[str, ...], tuple[str, str, int, int]]:
    """Return the keys and arguments of `DELETE`. Without a tenant, the session may belong to any tenant.

    With `durable`, PostgreSQL has the session too: copies of it that others are about to write are refused.
    """
    session_keys = (*keys.session(session_id), keys.deleted(session_id))
    tenant = "" if tenant_id is None else str(tenant_id)
    return (*session_keys, *indexes), (tenant, new_write_id(), _REMEMBERED_FOR // MILLISECOND, int(durable))


async def delete_sessions(
    redis: RedisRunner,
    keys: SessionKeys,
    lookup: SessionLookup,
    tenant_id: UUID,
    session_ids: Iterable[UUID],
    *,
    durable: bool = False,
) -> int:
    """Delete sessions of the tenant with their index entries, and return the number deleted.

    `durable` as for `deletion`.
    """
    removed = 0
    for ids in batches(list(dict.fromkeys(session_ids)), BATCH_SIZE):
        removed += await _delete_batch(redis, keys, lookup, tenant_id, ids, durable=durable)
    return removed


async def _delete_batch(
    redis: RedisRunner,
    keys: SessionKeys,
    lookup: SessionLookup,
    tenant_id: UUID,
    ids: Sequence[UUID],
    *,
    durable: bool,
) -> int:
    indexes = [_indexes(keys, session, tenant_id) for session in await lookup.read(ids)]
    if redis.is_cluster:
        # The indexes are in other slots. The last entry is removed after the session, so that a repetition of an
        # interrupted deletion still finds the session.
        await _remove_entries(redis, ids, [listing[:-1] for listing in indexes])
        calls = [deletion(keys, session_id, tenant_id, durable=durable) for session_id in ids]
    else:
        calls = [
            deletion(keys, id_, tenant_id, listing, durable=durable)
            for id_, listing in zip(ids, indexes, strict=True)
        ]
    replies = await redis.scripts(_ACTION, DELETE, calls)
    for session_id, reply in zip(ids, replies, strict=True):
        if reply < 0:
            raise unreadable(f"Redis key {keys.session(session_id)[1]}")
    if redis.is_cluster:
        await _remove_entries(redis, ids, [listing[-1:] for listing in indexes])
    return sum(replies)


async def _remove_entries(redis: RedisRunner, ids: Sequence[UUID], indexes: list[list[str]]) -> None:
    commands = [
        ("ZREM", index, str(session_id))
        for session_id, listing in zip(ids, indexes, strict=True)
        for index in listing
    ]
    if commands:
        await redis.pipeline(_ACTION, commands)


def _indexes(keys: SessionKeys, session: Session | None, tenant_id: UUID) -> list[str]:
    """Return the indexes that may list the session, the one by which its customer's sessions are found last.

    Those of other statuses are included, as they may have stale entries.
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
