"""The search for the nearest vectors, the same in every table: through the index among many rows, exact among few.

An index that knows nothing of tenants returns the nearest rows of all of them, and what is left after a filter may be
too little: 0 to 1 of 10 neighbours were found for a tenant with 1,000 of 50,000 rows. So one statement, in one round
trip, does the following. It counts the rows in question, up to `EXACT_ROWS`. If there are no more, it compares them
all. Otherwise it asks the index for candidates, going on until enough of them meet the conditions; if they run out
before, or it becomes too much, all rows are compared after all. Candidates are found at half precision and ranked by
the stored vectors, so that scores are exact either way. docs/vector-search.md has the measurements.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    Integer,
    Subquery,
    Text,
    func,
    literal_column,
    select,
    true,
    union,
)

from soldier_data.base.embeddings import check_search
from soldier_data.postgres.orm import EmbeddingVector
from soldier_data.postgres.statements import force_custom_plan, param
from soldier_data.postgres.vector_index import IVFFLAT_LISTS, MOST_DIMENSIONS, half_precision
from soldier_data.settings import Settings

EXACT_ROWS = 4_000
"""So many rows are compared one by one, in about 5 ms at 1,536 numbers; more are searched through the index."""

# Of the index more is asked for than is wanted, because it ranks at half precision.
_MORE_CANDIDATES = 20
# A search that wants a large part of the rows is faster without the index.
_ROWS_PER_RESULT = 20
# More than any table has, and few enough for their multiples to be numbers of PostgreSQL.
_MOST_WANTED = 2**48

# pgvector's own 40 finds 97 of the 100 nearest among 105,000 rows, this 99.8. More than 1,000 it does not take.
_EF_SEARCH, _MOST_EF_SEARCH = 300, 1_000
# Looking at a candidate costs some times what comparing a row costs, so giving up costs no more than being exact.
_MOST_SCANNED = 4_000
# Of IVFFlat's 100 lists: 20 hold 98 of the 100 nearest among 105,000 rows, 40 hold 99.8.
_PROBES = 40

_ONE = literal_column("1", Integer)


@dataclass(frozen=True, slots=True)
class IndexedSearch:
    """A search that may use an index.

    Attributes:
        kind: "hnsw" or "ivfflat".
        dimensions: Length of the embeddings; the index is on an expression that names it.
    """

    kind: str
    dimensions: int

    @classmethod
    def of(cls, settings: Settings) -> IndexedSearch | None:
        """The search that the settings choose; None is exact search always."""
        if settings.vector_index == "none" or settings.embedding_dimensions > MOST_DIMENSIONS:
            return None
        return cls(settings.vector_index, settings.embedding_dimensions)


def nearest(
    embedding: Column[Any],
    matching: ColumnElement[bool],
    scope: ColumnElement[bool],
    limit: ColumnElement[int],
    search: IndexedSearch | None,
) -> Subquery:
    """The rows whose embedding is nearest to the parameter `query`: columns `id` and `distance`, in no order.

    Only ids are ranked, and the few rows that are wanted are read afterwards. A least score is best checked then,
    too: there the distance is a column, not computed a second time.

    Args:
        embedding: The column that is compared.
        matching: Which rows are looked at.
        scope: The part of `matching` that a B-tree index can count without reading rows.
        limit: How many are returned, fewer only if fewer match.
        search: Whether to use an index, and which.
    """
    query = param("query", EmbeddingVector())
    table = embedding.table
    distance: ColumnElement[float] = embedding.cosine_distance(query).label("distance")
    found = select(table.c.id, distance).where(matching, embedding.is_not(None))
    if search is None:
        return found.order_by(distance, table.c.id).limit(limit).subquery("nearest")

    candidates = param("candidates", BigInteger())
    half = half_precision(embedding, search.dimensions)
    half_distance = half.cosine_distance(half_precision(query, search.dimensions))
    by_index = (
        found.where(_has_more_rows(scope), *_settings_made(search), force_custom_plan())
        .order_by(half_distance)
        .limit(candidates)
        .cte("by_index")
    )
    how_many = select(func.count()).select_from(by_index).scalar_subquery()
    exact = found.where(how_many < candidates).order_by(distance, table.c.id).limit(limit).subquery("exact")
    # UNION drops what both have found.
    both = union(select(by_index), select(exact)).subquery("found")
    return select(both).order_by(both.c.distance, both.c.id).limit(limit).subquery("nearest")


def search_values(
    settings: Settings,
    query_embedding: Sequence[float],
    limit: int,
    min_score: float,
    embedding_model: str | None,
) -> dict[str, Any]:
    """Check what a search is asked for, and give the parameters of its statement.

    Of these `embedding_model` is None where neither the search names a model nor the settings do.

    Raises:
        ValidationError: As `check_search`.
    """
    model = check_search(
        query_embedding,
        limit,
        min_score,
        embedding_model,
        settings.embedding_dimensions,
        settings.embedding_model,
    )
    wanted = min(limit, _MOST_WANTED)
    candidates = 2 * wanted + _MORE_CANDIDATES
    return {
        "query": query_embedding,
        "max_distance": 1.0 - min_score,
        "limit": limit,
        "candidates": candidates,
        "exact_rows": max(EXACT_ROWS, _ROWS_PER_RESULT * wanted),
        "ef_search": str(min(max(_EF_SEARCH, candidates), _MOST_EF_SEARCH)),
        "max_scan_tuples": str(_MOST_SCANNED),
        "force_custom_plan": True,
        "embedding_model": model,
    }


def _has_more_rows(scope: ColumnElement[bool]) -> ColumnElement[bool]:
    """More than the parameter exact_rows; no more of them are counted."""
    exact_rows = param("exact_rows", BigInteger())
    counted = select(_ONE.label("one")).where(scope).limit(exact_rows + _ONE).subquery("counted")
    return select(func.count()).select_from(counted).scalar_subquery() > exact_rows


def _settings_made(search: IndexedSearch) -> list[ColumnElement[bool]]:
    """True, and pgvector's settings for the transaction, which is this statement unless one is open.

    A subquery that hangs on no row is evaluated before the scan that it is a condition of begins, and pgvector looks
    at its settings when the first row is asked for. `set_config(..., true)` is SET LOCAL without a round trip.
    """
    made: dict[str, Any] = {
        "hnsw.ef_search": param("ef_search", Text()),
        "hnsw.max_scan_tuples": param("max_scan_tuples", Text()),
    }
    if search.kind == "ivfflat":
        made = {"ivfflat.probes": str(_PROBES), "ivfflat.max_probes": str(IVFFLAT_LISTS)}
    made[f"{search.kind}.iterative_scan"] = "relaxed_order"
    return [
        select(func.set_config(name, value, true())).scalar_subquery().is_not(None)
        for name, value in made.items()
    ]
