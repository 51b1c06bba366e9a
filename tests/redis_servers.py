"""Redis servers of a test's own, on loopback: to be filled up, killed, or joined to a cluster."""

from __future__ import annotations

import random
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from redis import Redis
from redis.exceptions import RedisError

from soldier_data.embedded.redis import _find_program
from soldier_data.errors import ConfigurationError

_SLOTS = 16384
_NODES = 3


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

    def __init__(self, binary: Path, folder: Path, **settings: str) -> None:
        self.port = _free_port()
        self.url = f"redis://127.0.0.1:{self.port}"
        given = {"port": str(self.port), "bind": "127.0.0.1", "dir": str(folder), "save": ""} | settings
        self._command = [str(binary)]
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

    def _answers(self) -> bool:
        with Redis(port=self.port) as client:
            return bool(client.ping())


@contextmanager
def redis_server(binary: Path, folder: Path, **settings: str) -> Iterator[RedisServer]:
    """A running server."""
    server = RedisServer(binary, folder, **settings)
    try:
        yield server
    finally:
        server.kill()


@contextmanager
def redis_cluster(binary: Path, folder: Path) -> Iterator[str]:
    """URL of a running cluster of three nodes."""
    with ExitStack() as stack:
        servers = []
        for number in range(_NODES):
            place = folder / f"node-{number}"
            place.mkdir()
            servers.append(
                stack.enter_context(
                    redis_server(
                        binary,
                        place,
                        cluster_enabled="yes",
                        cluster_node_timeout="5000",
                        notify_keyspace_events="Egx",
                    )
                )
            )
        clients = [stack.enter_context(Redis(port=server.port)) for server in servers]
        for number, client in enumerate(clients):
            share = range(number * _SLOTS // _NODES, (number + 1) * _SLOTS // _NODES)
            # With ADDSLOTSRANGE it would be shorter, but that came with Redis 7.
            client.execute_command("CLUSTER ADDSLOTS", *share)
            client.execute_command("CLUSTER SET-CONFIG-EPOCH", number + 1)
            client.execute_command("CLUSTER MEET", "127.0.0.1", servers[0].port)

        def is_joined() -> bool:
            return all(
                info["cluster_state"] == "ok" and info["cluster_known_nodes"] == str(_NODES)
                for info in (client.cluster("INFO") for client in clients)
            )

        wait_for(is_joined, folder)
        yield servers[0].url


def wait_for(is_ready: Callable[[], bool], where: Path) -> None:
    """Wait until `is_ready()`."""
    end = time.monotonic() + 15
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
