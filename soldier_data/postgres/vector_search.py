"""Nearest-neighbour search, the same for every table: exact among few rows, through the index among many.

A vector index returns the nearest rows of all tenants, of which too few may be left after filtering: for a tenant with
1,000 of 50,000 rows, 0 or 1 of 10 neighbours were found. The search therefore does the following, in one statement and
one round trip. It counts the rows in scope, up to `EXACT_ROWS`. If there are no more, it compares all of them.
Otherwise it scans the index iteratively for candidates until enough match the filter; if it finds too few within its
limits, it compares all rows after all. Candidates are found at half precision and ranked by the stored vectors, so
scores are always exact. Measurements are in docs/vector-search.md.
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
from soldier_data.postgres.queries import force_custom_plan
from soldier_data.postgres.statements import param
from soldier_data.postgres.vector_index import IVFFLAT_LISTS, MOST_DIMENSIONS
from soldier_data.postgres.vector_types import EmbeddingVector, half_precision
from soldier_data.settings import Settings

EXACT_ROWS = 4_000
"""Up to this many rows are compared exactly, which takes about 5 ms with 1,536 dimensions."""

# Extra candidates, because the index ranks at half precision.
_MORE_CANDIDATES = 20
# A search that returns a large share of the rows is faster without the index.
_ROWS_PER_RESULT = 20
# More rows than any table has, while multiples still fit bigint.
_MOST_WANTED = 2**48

# Of the 100 nearest among 105,000 rows, pgvector's default of 40 finds 97, this 99.8. Its maximum is 1,000.
_EF_SEARCH, _MOST_EF_SEARCH = 300, 1_000
# Visiting a candidate costs several times as much as comparing a row: this limit keeps a scan in vain as cheap as an
# exact search.
_MOST_SCANNED = 4_000
# Of 100 lists. 20 contain 98 of the 100 nearest among 105,000 rows, 40 contain 99.8.
_PROBES = 40

_ONE = literal_column("1", Integer)


@dataclass(frozen=True, slots=True)
class IndexedSearch:
    """A search that may use a vector index.

    Attributes:
        kind: "hnsw" or "ivfflat".
        dimensions: Number of dimensions, which is part of the indexed expression.
    """

    kind: str
    dimensions: int

    @classmethod
    def of(cls, settings: Settings) -> IndexedSearch | None:
        """The search that the settings select; None if all searches are exact."""
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
    """A subquery of the rows nearest to the parameter `query`, with columns `id` and `distance`, unordered.

    It ranks ids only; join the table to read the rows. Filter by minimum score in the outer query, where the distance
    is a column and is not computed again.

    Args:
        embedding: The column to compare.
        matching: The condition of rows to search.
        scope: The part of `matching` that a B-tree index can count without reading rows.
        limit: Number of rows to return; fewer only if fewer match.
        search: The index to use, if any.
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
    # UNION removes duplicates.
    both = union(select(by_index), select(exact)).subquery("found")
    return select(both).order_by(both.c.distance, both.c.id).limit(limit).subquery("nearest")


def search_values(
    settings: Settings,
    query_embedding: Sequence[float],
    limit: int,
    min_score: float,
    embedding_model: str | None,
) -> dict[str, Any]:
    """Check the arguments of a search, and return the parameters of its statement.

    The parameter `embedding_model` is None if neither the search nor the settings name a model.

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
    """Whether more rows than the parameter `exact_rows` are in scope. Counting stops there."""
    exact_rows = param("exact_rows", BigInteger())
    counted = select(_ONE.label("one")).where(scope).limit(exact_rows + _ONE).subquery("counted")
    return select(func.count()).select_from(counted).scalar_subquery() > exact_rows


def _settings_made(search: IndexedSearch) -> list[ColumnElement[bool]]:
    """Conditions that are always true and set pgvector's parameters for the current transaction.

    PostgreSQL evaluates an uncorrelated subquery before it starts the scan that it filters, and pgvector reads its
    parameters when the first row is fetched. `set_config(..., true)` is SET LOCAL without a round trip.
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
