"""Vector search in large tables with real embeddings: recall, latency, growth, bulk loading and transport."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from time import perf_counter
from typing import Any, Literal
from uuid import UUID

import asyncpg
from sqlalchemy import make_url

from benchmarks import by_hand, vectors_by_hand, vectors_peers, vectors_picture
from benchmarks.harness import AHEAD, OURS, Bar, Bench, Case, Row, Spread, show
from benchmarks.vectors_by_hand import Point
from benchmarks.vectors_sample import BASE, K, Outcome, Search, Tenant, Vectors, check_scores, try_searches
from soldier_data import DataLayer
from soldier_data.embedded import EmbeddedServers
from soldier_data.migrations import upgrade
from soldier_data.migrations.vector_indexes import reindex
from soldier_data.postgres.engine import driver_url
from soldier_data.settings import Settings

AT_LEAST_099 = Bar(0.99, of="ours", at_least=True)
NONE = Bar(0, of="ours")
EXACT, THROUGH_INDEX = Bar(0.020, of="ours"), Bar(0.005, of="ours")
SIZE_WITH_BARS = 10_000

WIDE = 1_536
# An exact search of 200,000 rows takes most of a second, and has a recall of 1.
_EXACT_SEARCHES = 40
LARGE, SMALL_TENANTS, SMALL = 55_000, 50, 1_000

# Configuration for these sizes: all data fits into memory, and two processes build an index.
_SERVER = {
    "shared_buffers": "3GB",
    "maintenance_work_mem": "2GB",
    "max_parallel_maintenance_workers": "2",
    "max_wal_size": "8GB",
}


@dataclass(frozen=True)
class Sizes:
    """Numbers of stored rows and queries."""

    large: int
    small_tenants: int
    small: int
    queries: int
    growth: tuple[int, ...]

    @property
    def total(self) -> int:
        return self.large + self.small_tenants * self.small

    @classmethod
    def of(cls, bench: Bench) -> Sizes:
        if bench.quick:
            return cls(large=6_000, small_tenants=4, small=200, queries=20, growth=(1_000, 6_000))
        return cls(LARGE, SMALL_TENANTS, SMALL, queries=200, growth=(1_000, SIZE_WITH_BARS, 50_000, 200_000))


async def measure(bench: Bench) -> None:
    """Measure with 384 and with 1,536 dimensions, on separate servers."""
    if not (bench.embeddings / BASE).exists():
        bench.note(f"Vector search at size was not measured: {BASE} is not in the folder of --embeddings.")
        return
    sizes = Sizes.of(bench)
    vectors = Vectors.load(bench.embeddings, stored=sizes.large, queries=sizes.queries)
    wide = vectors.rotated(WIDE)
    servers = await asyncio.to_thread(EmbeddedServers.start, postgres_settings=_SERVER)
    try:
        async with _database(bench, servers, vectors.dimensions) as data:
            tenants = _tenants(vectors, sizes)
            _say("loading and indexing", vectors.dimensions)
            await _store(data, tenants)
            await _recall(bench, data, vectors, tenants)
        async with _database(bench, servers, WIDE) as data:
            await _transport(bench, data, wide)
            growth = await _growth(bench, data, wide, sizes)
            tenants = _tenants(wide, sizes)
            await _bulk_load(bench, data, tenants[0])
            _say("loading and indexing", WIDE)
            await _store(data, tenants[1:])
            ours = await _recall(bench, data, wide, tenants)
            _say("trying indexes by hand and other libraries on", WIDE)
            curves = await vectors_by_hand.curves(data.settings.database_url, wide, tenants[0])
            libraries = await vectors_peers.measure(
                bench, data.settings.database_url, wide, tenants, partial(_search, data)
            )
    finally:
        servers.stop()
    if not bench.quick:
        title = f"recall against latency, a tenant with {sizes.large:,} of {sizes.total:,} x {WIDE:,}"
        vectors_picture.draw(bench, title, growth, curves, [ours, *libraries])


@asynccontextmanager
async def _database(bench: Bench, servers: EmbeddedServers, dimensions: int) -> AsyncIterator[DataLayer]:
    """Open a data layer on an empty database with embeddings of `dimensions` dimensions."""
    name = f"vectors_{dimensions}"
    connection = await asyncpg.connect(driver_url(servers.database_url))
    await connection.execute(f"CREATE DATABASE {name}")
    await connection.close()
    url = make_url(servers.database_url).set(database=name).render_as_string(hide_password=False)
    changed = {
        "database_url": url,
        "redis_url": servers.redis_url,
        "embedding_dimensions": dimensions,
        "vector_index": "hnsw",
    }
    settings = bench.data.settings.model_copy(update=changed)
    await upgrade(settings)
    async with DataLayer.open(settings) as data:
        yield data


def _tenants(vectors: Vectors, sizes: Sizes) -> list[Tenant]:
    """Return the large tenant, then the small ones with vectors close to some of its vectors, to make search harder."""
    parts = (slice(number * sizes.small, (number + 1) * sizes.small) for number in range(sizes.small_tenants))
    return [
        Tenant(vectors.base),
        *(Tenant(vectors.near(part, seed)) for seed, part in enumerate(parts)),
    ]


async def _store(data: DataLayer, tenants: Sequence[Tenant]) -> None:
    """Load the tenants without a vector index, then build it."""
    await index_by(data.settings, "none")
    for tenant in tenants:
        for episodes in tenant.chunks():
            await data.memory.add_episodes(episodes)
    await index_by(data.settings, "hnsw")
    await _tidy(data.settings)


async def index_by(settings: Settings, kind: Literal["hnsw", "none"]) -> float:
    """Build a vector index of type `kind` on the episodes; return the duration in seconds."""
    started = perf_counter()
    await reindex(settings.model_copy(update={"vector_index": kind}), ["episodes"])
    return perf_counter() - started


async def _tidy(settings: Settings) -> None:
    """Run VACUUM, as autovacuum would do later, so that the planner has current statistics."""
    connection = await by_hand.connect(settings.database_url)
    await connection.execute("VACUUM ANALYZE episodes")
    await connection.close()


def _search(data: DataLayer, tenant: Tenant, filters: Mapping[str, Any]) -> Search:
    async def search(query: list[float]) -> list[UUID]:
        found = await data.memory.vector_search_episodes(query, tenant.id, limit=K, min_score=-1.0, **filters)
        return [episode.id for episode, _ in found]

    return search


async def _recall(bench: Bench, data: DataLayer, vectors: Vectors, tenants: Sequence[Tenant]) -> Point:
    """Search all tenants with combinations of filters; return the result without filters."""
    large, *small = tenants
    _say("searching with filters", vectors.dimensions)
    scores = large.scores(vectors.queries)
    if len(large.episode_ids) == LARGE:
        check_scores(bench.embeddings, scores)
    in_large = {
        name: await try_searches(_search(data, large, filters), vectors.queries, large, scores, matching)
        for name, (filters, matching) in large.filters().items()
    }
    in_small: dict[str, Outcome] = {}
    for number, tenant in enumerate(small):
        asked = slice(number % len(vectors.queries), None, len(small))
        queries = vectors.queries[asked]
        true = tenant.scores(queries)
        for name, (filters, matching) in tenant.filters().items():
            outcome = await try_searches(_search(data, tenant, filters), queries, tenant, true, matching)
            in_small.setdefault(name, Outcome([], [])).add(outcome)
    total = sum(len(tenant.episode_ids) for tenant in tenants)
    of_large = f"{len(large.episode_ids):,} of {total:,} x {vectors.dimensions:,}"
    of_small = f"{len(small[0].episode_ids):,} of {total:,} x {vectors.dimensions:,}"
    for where, outcomes in ((of_large, in_large), (of_small, in_small)):
        worst = min(outcome.recall for outcome in outcomes.values())
        short = sum(outcome.short for outcome in outcomes.values())
        bench.add(
            Row(
                f"recall@10, {where}, least of {len(outcomes)} filters",
                Spread.of([worst]),
                bar=AT_LEAST_099,
                unit="share",
            )
        )
        bench.add(Row(f"too few rows found, {where}", Spread.of([short]), bar=NONE, unit="count"))
        by_filter = (
            f"{name} {show(outcome.recall, 'share')}, {show(Spread.of(outcome.seconds).median, 'time')}"
            for name, outcome in outcomes.items()
        )
        bench.note(f"recall@10 and median of a search, {where}: {'; '.join(by_filter)}.")
    unfiltered = in_large["no filter"]
    return Point("soldier_data", unfiltered.recall, Spread.of(unfiltered.seconds).median)


async def _growth(
    bench: Bench, data: DataLayer, vectors: Vectors, sizes: Sizes
) -> list[tuple[int, Spread, Spread]]:
    """Measure a table with one tenant; return each size with the times of an exact search and of one with the index."""
    found: list[tuple[int, Spread, Spread]] = []
    for size in sizes.growth:
        _say(f"growing to {size:,} rows of", vectors.dimensions)
        await index_by(data.settings, "none")
        await _empty(data.settings)
        tenant = Tenant(vectors.repeated(size))
        for episodes in tenant.chunks():
            await data.memory.add_episodes(episodes)
        await _tidy(data.settings)
        scores, everything = tenant.scores(vectors.queries), tenant.filters()["no filter"][1]
        async with DataLayer.open(data.settings.model_copy(update={"vector_index": "none"})) as exactly:
            few = vectors.queries[:_EXACT_SEARCHES]
            exact = await try_searches(
                _search(exactly, tenant, {}), few, tenant, scores[:_EXACT_SEARCHES], everything
            )
        built = await index_by(data.settings, "hnsw")
        indexed = await try_searches(_search(data, tenant, {}), vectors.queries, tenant, scores, everything)
        found.append((size, Spread.of(exact.seconds), Spread.of(indexed.seconds)))
        for how, spread, bar in zip(
            ("exact", "through the index"), found[-1][1:], (EXACT, THROUGH_INDEX), strict=True
        ):
            operation = f"vector search of {size:,} x {vectors.dimensions:,}, {how}"
            bench.add(Row(operation, spread, bar=bar if size == SIZE_WITH_BARS else None))
        bench.note(
            f"{size:,} x {vectors.dimensions:,} in one tenant: the index was built in {show(built, 'time')}, "
            f"recall@10 {show(indexed.recall, 'share')}."
        )
    await index_by(data.settings, "none")
    await _empty(data.settings)
    return found


async def _bulk_load(bench: Bench, data: DataLayer, tenant: Tenant) -> None:
    """Load the large tenant with an index, and without one that is built afterwards; keep the last state."""
    count = len(tenant.episode_ids)
    _say(f"loading {count:,} rows of", WIDE)
    await index_by(data.settings, "hnsw")
    with_index = await _load(data, tenant)
    await index_by(data.settings, "none")
    await _empty(data.settings)
    without = await _load(data, tenant)
    built = await index_by(data.settings, "hnsw")
    bench.add(
        Row(
            f"load {count:,} episodes x {WIDE:,} with the index there",
            Spread.of([with_index]),
            "without it, then build it",
            Spread.of([without + built]),
        )
    )
    bench.note(
        f"Loading {count:,} episodes took {show(without, 'time')} without the index and building it "
        f"{show(built, 'time')} ({_SERVER['maintenance_work_mem']} maintenance_work_mem, "
        f"{_SERVER['max_parallel_maintenance_workers']} workers)."
    )


async def _load(data: DataLayer, tenant: Tenant) -> float:
    """Add the episodes; return the time of the calls, without the creation of the entities."""
    seconds = 0.0
    for episodes in tenant.chunks():
        started = perf_counter()
        await data.memory.add_episodes(episodes)
        seconds += perf_counter() - started
    return seconds


async def _transport(bench: Bench, data: DataLayer, vectors: Vectors) -> None:
    """Measure sending and reading vectors, in pgvector's binary format as in the stores, and as text."""
    url = data.settings.database_url
    binary, text = (
        await vectors_by_hand.connect_like_stores(data.settings),
        await vectors_by_hand.connect_by_text(url),
    )
    stored = vectors.base[:100].tolist()
    fill = "CREATE TABLE transport (id int, embedding vector NOT NULL)"
    await binary.execute(fill)
    await binary.execute("ALTER TABLE transport ALTER COLUMN embedding SET STORAGE PLAIN")
    await binary.copy_records_to_table("transport", records=list(enumerate(stored)))
    # The norm reads the whole vector, and its result is small.
    send, read = "SELECT vector_norm($1::vector)", "SELECT embedding FROM transport"
    for operation, sql, arguments in (
        (f"send an embedding of {WIDE:,} numbers", send, [stored[0]]),
        (f"read 100 embeddings of {WIDE:,} numbers", read, []),
    ):
        ours, theirs = await binary.prepare(sql), await text.prepare(sql)
        cases = {
            OURS: Case(partial(ours.fetch, *arguments)),
            "as text": Case(partial(theirs.fetch, *arguments)),
        }
        await bench.compare(operation, cases, bar=AHEAD)
    size = len(vectors_by_hand.as_text(stored[0]))
    bench.note(f"An embedding of {WIDE:,} numbers is {4 + 4 * WIDE:,} bytes in binary and {size:,} as text.")
    await binary.execute("DROP TABLE transport")
    await binary.close()
    await text.close()


async def _empty(settings: Settings) -> None:
    connection = await by_hand.connect(settings.database_url)
    await connection.execute("TRUNCATE episodes")
    await connection.close()


def _say(what: str, dimensions: int) -> None:
    print(f"  {what} {dimensions:,} numbers ...", file=sys.stderr, flush=True)
