"""Runs server processes for another process, the starter, and stops them when the starter ends.

It is run as a script, `python -I -S supervisor.py --remove FOLDER [--lock FILE]`, and imports the standard
library alone. Its stdin is a pipe whose other end only the starter holds: however the starter ends, kill -9
included, the kernel closes that end, and the end of stdin is the order to stop.

Once it is up it writes `{}`, or an error when another starter holds the lock. From then on each line on stdin
is an order, in JSON, and each order gets one line in answer:

    {"do": "run", "command": [...], "account": [uid, gid]}
        Waits for the command. Answers {} when it exits with 0.
    {"do": "start", "command": [...], "account": [uid, gid], "log": file, "stop": ["SIGINT", ...]}
        Starts a server, whose output is appended to the log. Answers {"pid": 123}.

`account` may be null: the command then runs as the starter does. An order that fails is answered with
{"error": "why"}.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

COMMAND_SECONDS = 120
STOP_SECONDS = 10
REMOVE_SECONDS = 5


class Server:
    """A running server process, in a process group of its own."""

    def __init__(self, order: dict[str, Any], lock: int | None) -> None:
        self._signals = [signal.Signals[name] for name in order["stop"]]
        with Path(order["log"]).open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - the starter, who gave us life, chose the command.
                order["command"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                process_group=0,
                # Servers share the lock: should this supervisor be killed, the data stays locked while any
                # of them lives.
                pass_fds=[] if lock is None else [lock],
                **_as_account(order["account"]),
            )
        self.pid = self._process.pid
        # A dead server is reaped at once, so that the starter sees its process id vanish.
        self._reaper = threading.Thread(target=self._process.wait, daemon=True)
        self._reaper.start()

    def ask_to_stop(self) -> None:
        """Send the gentlest signal, without waiting."""
        self._process.send_signal(self._signals[0])

    def stop(self) -> None:
        """Wait until the server has ended, with ever harder signals and `STOP_SECONDS` for each."""
        for harder in self._signals[1:]:
            if self._ended():
                return
            self._process.send_signal(harder)
        if not self._ended():
            os.killpg(self.pid, signal.SIGKILL)
            self._ended()

    def _ended(self) -> bool:
        self._reaper.join(STOP_SECONDS)
        return not self._reaper.is_alive()


def _as_account(account: list[int] | None) -> dict[str, Any]:
    if account is None:
        return {}
    uid, gid = account
    return {"user": uid, "group": gid, "extra_groups": []}


def run(order: dict[str, Any]) -> None:
    """Run one command to its end.

    Raises:
        RuntimeError: The command failed; the message is what it printed.
    """
    done = subprocess.run(  # noqa: S603 - as above.
        order["command"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=COMMAND_SECONDS,
        check=False,
        **_as_account(order["account"]),
    )
    if done.returncode != 0:
        raise RuntimeError(f"exit status {done.returncode}: {done.stdout.decode(errors='replace').strip()}")


def take_lock(file: Path) -> int:
    """Lock the file for this process and its servers, and write the starter's process id into it.

    A starter that was killed leaves servers that are about to stop, so its lock is waited for.

    Raises:
        RuntimeError: Another starter holds the lock.
    """
    lock = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
    deadline = time.monotonic() + 2 * STOP_SECONDS
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(lock, 20, 0).decode().strip()
            if not holder or is_alive(int(holder)):
                raise RuntimeError(
                    f"{file.parent} is in use by the embedded servers of process {holder or '(starting)'}: "
                    "use their URLs, end that process, or choose another path."
                ) from None
            if time.monotonic() > deadline:
                raise RuntimeError(
                    f"{file.parent} is in use by servers that process {holder} left behind: end them; each "
                    f"has {file} open."
                ) from None
            time.sleep(0.05)
        else:
            os.truncate(lock, 0)
            os.pwrite(lock, f"{os.getppid()}\n".encode(), 0)
            return lock


def is_alive(pid: int) -> bool:
    """Whether there is such a process, whoever owns it."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def remove(folder: Path) -> None:
    """Delete the folder; children of a killed server may go on writing into it for a moment."""
    deadline = time.monotonic() + REMOVE_SECONDS
    shutil.rmtree(folder, ignore_errors=True)
    while folder.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
        shutil.rmtree(folder, ignore_errors=True)


def answer(reply: dict[str, Any]) -> None:
    """Write one line to the starter."""
    os.write(1, json.dumps(reply).encode() + b"\n")


def obey(lock: int | None, servers: list[Server]) -> None:
    """Carry out orders until stdin ends."""
    for line in sys.stdin.buffer:
        order = json.loads(line)
        try:
            if order["do"] == "run":
                run(order)
                answer({})
            else:
                server = Server(order, lock)
                servers.append(server)
                answer({"pid": server.pid})
        except (OSError, RuntimeError, subprocess.SubprocessError) as error:
            answer({"error": f"{order['command'][0]}: {error}"})


def main() -> None:
    """Take the lock, obey, and in any event stop the servers and delete the folder."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--remove", type=Path, required=True)
    parser.add_argument("--lock", type=Path)
    arguments = parser.parse_args()
    # Handlers rather than SIG_IGN, which the servers would inherit.
    for ignored in (signal.SIGINT, signal.SIGHUP):
        signal.signal(ignored, lambda *_: None)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    servers: list[Server] = []
    try:
        lock = None if arguments.lock is None else take_lock(arguments.lock)
        answer({})
        # A starter that is gone cannot read answers.
        with contextlib.suppress(BrokenPipeError):
            obey(lock, servers)
    except RuntimeError as error:
        answer({"error": str(error)})
    except OSError as error:
        answer({"error": f"The embedded servers cannot be started: {error}."})
    finally:
        signal.signal(signal.SIGTERM, lambda *_: None)
        for server in servers:
            server.ask_to_stop()
        for server in servers:
            server.stop()
        remove(arguments.remove)


if __name__ == "__main__":
    main()
