"""What the Redis session store does when Redis, or the way to it, fails."""

from __future__ import annotations

import asyncio
import os
import random
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from time import monotonic
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import pytest
from redis.asyncio import Redis

from soldier_data.errors import ConfigurationError, StoreConnectionError
from soldier_data.sessions import (
    PendingMigration,
    RedisSessionStore,
    Session,
    SessionStatus,
    SessionTierConfig,
    create_redis_client,
)
from soldier_data.sessions.codec import decode
from soldier_data.sessions.deadline import Deadline
from soldier_data.settings import Settings
from tests.backends.redis_helpers import wait_until
from tests.factories.sessions import SessionFactory
from tests.redis_servers import program, redis_server

Operation = Callable[[RedisSessionStore, Session], Awaitable[Any]]

OPERATIONS: dict[str, Operation] = {
    "get": lambda store, session: store.get(session.session_id),
    "save": lambda store, session: store.save(session),
    "delete": lambda store, session: store.delete(session.session_id),
    "get_by_channel": lambda store, session: store.get_by_channel(session.tenant_id, session.channel, "x"),
    "list_by_agent": lambda store, session: store.list_by_agent(session.tenant_id, session.agent_id),
    "list_by_customer": lambda store, session: store.list_by_customer(session.tenant_id, uuid4()),
    "find_sessions_by_step_hash": lambda store, session: store.find_sessions_by_step_hash(
        session.tenant_id, uuid4(), 1, "x"
    ),
    "promote_to_hot": lambda store, session: store.promote_to_hot(session.session_id),
    "demote_to_persistent": lambda store, session: store.demote_to_persistent(session.session_id),
    "tier": lambda store, session: store.tier(session.session_id),
    "stats": lambda store, _: store.stats(),
    "cleanup_expired": lambda store, _: store.cleanup_expired(),
    "mark_pending_migration": lambda store, session: store.mark_pending_migration(
        session.tenant_id,
        [session.session_id],
        PendingMigration(target_version=2, anchor_content_hash="x", migration_plan_id=uuid4()),
    ),
    "watch_demotions": lambda store, _: anext(store.watch_demotions()),
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

    async def test_a_cancelled_operation_leaves_no_reply_to_the_next(
        self, store: RedisSessionStore, client: Redis
    ) -> None:
        sessions = [SessionFactory() for _ in range(20)]
        for session in sessions:
            await store.save(session)
        # Any seed will do.
        dice = random.Random(7)  # noqa: S311 - not for secrets.

        async def read(session: Session) -> None:
            assert await store.get(session.session_id) == session

        async def cancelled_read() -> None:
            task = asyncio.create_task(read(dice.choice(sessions)))
            await asyncio.sleep(dice.random() * 0.1)
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled() or task.exception() is None

        await asyncio.gather(*(cancelled_read() for _ in range(2_000)))
        assert await asyncio.gather(*(store.get(session.session_id) for session in sessions)) == sessions
        assert not client.connection_pool._in_use_connections


Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def serving(handler: Handler) -> AsyncIterator[int]:
    """A server on a free port, which has let go of every connection when it ends."""
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await handler(reader, writer)
        except asyncio.CancelledError:
            # The stream's own callback would complain of a cancelled task.
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await server.wait_closed()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@asynccontextmanager
async def store_at(url: str, *, seconds: float = 0.3, **config: Any) -> AsyncIterator[RedisSessionStore]:
    client = create_redis_client(Settings(redis_url=url, redis_timeout=timedelta(seconds=seconds)))
    yield RedisSessionStore(client, SessionTierConfig(**config))
    await client.aclose()


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


@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS.keys())
class TestUnreachable:
    async def test_a_refused_connection_is_a_connection_error(self, operation: Operation) -> None:
        async with store_at(f"redis://:canary@127.0.0.1:{free_port()}") as store:
            await check_unreachable(store, operation, "cannot be reached|did not answer")
            assert await store.health_check() is False

    async def test_a_server_that_never_answers_is_a_connection_error(self, operation: Operation) -> None:
        async def swallow(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
            while await reader.read(65536):
                pass

        async with serving(swallow) as port, store_at(f"redis://:canary@127.0.0.1:{port}") as store:
            await check_unreachable(store, operation, "did not answer within 0.3 s")


async def test_a_wrong_password_is_a_connection_error(redis_url: str) -> None:
    parts = urlsplit(redis_url)
    if parts.scheme == "unix":
        url = f"unix://nobody@{parts.path}?password=canary"
    else:
        url = f"{parts.scheme}://nobody:canary@{parts.hostname}:{parts.port}"
    async with store_at(url, seconds=3) as store:
        await check_unreachable(store, OPERATIONS["save"], "refused the log-in")


class LossyProxy:
    """Passes bytes between a client and Redis; loses the reply of the server and the connection when told."""

    def __init__(self, redis_url: str) -> None:
        self._target = urlsplit(redis_url)
        self.lose_next_reply = False
        self.lost = 0

    @asynccontextmanager
    async def running(self) -> AsyncIterator[str]:
        async with serving(self._serve) as port:
            yield f"redis://127.0.0.1:{port}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._target.scheme == "unix":
            answers, requests = await asyncio.open_unix_connection(self._target.path)
        else:
            answers, requests = await asyncio.open_connection(self._target.hostname, self._target.port)

        async def forward() -> None:
            while data := await reader.read(65536):
                requests.write(data)

        forwarding = asyncio.create_task(forward())
        try:
            while data := await answers.read(65536):
                if self.lose_next_reply:
                    self.lose_next_reply = False
                    self.lost += 1
                    return
                writer.write(data)
        finally:
            forwarding.cancel()
            requests.close()
            await asyncio.gather(forwarding, return_exceptions=True)


class TestLostReply:
    async def test_a_save_whose_reply_is_lost_takes_effect_once(
        self, redis_url: str, store: RedisSessionStore
    ) -> None:
        proxy = LossyProxy(redis_url)
        config = store.config.model_dump()
        session = SessionFactory()
        async with proxy.running() as url, store_at(url, seconds=5, **config) as far:
            await far.save(session)
            proxy.lose_next_reply = True
            await far.save(session, if_revision=1)
            assert (session.revision, proxy.lost) == (2, 1)
            proxy.lose_next_reply = True
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
            async with store_at(server.url) as store:
                sessions = [SessionFactory(variables={"x": os.urandom(20_000).hex()}) for _ in range(200)]
                outcomes = [
                    (session, (await asyncio.gather(store.save(session), return_exceptions=True))[0])
                    for session in sessions
                ]
                errors = [outcome for _, outcome in outcomes if isinstance(outcome, BaseException)]
                assert 0 < len(errors) < len(sessions)
                assert {type(error) for error in errors} == {StoreConnectionError}
                assert all("cannot serve now" in str(error) for error in errors)
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
                    far = RedisSessionStore(client, store.config)

                    async def has_arrived() -> bool:
                        return await far.tier(session.session_id) == "persistent"

                    await store.demote_to_persistent(session.session_id)
                    await wait_until(has_arrived)
                    # The last one would promote.
                    for operation in ("save", "delete", "promote_to_hot", "get"):
                        with pytest.raises(StoreConnectionError, match="cannot serve now"):
                            await OPERATIONS[operation](far, session)
                    await client.aclose()
                assert await store.get(session.session_id) == session

    async def test_no_acknowledged_save_is_lost_when_the_server_is_killed(self, tmp_path: Path) -> None:
        with redis_server(program(), tmp_path, appendonly="yes", appendfsync="always") as server:
            async with store_at(server.url, seconds=10) as store:
                sessions = [SessionFactory() for _ in range(16)]
                stopped = False

                async def write(session: Session) -> None:
                    while not stopped:
                        session.turn_count += 1
                        await store.save(session)
                        await asyncio.sleep(0)

                writers = asyncio.gather(*map(write, sessions))
                for _ in range(3):
                    await asyncio.sleep(0.3)
                    server.kill()
                    await asyncio.to_thread(server.start)
                stopped = True
                await writers
                assert min(session.turn_count for session in sessions) > 10
                for session in sessions:
                    assert await store.get(session.session_id) == session
                    assert session.revision == session.turn_count

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
