"""What the Redis session store does when Redis, or the way to it, fails."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from time import monotonic
from typing import Any
from urllib.parse import urlsplit

import pytest
from redis.asyncio import Redis

from soldier_data.errors import ConfigurationError, StoreConnectionError
from soldier_data.sessions import (
    RedisSessionStore,
    Session,
    SessionStatus,
    SessionTierConfig,
    create_redis_client,
)
from soldier_data.sessions.codec import decode
from soldier_data.sessions.deadline import Deadline
from soldier_data.settings import Settings
from tests.backends.redis_helpers import FaultyRedisProxy, store_at, wait_until
from tests.factories.sessions import SessionFactory
from tests.redis_servers import program, redis_server

Operation = Callable[[RedisSessionStore, Session], Awaitable[Any]]

OPERATIONS: dict[str, Operation] = {
    "get": lambda store, session: store.get(session.session_id),
    "save": lambda store, session: store.save(session),
    "delete": lambda store, session: store.delete(session.session_id),
    "promote_to_hot": lambda store, session: store.promote_to_hot(session.session_id),
}


class TestClient:
    async def test_a_client_that_decodes_is_refused(self, redis_url: str) -> None:
        client = Redis.from_url(redis_url, decode_responses=True)
        with pytest.raises(ConfigurationError, match="decode_responses"):
            RedisSessionStore(client)
        await client.aclose()

    @pytest.mark.parametrize("url", ["redis://:canary@localhost:port", "redis://localhost?db=canary"])
    def test_a_wrong_url_is_one_clear_line(self, url: str) -> None:
        with pytest.raises(ConfigurationError, match="SOLDIER_REDIS_URL") as caught:
            create_redis_client(Settings(redis_url=url))
        assert "canary" not in str(caught.value)
        assert caught.value.__context__ is None

    @pytest.mark.parametrize("protocol", [2, 3])
    async def test_any_client_and_protocol_will_do(self, redis_url: str, protocol: int, prefix: str) -> None:
        client = Redis.from_url(redis_url, protocol=protocol, max_connections=3)
        store = RedisSessionStore(client, SessionTierConfig(key_prefix=prefix))
        sessions = [SessionFactory() for _ in range(50)]
        await asyncio.gather(*(store.save(session) for session in sessions))
        for session in sessions:
            assert await store.list_by_agent(session.tenant_id, session.agent_id) == [session]
        assert await store.delete(sessions[0].session_id) is True
        await client.aclose()

    async def test_scripts_that_the_server_forgot_are_sent_again(
        self, store: RedisSessionStore, client: Redis
    ) -> None:
        session = SessionFactory()
        for _ in range(2):
            await client.script_flush()
            await store.save(session)
            await client.script_flush()
            assert await store.get(session.session_id) == session


async def check_unreachable(store: RedisSessionStore, operation: Operation, match: str) -> None:
    session = SessionFactory()
    started = monotonic()
    with pytest.raises(StoreConnectionError, match=match) as caught:
        await operation(store, session)
    assert monotonic() - started < 5
    assert caught.value.__context__ is None
    assert caught.value.cause is not None
    assert "canary" not in str(caught.value)
    assert session.revision == 0


async def test_a_wrong_password_is_a_connection_error(redis_url: str) -> None:
    parts = urlsplit(redis_url)
    if parts.scheme == "unix":
        url = f"unix://nobody@{parts.path}?password=canary"
    else:
        url = f"{parts.scheme}://nobody:canary@{parts.hostname}:{parts.port}"
    async with store_at(url, seconds=3) as store:
        await check_unreachable(store, OPERATIONS["save"], "rejected the login")


class TestLostReply:
    async def test_a_save_whose_reply_is_lost_takes_effect_once(
        self, redis_url: str, store: RedisSessionStore
    ) -> None:
        proxy = FaultyRedisProxy(redis_url)
        config = store.config.model_dump()
        session = SessionFactory()
        async with proxy.running() as url, store_at(url, seconds=5, **config) as far:
            await far.save(session)
            proxy.lose_reply()
            await far.save(session, if_revision=1)
            assert (session.revision, proxy.lost) == (2, 1)
            proxy.lose_reply()
            await far.save(session)
            assert (session.revision, proxy.lost) == (3, 2)
        assert await store.get(session.session_id) == session

    async def test_a_repeated_save_does_not_overwrite_what_came_after_it(
        self, store: RedisSessionStore
    ) -> None:
        session = SessionFactory(status=SessionStatus.IDLE)
        arguments: list[tuple[Any, ...]] = []
        script = store._redis.script

        async def recording(*call: Any) -> Any:
            arguments.append(call)
            return await script(*call)

        store._redis.script = recording  # type: ignore[method-assign,assignment] # To send the very same save again.
        await store.save(session)
        session.status = SessionStatus.CLOSED
        await store.save(session)
        assert await script(*arguments[0]) == 1
        assert await store.get(session.session_id) == session


class TestServer:
    async def test_a_full_server_is_a_connection_error_and_damages_nothing(self, tmp_path: Path) -> None:
        with redis_server(program(), tmp_path, maxmemory="8mb", maxmemory_policy="noeviction") as server:
            async with store_at(server.url, seconds=5) as store:
                sessions = [SessionFactory(variables={"x": os.urandom(20_000).hex()}) for _ in range(200)]
                outcomes = [
                    (session, (await asyncio.gather(store.save(session), return_exceptions=True))[0])
                    for session in sessions
                ]
                errors = [outcome for _, outcome in outcomes if isinstance(outcome, BaseException)]
                assert 0 < len(errors) < len(sessions)
                assert {type(error) for error in errors} == {StoreConnectionError}
                assert all("temporarily unavailable" in str(error) for error in errors)
                for session, outcome in outcomes:
                    stored = await store.get(session.session_id)
                    assert stored == (None if isinstance(outcome, BaseException) else session)
                    assert session.revision == (0 if stored is None else 1)
                assert await store.delete(sessions[0].session_id) is True

    async def test_a_replica_is_a_connection_error_for_writes(self, tmp_path: Path) -> None:
        (tmp_path / "replica").mkdir()
        with redis_server(program(), tmp_path) as server:
            replicaof = f"127.0.0.1 {server.port}"
            async with store_at(server.url) as store:
                session = SessionFactory()
                await store.save(session)
                with redis_server(program(), tmp_path / "replica", replicaof=replicaof) as replica:
                    client = create_redis_client(Settings(redis_url=replica.url))
                    far = RedisSessionStore(client, store.config, retry_budget=timedelta(seconds=0.2))

                    async def has_arrived() -> bool:
                        return await far.tier(session.session_id) == "persistent"

                    await store.demote_to_persistent(session.session_id)
                    await wait_until(has_arrived)
                    for operation in ("save", "delete", "promote_to_hot"):
                        with pytest.raises(StoreConnectionError, match="temporarily unavailable"):
                            await OPERATIONS[operation](far, session)
                    assert await far.get(session.session_id) == session
                    assert await far.tier(session.session_id) == "persistent"
                    await client.aclose()
                assert await store.get(session.session_id) == session

    async def test_two_processes_never_leave_half_a_session(
        self, store: RedisSessionStore, client: Redis, redis_url: str, prefix: str
    ) -> None:
        session = SessionFactory(variables={"text": ""})
        hot, persistent = store._keys.session(session.session_id)
        await store.save(session)
        processes = [
            await asyncio.create_subprocess_exec(
                sys.executable,
                *("-m", "tests.backends.random_session", redis_url, prefix, seed),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
            )
            for seed in ("1", "2")
        ]
        both = [process.communicate(session.model_dump_json().encode()) for process in processes]
        running = asyncio.gather(*both)
        while not running.done():
            # Read at one moment: never hot alone, and never of two revisions.
            values: list[Any] = await client.mget(hot, persistent)
            first, second = [None if value is None else decode(value, "key") for value in values]
            assert first is None or first == second
            await asyncio.sleep(0.001)
        assert [process.returncode for process in processes] == [0, 0]
        operations = [int(printed) for printed, _ in await running]
        assert min(operations) > 100
        await store.delete(session.session_id)
        assert await store.promote_to_hot(session.session_id) is False
        assert await client.exists(hot, persistent) == 0


class TestDeadline:
    async def test_it_ends_what_takes_too_long(self) -> None:
        async def wait() -> None:
            with Deadline(0.01):
                await asyncio.sleep(5)

        with pytest.raises(TimeoutError):
            await wait()
        # The task was cancelled for it, and must not stay so.
        await asyncio.sleep(0.02)

    @pytest.mark.parametrize("expired", [False, True])
    async def test_a_cancellation_from_outside_is_not_swallowed(self, expired: bool) -> None:
        deadline: Deadline | None = None

        async def wait() -> None:
            nonlocal deadline
            with (deadline := Deadline(5)):
                await asyncio.sleep(5)

        task = asyncio.create_task(wait())
        await asyncio.sleep(0)
        assert deadline is not None
        if expired:
            # Both at once: the time is up while somebody else ends the task.
            deadline._expire()
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
