"""What the two servers share: the starter's end of `supervisor.py`, waiting for a server, whose account."""

from __future__ import annotations

import importlib.util
import json
import os
import pwd
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from soldier_data.errors import ConfigurationError

START_SECONDS = 30.0
GONE_SECONDS = 10.0
INSTALL = 'pip install "soldier-data[embedded]"'

_SUPERVISOR = Path(__file__).with_name("supervisor.py")


class Account(NamedTuple):
    """The account that servers run as when root starts them."""

    uid: int
    gid: int


def server_account(data: Path) -> Account | None:
    """Whom to run servers as: None for ourselves, or an unprivileged account where we are root.

    PostgreSQL refuses to run as root. Data that an ordinary user has made keeps its owner; anything else
    belongs to "nobody".

    Args:
        data: PostgreSQL's data folder, which need not exist.
    """
    if os.geteuid() != 0:
        return None
    if data.exists() and data.stat().st_uid != 0:
        return Account(data.stat().st_uid, data.stat().st_gid)
    nobody = pwd.getpwnam("nobody")
    return Account(nobody.pw_uid, nobody.pw_gid)


def account_can_run(account: Account, command: Sequence[str | Path]) -> bool:
    """Whether the command runs as the account and exits with 0."""
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
            # An interrupt from the keyboard ends all that the terminal runs in the foreground, and would be an answer.
            start_new_session=True,
        )
    except OSError:
        return False
    return done.returncode == 0


def make_folder(folder: Path, account: Account | None) -> None:
    """Make a folder that is the server's own, mode 0700, unless it is there.

    Raises:
        ConfigurationError: The account that the server has to run as cannot enter the folder.
    """
    folder.mkdir(mode=0o700, exist_ok=True)
    if account is None:
        return
    os.chown(folder, account.uid, account.gid)
    if not _account_can_enter(account, folder):
        outermost_first = [*reversed(folder.parents), folder]
        blocked = next((each for each in outermost_first if not _account_can_enter(account, each)), folder)
        raise ConfigurationError(
            f"The embedded servers do not run as root but as user id {account.uid}, which may not enter "
            f"{blocked}. Choose a folder outside of it, say under /var/tmp (for temporary data, set TMPDIR), "
            f"allow it with `chmod o+x {blocked}`, or run as an ordinary user."
        )


def _account_can_enter(account: Account, folder: Path) -> bool:
    return account_can_run(account, ["/bin/sh", "-c", 'test -x "$0"', folder])


def package_folder(package: str) -> Path | None:
    """The folder of an installed package, found without importing it, or None."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        return None
    return Path(spec.origin).parent


class Supervisor:
    """The starter's end of the process that runs the servers.

    Args:
        runtime: A folder that is deleted once the servers have stopped.
        lock: A file that is locked for as long as the servers run, if any.

    Raises:
        ConfigurationError: The lock is taken; the message names the process that holds it.
    """

    def __init__(self, runtime: Path, lock: Path | None) -> None:
        options = ["--remove", str(runtime)]
        if lock is not None:
            options += ["--lock", str(lock)]
        self._turn = threading.Lock()  # An order and its answer belong together.
        self._log = runtime / "supervisor.log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(  # noqa: S603 - our own script.
                [sys.executable, "-I", "-S", str(_SUPERVISOR), *options],
                bufsize=0,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                cwd="/",
                # PGPORT and its like would change what initdb and the server do.
                env={name: value for name, value in os.environ.items() if not name.startswith("PG")},
                start_new_session=True,
            )
        _supervisors.add(self)
        try:
            self._answer()
        except BaseException:
            self.stop()
            raise

    def run(self, command: Sequence[str], account: Account | None) -> None:
        """Run a command to its end, 120 seconds at most.

        Raises:
            ConfigurationError: It failed; the message has what it printed.
        """
        self._order({"do": "run", "command": command, "account": account})

    def start(
        self, command: Sequence[str], account: Account | None, *, log: Path, stop_signals: Sequence[str]
    ) -> int:
        """Start a server and return its process id.

        Args:
            command: The program and its arguments.
            account: Whom to run it as.
            log: The file that its output is appended to.
            stop_signals: Names of the signals that end it, the gentlest first; 10 seconds are given to each
                before the next, and then to SIGKILL.

        Raises:
            ConfigurationError: The program cannot be run.
        """
        order = {"do": "start", "command": command, "account": account, "log": str(log), "stop": stop_signals}
        return int(self._order(order)["pid"])

    def stop(self) -> None:
        """Stop the servers and wait until the runtime folder is gone. May be called again."""
        self.close_pipes()
        self._process.wait()

    def close_pipes(self) -> None:
        """Close this process's ends of the pipes, without waiting."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    def _order(self, order: Mapping[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        if self._process.stdin.closed:
            raise ConfigurationError("The embedded servers have been stopped; start new ones.")
        with self._turn:
            try:
                self._process.stdin.write(json.dumps(order).encode() + b"\n")
            except BrokenPipeError:
                raise self._dead() from None
            return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise self._dead()
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise ConfigurationError(answer["error"])
        return answer

    def _dead(self) -> ConfigurationError:
        return ConfigurationError(f"The embedded servers' supervisor has died.{log_tail(self._log)}")


@dataclass(frozen=True)
class ServerPlace:
    """Where and how a server runs.

    Attributes:
        supervisor: Runs it.
        folder: Has its data and its log.
        runtime: A temporary folder with a short path, for its socket.
        account: Whom to run it as, if not as this process.
        durable: Whether its data shall survive a crash of the machine; without, it is faster.
    """

    supervisor: Supervisor
    folder: Path
    runtime: Path
    account: Account | None
    durable: bool


_supervisors: weakref.WeakSet[Supervisor] = weakref.WeakSet()


def _close_pipes_in_child() -> None:
    for supervisor in _supervisors:
        supervisor.close_pipes()


# Pipes are close-on-exec, but a forked child that executes nothing (multiprocessing) holds them too. Were it
# to outlive this process, the servers would never learn that it has ended.
os.register_at_fork(after_in_child=_close_pipes_in_child)


def wait_until_ready(name: str, pid: int, log: Path, ready: Callable[[], bool]) -> None:
    """Wait, 30 seconds at most, until a server that was just started is ready.

    Raises:
        ConfigurationError: It ended or took too long; the message ends with the tail of its log.
    """
    deadline = time.monotonic() + START_SECONDS
    while not ready():
        if not _is_alive(pid):
            raise ConfigurationError(f"The embedded {name} server ended at its start.{log_tail(log)}")
        if time.monotonic() > deadline:
            raise ConfigurationError(
                f"The embedded {name} server was not ready after {START_SECONDS:.0f} s.{log_tail(log)}"
            )
        time.sleep(0.005)


def wait_until_gone(name: str, pid: int) -> None:
    """Wait, 10 seconds at most, until a server that was told to end, or killed, has ended.

    Raises:
        ConfigurationError: It still runs.
    """
    deadline = time.monotonic() + GONE_SECONDS
    while _is_alive(pid):
        if time.monotonic() > deadline:
            raise ConfigurationError(
                f"The embedded {name} server still runs, as process {pid}: end it first."
            )
        time.sleep(0.005)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def log_tail(log: Path) -> str:
    """The last 15 lines of a log, introduced by its name."""
    try:
        lines = log.read_text(errors="replace").splitlines()[-15:]
    except OSError as error:
        lines = [error.strerror or "unreadable"]
    return "\n".join([f" The end of {log}:", *lines])
