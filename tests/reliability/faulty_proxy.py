"""A way to PostgreSQL that breaks: it loses a reply, or stops in the middle of one."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.backends.round_trips import (
    _connect,
    _listening,
    _pass_startup,
    _read_message,
    _run_until_one_ends,
    _through,
)

# After these a client waits for the server: Sync and simple Query.
_ASKING = b"SQ"
# The server has answered: it is ready for the next query, or for the rows of a COPY.
_ANSWERED = b"ZG"


class FaultyProxy:
    """Passes everything on between clients and the server, until told otherwise.

    Attributes:
        url: Where clients connect to.
        asked: How often clients have waited for the answer to a statement.
        lost: How many answers were lost.
        stall_after: The bytes of an answer that are passed on before everything stops; None passes all. At 0 the
            server seems never to answer. New connections are made as if nothing was wrong.
    """

    def __init__(self, target: str, url: str) -> None:
        self._target = target
        self.url = url
        self.asked = 0
        self.lost = 0
        self.stall_after: int | None = None
        self._lose_at: int | None = None
        self._stall_at: int | None = None

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
            await _pass_startup(reader, server_writer)
            await self._pass_messages(reader, writer, server_reader, server_writer)
        finally:
            server_writer.close()

    async def _pass_messages(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        server_reader: asyncio.StreamReader,
        server_writer: asyncio.StreamWriter,
    ) -> None:
        losing = asyncio.Event()

        async def ask() -> None:
            while True:
                kind, message = await _read_message(reader)
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
