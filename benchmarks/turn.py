"""A whole turn of the demo: round trips, and its time by the delay of the network, before and beside others."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import asyncpg

from benchmarks import turn_accuracy, turn_picture
from benchmarks.harness import Bar, Bench, Row, Spread, Unit
from benchmarks.turn_processes import Network, Worker, network, package_of, worker
from benchmarks.turn_sample import Turn, read_sample
from soldier_data.migrations import upgrade
from soldier_data.settings import Settings

BEFORE = "0ae26ca"
NOW, LIMIT = "ours", "by hand"
PEERS = ("langgraph's checkpointer and store", "openai-agents' SQLAlchemySession", "SQLAlchemy's ORM")
DURABLE = "ours, sessions also in PostgreSQL"

DELAYS = {"0 ms": 0.0, "0.5 ms": 0.0005, "1 ms": 0.001, "2 ms": 0.002}
MEASURED = "1 ms"
DIRECT = "sockets"

_SESSION_DURABILITY = "session_durability"
_WARM_UP = 4
_WARM_UP_AT_ONCE = 48

# In which a model replies.
_PAUSE = 1.0


@dataclass(frozen=True)
class Sizes:
    """Numbers of conversations.

    Attributes:
        each: With each implementation and delay.
        at_measured: With the delay whose figures have bars.
        at_once: At once, in the figure for several.
        many: In each round of that figure.
        rounds: Rounds of that figure.
        demo: Through the demo, in each round.
    """

    each: int
    at_measured: int
    at_once: int
    many: int
    rounds: int
    demo: int

    @classmethod
    def of(cls, bench: Bench, conversations: int) -> Sizes:
        if bench.quick:
            return cls(each=3, at_measured=6, at_once=50, many=50, rounds=1, demo=24)
        return cls(each=12, at_measured=40, at_once=50, many=100, rounds=3, demo=-(-conversations // 4))


async def measure(bench: Bench) -> None:
    """Replay conversations with all implementations, each in a process of its own, one after another."""
    conversations, _ = read_sample(bench.embeddings)
    sizes = Sizes.of(bench, len(conversations))
    async with AsyncExitStack() as stack:
        networks = {DIRECT: Network()}
        for name, delay in DELAYS.items():
            networks[name] = await stack.enter_async_context(network(bench.data.settings, delay))
        workers = await _start(stack, bench, networks)
        await _accuracy(bench)
        for place, name in enumerate(DELAYS):
            count = sizes.at_measured if name == MEASURED else sizes.each
            _say(f"a turn with {name} each way")
            # The same conversations with each delay, but other customers.
            await _in_turns(workers, name, place * len(conversations), count)
        _rows(bench, workers)
        if not bench.quick:
            _picture(bench, workers)
        await _at_once(bench, workers, sizes, 100 * len(conversations))
        _say("the whole demo")
        await _demo(bench, workers, sizes, len(conversations))


async def _start(stack: AsyncExitStack, bench: Bench, networks: Mapping[str, Network]) -> dict[str, Worker]:
    """Start a worker for each implementation, on a database of its own."""
    before = package_of(BEFORE, Path(stack.enter_context(tempfile.TemporaryDirectory())))
    wanted: dict[str, dict[str, Any]] = {NOW: {}, LIMIT: {}}
    if before is None:
        bench.note(f"The turn was not compared with {BEFORE}: the commit is not in this checkout.")
    else:
        wanted[BEFORE] = {"package": before}
    if _SESSION_DURABILITY in Settings.model_fields:
        wanted[DURABLE] = {"settings": {_SESSION_DURABILITY: "postgres"}}
    wanted |= {peer: {} for peer in PEERS}
    workers: dict[str, Worker] = {}
    admin = await asyncpg.connect(bench.data.settings.database_url)
    for number, (name, options) in enumerate(wanted.items(), start=1):
        _say(f"starting {name}")
        database = f"turn_{number}"
        await admin.execute(f"CREATE DATABASE {database} TEMPLATE template0")
        addresses = {
            path: way.addresses(bench.data.settings, database, number) for path, way in networks.items()
        }
        implementation = name if name in (LIMIT, *PEERS) else "stores"
        if implementation != "stores":
            url = addresses[DIRECT]["database_url"]
            await upgrade(bench.data.settings.model_copy(update={"database_url": url}))
        found = await stack.enter_async_context(
            worker(implementation, addresses, bench.embeddings, **options)
        )
        if isinstance(found, Worker):
            workers[name] = found
        else:
            bench.note(f"{name} was not measured: {found} is not installed (benchmarks/requirements.txt).")
    await admin.close()
    return workers


async def _in_turns(workers: Mapping[str, Worker], name: str, start: int, count: int) -> None:
    """Replay the same conversations with each worker, one conversation at a time, in turns."""
    everyone = list(workers.values())
    for each in everyone:
        await each.replay(name, start, _WARM_UP, keep=False)
    for number in range(count):
        first = number % len(everyone)
        for each in everyone[first:] + everyone[:first]:
            await each.replay(name, start + _WARM_UP + number)


def _rows(bench: Bench, workers: Mapping[str, Worker]) -> None:
    turns = {name: each.turns[MEASURED] for name, each in workers.items()}
    firsts = {name: [turn for turn in each if turn.number == 1] for name, each in turns.items()}
    for what, some, bars in (("a turn", turns, (3, 2)), ("a first turn", firsts, (6, 2))):
        for place, (server, bar) in enumerate(zip(("PostgreSQL", "Redis"), bars, strict=True)):
            trips = {name: [float(turn.trips[place]) for turn in each] for name, each in some.items()}
            _compare(bench, f"round trips of {what} to {server}", trips, BEFORE, Bar(bar, of="ours"), "count")
    seconds = {name: [turn.seconds for turn in each] for name, each in turns.items()}
    no_delay = {name: [turn.seconds for turn in each.turns["0 ms"]] for name, each in workers.items()}
    _compare(bench, "a turn, 0 ms each way", no_delay, LIMIT, Bar(1.5))
    _compare(bench, "a turn, 1 ms each way", seconds, LIMIT, Bar(1.5))
    _compare(bench, "a turn, 1 ms each way", seconds, BEFORE, Bar(0.3))
    _tail(bench, "a turn, 1 ms each way", seconds[NOW])
    for peer in PEERS:
        if peer in seconds:
            _compare(bench, "a turn, 1 ms each way", seconds, peer, Bar(0.5))
    if DURABLE in workers:
        durable = {NOW: seconds[DURABLE], "sessions in Redis alone": seconds[NOW]}
        _compare(bench, f"a turn, 1 ms each way, {DURABLE}", durable, "sessions in Redis alone", Bar(1.3))
        trips = {
            name: [float(sum(turn.trips)) for turn in turns[who]]
            for name, who in ((NOW, DURABLE), ("sessions in Redis alone", NOW))
        }
        _compare(bench, f"round trips of {DURABLE}", trips, "sessions in Redis alone", Bar(1.0), "count")
    _holds(bench, turns)


def _compare(
    bench: Bench,
    operation: str,
    samples: Mapping[str, list[float]],
    against: str,
    bar: Bar,
    unit: Unit = "time",
) -> None:
    """Add a row; without a ratio if there is nothing to compare with."""
    ours = Spread.of(samples[NOW])
    if against in samples:
        bench.add(Row(operation, ours, against, Spread.of(samples[against]), bar, unit))
    elif bar.of == "ours":
        bench.add(Row(operation, ours, bar=bar, unit=unit))


def _tail(bench: Bench, operation: str, seconds: list[float]) -> None:
    slowest = quantiles(seconds, n=100, method="inclusive")[-1]
    bench.add(
        Row(
            f"{operation}: 99th percentile",
            Spread.of([slowest]),
            "its median",
            Spread.of([median(seconds)]),
            Bar(3.0),
        )
    )


def _holds(bench: Bench, turns: Mapping[str, Sequence[Turn]]) -> None:
    longest = {name: [turn.longest_hold for turn in each] for name, each in turns.items()}
    held = {name: [turn.held for turn in each] for name, each in turns.items()}
    bench.add(
        Row(
            "longest time that a turn holds a connection, 1 ms each way",
            Spread.of(longest[NOW]),
            bar=Bar(0.003, of="ours"),
        )
    )
    bench.add(Row("all the time that a turn holds connections, 1 ms each way", Spread.of(held[NOW])))


async def _at_once(bench: Bench, workers: Mapping[str, Worker], sizes: Sizes, start: int) -> None:
    """Replay many conversations at once, ours and before in turns: one turn after another, and with pauses."""
    compared = {name: workers[name] for name in (NOW, BEFORE) if name in workers}
    for pause, how in ((_PAUSE, f"pausing for {_PAUSE:g} s"), (0.0, "without a pause")):
        operation = f"a turn, {MEASURED} each way, {sizes.at_once} conversations at once, {how}"
        _say(operation)
        seconds: dict[str, list[float]] = {name: [] for name in compared}
        for round_ in range(sizes.rounds + 1):
            for name, each in compared.items():
                each.turns.clear()
                await each.replay(MEASURED, start, sizes.many, at_once=sizes.at_once, pause=pause)
                # The first round opens the connections and prepares their statements.
                if round_ > 0:
                    seconds[name] += [turn.seconds for turn in each.turns[MEASURED]]
            start += sizes.many
        _compare(bench, operation, seconds, BEFORE, Bar(0.3))
        _tail(bench, operation, seconds[NOW])


async def _demo(bench: Bench, workers: Mapping[str, Worker], sizes: Sizes, stored: int) -> None:
    """Replay all conversations as `soldier-data demo` does, ours and before in turns."""
    compared = {name: workers[name] for name in (NOW, BEFORE) if name in workers}
    rates: dict[str, list[float]] = {name: [] for name in compared}
    conversations = 2 * sizes.demo if bench.quick else stored
    left = conversations
    start = 10_000 * stored
    for each in compared.values():
        # Opens the connections and prepares their statements.
        await each.replay(DIRECT, start - stored, _WARM_UP_AT_ONCE, at_once=16, embed=True, keep=False)
    while left > 0:
        count = min(left, sizes.demo)
        for name, each in compared.items():
            seconds, turns = await each.replay(DIRECT, start, count, at_once=16, embed=True, keep=False)
            rates[name].append(turns / seconds)
        start += count
        left -= count
    operation = f"turns a second, {conversations:,} conversations through the demo"
    _compare(bench, operation, rates, BEFORE, Bar(1.5, at_least=True), "count")


def _picture(bench: Bench, workers: Mapping[str, Worker]) -> None:
    spreads = {
        name: [Spread.of([turn.seconds for turn in each.turns[delay]]) for delay in DELAYS]
        for name, each in workers.items()
        if name != DURABLE
    }
    turn_picture.draw(bench, list(DELAYS.values()), spreads)


async def _accuracy(bench: Bench) -> None:
    """Note how late the network is beyond its delay."""
    late = {name: await turn_accuracy.lateness(delay, 50) for name, delay in DELAYS.items()}
    for what in ("one", "all"):
        bench.note(
            f"The network of `turn` was late by {_milliseconds([spread[what] for spread in late.values()])} ms a round "
            f"trip, median and 95th percentile, with {', '.join(late)} each way"
            f"{'' if what == 'one' else ' and 50 connections that send at the same moment, until the last reply'}."
        )


def _milliseconds(spreads: Sequence[tuple[float, float]]) -> str:
    return ", ".join(f"{middle * 1000:.2f} and {high * 1000:.2f}" for middle, high in spreads)


def _say(what: str) -> None:
    print(f"    {what} ...", file=sys.stderr, flush=True)
