"""A way to PostgreSQL that breaks: it loses a reply, stops in the middle of one, is slow, or forgets connections."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.backends.round_trips import (
    _connect,
    _listening,
    _read_message,
    _read_startup,
    _run_until_one_ends,
    _through,
)

# After these a client waits for the server: Sync and simple Query.
_ASKING = b"SQ"
# And after Flush.
_WAITING = b"SQH"
# The server has answered: it is ready for the next query, or for the rows of a COPY.
_ANSWERED = b"ZG"
# What a connection begins with that cancels the statement of another one.
_CANCEL = (80877102).to_bytes(4)


class FaultyProxy:
    """Passes everything on between clients and the server, until told otherwise.

    Attributes:
        url: Where clients connect to.
        asked: How often clients have waited for the answer to a statement.
        lost: How many answers were lost.
        opened: How many connections clients have made.
        latency: How many seconds what clients ask takes on its way.
        stall_after: The bytes of an answer that are passed on before everything stops; None passes all. At 0 the
            server seems never to answer. New connections are made as if nothing was wrong.
    """

    def __init__(self, target: str, url: str) -> None:
        self._target = target
        self.url = url
        self.asked = 0
        self.lost = 0
        self.opened = 0
        self.latency = 0.0
        self.stall_after: int | None = None
        self._lose_at: int | None = None
        self._stall_at: int | None = None
        self._forgotten = 0
        self._reset = 0

    def forget(self) -> None:
        """Swallow what clients say on the connections that are open now, as a firewall does that forgot them."""
        self._forgotten = self.opened

    def reset(self) -> None:
        """Cut each connection that is open now when something is said on it, as a restarted machine does."""
        self._reset = self.opened

    def lose_reply(self, place: int) -> None:
        """Let the server do what it is asked, then cut the connection instead of passing its answer on.

        Args:
            place: How many answers arrive before that.
        """
        self._lose_at = self.asked + place

    def stall_reply(self, place: int) -> None:
        """Pass nothing on any more, in any connection, once `place` answers have arrived."""
        self._stall_at = self.asked + place

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one client."""
        server_reader, server_writer = await _connect(self._target)
        try:
            startup = await _read_startup(reader)
            server_writer.write(startup)
            self.opened += startup[4:8] != _CANCEL
            number = self.opened
            await self._pass_messages(number, reader, writer, server_reader, server_writer)
        finally:
            server_writer.close()

    async def _pass_messages(
        self,
        number: int,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        server_reader: asyncio.StreamReader,
        server_writer: asyncio.StreamWriter,
    ) -> None:
        losing = asyncio.Event()

        async def ask() -> None:
            while True:
                kind, message = await _read_message(reader)
                if number <= self._reset:
                    return
                if number <= self._forgotten:
                    continue
                if self.latency and kind in _WAITING:
                    await asyncio.sleep(self.latency)
                if kind in _ASKING:
                    if self.asked == self._lose_at:
                        losing.set()
                    if self.asked == self._stall_at:
                        self.stall_after = 0
                    self.asked += 1
                server_writer.write(message)
                await server_writer.drain()

        async def answer() -> None:
            greeted = False
            while True:
                kind, message = await _read_message(server_reader)
                if losing.is_set():
                    if kind in _ANSWERED:
                        self.lost += 1
                        return
                    continue
                if greeted and self.stall_after is not None:
                    writer.write(message[: self.stall_after])
                    await asyncio.Event().wait()
                writer.write(message)
                await writer.drain()
                greeted = greeted or kind == b"Z"

        await _run_until_one_ends(ask(), answer())


@asynccontextmanager
async def faulty_proxy(target: str) -> AsyncIterator[FaultyProxy]:
    """A running `FaultyProxy` to the server of the URL `target`."""
    with tempfile.TemporaryDirectory(prefix="faulty") as folder:
        passing = FaultyProxy(target, _through(target, folder))
        async with _listening(passing.serve, folder):
            yield passing
