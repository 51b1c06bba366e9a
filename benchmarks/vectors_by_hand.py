"""Handwritten pgvector code: indexes of both types with various settings, and connections with vectors as text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import asyncpg
import numpy as np

from benchmarks import by_hand
from benchmarks.harness import Spread
from benchmarks.vectors_sample import K, Tenant, Vectors, found_share
from soldier_data.postgres.engine import driver_url, open_connection
from soldier_data.settings import Settings

_EF_SEARCH = (10, 20, 40, 80, 160, 320)
_PROBES = (1, 2, 4, 8, 16, 32)
_LISTS = 100
_WARM_UP = 5


@dataclass(frozen=True)
class Point:
    """Result of one way of searching.

    Attributes:
        label: Setting or name.
        recall: recall@10 relative to exact search.
        seconds: Median time of a search.
    """

    label: str
    recall: float
    seconds: float


async def curves(url: str, vectors: Vectors, tenant: Tenant) -> dict[str, list[Point]]:
    """Measure recall and latency of HNSW, IVFFlat and exact search in one tenant of a copy of the episodes, by name.

    With the obvious statements: a narrow table, an index on halfvec, the tenant in WHERE, LIMIT 10.
    """
    connection = await by_hand.connect(url)
    half = f"embedding::halfvec({vectors.dimensions})"
    await connection.execute(
        f"CREATE TABLE curve (tenant_id uuid NOT NULL, id uuid NOT NULL, embedding vector({vectors.dimensions}))"
    )
    await connection.execute("ALTER TABLE curve ALTER COLUMN embedding SET STORAGE PLAIN")
    await connection.execute("INSERT INTO curve SELECT tenant_id, id, embedding FROM episodes")
    await connection.execute("VACUUM ANALYZE curve")
    scores = tenant.scores(vectors.queries)
    order = f"{half} <=> $2::vector::halfvec({vectors.dimensions})"
    search = f"SELECT id FROM curve WHERE tenant_id = $1 ORDER BY {order} LIMIT {K}"  # noqa: S608 - constants.
    exact = f"SELECT id FROM curve WHERE tenant_id = $1 ORDER BY embedding <=> $2 LIMIT {K}"  # noqa: S608 - constants.

    async def point(label: str, sql: str) -> Point:
        statement = await connection.prepare(sql)
        seconds, recalls = [], []
        for number, (query, true) in enumerate(zip(vectors.queries.tolist(), scores, strict=True)):
            started = perf_counter()
            rows = await statement.fetch(tenant.id, query)
            taken = perf_counter() - started
            found = [tenant.number_of[row["id"]] for row in rows]
            recalls.append(found_share(true, found, np.ones(len(true), dtype=bool))[0])
            if number >= _WARM_UP:
                seconds.append(taken)
        return Point(label, sum(recalls) / len(recalls), Spread.of(seconds).median)

    async def by_index(definition: str, setting: str, values: Sequence[int]) -> list[Point]:
        await connection.execute(f"CREATE INDEX curve_index ON curve USING {definition}")
        # Forces the index, since PostgreSQL would read the whole tenant if it expected that to be faster.
        await connection.execute("SET enable_seqscan = off")
        points = []
        for value in values:
            await connection.execute(f"SET {setting} = {value}")
            points.append(await point(f"{setting.partition('.')[2]} {value}", search))
        await connection.execute("RESET ALL")
        await connection.execute("DROP INDEX curve_index")
        return points

    found = {
        "exact": [await point("exact", exact)],
        "IVFFlat": await by_index(
            f"ivfflat (({half}) halfvec_cosine_ops) WITH (lists = {_LISTS})", "ivfflat.probes", _PROBES
        ),
        "HNSW": await by_index(f"hnsw (({half}) halfvec_cosine_ops)", "hnsw.ef_search", _EF_SEARCH),
    }
    await connection.execute("DROP TABLE curve")
    await connection.close()
    return found


async def connect_like_stores(settings: Settings) -> Any:
    """Open a connection as the stores do."""
    return await open_connection(settings)


async def connect_by_text(url: str) -> Any:
    """Open a connection that reads and writes vectors as text, as most clients do."""
    connection = await asyncpg.connect(driver_url(url))
    await connection.set_type_codec(
        "vector", schema="public", encoder=as_text, decoder=_from_text, format="text"
    )
    return connection


def as_text(vector: list[float]) -> str:
    """Return the vector in pgvector's text format: [1,2,3]."""
    return f"[{','.join(map(str, vector))}]"


def _from_text(text: str) -> list[float]:
    return [float(number) for number in text[1:-1].split(",")]
