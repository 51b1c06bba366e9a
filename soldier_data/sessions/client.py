"""Running commands on Redis: every call goes through `RedisRunner`."""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import timedelta
from functools import partial
from importlib import resources
from itertools import groupby
from time import monotonic
from typing import Any, NamedTuple, TypeVar

from redis.asyncio import RedisCluster
from redis.exceptions import (
    MaxConnectionsError,
    NoPermissionError,
    NoScriptError,
    ReadOnlyError,
    ResponseError,
)

from soldier_data.errors import ConfigurationError, StoreConnectionError, StoreError
from soldier_data.logging import get_logger
from soldier_data.sessions.cluster import ClusterCommands, Command, key_of
from soldier_data.sessions.connections import RedisClient, drop_idle_connections
from soldier_data.sessions.deadline import Deadline
from soldier_data.sessions.redis_errors import (
    DRIVER_ERRORS,
    is_from_replica,
    is_timeout,
    is_transient,
    translate,
)

_T = TypeVar("_T")

RETRY_BUDGET = timedelta(seconds=15)
WAIT_TIMEOUT = timedelta(seconds=1)

_DEFAULT_TIMEOUT = 5.0
_SCAN_COUNT = 1000
_FIRST_PAUSE, _LONGEST_PAUSE = 0.01, 0.25


class Script(NamedTuple):
    """A Lua script, and the digest under which Redis caches it."""

    text: str
    sha: str


def load_script(name: str, *, common: bool = False) -> Script:
    """Load ``scripts/<name>.lua``, prepending ``common.lua`` if the script uses it."""
    folder = resources.files("soldier_data.sessions") / "scripts"
    parts = ["common", name] if common else [name]
    text = "\n".join((folder / f"{part}.lua").read_text(encoding="utf-8") for part in parts)
    return Script(text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())


