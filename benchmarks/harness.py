"""Timing of several implementations of an operation, alternating in the same run."""

from __future__ import annotations

import gc
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median, quantiles
from time import perf_counter
from typing import Literal

from soldier_data import DataLayer

Call = Callable[[], Awaitable[object]]

OURS = "ours"
LIMIT = "limit"

_MOST_BLOCKS = 30
_FEWEST_BLOCKS = 5
_WARM_UP_SECONDS = 0.2


@dataclass(frozen=True)
class Case:
    """One implementation of an operation.

    Attributes:
        call: The timed call.
        prepare: Runs before each call, untimed.
        operations: Number of operations in a call, by which its time is divided.
    """

    call: Call
    prepare: Call | None = None
    operations: int = 1


Unit = Literal["time", "bytes", "count", "share"]


@dataclass(frozen=True)
class Spread:
    """Median and quartiles of samples, in seconds."""

    low: float
    median: float
    high: float

    @classmethod
    def of(cls, samples: list[float]) -> Spread:
        if len(samples) == 1:
            return cls(samples[0], samples[0], samples[0])
        low, _, high = quantiles(samples, n=4, method="inclusive")
        return cls(low, median(samples), high)


@dataclass(frozen=True)
class Bar:
    """Limit of a figure, the ratio of the medians or our own median: an upper one, or a lower one with `at_least`."""

    value: float
    of: Literal["ratio", "ours"] = "ratio"
    excluded: bool = False
    at_least: bool = False

    def text(self, unit: Unit) -> str:
        sign = ">=" if self.at_least else "<" if self.excluded else "<="
        return f"{sign} {self.value:g} x" if self.of == "ratio" else f"{sign} {show(self.value, unit)}"

    def holds(self, ours: float, ratio: float | None) -> bool:
        value = ours if self.of == "ours" else ratio
        assert value is not None, "a bar on the ratio needs something to compare with"
        if self.at_least:
            return value >= self.value
        return value < self.value if self.excluded else value <= self.value


AHEAD = Bar(1.0, excluded=True)

BARE_CLIENT = "limit, client without timeouts"

WITHOUT_BAR = (BARE_CLIENT, "openai-agents' RedisSession")
"""Only for comparison: one would wait for an unresponsive server for ever, the other does not validate."""


@dataclass(frozen=True)
class Row:
    """A row of the table."""

    operation: str
    ours: Spread
    against: str = ""
    other: Spread | None = None
    bar: Bar | None = None
    unit: Unit = "time"
    round_trips: int | None = None

    @property
    def ratio(self) -> float | None:
        return None if self.other is None or not self.other.median else self.ours.median / self.other.median

    @property
    def ok(self) -> bool | None:
        """True if the limit holds; None without one."""
        return None if self.bar is None else self.bar.holds(self.ours.median, self.ratio)


@dataclass
class Bench:
    """The tools of all measurements.

    Attributes:
        seconds: Seconds for which each case is timed.
        quick: True to skip measurements that need much data.
        embeddings: Folder of real embeddings (see `benchmarks/vectors_sample.py` for the files).
        round_trips: Round trips of the operations, counted once.
    """

    data: DataLayer
    seconds: float
    quick: bool
    embeddings: Path
    rows: list[Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    round_trips: dict[str, int] = field(default_factory=dict)

    async def compare(
        self,
        operation: str,
        cases: Mapping[str, Case],
        *,
        bar: Bar | None = None,
        peers: Mapping[str, Case] | None = None,
        same: bool = False,
    ) -> None:
        """Time `cases`, including "ours", and `peers`; add a row that compares ours with each of the others.

        With `same`, the first results must be equal, as evidence of equal work.
        """
        everyone = {**cases, **(peers or {})}
        if same:
            results = [await _first(case) for case in everyone.values()]
            assert all(result == results[0] for result in results), f"{operation}: results differ"
        spreads = await interleave(everyone, self.seconds)
        ours = spreads[OURS]
        trips = self.round_trips.get(operation)
        compared = [name for name in cases if name != OURS]
        for name in compared:
            self.add(Row(operation, ours, name, spreads[name], bar, round_trips=trips))
        if not compared:
            self.add(Row(operation, ours, bar=bar, round_trips=trips))
        for name in peers or {}:
            self.add(Row(operation, ours, name, spreads[name], None if name in WITHOUT_BAR else AHEAD))

    def add(self, row: Row) -> None:
        """Add a row to the table."""
        self.rows.append(row)

    def note(self, text: str) -> None:
        """Add a note unless it has been added."""
        if text not in self.notes:
            self.notes.append(text)


async def interleave(cases: Mapping[str, Case], seconds: float) -> dict[str, Spread]:
    """Time each case for about `seconds`, in alternating blocks, so that changes of the load affect all equally."""
    expected = {name: await _warm_up(case) for name, case in cases.items()}
    blocks = max(_FEWEST_BLOCKS, min(_MOST_BLOCKS, int(seconds / max(expected.values()))))
    calls = {name: max(1, int(seconds / blocks / duration)) for name, duration in expected.items()}
    samples: dict[str, list[float]] = {name: [] for name in cases}
    names = list(cases)
    # Excludes existing objects from garbage collection during the measurements.
    gc.collect()
    gc.freeze()
    for block in range(blocks):
        start = block % len(names)
        for name in names[start:] + names[:start]:
            case = cases[name]
            samples[name] += [await _timed(case) for _ in range(calls[name])]
    return {name: Spread.of(taken) for name, taken in samples.items()}


async def _warm_up(case: Case) -> float:
    """Call until caches are warm and statements are planned; return the time of a call, including preparation."""
    started = perf_counter()
    calls = 0
    while calls < 2 or perf_counter() - started < _WARM_UP_SECONDS:
        await _first(case)
        calls += 1
    return (perf_counter() - started) / calls


async def _first(case: Case) -> object:
    if case.prepare is not None:
        await case.prepare()
    return await case.call()


async def _timed(case: Case) -> float:
    if case.prepare is not None:
        await case.prepare()
    started = perf_counter()
    await case.call()
    return (perf_counter() - started) / case.operations


def show(value: float, unit: Unit) -> str:
    """Format a figure for people."""
    if unit == "bytes":
        return f"{value:,.0f} B"
    if unit == "count":
        return f"{value:,.0f}"
    if unit == "share":
        return f"{value:.3f}"
    if value < 0.001:
        return f"{value * 1e6:.0f} us"
    if value < 1:
        return f"{value * 1e3:.3g} ms"
    return f"{value:.2f} s"
