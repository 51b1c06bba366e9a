"""Entry point: start the embedded servers, fill them, measure, and print a table."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from time import perf_counter

from benchmarks import audit, config, lookups, memory, profiles, report, sessions, startup, turn, vectors
from benchmarks.harness import Bench
from soldier_data import DataLayer
from soldier_data.settings import Settings

SUBJECTS: dict[str, Callable[[Bench], Awaitable[None]]] = {
    "config": config.measure,
    "memory": memory.measure,
    "audit": audit.measure,
    "profiles": profiles.measure,
    "sessions": sessions.measure,
    "lookups": lookups.measure,
    "turn": turn.measure,
    "startup": startup.measure,
    "vectors": vectors.measure,
}


def main() -> None:
    """Parse the arguments and run the benchmarks."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", choices=SUBJECTS, metavar="NAME", help=f"one of {', '.join(SUBJECTS)}")
    parser.add_argument(
        "--quick", action="store_true", help="fewer rows and shorter timings: a look, no result"
    )
    parser.add_argument(
        "--embeddings",
        type=Path,
        default=Path(__file__).parents[2] / "shared" / "data",
        metavar="FOLDER",
        help="real embeddings for `vectors` (default: ../shared/data beside the checkout)",
    )
    parser.add_argument("--write", action="store_true", help="write benchmarks/RESULTS.md")
    options = parser.parse_args()
    if options.write and (options.only or options.quick):
        parser.error("--write takes the whole run: leave out --only and --quick")
    names = [options.only] if options.only else list(SUBJECTS)
    asyncio.run(_run(names, options.embeddings, options.quick, options.write))


async def _run(names: list[str], embeddings: Path, quick: bool, write: bool) -> None:
    started, load = perf_counter(), os.getloadavg()[0]
    # Without vector indexes, whose maintenance would dominate the cost of a save; `vectors` creates its own.
    settings = Settings(vector_index="none")
    async with DataLayer.embedded(settings=settings) as data:
        bench = Bench(data, seconds=0.3 if quick else 1.5, quick=quick, embeddings=embeddings)
        bench.note("Tables have no vector index, except in lines that give rows x numbers.")
        for name in names:
            print(f"measuring {name} ...", file=sys.stderr, flush=True)
            await SUBJECTS[name](bench)
        report.print_table(bench)
        if write:
            where = await report.machine(data.settings)
            report.write(bench, "python -m benchmarks --write", where, perf_counter() - started, load)
            print(f"wrote {report.RESULTS}", file=sys.stderr)


if __name__ == "__main__":
    main()
