"""Status of the embeddings of a database: their indexes, rows without one, their models, and advice."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Column, func, literal, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from soldier_data.errors import StoreError
from soldier_data.migrations.connection import driver_error
from soldier_data.migrations.vector_indexes import (
    VectorIndex,
    expected_indexes,
    method_of,
    open_for_indexes,
    present_indexes,
    table_of,
    vector_columns,
)
from soldier_data.postgres.errors import as_store_error
from soldier_data.settings import Settings

_OPERATION = "inspecting the vector indexes"
_REBUILD = "run `soldier-data vectors reindex`"

_ESTIMATE = text(
    "SELECT row_security_active(c.oid) AS hidden, greatest(CAST(c.reltuples AS bigint), 0) AS rows "
    "FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = :schema AND c.relname = :table"
)


@dataclass(frozen=True)
class VectorTable:
    """A table with embeddings.

    Attributes:
        name: Name of the table.
        rows: Number of rows that are not deleted; PostgreSQL's estimate of all rows if `counted` is false.
        counted: True if the rows were counted. Row-level security hides the rows from a role subject to it.
        without_embedding: Number of rows without an embedding.
        by_model: Number of embeddings by model; the key None is for embeddings without the name of a model.
        expected: Index method that the models and settings define; None if the table should have no vector index.
        indexes: Its vector indexes.
    """

    name: str
    rows: int
    counted: bool
    without_embedding: int
    by_model: dict[str | None, int]
    expected: str | None
    indexes: list[VectorIndex] = field(default_factory=list)

    def advice(self) -> Iterator[str]:
        """Yield recommendations, one sentence each; none if nothing has to be done."""
        usable = {index.name: index.method for index in self.indexes if index.valid}
        for index in self.indexes:
            if not index.valid:
                yield f"{index.name} is invalid after an interrupted build, and not used: {_REBUILD}."
        if self.expected is None and usable:
            yield f"{self.name} has a vector index, but the settings say none: {_REBUILD}, which removes it."
        if self.expected is not None and self.expected not in usable.values():
            existing = " and ".join(usable.values()) or "no usable index"
            yield f"{self.name} should have an index of type {self.expected}, but has {existing}: {_REBUILD}."
        if len([name for name in usable if name.startswith(f"ix_{self.name}_")]) > 1:
            yield f"{self.name} has several vector indexes, each of which slows down writes: {_REBUILD}."
        if not self.counted:
            return
        for index in self.indexes:
            if index.valid and index.lists is not None:
                yield from self._lists(index, index.lists)
        if len(self.by_model) > 1:
            yield (
                f"{self.name} has embeddings by several models, which cannot be compared: name the model in each "
                "search (SOLDIER_EMBEDDING_MODEL), and run `soldier-data vectors embed`."
            )
        if self.without_embedding:
            yield f"{self.without_embedding:,} rows of {self.name} have no embedding: vector search cannot find them."

    def _lists(self, index: VectorIndex, lists: int) -> Iterator[str]:
        embedded = self.rows - self.without_embedding
        fitting = fitting_lists(embedded)
        if embedded and lists > 4 * fitting:
            yield (
                f"{index.name} has {lists} lists, but {fitting} would suit {embedded:,} rows: searches read nearly "
                f"empty lists. Prefer SOLDIER_VECTOR_INDEX=hnsw, or {_REBUILD} when the table has grown."
            )
        elif fitting > 4 * lists:
            yield (
                f"{index.name} has {lists} lists, but {fitting} would suit {embedded:,} rows: searches compare "
                f"{embedded // lists:,} rows per list. Prefer SOLDIER_VECTOR_INDEX=hnsw."
            )


def fitting_lists(rows: int) -> int:
    """Return the number of IVFFlat lists that pgvector recommends: rows / 1000 up to a million, then sqrt(rows)."""
    return max(1, rows // 1_000 if rows <= 1_000_000 else math.isqrt(rows))


async def vector_status(settings: Settings) -> list[VectorTable]:
    """Inspect all tables with embeddings. Counts their rows, which reads the tables completely; changes nothing.

    Raises:
        StoreConnectionError: The database cannot be reached.
        ConfigurationError: The database is not migrated, or the role may not read the tables.
    """
    failure: StoreError
    try:
        async with open_for_indexes(settings) as connection:
            indexes = await present_indexes(connection, settings)
            expected = {table_of(index): method_of(index) for index in expected_indexes()}
            found = [
                await _inspect(
                    connection,
                    settings,
                    column,
                    expected.get(name),
                    [item for item in indexes if item.table == name],
                )
                for name, column in vector_columns().items()
            ]
    except Exception as error:  # noqa: BLE001 - no exception of the driver may leave.
        failure = as_store_error(driver_error(error), _OPERATION)
    else:
        return found
    raise failure


async def _inspect(
    connection: AsyncConnection,
    settings: Settings,
    column: Column[Any],
    method: str | None,
    indexes: list[VectorIndex],
) -> VectorTable:
    table = column.table
    values = {"schema": settings.database_schema, "table": table.name}
    estimate = (await connection.execute(_ESTIMATE, values)).one_or_none()
    if estimate is not None and estimate.hidden:
        return VectorTable(table.name, estimate.rows, False, 0, {}, method, indexes)
    model = table.columns.get(f"{column.name}_model", literal(None))
    counting = select(model.label("model"), func.count().label("rows"), func.count(column).label("embedded"))
    if "deleted_at" in table.columns:
        counting = counting.where(table.c.deleted_at.is_(None))
    groups = (await connection.execute(counting.select_from(table).group_by(text("1")))).all()
    rows, embedded = sum(group.rows for group in groups), sum(group.embedded for group in groups)
    by_model = {group.model: group.embedded for group in groups if group.embedded}
    return VectorTable(table.name, rows, True, rows - embedded, by_model, method, indexes)
