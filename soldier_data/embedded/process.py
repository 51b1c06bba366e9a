"""Common parts of both servers: the client of `supervisor.py`, waiting for a server, and its account."""

from __future__ import annotations

import importlib.util
import json
import os
import pwd
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from soldier_data.errors import ConfigurationError

START_SECONDS = 30.0
END_SECONDS = 10.0
INSTALL = 'pip install "soldier-data[embedded]"'

_SUPERVISOR = Path(__file__).with_name("supervisor.py")


class Account(NamedTuple):
    """User and group id that the servers run as if root starts them."""

    uid: int
    gid: int


def server_account(data: Path) -> Account | None:
    """Return the account to run the servers as: None unless the caller is root.

    PostgreSQL refuses to run as root. The owner of an existing data folder is used, otherwise "nobody".

    Args:
        data: PostgreSQL's data folder, which may not exist yet.
    """
    if os.geteuid() != 0:
        return None
    if data.exists() and data.stat().st_uid != 0:
        return Account(data.stat().st_uid, data.stat().st_gid)
    nobody = pwd.getpwnam("nobody")
    return Account(nobody.pw_uid, nobody.pw_gid)


def account_can_run(account: Account, command: Sequence[str | Path]) -> bool:
    """Return True if the command exits with 0 when it is run as the account."""
    try:
        done = subprocess.run(  # noqa: S603 - only our own modules call it.
            [str(word) for word in command],
            user=account.uid,
            group=account.gid,
            extra_groups=[],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            cwd="/",
            # Otherwise Ctrl-C would end the command, which would be taken for a failure.
            start_new_session=True,
        )
    except OSError:
        return False
    return done.returncode == 0


def make_folder(folder: Path, account: Account | None) -> None:
    """Create a folder of the server, mode 0700, unless it exists.

    Raises:
        ConfigurationError: The server's account cannot enter the folder.
    """
    folder.mkdir(mode=0o700, exist_ok=True)
    if account is None:
        return
    os.chown(folder, account.uid, account.gid)
    if not _account_can_enter(account, folder):
        outermost_first = [*reversed(folder.parents), folder]
        blocked = next((each for each in outermost_first if not _account_can_enter(account, each)), folder)
        raise ConfigurationError(
            f"The embedded servers do not run as root but as user id {account.uid}, which cannot access "
            f"{blocked}. Choose a folder outside of it, such as one in /var/tmp (for temporary data, set TMPDIR), "
            f"permit it with `chmod o+x {blocked}`, or run as an ordinary user."
        )


def _account_can_enter(account: Account, folder: Path) -> bool:
    return account_can_run(account, ["/bin/sh", "-c", 'test -x "$0"', folder])


def package_folder(package: str) -> Path | None:
    """Return the folder of a package without importing it; None if it is not installed."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        return None
    return Path(spec.origin).parent


class Supervisor:
    """Client of the supervisor process, which runs the servers.

    Args:
        runtime: Folder that is deleted after the servers have stopped.
        lock: File that is locked while the servers are running; None for no lock.

    Raises:
        ConfigurationError: Another process holds the lock; the message names it.
    """

    def __init__(self, runtime: Path, lock: Path | None) -> None:
        options = ["--remove", str(runtime)]
        if lock is not None:
            options += ["--lock", str(lock)]
        self._lock = threading.Lock()  # Held from a command until its reply.
        self._log = runtime / "supervisor.log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(  # noqa: S603 - our own script.
                [sys.executable, "-I", "-S", str(_SUPERVISOR), *options],
                bufsize=0,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                cwd="/",
                # PGPORT and similar variables would affect initdb and the server.
                env={name: value for name, value in os.environ.items() if not name.startswith("PG")},
                start_new_session=True,
            )
        try:
            self._read_reply()
        except BaseException:
            self.stop()
            raise

    def run(self, command: Sequence[str], account: Account | None) -> None:
        """Run a command and wait for its end, for up to 120 seconds.

        Raises:
            ConfigurationError: It failed; the message contains its output.
        """
        self._request({"do": "run", "command": command, "account": account})

    def start(
        self, command: Sequence[str], account: Account | None, *, log: Path, stop_signals: Sequence[str]
    ) -> int:
        """Start a server and return its process id.

        Args:
            command: The program and its arguments.
            account: Account to run it as; None for the current one.
            log: File that its output is appended to.
            stop_signals: Names of the signals to stop it with, tried in order with a wait of 10 seconds after each,
                before SIGKILL.

        Raises:
            ConfigurationError: The program cannot be run.
        """
        request = {
            "do": "start",
            "command": command,
            "account": account,
            "log": str(log),
            "stop": stop_signals,
        }
        return int(self._request(request)["pid"])

    def stop(self) -> None:
        """Stop the servers and wait until the runtime folder is deleted. Further calls do nothing."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        self._process.wait()

    def _request(self, request: Mapping[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        if self._process.stdin.closed:
            raise ConfigurationError("The embedded servers have been stopped; start new ones.")
        with self._lock:
            try:
                self._process.stdin.write(json.dumps(request).encode() + b"\n")
            except BrokenPipeError:
                raise self._died() from None
            return self._read_reply()

    def _read_reply(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise self._died()
        reply: dict[str, Any] = json.loads(line)
        if "error" in reply:
            raise ConfigurationError(reply["error"])
        return reply

    def _died(self) -> ConfigurationError:
        return ConfigurationError(f"The embedded servers' supervisor has died.{log_tail(self._log)}")


@dataclass(frozen=True)
class ServerPlace:
    """Location and owner of a server.

    Attributes:
        supervisor: The supervisor that runs the server.
        folder: Folder of its data and its log.
        runtime: Temporary folder with a short path, for its socket.
        account: Account to run it as; None for the current one.
        durable: True if its data must survive a crash of the machine, which is slower.
    """

    supervisor: Supervisor
    folder: Path
    runtime: Path
    account: Account | None
    durable: bool


def wait_until_ready(name: str, pid: int, log: Path, ready: Callable[[], bool]) -> None:
    """Wait, for up to 30 seconds, until a server is ready after its start.

    Raises:
        ConfigurationError: It ended or timed out; the message contains the end of its log.
    """
    deadline = time.monotonic() + START_SECONDS
    while not ready():
        if not _is_alive(pid):
            raise ConfigurationError(f"The embedded {name} server failed to start.{log_tail(log)}")
        if time.monotonic() > deadline:
            raise ConfigurationError(
                f"The embedded {name} server was not ready after {START_SECONDS:.0f} s.{log_tail(log)}"
            )
        time.sleep(0.005)


def wait_until_ended(name: str, pid: int) -> None:
    """Wait, for up to 10 seconds, until a server that was stopped or killed has ended.

    Raises:
        ConfigurationError: It is still running.
    """
    deadline = time.monotonic() + END_SECONDS
    while _is_alive(pid):
        if time.monotonic() > deadline:
            raise ConfigurationError(
                f"The embedded {name} server is still running, as process {pid}: stop it first."
            )
        time.sleep(0.005)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def log_tail(log: Path) -> str:
    """Return the last 15 lines of a log, after a line with its path."""
    try:
        lines = log.read_text(errors="replace").splitlines()[-15:]
    except OSError as error:
        lines = [error.strerror or "unreadable"]
    return "\n".join([f" The end of {log}:", *lines])
