"""Redis servers of a test's own, on loopback: to be filled up, killed, or joined to a cluster."""

from __future__ import annotations

import random
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from redis.exceptions import RedisError

from soldier_data.embedded.redis import _find_program
from soldier_data.errors import ConfigurationError

SERVICE = "sessions"
"""What the sentinels call the servers that they watch over."""

_SLOTS = 16384
_PRIMARIES = 3


def program() -> Path:
    """The redis-server that the embedded servers use; skips the test where there is none."""
    try:
        return _find_program()
    except ConfigurationError as error:
        pytest.skip(f"no redis-server: {error}")


def program_on_path() -> Path:
    """The redis-server of the machine, of another version as a rule; skips the test where there is none."""
    found = shutil.which("redis-server")
    if found is None:
        pytest.skip("no redis-server on PATH")
    return Path(found)


class RedisServer:
    """One server. Its data survives a `kill`, as far as `settings` have it written to disk."""

    def __init__(
        self, binary: Path, folder: Path, *, configuration: Path | None = None, **settings: str
    ) -> None:
        self._password = settings.get("requirepass")
        self.port = _free_port()
        self.url = f"redis://127.0.0.1:{self.port}"
        given = {"port": str(self.port), "bind": "127.0.0.1", "dir": str(folder)}
        self._command = [str(binary)]
        if configuration is None:
            given |= {"save": ""} | settings
        else:
            # Only a sentinel has a file of its own, which it writes too.
            self._command += [str(configuration), "--sentinel"]
            given |= settings
        for name, value in given.items():
            self._command += [f"--{name.replace('_', '-')}", value]
        self._log = folder / f"{self.port}.log"
        self.start()

    def start(self) -> None:
        """Start it, again after a `kill`, and wait until it answers."""
        with self._log.open("ab") as log:
            # The command is made of the test's own settings.
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log)
        wait_for(self._answers, self._log)

    def kill(self) -> None:
        """End it at once, as a crash does."""
        self._process.kill()
        self._process.wait()

    def suspend(self) -> None:
        """Make it accept connections but answer nothing."""
        self._process.send_signal(signal.SIGSTOP)

    def is_in_sync(self) -> bool:
        """Whether it is a replica that has all that its primary has."""
        with self.client() as client:
            info = client.info("replication")
        return bool(info["role"] == "slave" and info.get("master_link_status") == "up")

    def client(self) -> Any:
        """A client of it, not of asyncio's kind. Its methods have no types."""
        return Redis(port=self.port, password=self._password)

    def _answers(self) -> bool:
        with self.client() as client:
            answer: bool = client.ping()
        return answer


@contextmanager
def redis_server(
    binary: Path, folder: Path, *, configuration: Path | None = None, **settings: str
) -> Iterator[RedisServer]:
    """A running server."""
    server = RedisServer(binary, folder, configuration=configuration, **settings)
    try:
        yield server
    finally:
        server.kill()


