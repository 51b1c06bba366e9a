"""Counts of round trips, by a proxy in front of each server that watches the direction of the traffic."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlencode, urlsplit, urlunsplit

from benchmarks.harness import Case
from soldier_data import DataLayer
from soldier_data.settings import Settings


class _Proxy:
    """Proxy that counts round trips: one begins when the client sends, first or after data from the server."""

    def __init__(self, target: Path) -> None:
        self._target = target
        self.round_trips = 0

    @asynccontextmanager
    async def listening(self, path: Path) -> AsyncIterator[None]:
        server = await asyncio.start_unix_server(self._serve, path)
        try:
            yield
        finally:
            server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answers, requests = await asyncio.open_unix_connection(self._target)
        client_speaks = False

        async def up() -> None:
            nonlocal client_speaks
            while data := await reader.read(1 << 20):
                if not client_speaks:
                    client_speaks = True
                    self.round_trips += 1
                requests.write(data)
            requests.close()

        async def down() -> None:
            nonlocal client_speaks
            while data := await answers.read(1 << 20):
                client_speaks = False
                writer.write(data)
            writer.close()

        try:
            await asyncio.gather(up(), down())
        except ConnectionError:
            requests.close()
            writer.close()


class RoundTrips:
    """A data layer behind two proxies.

    Attributes:
        data: The data layer.
    """

    def __init__(self, data: DataLayer, proxies: list[_Proxy]) -> None:
        self.data = data
        self._proxies = proxies

    async def count(self, cases: Mapping[str, Case]) -> dict[str, int]:
        """Return the round trips of each case, with open connections and prepared statements."""
        counted: dict[str, int] = {}
        for name, case in cases.items():
            for _ in range(2):
                if case.prepare is not None:
                    await case.prepare()
                before = self._total()
                await case.call()
                counted[name] = self._total() - before
        return counted

    def _total(self) -> int:
        return sum(proxy.round_trips for proxy in self._proxies)


@asynccontextmanager
async def counting(settings: Settings) -> AsyncIterator[RoundTrips]:
    """Open a second data layer on the embedded servers of `settings`, which listen on Unix sockets."""
    database, redis = urlsplit(settings.database_url), urlsplit(settings.redis_url)
    options = parse_qs(database.query)
    socket = f".s.PGSQL.{options['port'][0]}"
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        proxies = [_Proxy(Path(options["host"][0]) / socket), _Proxy(Path(redis.path))]
        for proxy, name in zip(proxies, (socket, "redis.sock"), strict=True):
            await stack.enter_async_context(proxy.listening(folder / name))
        options["host"] = [str(folder)]
        urls = {
            "database_url": urlunsplit(database._replace(query=urlencode(options, doseq=True, safe="/"))),
            "redis_url": urlunsplit(redis._replace(path=str(folder / "redis.sock"))),
        }
        data = await stack.enter_async_context(DataLayer.open(settings.model_copy(update=urls)))
        yield RoundTrips(data, proxies)
