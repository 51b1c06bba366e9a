"""The processes of `turn`: networks with a delay, and implementations that replay conversations behind them."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from sqlalchemy import make_url

from benchmarks.turn_sample import Turn
from soldier_data.settings import Settings

ROOT = Path(__file__).parents[1]
_LONGEST_LINE = 1 << 28


@dataclass(frozen=True)
class Network:
    """Ports on the way to both servers.

    Attributes:
        ports: TCP ports of PostgreSQL, Redis and the control connection; empty for the servers' Unix sockets.
    """

    ports: tuple[int, ...] = ()

    def addresses(self, settings: Settings, database: str, redis_database: int) -> dict[str, Any]:
        """Return what a worker needs to connect to these databases."""
        url = make_url(settings.database_url).set(database=database)
        if not self.ports:
            return {
                "database_url": url.render_as_string(hide_password=False),
                "redis_url": f"unix://{urlsplit(settings.redis_url).path}?db={redis_database}",
                "control": None,
            }
        postgres, redis, control = self.ports
        url = url.set(host="127.0.0.1", port=postgres, query={})
        return {
            "database_url": url.render_as_string(hide_password=False),
            "redis_url": f"redis://127.0.0.1:{redis}/{redis_database}",
            "control": control,
        }


@asynccontextmanager
async def network(settings: Settings, delay: float) -> AsyncIterator[Network]:
    """Start a network with `delay` seconds each way to the servers of `settings`."""
    query = make_url(settings.database_url).query
    sockets = [f"{query['host']}/.s.PGSQL.{query['port']}", urlsplit(settings.redis_url).path]
    async with delayed(delay, sockets) as ports:
        yield Network(tuple(ports))


@asynccontextmanager
async def delayed(delay: float, sockets: list[str]) -> AsyncIterator[list[int]]:
    """Start a proxy with `delay` seconds each way; yield its ports, the control port last."""
    async with _process(["benchmarks.turn_proxy", str(delay), *sockets], ROOT) as process:
        assert process.stdout is not None
        yield json.loads(await process.stdout.readline())


class Worker:
    """A process with one implementation.

    Attributes:
        turns: All turns by network, in order.
    """

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.turns: dict[str, list[Turn]] = {}

    async def replay(
        self,
        network: str,
        start: int,
        count: int = 1,
        *,
        at_once: int = 1,
        pause: float = 0.0,
        embed: bool = False,
        keep: bool = True,
    ) -> tuple[float, int]:
        """Replay conversations; return the time in seconds and the number of turns.

        Args:
            network: Name of the network.
            start: Number of the first conversation.
            count: Number of conversations.
            at_once: Number of conversations at once.
            pause: Mean length of a pause before each turn, in seconds.
            embed: Whether to make the embeddings in the turns instead of before.
            keep: Whether to add the turns to `turns`; False to warm up.
        """
        request = {
            "network": network,
            "start": start,
            "count": count,
            "at_once": at_once,
            "pause": pause,
            "embed": embed,
        }
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request).encode() + b"\n")
        reply = await self.reply()
        turns = [Turn(**turn) for turn in reply["turns"]]
        if keep:
            self.turns.setdefault(network, []).extend(turns)
        return reply["seconds"], len(turns)

    async def reply(self) -> dict[str, Any]:
        """Read a line from the process."""
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        if not line:
            raise RuntimeError("a worker of `turn` has ended: see its error above")
        reply: dict[str, Any] = json.loads(line)
        return reply


@asynccontextmanager
async def worker(
    implementation: str,
    networks: Mapping[str, dict[str, Any]],
    folder: Path,
    *,
    package: Path = ROOT,
    settings: Mapping[str, Any] | None = None,
) -> AsyncIterator[Worker | str]:
    """Start a worker; yield it, or the name of the module that is not installed.

    Args:
        implementation: Name of the implementation.
        networks: Addresses by the name of the network. The first one prepares the database.
        folder: Folder of the conversations.
        package: Folder with the package to import.
        settings: Settings of the data layer.
    """
    options = {
        "implementation": implementation,
        "networks": networks,
        "folder": str(folder),
        "settings": settings or {},
    }
    async with _process(["benchmarks.turn_worker", json.dumps(options)], package) as process:
        started = Worker(process)
        reply = await started.reply()
        if "missing" not in reply and reply["package"] != str(package / "soldier_data"):
            raise RuntimeError(f"a worker of `turn` imported {reply['package']} instead of {package}")
        yield reply.get("missing", started)


def package_of(commit: str, folder: Path) -> Path | None:
    """Write the package of a commit to `folder`; return None if the commit is not there."""
    command = ["git", "-C", str(ROOT), "archive", commit, "soldier_data", "alembic", "alembic.ini"]
    try:
        archive = subprocess.run(command, check=True, capture_output=True).stdout  # noqa: S603 - our own text.
    except (OSError, subprocess.CalledProcessError):
        return None
    with tarfile.open(fileobj=BytesIO(archive)) as packed:
        packed.extractall(folder, filter="data")
    return folder


@asynccontextmanager
async def _process(arguments: list[str], package: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        *arguments,
        # The package in this folder comes first, then the benchmarks.
        cwd=package,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=_LONGEST_LINE,
    )
    try:
        yield process
    finally:
        # It ends with its stdin.
        assert process.stdin is not None
        process.stdin.close()
        await process.wait()
