"""Accuracy of the network of `turn`: the time of an echo through it, beyond its delay."""

from __future__ import annotations

import asyncio
import socket
import tempfile
from contextlib import ExitStack
from pathlib import Path
from statistics import quantiles
from threading import Thread
from time import perf_counter

from benchmarks.turn_processes import delayed

_ECHOES = 300
_ROUNDS = 20
_MESSAGE = b"x" * 500


async def lateness(delay: float, connections: int) -> dict[str, tuple[float, float]]:
    """Return the median and the 95th percentile, in seconds, of one echo, and of the last of several at once."""
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as server:
        path = str(Path(folder) / "echo.sock")
        server.bind(path)
        server.listen(connections + 1)
        Thread(target=_accept, args=(server, connections + 1), daemon=True).start()
        async with delayed(delay, [path]) as (port, _):
            return await asyncio.to_thread(_measure, port, delay, connections)


def _measure(port: int, delay: float, connections: int) -> dict[str, tuple[float, float]]:
    with ExitStack() as stack:
        clients = [
            stack.enter_context(socket.create_connection(("127.0.0.1", port))) for _ in range(connections + 1)
        ]
        for client in clients:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            _echo([client])
        one = [_echo(clients[:1]) - 2 * delay for _ in range(_ECHOES)]
        all_ = [_echo(clients[1:]) - 2 * delay for _ in range(_ROUNDS)]
    return {"one": _middle_and_high(one), "all": _middle_and_high(all_)}


def _echo(clients: list[socket.socket]) -> float:
    started = perf_counter()
    for client in clients:
        client.sendall(_MESSAGE)
    for client in clients:
        received = 0
        while received < len(_MESSAGE):
            received += len(client.recv(1 << 16))
    return perf_counter() - started


def _middle_and_high(samples: list[float]) -> tuple[float, float]:
    parts = quantiles(samples, n=20, method="inclusive")
    return parts[9], parts[18]


def _accept(server: socket.socket, connections: int) -> None:
    for _ in range(connections):
        client, _ = server.accept()
        Thread(target=_answer, args=(client,), daemon=True).start()


def _answer(client: socket.socket) -> None:
    with client:
        while data := client.recv(1 << 16):
            client.sendall(data)
