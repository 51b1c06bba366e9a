"""What every session store does to list and remove all that is a customer's."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest

from soldier_data.errors import StoreError, ValidationError
from soldier_data.sessions import Channel, RedisSessionStore, Session, SessionStatus, SessionStore
from tests.factories.sessions import SessionFactory


async def saved(store: SessionStore, **values: Any) -> Session:
    session: Session = SessionFactory(**values)
    await store.save(session)
    return session


async def test_the_sessions_of_an_address_come_last_activity_first(session_store: SessionStore) -> None:
    tenant_id = uuid4()
    address = {"tenant_id": tenant_id, "channel": Channel.EMAIL, "user_channel_id": "ada@example.org"}
    first, second = [await saved(session_store, **address) for _ in range(2)]
    await saved(session_store, **{**address, "tenant_id": uuid4()})
    await saved(session_store, **{**address, "channel": Channel.SLACK})
    await saved(session_store, **{**address, "user_channel_id": "bob@example.org"})
    found = await session_store.list_by_channel(tenant_id, Channel.EMAIL, "ada@example.org")
    assert found == [second, first]
    assert await session_store.list_by_channel(tenant_id, Channel.EMAIL, "ada@example.org", limit=1) == [
        second
    ]
    with pytest.raises(ValidationError):
        await session_store.list_by_channel(tenant_id, Channel.EMAIL, "ada@example.org", limit=-1)
    with pytest.raises(ValidationError):
        await session_store.list_by_channel(tenant_id, Channel.EMAIL, "\x00")


async def test_many_sessions_are_removed_and_others_stay(session_store: SessionStore) -> None:
    tenant_id = uuid4()
    gone = [await saved(session_store, tenant_id=tenant_id) for _ in range(3)]
    kept, foreign = await saved(session_store, tenant_id=tenant_id), await saved(session_store)
    ids = [session.session_id for session in (*gone, gone[0], foreign)]
    assert await session_store.delete_many(tenant_id, [*ids, uuid4()]) == 3
    assert await session_store.delete_many(tenant_id, ids) == 0
    assert await session_store.delete_many(tenant_id, []) == 0
    for session in gone:
        assert await session_store.get(session.session_id) is None
    for session in (kept, foreign):
        assert await session_store.get(session.session_id) == session


async def test_nothing_of_a_removed_session_is_left_but_that_it_was_deleted(
    session_store: SessionStore,
) -> None:
    if not isinstance(session_store, RedisSessionStore):
        pytest.skip("the store in memory has no keys")
    session = await saved(session_store, status=SessionStatus.INTERRUPTED)
    session.status = SessionStatus.ACTIVE
    await session_store.save(session)
    assert await session_store.demote_to_persistent(session.session_id)
    await session_store.delete_many(session.tenant_id, [session.session_id])
    pages = session_store._redis.scan("looking for keys", session_store._keys.pattern("*"))
    left = {key.decode() async for page in pages for key in page}
    # A write id, for a minute.
    assert left == {session_store._keys.deleted(session.session_id)}


async def test_a_value_that_is_no_session_is_left_and_told(session_store: SessionStore) -> None:
    if not isinstance(session_store, RedisSessionStore):
        pytest.skip("the store in memory holds nothing but sessions")
    session = await saved(session_store)
    _, persistent = session_store._keys.session(session.session_id)
    await session_store.client.set(persistent, b"something else")
    with pytest.raises(StoreError, match="not a session"):
        await session_store.delete_many(session.tenant_id, [session.session_id])
    assert await session_store.client.get(persistent) == b"something else"