class RedisRunner:
    """Runs commands with a time limit, limited concurrency, retries, and the package's own errors.

    Transient failures are retried, on new connections if the old ones may be broken. Callers wait while all
    connections are in use: redis-py's default pool raises an error then (the cluster client does so per node), and
    its blocking pool adds a fifth to the time of a GET.

    Args:
        client: The client.
        retry_budget: Time for which a call is retried; zero disables retries.
        wait_replicas: Number of replicas that must confirm the writes of `replicated_script` and
            `replicated_pipeline`.
        wait_timeout: Time limit for their confirmation.

    Raises:
        ConfigurationError: The client decodes responses.
    """

    def __init__(
        self,
        client: RedisClient,
        *,
        retry_budget: timedelta = RETRY_BUDGET,
        wait_replicas: int = 0,
        wait_timeout: timedelta = WAIT_TIMEOUT,
    ) -> None:
        if client.get_encoder().decode_responses:
            raise ConfigurationError(
                "the Redis client was created with decode_responses=True, but sessions are stored as bytes: "
                "create it without this option"
            )
        self.client = client
        # On Redis Cluster a script can access the keys of only one slot.
        self.is_cluster = isinstance(client, RedisCluster)
        if isinstance(client, RedisCluster):
            self._cluster = ClusterCommands(client)
            self._execute: Callable[..., Awaitable[Any]] = self._cluster.execute
            options = client.connection_kwargs
            connections = options.get("max_connections", 100)
        else:
            self._execute = client.execute_command
            options = client.connection_pool.connection_kwargs
            connections = client.connection_pool.max_connections
        self._timeout: float = (
            options.get("socket_timeout") or options.get("socket_connect_timeout") or _DEFAULT_TIMEOUT
        )
        self._slots = asyncio.Semaphore(connections)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._retry_budget = retry_budget.total_seconds()
        self._wait_replicas = wait_replicas
        self._wait_timeout = wait_timeout.total_seconds()
        self._wait: Command = ("WAIT", wait_replicas, max(1, round(self._wait_timeout * 1000)))
        self._log = get_logger(__name__)

    async def run(self, action: str, call: Callable[..., Awaitable[_T]], *arguments: Any) -> _T:
        """Await `call(*arguments)`.

        Args:
            action: The operation, for the error message, such as "saving session ...".
            call: Returns the awaitable. It is called again after a transient failure, so it must be idempotent.
            arguments: The arguments of `call`.

        Raises:
            StoreConnectionError: Redis cannot be reached, rejected the login, is temporarily unavailable, or did
                not answer in time.
            ConfigurationError: The Redis user lacks a permission.
            StoreError: Redis refused the command.
            NoScriptError: The command was an EVALSHA of a script that Redis has not cached.
        """
        if self._loop is not asyncio.get_running_loop():
            self._bind_to_loop(action)
        backoff: _Backoff | None = None
        while True:
            cause: Exception
            # More coroutines, or an `async with`, would cost a noticeable part of a GET.
            try:
                with Deadline(self._timeout):
                    await self._slots.acquire()
                    try:
                        while True:
                            try:
                                if self.is_cluster:
                                    await self._cluster.ensure_ready()
                                return await call(*arguments)
                            except MaxConnectionsError:
                                await asyncio.sleep(0.005)
                    finally:
                        self._slots.release()
            except NoScriptError:
                raise
            except DRIVER_ERRORS as error:
                cause = error
            await self._drop_suspect_connections(cause)
            if backoff is None:
                backoff = _Backoff(self._retry_budget)
            # Raised outside the except block: the driver's message may hold stored values, so it must not be chained.
            if not is_transient(cause) or not await backoff.pause():
                raise self._failure(action, cause)
            self._log.debug("redis_repeated", action=action, error=type(cause).__name__)

    async def close(self) -> None:
        """Close the client."""
        # Connections of a closed event loop can no longer be closed.
        if self._loop is None or not self._loop.is_closed():
            self._bind_to_loop("closing the session store")
            await (self._cluster.close() if self.is_cluster else self.client.aclose())

    def _bind_to_loop(self, action: str) -> None:
        if self._loop not in (None, asyncio.get_running_loop()):
            raise StoreError(
                f"{action}: the session store belongs to another event loop, that of its first call: create a store "
                "in each asyncio.run()"
            )
        self._loop = asyncio.get_running_loop()

    def _failure(self, action: str, cause: Exception) -> StoreError:
        """Log an error of redis-py and translate it."""
        self._log.error("redis_failed", action=action, error=type(cause).__name__)
        return translate(action, cause, self._timeout)

    async def script(
        self, action: str, script: Script, keys: Sequence[str | bytes], *arguments: str | bytes | int
    ) -> Any:
        """Run a script, in one round trip if Redis has cached it; errors as in `run`."""
        try:
            return await self.run(action, self._execute, "EVALSHA", script.sha, len(keys), *keys, *arguments)
        except NoScriptError:
            pass
        # Outside the except block, so that an error of this call does not have the first one as its context.
        return await self.run(action, self._execute, "EVAL", script.text, len(keys), *keys, *arguments)

    async def replicated_script(
        self, action: str, script: Script, keys: Sequence[str | bytes], *arguments: str | bytes | int
    ) -> Any:
        """Run a script as `script` does, and wait until `wait_replicas` replicas have confirmed its writes.

        Raises:
            StoreConnectionError: Too few replicas confirmed the write in time; it is stored on the primary.
        """
        if not self._wait_replicas:
            return await self.script(action, script, keys, *arguments)
        rest = (len(keys), *keys, *arguments)
        try:
            replies = await self._batches(action, [[("EVALSHA", script.sha, *rest), self._wait]])
        except NoScriptError:
            replies = []
        ((reply, confirmed),) = replies or await self._batches(
            action, [[("EVAL", script.text, *rest), self._wait]]
        )
        # A script that refuses to write returns a list.
        if not isinstance(reply, list):
            self._check_replicas(action, confirmed)
        return reply

    async def scripts(
        self,
        action: str,
        script: Script,
        calls: Sequence[tuple[Sequence[str | bytes], Sequence[str | bytes | int]]],
    ) -> list[Any]:
        """Run a script for each pair of keys and arguments; errors as in `run`.

        Takes one round trip, or on Cluster one per pair, concurrently.
        """
        if self.is_cluster:
            return await asyncio.gather(
                *(self.script(action, script, keys, *arguments) for keys, arguments in calls)
            )
        # Loading the script each time avoids a second code path for a server that has not cached it.
        commands: list[Command] = [("SCRIPT LOAD", script.text)]
        commands += [("EVALSHA", script.sha, len(keys), *keys, *arguments) for keys, arguments in calls]
        return (await self.pipeline(action, commands))[1:]

    async def pipeline(self, action: str, commands: Sequence[Command]) -> list[Any]:
        """Run commands in one round trip (one per node on Cluster), not atomically; errors as in `run`."""
        batches = await self._batches(action, [[command] for command in commands])
        return [reply for batch in batches for reply in batch]

    async def replicated_pipeline(self, action: str, commands: Sequence[Command]) -> None:
        """Like `pipeline`, with confirmation as in `replicated_script`. Commands for one key must be adjacent."""
        if not self._wait_replicas:
            await self.pipeline(action, commands)
            return
        by_key = groupby(commands, key=key_of)
        batches = await self._batches(action, [[*group, self._wait] for _, group in by_key])
        for batch in batches:
            self._check_replicas(action, batch[-1])

    async def ping(self, action: str) -> None:
        """Check that Redis answers and is not a replica; errors as in `run`."""
        await self.run(action, self._cluster.ping if self.is_cluster else self._ping)

    async def primaries(self, action: str) -> list[Any]:
        """Return the primary nodes of a cluster; errors as in `run`."""
        client = self.client
        assert isinstance(client, RedisCluster)

        async def call() -> list[Any]:
            # The known nodes may be out of date.
            await self._cluster.refresh()
            return client.get_primaries()

        return await self.run(action, call)

    async def _batches(self, action: str, batches: Sequence[Sequence[Command]]) -> list[list[Any]]:
        """Return the replies to batches, in one round trip (one per node on Cluster); errors as in `run`."""
        if self.is_cluster:
            return await self.run(action, self._cluster.execute_batches, batches)

        async def call() -> list[list[Any]]:
            pipeline = self.client.pipeline(transaction=False)
            for batch in batches:
                for command in batch:
                    pipeline.execute_command(*command)
            replies = await pipeline.execute(raise_on_error=False)
            for reply in replies:
                if isinstance(reply, Exception):
                    raise reply
            left = iter(replies)
            return [[next(left) for _ in batch] for batch in batches]

        return await self.run(action, call)

    def _check_replicas(self, action: str, confirmed: int) -> None:
        if confirmed < self._wait_replicas:
            self._log.error("redis_not_replicated", action=action, copies=confirmed)
            raise StoreConnectionError(
                f"{action}: {confirmed} of {self._wait_replicas} replicas confirmed the write within "
                f"{self._wait_timeout:g} s (SOLDIER_REDIS_WAIT_REPLICAS, SOLDIER_REDIS_WAIT_TIMEOUT). It is stored, "
                "but may not survive a failover; it is safe to repeat the save"
            )

    async def _ping(self) -> None:
        pipeline = self.client.pipeline(transaction=False)
        # HELLO returns the role and needs no privileges, unlike ROLE and INFO.
        pipeline.execute_command("HELLO")
        # A server that is loading or busy answers HELLO, but not PING.
        pipeline.execute_command("PING")
        hello, ping = await pipeline.execute(raise_on_error=False)
        if isinstance(ping, Exception) and not isinstance(ping, NoPermissionError):
            raise ping
        if isinstance(hello, Exception):
            # A proxy may not support HELLO.
            return
        pairs = hello.items() if isinstance(hello, dict) else zip(hello[::2], hello[1::2], strict=True)
        if dict(pairs).get(b"role") == b"replica":
            raise ReadOnlyError("a replica")

    async def _drop_suspect_connections(self, cause: Exception) -> None:
        """Close idle connections on which the same failure is likely.

        After a timeout they may be dead too: a firewall drops connections that were idle equally long. And
        connections to a former primary stay open.
        """
        if self.is_cluster and not isinstance(cause, ResponseError):
            self._cluster.mark_stale()
        if is_timeout(cause) or is_from_replica(cause):
            await drop_idle_connections(self.client)

    async def scan(self, action: str, pattern: str, kind: str | None = None) -> AsyncIterator[list[bytes]]:
        """Yield pages of the keys that match a pattern, on all nodes; errors as in `run`.

        A key may be repeated.

        Args:
            action: The operation, for the error message.
            pattern: The pattern, as for SCAN.
            kind: If given, the type of the values, such as "zset".
        """
        nodes = await self.primaries(action) if self.is_cluster else [None]
        for node in nodes:
            target = {} if node is None else {"target_nodes": node}
            cursor = 0
            while True:
                call: Callable[..., Awaitable[Any]] = partial(
                    self.client.scan, cursor, pattern, _SCAN_COUNT, kind, **target
                )
                position, keys = await self.run(action, call)
                yield keys
                cursor = position[node.name] if node is not None else position
                if cursor == 0:
                    break


class _Backoff:
    """Growing pauses between retries, within a time budget."""

    def __init__(self, budget: float) -> None:
        self._end = monotonic() + budget
        self._longest = _FIRST_PAUSE

    async def pause(self) -> bool:
        """Pause, longer each time, and return True; or return False if the budget is used up."""
        # The jitter spreads callers that failed together.
        pause = self._longest * random.uniform(0.5, 1)  # noqa: S311 - not a secret.
        if monotonic() + pause > self._end:
            return False
        self._longest = min(self._longest * 2, _LONGEST_PAUSE)
        await asyncio.sleep(pause)
        return True
