"""What stands between the store and PostgreSQL in some tests: a proxy that counts, and a pooler."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

from sqlalchemy import make_url

Streams: TypeAlias = tuple[asyncio.StreamReader, asyncio.StreamWriter]

# The messages after which a client waits for the server: Sync, simple Query and Flush.
_ASKING = b"SQH"
_SYNC, _READY = b"S", b"Z"


class Proxy:
    """Passes everything on between clients and the server, and counts the round trips.

    Attributes:
        url: Where clients connect to.
        round_trips: How often a client waited for the server. Logging in does not count.
        lost: How many replies were lost on purpose.
    """

    def __init__(self, target: str, url: str) -> None:
        self._target = target
        self.url = url
        self.round_trips = 0
        self._lost_statement: bytes | None = None
        self.lost = 0

    async def count(self, call: Callable[[], Awaitable[Any]]) -> int:
        """The round trips of one call."""
        before = self.round_trips
        await call()
        return self.round_trips - before

    def lose_next_reply(self, statement: str = "") -> None:
        """Let the server answer, then cut the connection instead of passing the answer on.

        It is the answer to the next prepared statement, or to the next simple query of this text.
        """
        self._lost_statement = statement.encode()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one client."""
        server_reader, server_writer = await _connect(self._target)
        await _pass_startup(reader, server_writer)
        losing = asyncio.Event()

        async def ask() -> None:
            while True:
                kind, message = await _read_message(reader)
                self.round_trips += kind in _ASKING
                if self._is_lost(kind, message):
                    self._lost_statement = None
                    losing.set()
                server_writer.write(message)
                await server_writer.drain()

        async def answer() -> None:
            while True:
                kind, message = await _read_message(server_reader)
                if not losing.is_set():
                    writer.write(message)
                    await writer.drain()
                elif kind == _READY:
                    self.lost += 1
                    return

        await _run_until_one_ends(ask(), answer())
        server_writer.close()
        writer.close()

    def _is_lost(self, kind: bytes, message: bytes) -> bool:
        if self._lost_statement is None:
            return False
        return message[5:-1] == self._lost_statement if self._lost_statement else kind == _SYNC


class TransactionPooler:
    """Hands a server connection to a client for one transaction, as PgBouncer does in transaction mode.

    Consecutive transactions of a client go to different connections, which is where session state shows.

    Attributes:
        url: Where clients connect to.
    """

    def __init__(self, target: str, url: str, size: int) -> None:
        self._target = target
        self._size = size
        self.url = url
        self._servers: list[Streams] = []
        self._free: asyncio.Queue[Streams] = asyncio.Queue()
        self._greeting = b""
        self._opening = asyncio.Lock()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one client."""
        startup = await _read_startup(reader)
        async with self._opening:
            while len(self._servers) < self._size:
                await self._open(startup)
        writer.write(self._greeting)
        try:
            while True:
                kind, message = await _read_message(reader)
                await self._transaction(kind, message, reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def _transaction(
        self, kind: bytes, message: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        if kind == b"X":
            raise ConnectionError
        server = await self._free.get()
        server_reader, server_writer = server
        server_writer.write(message)
        asking = asyncio.create_task(_read_message(reader))
        answering = asyncio.create_task(_read_message(server_reader))
        try:
            while True:
                await asyncio.wait({asking, answering}, return_when=asyncio.FIRST_COMPLETED)
                if answering.done():
                    kind, message = answering.result()
                    writer.write(message)
                    if kind == _READY and message[-1:] == b"I" and not asking.done():
                        break
                    answering = asyncio.create_task(_read_message(server_reader))
                if asking.done():
                    server_writer.write(asking.result()[1])
                    asking = asyncio.create_task(_read_message(reader))
        finally:
            self._free.put_nowait(server)
            asking.cancel()
            answering.cancel()
            await asyncio.wait({asking, answering})

    async def _open(self, startup: bytes) -> None:
        reader, writer = await _connect(self._target)
        writer.write(startup)
        greeting, kind = b"", b""
        while kind != _READY:
            kind, message = await _read_message(reader)
            greeting += message
        self._greeting = greeting
        self._servers.append((reader, writer))
        self._free.put_nowait((reader, writer))

    def close(self) -> None:
        """Close the connections to the server."""
        for _, writer in self._servers:
            writer.close()


@asynccontextmanager
async def proxy(target: str) -> AsyncIterator[Proxy]:
    """A running `Proxy` to the server of the URL `target`."""
    with tempfile.TemporaryDirectory(prefix="proxy") as folder:
        passing = Proxy(target, _through(target, folder))
        async with _listening(passing.serve, folder):
            yield passing


@asynccontextmanager
async def transaction_pooler(target: str, size: int = 3) -> AsyncIterator[TransactionPooler]:
    """A running `TransactionPooler` to the server of the URL `target`, which must not ask for a password."""
    with tempfile.TemporaryDirectory(prefix="pooler") as folder:
        pooler = TransactionPooler(target, _through(target, folder), size)
        async with _listening(pooler.serve, folder):
            try:
                yield pooler
            finally:
                pooler.close()


def _through(target: str, folder: str) -> str:
    # URL.set() leaves alone what it is given None for.
    url = make_url(target)._replace(host=None, port=None).set(query={"host": folder, "port": "5432"})
    return url.render_as_string(hide_password=False)


@asynccontextmanager
async def _listening(
    serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]], folder: str
) -> AsyncIterator[None]:
    tasks: set[asyncio.Task[Any]] = set()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
                await serve(reader, writer)
        finally:
            tasks.discard(task)
            writer.close()

    server = await asyncio.start_unix_server(accept, f"{folder}/.s.PGSQL.5432")
    try:
        yield
    finally:
        server.close()
        # Those that were accepted just now have to begin before they can be cancelled.
        await asyncio.sleep(0)
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _connect(target: str) -> Streams:
    url = make_url(target)
    host = str(url.query.get("host", url.host or "localhost"))
    port = int(str(url.query.get("port", url.port or 5432)))
    if host.startswith("/"):
        return await asyncio.open_unix_connection(f"{host}/.s.PGSQL.{port}")
    return await asyncio.open_connection(host, port)


async def _read_startup(reader: asyncio.StreamReader) -> bytes:
    length = await reader.readexactly(4)
    return length + await reader.readexactly(int.from_bytes(length) - 4)


async def _pass_startup(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(await _read_startup(reader))


async def _read_message(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    head = await reader.readexactly(5)
    return head[:1], head + await reader.readexactly(int.from_bytes(head[1:]) - 4)


async def _run_until_one_ends(*calls: Any) -> None:
    tasks = [asyncio.ensure_future(call) for call in calls]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
