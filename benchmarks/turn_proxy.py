"""A network: a process that delays and counts what passes between clients and the servers' Unix sockets.

    python -m benchmarks.turn_proxy SECONDS SOCKET...

It listens on a TCP port for each socket and prints the ports, and then that of a control connection, as a JSON list.
Each line that is sent to the control port is answered with the round trips so far, a JSON list. It ends with its stdin.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import os
import selectors
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import cast

_PR_SET_TIMERSLACK = 29

# Of a call in the average lateness; and the lateness, in seconds, beyond which something else was the cause.
_WEIGHT = 0.02
_MOST_LATE = 0.0003


@dataclass
class _Trips:
    """Round trips to one server: each begins when a client sends, first or after data from the server."""

    count: int = 0


class _Delay:
    """Calls functions after the delay, less the lateness of recent calls."""

    def __init__(self, seconds: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._seconds = seconds
        self._late = 0.0

    def call(self, function: Callable[[bytes | None], None], data: bytes | None) -> None:
        """Call the function."""
        if self._seconds:
            # Each chunk has a timer of its own, so that connections do not wait for one another.
            due = self._loop.time() + self._seconds
            self._loop.call_at(due - self._late, self._call_now, due, function, data)
        else:
            function(data)

    def _call_now(self, due: float, function: Callable[[bytes | None], None], data: bytes | None) -> None:
        late = self._loop.time() - due + self._late
        self._late += _WEIGHT * (min(late, _MOST_LATE) - self._late)
        function(data)


class _Side(asyncio.Protocol):
    """One end of a connection: passes on what it receives to the other end after the delay."""

    def __init__(self, delay: _Delay) -> None:
        self._delay = delay
        self.other: _Side | None = None
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        assert self.other is not None
        self._delay.call(self.other.send, data)

    def connection_lost(self, _exc: Exception | None) -> None:
        assert self.other is not None
        self._delay.call(self.other.send, None)

    def send(self, data: bytes | None) -> None:
        """Send data; None closes the connection."""
        if self.transport is None or self.transport.is_closing():
            return
        if data is None:
            self.transport.close()
        else:
            self.transport.write(data)


class _Client(_Side):
    def __init__(self, delay: _Delay, socket: str, trips: _Trips) -> None:
        super().__init__(delay)
        self._socket = socket
        self._trips = trips
        self.speaks = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.other = _Server(self._delay)
        self.other.other = self
        # Until the server's end is open, nothing is read.
        cast("asyncio.Transport", transport).pause_reading()
        self._opening = asyncio.create_task(self._open())

    async def _open(self) -> None:
        other = self.other
        assert other is not None
        assert self.transport is not None
        try:
            await asyncio.get_running_loop().create_unix_connection(lambda: other, self._socket)
        except OSError:
            self.transport.close()
        else:
            self.transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        if not self.speaks:
            self.speaks = True
            self._trips.count += 1
        super().data_received(data)


class _Server(_Side):
    def data_received(self, data: bytes) -> None:
        cast("_Client", self.other).speaks = False
        super().data_received(data)


async def _control(trips: list[_Trips], reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while await reader.readline():
        writer.write(json.dumps([each.count for each in trips]).encode() + b"\n")
    writer.close()


async def _serve(seconds: float, sockets: list[str]) -> None:
    loop = asyncio.get_running_loop()
    delay = _Delay(seconds)
    counted = [_Trips() for _ in sockets]
    servers = [
        await loop.create_server(partial(_Client, delay, socket, trips), "127.0.0.1", 0, backlog=200)
        for socket, trips in zip(sockets, counted, strict=True)
    ]
    servers.append(await asyncio.start_server(partial(_control, counted), "127.0.0.1", 0))
    print(json.dumps([server.sockets[0].getsockname()[1] for server in servers]), flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


def main() -> None:
    """Serve until the end of stdin."""
    # Timers of the kernel may be late by 50 us otherwise, and those of asyncio's default selector by 1 ms.
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, 1)
    # A network does not wait for a processor. What it does is short.
    with contextlib.suppress(OSError, AttributeError):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    runner = asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(selectors.SelectSelector()))
    with runner:
        runner.run(_serve(float(sys.argv[1]), sys.argv[2:]))


if __name__ == "__main__":
    main()
