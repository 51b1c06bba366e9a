"""Comparison with langgraph's store, which stores documents with embeddings and searches them by vector."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from importlib import import_module
from itertools import cycle
from typing import Any

from benchmarks import by_hand
from benchmarks.harness import Bench, Case
from benchmarks.memory_sample import ADD_EPISODE, FOUND, VECTOR_SEARCH, Sample
from benchmarks.peers import Cases, open_peers, without_vector_index
from soldier_data.memory import Episode


@asynccontextmanager
async def opened(bench: Bench, sample: Sample) -> AsyncIterator[dict[str, Cases]]:
    """Open the peers of the memory store."""
    async with AsyncExitStack() as stack:
        yield await open_peers(stack, bench, sample, {"langgraph's AsyncPostgresStore": _langgraph})


@asynccontextmanager
async def _langgraph(bench: Bench, sample: Sample) -> AsyncIterator[Cases]:
    """Episodes as JSON, with embeddings from a stand-in for the model."""
    store_class = import_module("langgraph.store.postgres.aio").AsyncPostgresStore
    put = import_module("langgraph.store.base").PutOp
    vectors: dict[str, list[float]] = {}
    namespace = (str(sample.tenant_id), "episodes")
    new, queries = cycle(sample.vectors(100)), cycle(sample.queries)
    written: list[Episode] = []

    async def embed(texts: list[str]) -> list[list[float]]:
        return [vectors[text] for text in texts]

    def document(episode: Episode) -> tuple[str, dict[str, Any]]:
        assert episode.embedding is not None
        values = episode.model_dump(mode="json", exclude={"embedding"})
        vectors[values["id"]] = episode.embedding
        return values["id"], values

    async def make_episode() -> None:
        written[:] = sample.new_episodes([next(new)])

    async def search() -> list[tuple[Episode, float]]:
        # The query is a text; the stand-in returns its embedding.
        vectors["query"] = next(queries)
        items = await store.asearch(namespace, query="query", limit=FOUND)
        return [(Episode.model_validate(item.value), item.score) for item in items]

    index = {"dims": sample.dimensions, "embed": embed, "fields": ["id"]}
    url = bench.data.settings.database_url
    async with store_class.from_conn_string(url, index=index) as store:
        await store.setup()
        await without_vector_index(url)
        await _empty(url)
        for start in range(0, len(sample.episodes), 100):
            some = sample.episodes[start : start + 100]
            await store.abatch([put(namespace, *document(episode)) for episode in some])
        yield {
            ADD_EPISODE: Case(
                lambda: store.aput((*namespace, "written"), *document(written[0])), make_episode
            ),
            VECTOR_SEARCH: Case(search),
        }


async def _empty(url: str) -> None:
    """Delete the rows of other benchmarks, which would be searched too."""
    connection = await by_hand.connect(url)
    await connection.execute("TRUNCATE store, store_vectors")
    await connection.close()
