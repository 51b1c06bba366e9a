"""The index of an embedding column: what it is called, how it is made, and whether there is one at all."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sqlalchemy import Column, ColumnElement, Index, MetaData, Table, cast
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

from soldier_data.postgres.ddl import ddl_options
from soldier_data.postgres.orm import LIVING, EmbeddingVector
from soldier_data.postgres.statements import quoted

VECTOR_INDEX_KINDS = ("hnsw", "ivfflat")
"""What pgvector offers."""

MOST_DIMENSIONS = 4_000
"""The longest vectors that an index takes, at half precision. Longer ones are compared exactly."""

IVFFLAT_LISTS = 100
"""How many lists IVFFlat sorts the vectors into."""

# Measured in docs/vector-search.md: what pgvector takes by default, but for twice the care in building.
_OPTIONS: dict[str, dict[str, int]] = {
    "hnsw": {"m": 16, "ef_construction": 128},
    "ivfflat": {"lists": IVFFLAT_LISTS},
}


class _HalfVector(EmbeddingVector):
    cache_ok = True

    def get_col_spec(self, **_kw: Any) -> str:
        return f"{quoted(ddl_options().extensions_schema)}.HALFVEC({self.dimensions})"


class _Normalised(FunctionElement[list[float]]):
    type = EmbeddingVector()
    inherit_cache = True


@compiles(_Normalised)
def _write_normalised(element: _Normalised, compiler: SQLCompiler, **kw: Any) -> str:
    # SQLAlchemy's own functions do not quote a schema that is named by a word of SQL.
    return (
        f"{quoted(ddl_options().extensions_schema)}.l2_normalize({compiler.process(element.clauses, **kw)})"
    )


def half_precision(vector: ColumnElement[Any], dimensions: int | None = None) -> ColumnElement[Any]:
    """What indexes keep: the direction of `vector` at half precision, half the size and near enough to find it by.

    The length goes, because half precision ends at 65,504 and at 1e-7.

    Args:
        vector: An embedding.
        dimensions: Its length; by default the one that DDL is made with.
    """
    return cast(_Normalised(vector), _HalfVector(dimensions))


def vector_index_name(table: str, column: str, kind: str) -> str:
    """What the index of a column is called. One of another kind can be built before the present one goes."""
    return f"ix_{table}_{column}_{kind}"


def embedding_columns(metadata: MetaData) -> list[Column[Any]]:
    """Every column of embeddings, by table."""
    tables = sorted(metadata.tables.values(), key=lambda table: table.name)
    return [
        column for table in tables for column in table.columns if isinstance(column.type, EmbeddingVector)
    ]


def add_vector_indexes(columns: Iterable[Column[Any]]) -> list[Index]:
    """Add to the table of each column the index that DDL is made with at present.

    Returns:
        The indexes; none where SOLDIER_VECTOR_INDEX is `none` or the embeddings are too long for an index.
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
