from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

from soldier_data.sessions import RedisSessionStore, Session, SessionTierConfig, create_redis_client
from soldier_data.settings import Settings

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def keys(store: RedisSessionStore, session: Session) -> tuple[str, str]:
    prefix = store.config.key_prefix
    return f"{prefix}:hot:{{{session.session_id}}}", f"{prefix}:persist:{{{session.session_id}}}"


async def wait_until(is_so: Callable[[], Awaitable[bool]]) -> None:
    """Ask again and again: what happens in a server tells nobody."""
    async with asyncio.timeout(10):
        while not await is_so():  # noqa: ASYNC110 - as said.
            await asyncio.sleep(0.01)


@asynccontextmanager
async def store_at(
    url: str, *, seconds: float = 0.3, retry_budget: float = 1, **config: Any
) -> AsyncIterator[RedisSessionStore]:
    client = create_redis_client(Settings(redis_url=url, redis_timeout=timedelta(seconds=seconds)))
    try:
        yield RedisSessionStore(
            client, SessionTierConfig(**config), retry_budget=timedelta(seconds=retry_budget)
        )
    finally:
        await client.aclose()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@asynccontextmanager
async def serving(handler: Handler) -> AsyncIterator[int]:
    """A server on a free port, which has let go of every connection when it ends."""
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await handler(reader, writer)
        except asyncio.CancelledError:
            # The stream's own callback would complain of a cancelled task.
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()
    # Those that were accepted just now have to begin before they can be cancelled.
    await asyncio.sleep(0)
    for task in list(tasks):
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await server.wait_closed()


class FaultyRedisProxy:
    """Passes bytes between clients and Redis, until told otherwise.

    Attributes:
        lost: How many answers were lost.
        stall_after: The bytes of an answer that are passed on before everything stops; None passes all.
    """

    def __init__(self, redis_url: str) -> None:
        self._target = urlsplit(redis_url)
        self._answers_until_lost: int | None = None
        self.lost = 0
        self.stall_after: int | None = None

    def lose_reply(self, place: int | None = 0) -> None:
        """Cut the connection instead of passing an answer on, after `place` others; None passes all.

        Several answers may arrive together, or one in pieces: each arrival counts.
        """
        self._answers_until_lost = place

    @asynccontextmanager
    async def running(self) -> AsyncIterator[str]:
        """The URL to connect to."""
        async with serving(self._serve) as port:
            yield f"redis://127.0.0.1:{port}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._target.scheme == "unix":
            answers, requests = await asyncio.open_unix_connection(self._target.path)
        else:
            answers, requests = await asyncio.open_connection(self._target.hostname, self._target.port)

        async def forward() -> None:
            while data := await reader.read(65536):
                requests.write(data)

        forwarding = asyncio.create_task(forward())
        try:
            while data := await answers.read(65536):
                if self._answers_until_lost is not None:
                    self._answers_until_lost -= 1
                    if self._answers_until_lost < 0:
                        self._answers_until_lost = None
                        self.lost += 1
                        return
                if self.stall_after is not None:
                    writer.write(data[: self.stall_after])
                    await asyncio.Event().wait()
                writer.write(data)
        finally:
            forwarding.cancel()
            requests.close()
            await asyncio.gather(forwarding, return_exceptions=True)
