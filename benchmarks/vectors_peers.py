"""Vector stores of other libraries on pgvector, with the same episodes, filters and queries."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from importlib import import_module
from typing import Any, TypeAlias
from uuid import UUID

from benchmarks import by_hand
from benchmarks.harness import AHEAD, Bench, Row, Spread
from benchmarks.vectors_by_hand import Point
from benchmarks.vectors_sample import K, Outcome, Search, Tenant, Vectors, try_searches

SearchIn: TypeAlias = Callable[[Tenant, Mapping[str, Any]], Search]
"""Creates a search in a tenant's episodes with the filters of `Tenant.filters`."""

_ENOUGH = 0.95
"""Recall of equivalent searches. A search with a lower recall is faster because it does less, so it has no limit."""

_AGENT = "agent with 10 %"


async def measure(
    bench: Bench, url: str, vectors: Vectors, tenants: Sequence[Tenant], ours: SearchIn
) -> list[Point]:
    """Compare searches in the large tenant and a small one; return the results of the libraries in the large one."""
    large, small = tenants[0], tenants[1]
    total = sum(len(tenant.episode_ids) for tenant in tenants)
    points: list[Point] = []
    openers: dict[str, Callable[..., AbstractAsyncContextManager[SearchIn]]] = {
        "langgraph's AsyncPostgresStore": _langgraph,
        "agno's PgVector": _agno,
    }
    for name, opener in openers.items():
        try:
            async with opener(url, vectors.dimensions, tenants) as theirs:
                for tenant, filters in ((large, "no filter"), (large, _AGENT), (small, "no filter")):
                    arguments, matching = tenant.filters()[filters]
                    scores = tenant.scores(vectors.queries)
                    mine, other = [
                        await try_searches(
                            search_in(tenant, arguments), vectors.queries, tenant, scores, matching
                        )
                        for search_in in (ours, theirs)
                    ]
                    where = f"{len(tenant.episode_ids):,} of {total:,} x {vectors.dimensions:,}, {filters}"
                    _add(bench, where, name, mine, other)
                    if tenant is large and not arguments:
                        points.append(Point(name, other.recall, Spread.of(other.seconds).median))
        except ModuleNotFoundError as missing:
            bench.note(
                f"{name} was not measured: {missing.name} is not installed (benchmarks/requirements.txt)."
            )
    return points


def _add(bench: Bench, where: str, name: str, ours: Outcome, theirs: Outcome) -> None:
    bar = AHEAD if theirs.recall >= _ENOUGH else None
    bench.add(Row(f"search {where}", Spread.of(ours.seconds), name, Spread.of(theirs.seconds), bar))
    recalls = Spread.of([ours.recall]), Spread.of([theirs.recall])
    bench.add(Row(f"recall@10, {where}", recalls[0], name, recalls[1], unit="share"))


@asynccontextmanager
async def _langgraph(url: str, dimensions: int, tenants: Sequence[Tenant]) -> AsyncIterator[SearchIn]:
    """A namespace for each tenant, and the library's HNSW index, built after loading."""
    store_class = import_module("langgraph.store.postgres.aio").AsyncPostgresStore
    query: list[list[float]] = []

    async def embed(texts: list[str]) -> list[list[float]]:
        return query * len(texts)

    index = {"dims": dimensions, "embed": embed, "fields": ["id"]}
    async with store_class.from_conn_string(url, index=index) as store:
        await store.setup()
        connection = await by_hand.connect(url)
        definition = await connection.fetchval(
            "SELECT indexdef FROM pg_indexes WHERE indexname = 'store_vectors_embedding_idx'"
        )
        await connection.execute("DROP INDEX store_vectors_embedding_idx")
        for tenant in tenants:
            prefix = str(tenant.id)
            for episodes in tenant.chunks():
                documents = [(str(episode.id), _document(episode)) for episode in episodes]
                await connection.copy_records_to_table(
                    "store",
                    columns=["prefix", "key", "value"],
                    records=[(prefix, key, document) for key, document in documents],
                )
                await connection.copy_records_to_table(
                    "store_vectors",
                    columns=["prefix", "key", "field_name", "embedding"],
                    records=[(prefix, str(episode.id), "id", episode.embedding) for episode in episodes],
                )
        await connection.execute(definition)
        await connection.execute("VACUUM ANALYZE store, store_vectors")

        def search_in(tenant: Tenant, filters: Mapping[str, Any]) -> Search:
            async def search(vector: list[float]) -> list[UUID]:
                query[:] = [vector]
                items = await store.asearch((str(tenant.id),), query="q", filter=_as_text(filters), limit=K)
                return [UUID(item.key) for item in items]

            return search

        yield search_in
        await connection.execute("DROP TABLE store_vectors, store CASCADE")
        await connection.close()


@asynccontextmanager
async def _agno(url: str, dimensions: int, tenants: Sequence[Tenant]) -> AsyncIterator[SearchIn]:
    """The tenant as one more filter, and ef_search as here: the default of 5 finds only five rows."""
    module = import_module("agno.vectordb.pgvector")
    base = import_module("agno.knowledge.embedder.base").Embedder
    logging.getLogger("agno").setLevel(logging.ERROR)
    query: list[list[float]] = []
    embedder = type("Embedder", (base,), {"get_embedding": lambda _self, _text: query[0]})(
        dimensions=dimensions
    )
    store = module.PgVector(
        table_name="episodes",
        db_url=url.replace("postgresql://", "postgresql+psycopg://", 1),
        embedder=embedder,
        vector_index=module.HNSW(ef_search=300),
    )
    await asyncio.to_thread(store.create)
    connection = await by_hand.connect(url)
    for tenant in tenants:
        for episodes in tenant.chunks():
            await connection.copy_records_to_table(
                "episodes",
                schema_name="ai",
                columns=["id", "meta_data", "content", "embedding"],
                records=[
                    (str(episode.id), _document(episode), episode.content, episode.embedding)
                    for episode in episodes
                ],
            )
    # Like its `optimize`, which fails because it passes m as a parameter, which CREATE INDEX does not support.
    await connection.execute(
        "CREATE INDEX ON ai.episodes USING hnsw (embedding vector_cosine_ops) WITH (m = 16, ef_construction = 64)"
    )
    await connection.execute("VACUUM ANALYZE ai.episodes")

    def search_in(tenant: Tenant, filters: Mapping[str, Any]) -> Search:
        wanted = {"tenant_id": str(tenant.id), **_as_text(filters)}

        async def search(vector: list[float]) -> list[UUID]:
            query[:] = [vector]
            documents = await store.async_search("q", limit=K, filters=wanted)
            return [UUID(document.id) for document in documents]

        return search

    yield search_in
    store.db_engine.dispose()
    await connection.execute("DROP SCHEMA ai CASCADE")
    await connection.close()


def _document(episode: Any) -> str:
    return json.dumps(episode.model_dump(mode="json", exclude={"embedding"}))


def _as_text(filters: Mapping[str, Any]) -> dict[str, str]:
    return {name: str(value) for name, value in filters.items()}
