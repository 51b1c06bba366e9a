"""Cost of starting: the import, and the migrations of an empty database."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Sequence
from time import perf_counter
from urllib.parse import urlsplit, urlunsplit

import asyncpg

from benchmarks.harness import Bar, Bench, Row, Spread
from soldier_data.migrations import upgrade

_IMPORT = "import soldier_data"
_FIRST_USE = "from soldier_data import DataLayer"
_DEPENDENCIES = (
    "import asyncpg, pgvector, pydantic, pydantic_settings, redis.asyncio.cluster, redis.asyncio.sentinel, "
    "sqlalchemy.ext.asyncio, sqlalchemy.orm, stamina, structlog"
)
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
    statements = (_IMPORT, _FIRST_USE, _DEPENDENCIES)
    seconds, loaded = await asyncio.to_thread(_import_times, statements, times)
    bench.add(Row(f"{_IMPORT}, in a new process", seconds[_IMPORT], bar=Bar(0.35, of="ours")))
    first_use = f"{_FIRST_USE}, in a new process"
    bench.add(Row(first_use, seconds[_FIRST_USE], bar=Bar(0.4, of="ours")))
    bench.add(Row(first_use, seconds[_FIRST_USE], "its dependencies alone", seconds[_DEPENDENCIES], Bar(1.6)))
    if loaded:
        bench.note(f"Importing soldier_data loads {', '.join(loaded)}.")
    await _migrations(bench, 2 if bench.quick else 5)


def _import_times(statements: Sequence[str], times: int) -> tuple[dict[str, Spread], list[str]]:
    samples: dict[str, list[float]] = {statement: [] for statement in statements}
    loaded: set[str] = set()
    # One more than requested, because the first one compiles. The statements alternate.
    for _ in range(times + 1):
        for statement in statements:
            command = [sys.executable, "-c", _PROBE.format(statement=statement)]
            output = subprocess.run(command, check=True, capture_output=True).stdout  # noqa: S603 - our own text.
            seconds, modules = json.loads(output)
            samples[statement].append(seconds)
            loaded |= set(_NOT_LOADED) & set(modules)
    return {statement: Spread.of(seconds[1:]) for statement, seconds in samples.items()}, sorted(loaded)


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
