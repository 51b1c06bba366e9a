"""Runs server processes for another process, the client, and stops them when the client ends.

It is run as a script, `python -I -S supervisor.py --remove FOLDER [--lock FILE]`, and imports only the standard
library. Its stdin is a pipe from the client, its parent. When the client ends, even by kill -9, the kernel closes the
other end, and end-of-file on stdin makes the supervisor stop the servers. A child that the client forked without exec
(multiprocessing) may still hold that end open; then the supervisor sees that it has another parent.

After its start it writes `{}`, or an error if another client holds the lock. From then on it reads requests from
stdin, one JSON object per line, and writes one line in reply to each:

    {"do": "run", "command": [...], "account": [uid, gid]}
        Run the command to its end. The reply is {} if it exits with 0.
    {"do": "start", "command": [...], "account": [uid, gid], "log": file, "stop": ["SIGINT", ...]}
        Start a server, and append its output to the log. The reply is {"pid": 123}.

If `account` is null, the command runs as the client's account. The reply to a request that fails is
{"error": "reason"}.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

COMMAND_SECONDS = 120
STOP_SECONDS = 10
REMOVE_SECONDS = 5
PARENT_CHECK_SECONDS = 1


class Server:
    """A running server process, in a process group of its own."""

    def __init__(self, request: dict[str, Any], lock: int | None) -> None:
        self._signals = [signal.Signals[name] for name in request["stop"]]
        with Path(request["log"]).open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - the command comes from the client, our parent.
                request["command"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                process_group=0,
                # The servers inherit the lock, so if this supervisor is killed, the data stays locked until all of
                # them have ended.
                pass_fds=[] if lock is None else [lock],
                **_as_account(request["account"]),
            )
        self.pid = self._process.pid
        # Reaps the server as soon as it ends, so that the client sees that its process no longer exists.
        self._reaper = threading.Thread(target=self._process.wait, daemon=True)
        self._reaper.start()

    def ask_to_stop(self) -> None:
        """Send the first stop signal, without waiting."""
        self._process.send_signal(self._signals[0])

    def stop(self) -> None:
        """Wait until the server has ended, sending the next signal after every `STOP_SECONDS`."""
        for next_signal in self._signals[1:]:
            if self._ended():
                return
            self._process.send_signal(next_signal)
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


def run(request: dict[str, Any]) -> None:
    """Run one command to its end.

    Raises:
        RuntimeError: The command failed; the message contains its output.
    """
    done = subprocess.run(  # noqa: S603 - as above.
        request["command"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=COMMAND_SECONDS,
        check=False,
        **_as_account(request["account"]),
    )
    if done.returncode != 0:
        raise RuntimeError(f"exit status {done.returncode}: {done.stdout.decode(errors='replace').strip()}")


def take_lock(file: Path) -> int:
    """Lock the file for this process and its servers, and write the client's process id into it.

    If the client that holds the lock has ended, its servers are about to stop, so this waits for the lock.

    Raises:
        RuntimeError: Another client holds the lock.
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
                    f"{file.parent} is in use by servers that process {holder} left behind: stop them; each "
                    f"has {file} open."
                ) from None
            time.sleep(0.05)
        else:
            os.truncate(lock, 0)
            os.pwrite(lock, f"{os.getppid()}\n".encode(), 0)
            return lock


def is_alive(pid: int) -> bool:
    """Return True if the process exists, whoever owns it."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def remove(folder: Path) -> None:
    """Delete the folder, with retries because children of a killed server may still write to it briefly."""
    deadline = time.monotonic() + REMOVE_SECONDS
    shutil.rmtree(folder, ignore_errors=True)
    while folder.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
        shutil.rmtree(folder, ignore_errors=True)


def requests() -> Iterator[bytes]:
    """Yield the requests of the client until it ends."""
    client = os.getppid()
    received = b""
    while os.getppid() == client:
        if select.select([0], [], [], PARENT_CHECK_SECONDS)[0]:
            data = os.read(0, 65536)
            if not data:
                return
            *lines, received = (received + data).split(b"\n")
            yield from lines


def send(reply: dict[str, Any]) -> None:
    """Write a reply to the client."""
    os.write(1, json.dumps(reply).encode() + b"\n")


def serve(lock: int | None, servers: list[Server]) -> None:
    """Handle requests until the client ends."""
    for line in requests():
        request = json.loads(line)
        try:
            if request["do"] == "run":
                run(request)
                send({})
            else:
                server = Server(request, lock)
                servers.append(server)
                send({"pid": server.pid})
        except (OSError, RuntimeError, subprocess.SubprocessError) as error:
            send({"error": f"{request['command'][0]}: {error}"})


def main() -> None:
    """Take the lock and handle requests; finally stop the servers and delete the folder."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--remove", type=Path, required=True)
    parser.add_argument("--lock", type=Path)
    arguments = parser.parse_args()
    # Handlers instead of SIG_IGN, which the servers would inherit.
    for ignored in (signal.SIGINT, signal.SIGHUP):
        signal.signal(ignored, lambda *_: None)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    servers: list[Server] = []
    try:
        lock = None if arguments.lock is None else take_lock(arguments.lock)
        send({})
        # The client may end before it reads a reply.
        with contextlib.suppress(BrokenPipeError):
            serve(lock, servers)
    except RuntimeError as error:
        send({"error": str(error)})
    except OSError as error:
        send({"error": f"The embedded servers cannot be started: {error}."})
    finally:
        signal.signal(signal.SIGTERM, lambda *_: None)
        for server in servers:
            server.ask_to_stop()
        for server in servers:
            server.stop()
        remove(arguments.remove)


if __name__ == "__main__":
    main()
