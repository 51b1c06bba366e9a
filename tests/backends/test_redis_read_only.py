"""Reading sessions from a Redis that takes no writes: promoting and repairing can wait, the value is there."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from redis.exceptions import ResponseError

from soldier_data.errors import StoreConnectionError
from soldier_data.sessions import RedisSessionStore, SessionTierConfig, create_redis_client
from soldier_data.settings import Settings
from tests.factories.sessions import SessionFactory
from tests.redis_servers import program, program_on_path, redis_server

STATES = {
    "full": ("CONFIG", "SET", "maxmemory", "1"),
    "without replicas": ("CONFIG", "SET", "min-replicas-to-write", "1"),
    # Of a master that is not there: it keeps what it has.
    "a replica": ("REPLICAOF", "127.0.0.1", "1"),
}


@pytest.mark.parametrize("binary", [program, program_on_path])
@pytest.mark.parametrize("state", STATES)
async def test_idle_sessions_are_read(state: str, binary: Callable[[], Path], tmp_path: Path) -> None:
    session = SessionFactory()
    tenant_id, agent_id = session.tenant_id, session.agent_id
    with redis_server(binary(), tmp_path) as server:
        client: Any = create_redis_client(Settings(redis_url=server.url, redis_timeout=timedelta(seconds=5)))
        store = RedisSessionStore(client, SessionTierConfig(), retry_budget=timedelta(seconds=1))
        await store.save(session)
        await store.demote_to_persistent(session.session_id)
        for index in store._keys.indexes(session):
            await client.zadd(index, {str(uuid4()): 2**52})
        await client.execute_command(*STATES[state])

        place = (tenant_id, session.active_scenario_id, 1, session.step_history[-1].step_content_hash)
        by_channel = (tenant_id, session.channel, session.user_channel_id)
        assert await store.get(session.session_id) == session
        assert await store.peek(session.session_id) == session
        # Redis 6.2 lets scripts write without replicas, so that the session was promoted.
        assert await store.tier(session.session_id) == ("hot" if await _writes(client) else "persistent")
        assert await store.get_by_channel(*by_channel) == session
        assert await store.list_by_channel(*by_channel) == [session]
        assert await store.list_by_agent(tenant_id, agent_id) == [session]
        assert await store.list_by_customer(tenant_id, session.customer_profile_id) == [session]
        assert await store.find_sessions_by_step_hash(*place) == [session]
        if not await _writes(client):
            with pytest.raises(StoreConnectionError):
                await store.save(session, if_revision=1)
            assert await store.get(session.session_id) == session
        await client.aclose()


@pytest.mark.parametrize("binary", [program, program_on_path])
async def test_a_role_that_only_reads_reads(binary: Callable[[], Path], tmp_path: Path) -> None:
    session = SessionFactory()
    with redis_server(binary(), tmp_path) as server:
        client: Any = create_redis_client(Settings(redis_url=server.url))
        store = RedisSessionStore(client, SessionTierConfig())
        await store.save(session)
        await store.demote_to_persistent(session.session_id)
        await client.execute_command("ACL SETUSER", "reader", "on", ">reader", "~*", "+@all", "-@write")
        url = server.url.replace("//", "//reader:reader@")
        reader = create_redis_client(Settings(redis_url=url))
        theirs = RedisSessionStore(reader, SessionTierConfig())
        assert await theirs.get(session.session_id) == session
        assert await theirs.tier(session.session_id) == "persistent"
        await reader.aclose()
        await client.aclose()


async def _writes(client: Any) -> bool:
    """Whether scripts may write."""
    try:
        await client.eval("return redis.call('SET', KEYS[1], 'x')", 1, "written")
    except ResponseError:
        return False
    return True
