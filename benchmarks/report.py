"""The table of results, on the terminal and in RESULTS.md."""

from __future__ import annotations

import os
import platform
import re
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import asyncpg
from redis.asyncio import Redis
from rich.console import Console
from rich.table import Table

from benchmarks.harness import Bench, Row, Spread, Unit, show
from soldier_data.settings import Settings

RESULTS = Path(__file__).parent / "RESULTS.md"

# Everything below this line is written manually and kept.
_BY_HAND = "<!-- by hand from here on -->"

_COLUMNS = ("operation", "trips", "ours", "against", "theirs", "ratio", "bar", "")
_PACKAGES = (
    "asyncpg",
    "sqlalchemy",
    "pydantic",
    "redis",
    "hiredis",
    "advanced-alchemy",
    "langgraph-checkpoint-postgres",
    "openai-agents",
    "agno",
)


def print_table(bench: Bench) -> None:
    """Print the table and the notes."""
    table = Table(title="soldier_data, medians (quartiles)")
    for name in _COLUMNS:
        table.add_column(name, justify="left" if name in ("operation", "against", "") else "right")
    for row in bench.rows:
        colour = "red" if row.ok is False else None
        table.add_row(*_cells(row), style=colour)
    console = Console() if os.isatty(1) else Console(width=170)
    console.print(table)
    for note in bench.notes:
        console.print(f"- {note}", highlight=False, markup=False)


async def machine(settings: Settings) -> list[str]:
    """Return a description of the machine, as lines of a list."""
    connection = await asyncpg.connect(settings.database_url)
    postgres = await connection.fetchval("SELECT current_setting('server_version')")
    vector = await connection.fetchval("SELECT extversion FROM pg_extension WHERE extname = 'vector'")
    await connection.close()
    async with Redis.from_url(settings.redis_url) as client:
        redis = (await client.info("server"))["redis_version"]
    servers = (
        f"Python {platform.python_version()}, PostgreSQL {postgres} with pgvector {vector}, Redis {redis}; "
        "both servers embedded, over Unix sockets, without syncing to disk"
    )
    return [
        f"{len(os.sched_getaffinity(0))} cores ({_processor()}), {platform.system()}",
        servers,
        ", ".join(f"{name} {_version(name)}" for name in _PACKAGES),
    ]


def write(bench: Bench, command: str, where: list[str], seconds: float, load: float) -> None:
    """Write RESULTS.md, and keep its last part, which is written manually."""
    written = RESULTS.read_text(encoding="utf-8") if RESULTS.exists() else ""
    by_hand = written.partition(_BY_HAND)[2].strip()
    over = [row for row in bench.rows if row.ok is False]
    made_by = (
        f"Made by `{command}` on {datetime.now(UTC):%Y-%m-%d} in {seconds:.0f} s. Times are medians, with quartiles "
        "in brackets; a ratio is ours to theirs. The limit is asyncpg or redis-py called by hand: the same rows, one "
        "prepared statement on one connection, the same entity by plain validation. All of a row ran in turns in "
        "one process. Other libraries (`benchmarks/requirements.txt`) are to be beaten: their bar is 1."
    )
    lines = [
        "# Results",
        "",
        made_by,
        "",
        *(f"- {line}" for line in where),
        f"- other processes on the machine at the start: load average {load:.1f} over the last minute",
        "",
        "| " + " | ".join(_COLUMNS) + " |",
        "| --- | ---: | ---: | --- | ---: | ---: | ---: | --- |",
        *("| " + " | ".join(_cells(row)) + " |" for row in bench.rows),
        "",
        *(f"- {note}" for note in bench.notes),
        "",
        f"Over its bar: {len(over)} of {sum(row.ok is not None for row in bench.rows)}.",
        "",
        *(f"- {_verdict(row)}" for row in over),
        "",
        _BY_HAND,
        "",
        by_hand or "## Notes",
    ]
    RESULTS.write_text("\n".join(lines).rstrip() + "\n", encoding="utf-8")


def _cells(row: Row) -> list[str]:
    return [
        row.operation,
        "" if row.round_trips is None else str(row.round_trips),
        _spread(row.ours, row.unit),
        row.against,
        "" if row.other is None else _spread(row.other, row.unit),
        "" if row.ratio is None else f"{row.ratio:.2f} x",
        "" if row.bar is None else row.bar.text(row.unit),
        {None: "", True: "ok", False: "over"}[row.ok],
    ]


def _verdict(row: Row) -> str:
    _, _, ours, against, _, ratio, bar, _ = _cells(row)
    measured = ratio if row.bar is not None and row.bar.of == "ratio" else ours
    return f"{row.operation}{f', against {against}' if against else ''}: {measured}, where {bar} is wanted"


def _spread(spread: Spread, unit: Unit) -> str:
    middle = show(spread.median, unit)
    if spread.low == spread.high:
        return middle
    return f"{middle} ({show(spread.low, unit)} - {show(spread.high, unit)})"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "(not installed)"


def _processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor() or platform.machine()
    found = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return found[1] if found else platform.machine()
