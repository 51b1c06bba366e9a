"""Cost of starting: the import, and the migrations of an empty database."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from time import perf_counter
from urllib.parse import urlsplit, urlunsplit

import asyncpg

from benchmarks.harness import Bar, Bench, Row, Spread
from soldier_data.migrations import upgrade

_IMPORT = "import soldier_data"
_FIRST_USE = "from soldier_data import DataLayer"
_NOT_LOADED = ("anthropic", "openai", "fastapi", "typer")
_PROBE = """
import json, sys
from time import perf_counter
started = perf_counter()
{statement}
print(json.dumps([perf_counter() - started, sorted(sys.modules)]))
"""


async def measure(bench: Bench) -> None:
    """Measure the import and the migrations."""
    times = 3 if bench.quick else 9
    for statement, bar in ((_IMPORT, Bar(0.35, of="ours")), (_FIRST_USE, None)):
        seconds, loaded = await asyncio.to_thread(_import_time, statement, times)
        bench.add(Row(f"{statement}, in a new process", seconds, bar=bar))
        if loaded:
            bench.note(f"`{statement}` loads {', '.join(loaded)}.")
    await _migrations(bench, 2 if bench.quick else 5)


def _import_time(statement: str, times: int) -> tuple[Spread, list[str]]:
    samples: list[float] = []
    loaded: set[str] = set()
    # One more than requested, because the first one compiles.
    for _ in range(times + 1):
        command = [sys.executable, "-c", _PROBE.format(statement=statement)]
        output = subprocess.run(command, check=True, capture_output=True).stdout  # noqa: S603 - our own text.
        seconds, modules = json.loads(output)
        samples.append(seconds)
        loaded |= set(_NOT_LOADED) & set(modules)
    return Spread.of(samples[1:]), sorted(loaded)


async def _migrations(bench: Bench, times: int) -> None:
    settings = bench.data.settings
    url = urlsplit(settings.database_url)
    samples: list[float] = []
    connection = await asyncpg.connect(settings.database_url)
    try:
        for number in range(times):
            name = f"bench_migrations_{number}"
            await connection.execute(f"CREATE DATABASE {name} TEMPLATE template0")
            empty = settings.model_copy(update={"database_url": urlunsplit(url._replace(path=f"/{name}"))})
            started = perf_counter()
            await upgrade(empty)
            samples.append(perf_counter() - started)
            await connection.execute(f"DROP DATABASE {name}")
    finally:
        await connection.close()
    bench.add(Row("migrations on an empty database", Spread.of(samples), bar=Bar(3.0, of="ours")))
