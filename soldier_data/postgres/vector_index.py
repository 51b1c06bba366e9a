"""Vector indexes: their names, definitions and options."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sqlalchemy import Column, Index, MetaData, Table

from soldier_data.postgres.ddl import ddl_options
from soldier_data.postgres.orm import LIVING
from soldier_data.postgres.vector_types import EmbeddingVector, half_precision

VECTOR_INDEX_KINDS = ("hnsw", "ivfflat")
"""Types of index that pgvector offers."""

MOST_DIMENSIONS = 4_000
"""Maximum dimensions of an index at half precision. Longer vectors are always searched exactly."""

IVFFLAT_LISTS = 100
"""Number of lists of an IVFFlat index."""

# pgvector's defaults, but twice its ef_construction: see docs/vector-search.md for measurements.
_OPTIONS: dict[str, dict[str, int]] = {
    "hnsw": {"m": 16, "ef_construction": 128},
    "ivfflat": {"lists": IVFFLAT_LISTS},
}


def vector_index_name(table: str, column: str, kind: str) -> str:
    """The name of the index of a column. It includes the kind, so that a replacement can be built beside it."""
    return f"ix_{table}_{column}_{kind}"


def embedding_columns(metadata: MetaData) -> list[Column[Any]]:
    """All columns of embeddings, ordered by table."""
    tables = sorted(metadata.tables.values(), key=lambda table: table.name)
    return [
        column for table in tables for column in table.columns if isinstance(column.type, EmbeddingVector)
    ]


def add_vector_indexes(columns: Iterable[Column[Any]]) -> list[Index]:
    """Add the vector index of the current DDL options to the table of each column.

    Returns:
        The indexes; empty if SOLDIER_VECTOR_INDEX is `none` or embeddings have more than `MOST_DIMENSIONS`.
    """
    kind = ddl_options().vector_index
    if kind == "none" or EmbeddingVector().dimensions > MOST_DIMENSIONS:
        return []
    return [_index(column, kind) for column in columns]


def _index(column: Column[Any], kind: str) -> Index:
    assert isinstance(column.table, Table)
    options: dict[str, Any] = {}
    if "deleted_at" in column.table.c:
        options["postgresql_where"] = LIVING
    return Index(
        vector_index_name(column.table.name, column.name, kind),
        half_precision(column).label("half"),
        postgresql_using=kind,
        postgresql_ops={"half": "halfvec_cosine_ops"},
        postgresql_with=_OPTIONS[kind],
        **options,
    )