@contextmanager
def redis_cluster(
    binary: Path, folder: Path, *, replicas: int = 0, **settings: str
) -> Iterator[list[RedisServer]]:
    """The nodes of a running cluster of three primaries, each with so many replicas: the primaries first."""
    number_of_nodes = _PRIMARIES * (1 + replicas)
    with ExitStack() as stack:
        servers = []
        for number in range(number_of_nodes):
            place = folder / f"node-{number}"
            place.mkdir()
            given: dict[str, Any] = {
                "cluster_enabled": "yes",
                "cluster_node_timeout": "5000",
                "notify_keyspace_events": "Egx",
                "repl_diskless_sync_delay": "0",
            }
            servers.append(stack.enter_context(redis_server(binary, place, **(given | settings))))
        clients = [stack.enter_context(Redis(port=server.port)) for server in servers]
        for number, client in enumerate(clients):
            if number < _PRIMARIES:
                share = range(number * _SLOTS // _PRIMARIES, (number + 1) * _SLOTS // _PRIMARIES)
                # With ADDSLOTSRANGE it would be shorter, but that came with Redis 7.
                client.execute_command("CLUSTER ADDSLOTS", *share)
            client.execute_command("CLUSTER SET-CONFIG-EPOCH", number + 1)
            client.execute_command("CLUSTER MEET", "127.0.0.1", servers[0].port)

        def is_joined() -> bool:
            return all(
                info["cluster_state"] == "ok" and info["cluster_known_nodes"] == str(number_of_nodes)
                for info in (client.cluster("INFO") for client in clients)
            )

        wait_for(is_joined, folder)
        for number, client in enumerate(clients[_PRIMARIES:]):
            primary = clients[number % _PRIMARIES].execute_command("CLUSTER MYID")
            wait_for(partial(client.execute_command, "CLUSTER REPLICATE", primary), folder)
        for server in servers[_PRIMARIES:]:
            wait_for(server.is_in_sync, folder)
        yield servers


@contextmanager
def redis_sentinels(
    binary: Path, folder: Path, *, replicas: int = 1, password: str = "", sentinel_password: str = ""
) -> Iterator[tuple[list[RedisServer], list[RedisServer]]]:
    """A primary with its replicas, and three sentinels that watch over it under the name of `SERVICE`."""
    secrets = {"requirepass": password, "masterauth": password} if password else {}
    with ExitStack() as stack:

        def start(name: str, **of_one: str) -> RedisServer:
            place = folder / name
            place.mkdir()
            given: dict[str, Any] = {"repl_diskless_sync_delay": "0"} | secrets | of_one
            return stack.enter_context(redis_server(binary, place, **given))

        servers = [start("primary")]
        for number in range(replicas):
            servers.append(start(f"replica-{number}", replicaof=f"127.0.0.1 {servers[0].port}"))
        for replica in servers[1:]:
            wait_for(replica.is_in_sync, folder)
        sentinels = [
            stack.enter_context(
                redis_sentinel(
                    binary, folder / f"sentinel-{number}", servers[0].port, password, sentinel_password
                )
            )
            for number in range(3)
        ]

        def know_each_other() -> bool:
            for sentinel in sentinels:
                with sentinel.client() as client:
                    known = client.sentinel_masters()[SERVICE]
                if (known["num-other-sentinels"], known["num-slaves"]) != (2, replicas):
                    return False
            return True

        wait_for(know_each_other, folder)
        yield servers, sentinels


@contextmanager
def redis_sentinel(
    binary: Path, folder: Path, primary: int, password: str = "", own_password: str = ""
) -> Iterator[RedisServer]:
    """A sentinel that takes a primary that is silent for a second for dead."""
    folder.mkdir()
    file = folder / "sentinel.conf"
    lines = [
        f"sentinel monitor {SERVICE} 127.0.0.1 {primary} 2",
        f"sentinel down-after-milliseconds {SERVICE} 1000",
        f"sentinel failover-timeout {SERVICE} 5000",
    ]
    if password:
        lines.append(f"sentinel auth-pass {SERVICE} {password}")
    own = {}
    if own_password:
        lines.append(f"sentinel sentinel-pass {own_password}")
        own["requirepass"] = own_password
    file.write_text("\n".join(lines) + "\n")
    with redis_server(binary, folder, configuration=file, **own) as server:
        yield server


def wait_for(is_ready: Callable[[], object], where: Path) -> None:
    """Wait until `is_ready()`."""
    end = time.monotonic() + 60
    while True:
        try:
            if is_ready():
                return
        except RedisError:
            pass
        assert time.monotonic() < end, f"Redis does not get ready: see {where}"
        time.sleep(0.05)


def _free_port() -> int:
    """A free port whose cluster bus port, 10,000 above, is one too."""
    while True:
        # pytest-randomly gives every test process the same seed; and ports above belong to outgoing connections.
        port = random.SystemRandom().randint(12_000, 22_000)
        with socket.socket() as first, socket.socket() as second:
            try:
                first.bind(("127.0.0.1", port))
                second.bind(("127.0.0.1", port + 10_000))
            except OSError:
                continue
            return port
