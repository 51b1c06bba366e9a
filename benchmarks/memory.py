"""The memory store compared with handwritten asyncpg code."""

from __future__ import annotations

from benchmarks import by_hand, memory_by_hand, memory_peers, trips
from benchmarks.harness import LIMIT, OURS, Bar, Bench, Case
from benchmarks.memory_sample import (
    ADD_EPISODE,
    GET_EPISODE,
    GET_EPISODES,
    HYBRID_SEARCH,
    SEARCH_COMMON_WORD,
    SEARCH_RARE_WORD,
    TRAVERSE,
    VECTOR_SEARCH,
    Sample,
)
from soldier_data.memory import Episode

GET = Bar(1.5)
LIST = Bar(1.5)
SAVE = Bar(1.6)
BULK = Bar(1.5)
SEARCH = Bar(0.020, of="ours")


async def measure(bench: Bench) -> None:
    """Fill the tables, then measure every operation."""
    data = bench.data
    sample = Sample(data.settings.embedding_dimensions, searched=1_000 if bench.quick else 10_000)
    await sample.store(data)
    connection = await by_hand.connect(data.settings.database_url)
    # As autovacuum would do later, so that the planner has current statistics.
    await connection.execute("VACUUM ANALYZE episodes, entities, relationships")
    bench.note(
        f"Episodes are searched among {len(sample.episodes):,} of one tenant, each with an embedding of "
        f"{data.settings.embedding_dimensions:,} numbers; one in a thousand has the rare word, nearly each the common "
        f"one. The graph has {len(sample.entities):,} entities with {len(sample.relationships):,} relationships."
    )
    async with trips.counting(data.settings) as counted:
        bench.round_trips |= await counted.count(sample.ours(counted.data))
    limits = await memory_by_hand.cases(connection, sample)
    bars = {
        GET_EPISODE: GET,
        GET_EPISODES: LIST,
        ADD_EPISODE: SAVE,
        VECTOR_SEARCH: SEARCH,
    }
    same = (
        GET_EPISODE,
        GET_EPISODES,
        SEARCH_RARE_WORD,
        SEARCH_COMMON_WORD,
        HYBRID_SEARCH,
        TRAVERSE,
    )
    async with memory_peers.opened(bench, sample) as others:
        for operation, case in sample.ours(data).items():
            await bench.compare(
                operation,
                {OURS: case, LIMIT: limits[operation]},
                bar=bars.get(operation),
                peers=others.get(operation),
                same=operation in same and operation not in others,
            )
    await _add_episodes(bench, sample)
    await connection.close()


async def _add_episodes(bench: Bench, sample: Sample) -> None:
    """Measure bulk inserts. The rows of each call are removed again, so that the size of the table is constant."""
    count = 1_000 if bench.quick else 10_000
    connection = await by_hand.connect(bench.data.settings.database_url)
    vectors = sample.vectors(count)
    episodes: list[Episode] = []

    async def prepare() -> None:
        if episodes:
            await connection.execute("DELETE FROM episodes WHERE tenant_id = $1", episodes[0].tenant_id)
            await connection.execute("VACUUM episodes")
        episodes[:] = sample.new_episodes(vectors)

    await bench.compare(
        f"add_episodes of {count:,} with embeddings, an episode",
        {
            OURS: Case(lambda: bench.data.memory.add_episodes(episodes), prepare, operations=count),
            "binary COPY by hand": Case(
                lambda: memory_by_hand.copy(connection, episodes), prepare, operations=count
            ),
        },
        bar=BULK,
    )
    await prepare()
    await connection.close()
