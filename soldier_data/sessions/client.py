"""Talking to Redis: the client, and the one place that every call goes through."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from importlib import resources
from typing import Any, NamedTuple, TypeVar

from redis.asyncio import ConnectionPool, Redis, RedisCluster
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialWithJitterBackoff
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    ClusterDownError,
    MasterDownError,
    MaxConnectionsError,
    NoPermissionError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TryAgainError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.maint_notifications import MaintNotificationsConfig

from soldier_data.errors import ConfigurationError, StoreConnectionError, StoreError
from soldier_data.logging import get_logger
from soldier_data.sessions.deadline import Deadline
from soldier_data.settings import Settings

RedisClient = Redis | RedisCluster

_T = TypeVar("_T")

_DEFAULT_TIMEOUT = 5.0
_SCAN_COUNT = 1000

# Replies of a server that is there but cannot serve now. redis-py has classes for some, and takes their code
# off the message; before Redis 7 the code of an error inside a script stands amid the message.
_UNAVAILABLE_ERRORS = (OutOfMemoryError, ReadOnlyError, MasterDownError, ClusterDownError, TryAgainError)
_UNAVAILABLE = (
    "OOM ",
    "READONLY ",
    "LOADING ",
    "MASTERDOWN ",
    "CLUSTERDOWN ",
    "TRYAGAIN ",
    "MISCONF ",
    "NOREPLICAS ",
)
_REFUSED_LOGIN = ("NOAUTH", "WRONGPASS", "NOPERM")


class Script(NamedTuple):
    """A Lua script and the name that Redis caches it under."""

    text: str
    sha: str


def load_script(name: str, *, common: bool = False) -> Script:
    """The script ``scripts/<name>.lua``, after ``common.lua`` if it uses that."""
    folder = resources.files("soldier_data.sessions") / "scripts"
    parts = ["common", name] if common else [name]
    text = "\n".join((folder / f"{part}.lua").read_text(encoding="utf-8") for part in parts)
    return Script(text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())


def create_redis_client(settings: Settings) -> Redis:
    """A client for the server of `settings`, which owns its connections: `aclose` closes them.

    Raises:
        ConfigurationError: The URL cannot be used.
    """
    timeout = settings.redis_timeout.total_seconds()
    try:
        pool = ConnectionPool.from_url(
            settings.redis_url,
            max_connections=settings.redis_max_connections,
            # The deadline of `RedisRunner` bounds every command. Another one here costs a fifth of a GET.
            socket_timeout=None,
            socket_connect_timeout=timeout,
            # About a second altogether: enough to ride over a restart of the server.
            retry=Retry(ExponentialWithJitterBackoff(base=0.01, cap=0.25), retries=8),
            # With these the pool no longer checks that a connection holds no unread reply.
            maint_notifications_config=MaintNotificationsConfig(enabled=False),
        )
        return Redis.from_pool(pool)
    except (RedisError, ValueError, TypeError) as error:
        cause = error
    # Raised outside the except block: the driver's message may repeat the URL.
    raise ConfigurationError("SOLDIER_REDIS_URL cannot be used: check its form and its options", cause=cause)


class RedisRunner:
    """Runs commands with a deadline, a limit on how many run at once, and the package's own errors.

    redis-py's pool raises when its connections are all in use (the cluster client does so for each node), and
    its blocking pool adds a fifth to a GET. Here callers wait for a slot, whichever client they brought.
    """

    def __init__(self, client: RedisClient) -> None:
        if client.get_encoder().decode_responses:
            raise ConfigurationError(
                "the Redis client was made with decode_responses=True, but sessions are stored as bytes: "
                "make it without"
            )
        self.client = client
        # On Redis Cluster a script reaches the keys of one slot only.
        self.is_cluster = isinstance(client, RedisCluster)
        if isinstance(client, RedisCluster):
            options = client.connection_kwargs
            connections = options.get("max_connections", 100)
        else:
            options = client.connection_pool.connection_kwargs
            connections = client.connection_pool.max_connections
        self._timeout: float = (
            options.get("socket_timeout") or options.get("socket_connect_timeout") or _DEFAULT_TIMEOUT
        )
        self._slots = asyncio.Semaphore(connections)
        self._log = get_logger(__name__)

    async def run(self, action: str, call: Callable[..., Awaitable[_T]], *arguments: Any) -> _T:
        """Await `call(*arguments)`.

        Args:
            action: What is being done, for the error message: "saving session ...".
            call: Makes the awaitable; called again if other users of the client hold all its connections.
            arguments: What `call` is given.

        Raises:
            StoreConnectionError: Redis cannot be reached, refused the log-in, cannot serve now, or did not
                answer in time.
            StoreError: Redis refused the command.
            NoScriptError: The command was an EVALSHA of a script that Redis does not have.
        """
        cause: Exception
        # Not split into more coroutines, and no `async with`: each costs, beside a server as quick as this.
        try:
            with Deadline(self._timeout):
                await self._slots.acquire()
                try:
                    while True:
                        try:
                            if self.is_cluster:
                                # A client that does not know its nodes yet sends the first commands anywhere,
                                # and after some wrong guesses cuts the connections of all that are under way.
                                await self.client.initialize()
                            return await call(*arguments)
                        except MaxConnectionsError:
                            await asyncio.sleep(0.005)
                finally:
                    self._slots.release()
        except NoScriptError:
            raise
        except (RedisError, OSError) as error:
            cause = error
        # Raised outside the except block: the driver's message may hold what was being stored, and must not
        # be chained to ours.
        raise self.failure(action, cause)

    def failure(self, action: str, cause: Exception) -> StoreError:
        """Log an error of redis-py and translate it."""
        self._log.error("redis_failed", action=action, error=type(cause).__name__)
        return _translate(action, cause, self._timeout)

    async def script(
        self, action: str, script: Script, keys: Sequence[str | bytes], *arguments: str | bytes | int
    ) -> Any:
        """Run a script, in one round trip unless the server has forgotten it; errors as in `run`."""
        execute = self.client.execute_command
        try:
            return await self.run(action, execute, "EVALSHA", script.sha, len(keys), *keys, *arguments)
        except NoScriptError:
            pass
        # Outside the except block, so that no error of the second call has the first one for its context.
        return await self.run(action, execute, "EVAL", script.text, len(keys), *keys, *arguments)

    async def scripts(
        self,
        action: str,
        script: Script,
        calls: Sequence[tuple[Sequence[str | bytes], Sequence[str | bytes | int]]],
    ) -> list[Any]:
        """Run a script once for each pair of keys and arguments; errors as in `run`.

        All in one round trip; on Cluster one each, at once, since it refuses EVALSHA in pipelines.
        """
        if self.is_cluster:
            return await asyncio.gather(
                *(self.script(action, script, keys, *arguments) for keys, arguments in calls)
            )
        # Loading it each time spares a second way to go for a server that has forgotten it.
        commands: list[tuple[Any, ...]] = [("SCRIPT LOAD", script.text)]
        commands += [("EVALSHA", script.sha, len(keys), *keys, *arguments) for keys, arguments in calls]
        return (await self.pipeline(action, commands))[1:]

    async def pipeline(
        self, action: str, commands: Sequence[tuple[str | bytes | int | float, ...]]
    ) -> list[Any]:
        """Run commands in one round trip (one a node on Cluster), not atomically; errors as in `run`."""

        async def call() -> list[Any]:
            pipeline = self.client.pipeline(transaction=False)
            for command in commands:
                pipeline.execute_command(*command)
            replies: list[Any] = await pipeline.execute()
            return replies

        return await self.run(action, call)

    async def primaries(self, action: str) -> list[Any]:
        """The primary nodes of a cluster; errors as in `run`."""
        assert isinstance(self.client, RedisCluster)
        # A client that was not used yet knows no nodes, and does not say so.
        await self.run(action, self.client.initialize)
        return self.client.get_primaries()

    async def scan(self, action: str, pattern: str, kind: str | None = None) -> AsyncIterator[list[bytes]]:
        """Pages of the keys that match `pattern`, from every node; errors as in `run`.

        With `kind`, only keys whose values are of that type.

        A key can come more than once.
        """
        nodes = await self.primaries(action) if self.is_cluster else [None]
        for node in nodes:
            target = {} if node is None else {"target_nodes": node}
            cursor = 0
            while True:

                async def call(cursor: int = cursor, target: dict[str, Any] = target) -> Any:
                    return await self.client.scan(
                        cursor=cursor, match=pattern, count=_SCAN_COUNT, _type=kind, **target
                    )

                position, keys = await self.run(action, call)
                yield keys
                cursor = position[node.name] if node is not None else position
                if cursor == 0:
                    break


def _translate(action: str, cause: Exception, timeout: float) -> StoreError:
    text = str(cause)
    # On a Unix socket redis-py wraps whatever fails while it logs in.
    inner = cause.__cause__ or cause
    if isinstance(inner, AuthenticationError | AuthorizationError | NoPermissionError) or str(
        inner
    ).startswith(_REFUSED_LOGIN):
        message = f"Redis refused the log-in while {action}: check user and password in SOLDIER_REDIS_URL"
        return StoreConnectionError(message, cause=cause)
    if isinstance(cause, RedisTimeoutError | TimeoutError):
        message = (
            f"Redis did not answer within {timeout:g} s while {action}: "
            "check that it runs and is not overloaded, and SOLDIER_REDIS_URL"
        )
        return StoreConnectionError(message, cause=cause)
    if isinstance(cause, ResponseError):
        if isinstance(cause, _UNAVAILABLE_ERRORS) or any(code in text for code in _UNAVAILABLE):
            message = f"Redis cannot serve now while {action}: check its memory, its disk and its role"
            return StoreConnectionError(message, cause=cause)
        # The first word is the reply's code, unless redis-py took it off; the rest may hold values.
        code = text.split(" ", 1)[0]
        message = f"Redis refused the command ({code if code.isupper() else 'ERR'}) while {action}"
        return StoreError(message, cause=cause)
    if isinstance(cause, RedisConnectionError | OSError):
        message = f"Redis cannot be reached while {action}: check that it runs, and SOLDIER_REDIS_URL"
        return StoreConnectionError(message, cause=cause)
    return StoreError(f"the Redis client failed ({type(cause).__name__}) while {action}", cause=cause)
