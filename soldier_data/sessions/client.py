"""Talking to Redis: the one place that every call goes through."""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import timedelta
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
    may_pass,
    tells_of_a_replica,
    timed_out,
    translate,
)

_T = TypeVar("_T")

RETRY_BUDGET = timedelta(seconds=15)
WAIT_TIMEOUT = timedelta(seconds=1)

_DEFAULT_TIMEOUT = 5.0
_SCAN_COUNT = 1000
_FIRST_PAUSE, _LONGEST_PAUSE = 0.01, 0.25


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


class RedisRunner:
    """Runs commands with a deadline, a limit on how many run at once, and the package's own errors.

    What fails in passing is repeated, on new connections where the old ones are to blame. redis-py's pool raises
    when its connections are all in use (the cluster client does so for each node), and its blocking pool adds a
    fifth to a GET. Here callers wait for a slot, whichever client they brought.

    Args:
        client: The client.
        retry_budget: How long a call is repeated; zero: not at all.
        wait_replicas: How many replicas must have what `replicated_script` and `replicated_pipeline` write.
        wait_timeout: How long to wait for them.
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
                "the Redis client was made with decode_responses=True, but sessions are stored as bytes: "
                "make it without"
            )
        self.client = client
        # On Redis Cluster a script reaches the keys of one slot only.
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
            action: What is being done, for the error message: "saving session ...".
            call: Makes the awaitable; called again after a failure that may pass, so it must not matter whether
                it takes effect once or twice.
            arguments: What `call` is given.

        Raises:
            StoreConnectionError: Redis cannot be reached, refused the log-in, cannot serve now, or did not
                answer in time.
            ConfigurationError: The user may not do this.
            StoreError: Redis refused the command.
            NoScriptError: The command was an EVALSHA of a script that Redis does not have.
        """
        if self._loop is not asyncio.get_running_loop():
            self._belong_here(action)
        patience: _Patience | None = None
        while True:
            cause: Exception
            # Not split into more coroutines, and no `async with`: each costs, beside a server as quick as this.
            try:
                with Deadline(self._timeout):
                    await self._slots.acquire()
                    try:
                        while True:
                            try:
                                if self.is_cluster:
                                    await self._cluster.get_ready()
                                return await call(*arguments)
                            except MaxConnectionsError:
                                await asyncio.sleep(0.005)
                    finally:
                        self._slots.release()
            except NoScriptError:
                raise
            except DRIVER_ERRORS as error:
                cause = error
            await self._give_up_connections(cause)
            if patience is None:
                patience = _Patience(self._retry_budget)
            # Raised outside the except block: the driver's message may hold what was being stored, and must not
            # be chained to ours.
            if not may_pass(cause) or not await patience.pause():
                raise self.failure(action, cause)
            self._log.debug("redis_repeated", action=action, error=type(cause).__name__)

    async def close(self) -> None:
        """Close the client."""
        # An event loop that has ended closes nothing any more.
        if self._loop is None or not self._loop.is_closed():
            self._belong_here("closing the session store")
            await (self._cluster.close() if self.is_cluster else self.client.aclose())

    def _belong_here(self, action: str) -> None:
        if self._loop not in (None, asyncio.get_running_loop()):
            raise StoreError(
                f"{action}: the session store belongs to another event loop, that of its first call: make one in each "
                "asyncio.run()"
            )
        self._loop = asyncio.get_running_loop()

    def failure(self, action: str, cause: Exception) -> StoreError:
        """Log an error of redis-py and translate it."""
        self._log.error("redis_failed", action=action, error=type(cause).__name__)
        return translate(action, cause, self._timeout)

    async def script(
        self, action: str, script: Script, keys: Sequence[str | bytes], *arguments: str | bytes | int
    ) -> Any:
        """Run a script, in one round trip unless the server has forgotten it; errors as in `run`."""
        try:
            return await self.run(action, self._execute, "EVALSHA", script.sha, len(keys), *keys, *arguments)
        except NoScriptError:
            pass
        # Outside the except block, so that no error of the second call has the first one for its context.
        return await self.run(action, self._execute, "EVAL", script.text, len(keys), *keys, *arguments)

    def replicated_script(
        self, action: str, script: Script, keys: Sequence[str | bytes], *arguments: str | bytes | int
    ) -> Awaitable[Any]:
        """As `script`, and as many replicas have what it wrote as are asked for.

        Raises:
            StoreConnectionError: They did not confirm it in time; it is written all the same.
        """
        if not self._wait_replicas:
            return self.script(action, script, keys, *arguments)
        return self._replicated_script(action, script, keys, *arguments)

    async def _replicated_script(
        self, action: str, script: Script, keys: Sequence[str | bytes], *arguments: str | bytes | int
    ) -> Any:
        rest = (len(keys), *keys, *arguments)
        try:
            replies = await self._batches(action, [[("EVALSHA", script.sha, *rest), self._wait]])
        except NoScriptError:
            replies = None
        if replies is None:
            replies = await self._batches(action, [[("EVAL", script.text, *rest), self._wait]])
        reply, copies = replies[0]
        # A list tells why nothing was written.
        if not isinstance(reply, list):
            self._check_copies(action, copies)
        return reply

    async def scripts(
        self,
        action: str,
        script: Script,
        calls: Sequence[tuple[Sequence[str | bytes], Sequence[str | bytes | int]]],
    ) -> list[Any]:
        """Run a script once for each pair of keys and arguments; errors as in `run`.

        All in one round trip; on Cluster one each, at once.
        """
        if self.is_cluster:
            return await asyncio.gather(
                *(self.script(action, script, keys, *arguments) for keys, arguments in calls)
            )
        # Loading it each time spares a second way to go for a server that has forgotten it.
        commands: list[Command] = [("SCRIPT LOAD", script.text)]
        commands += [("EVALSHA", script.sha, len(keys), *keys, *arguments) for keys, arguments in calls]
        return (await self.pipeline(action, commands))[1:]

    async def pipeline(self, action: str, commands: Sequence[Command]) -> list[Any]:
        """Run commands in one round trip (one a node on Cluster), not atomically; errors as in `run`."""
        batches = await self._batches(action, [[command] for command in commands])
        return [reply for batch in batches for reply in batch]

    async def replicated_pipeline(self, action: str, commands: Sequence[Command]) -> None:
        """As `pipeline`, with the promise of `replicated_script`. Commands for one key stand together."""
        if not self._wait_replicas:
            await self.pipeline(action, commands)
            return
        of_each_key = groupby(commands, key=key_of)
        batches = await self._batches(action, [[*of_key, self._wait] for _, of_key in of_each_key])
        for batch in batches:
            self._check_copies(action, batch[-1])

    async def ping(self, action: str) -> None:
        """Have the server answer, and be one that takes writes; errors as in `run`."""
        await self.run(action, self._ping_cluster if self.is_cluster else self._ping)

    async def primaries(self, action: str) -> list[Any]:
        """The primary nodes of a cluster; errors as in `run`."""
        client = self.client
        assert isinstance(client, RedisCluster)

        async def call() -> list[Any]:
            # Those that it knows may have changed since.
            await self._cluster.refresh()
            return client.get_primaries()

        return await self.run(action, call)

    async def _batches(self, action: str, batches: Sequence[Sequence[Command]]) -> list[list[Any]]:
        """The replies to commands in one round trip (one a node on Cluster); errors as in `run`."""
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

    def _check_copies(self, action: str, copies: int) -> None:
        if copies < self._wait_replicas:
            self._log.error("redis_not_replicated", action=action, copies=copies)
            raise StoreConnectionError(
                f"{action}: {copies} of {self._wait_replicas} replicas confirmed it within {self._wait_timeout:g} s "
                "(SOLDIER_REDIS_WAIT_REPLICAS, SOLDIER_REDIS_WAIT_TIMEOUT). It is stored, but may not survive "
                "a failover; saving it again has one effect"
            )

    async def _ping(self) -> None:
        pipeline = self.client.pipeline(transaction=False)
        # It tells the role, which ROLE and INFO tell too, but to privileged users alone: every user may say HELLO.
        pipeline.execute_command("HELLO")
        # HELLO is answered by a server that is loading or busy as well.
        pipeline.execute_command("PING")
        about, alive = await pipeline.execute(raise_on_error=False)
        if isinstance(alive, Exception) and not isinstance(alive, NoPermissionError):
            raise alive
        if isinstance(about, Exception):
            # What stands between (a proxy) does not know it.
            return
        pairs = about.items() if isinstance(about, dict) else zip(about[::2], about[1::2], strict=True)
        if dict(pairs).get(b"role") == b"replica":
            raise ReadOnlyError("a replica")

    async def _ping_cluster(self) -> None:
        assert isinstance(self.client, RedisCluster)
        await self.client.ping(target_nodes=RedisCluster.PRIMARIES)
        state: dict[str, str] = await self.client.execute_command("CLUSTER INFO")
        if state.get("cluster_state") != "ok":
            raise ResponseError("CLUSTERDOWN by its own account")

    async def _give_up_connections(self, cause: Exception) -> None:
        """Do not meet the same failure on each of the other connections.

        After a time-out they may be as dead as this one: a firewall forgets those that were idle together. And those
        to a primary that is a replica now stay open.
        """
        if self.is_cluster and not isinstance(cause, ResponseError):
            self._cluster.suspect()
        if timed_out(cause) or tells_of_a_replica(cause):
            await drop_idle_connections(self.client)

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


class _Patience:
    """When to try again, and for how long."""

    def __init__(self, budget: float) -> None:
        self._end = monotonic() + budget
        self._longest = _FIRST_PAUSE

    async def pause(self) -> bool:
        """Wait a little, longer each time; or return False at once, if the time is up."""
        # Callers that failed together come back one after the other.
        pause = self._longest * random.uniform(0.5, 1)  # noqa: S311 - no secret.
        if monotonic() + pause > self._end:
            return False
        self._longest = min(self._longest * 2, _LONGEST_PAUSE)
        await asyncio.sleep(pause)
        return True
