"""How the embeddings of a database stand: their indexes, what has none, which models made them, and what to do."""

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
    method_of,
    open_for_indexes,
    present_indexes,
    table_of,
    vector_columns,
    wanted_indexes,
)
from soldier_data.postgres.errors import as_store_error
from soldier_data.settings import Settings

_OPERATION = "looking at the vector indexes"
_REBUILD = "run `soldier-data vectors reindex`"

_ESTIMATE = text(
    "SELECT row_security_active(c.oid) AS hidden, greatest(CAST(c.reltuples AS bigint), 0) AS rows "
    "FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = :schema AND c.relname = :table"
)


@dataclass(frozen=True)
class VectorTable:
    """A table with embeddings.

    Attributes:
        name: The table.
        rows: How many living rows it has; PostgreSQL's estimate of all rows if `counted` is false.
        counted: Whether the rows were counted. A role that row-level security binds sees none to count.
        without_embedding: How many of the rows have no embedding.
        by_model: How many rows have an embedding of each model; None stands for those that name none.
        wanted: The index method that models and settings give the table; None if it is searched exactly.
        indexes: Its vector indexes.
    """

    name: str
    rows: int
    counted: bool
    without_embedding: int
    by_model: dict[str | None, int]
    wanted: str | None
    indexes: list[VectorIndex] = field(default_factory=list)

    def advice(self) -> Iterator[str]:
        """What to do about it, a sentence each; nothing if all is well."""
        usable = {index.name: index.method for index in self.indexes if index.valid}
        for index in self.indexes:
            if not index.valid:
                yield f"{index.name} was left by an interrupted build and serves no search: {_REBUILD}."
        if self.wanted is None and usable:
            yield f"{self.name} has an index, and the settings want none: {_REBUILD}, which removes it."
        if self.wanted is not None and self.wanted not in usable.values():
            have = " and ".join(usable.values()) or "none that is usable"
            yield f"{self.name} is to have an index of the kind {self.wanted} and has {have}: {_REBUILD}."
        if len([name for name in usable if name.startswith(f"ix_{self.name}_")]) > 1:
            yield f"{self.name} has several vector indexes, and each makes writing dearer: {_REBUILD}."
        if not self.counted:
            return
        for index in self.indexes:
            if index.valid and index.lists is not None:
                yield from self._lists(index, index.lists)
        if len(self.by_model) > 1:
            yield (
                f"{self.name} has embeddings of several models, which must not meet in one ranking: name the model in "
                "each search (SOLDIER_EMBEDDING_MODEL), and run `soldier-data vectors embed`."
            )
        if self.without_embedding:
            yield f"{self.without_embedding:,} rows of {self.name} have no embedding: vector search never finds them."

    def _lists(self, index: VectorIndex, lists: int) -> Iterator[str]:
        embedded = self.rows - self.without_embedding
        fitting = fitting_lists(embedded)
        if embedded and lists > 4 * fitting:
            yield (
                f"{index.name} has {lists} lists where {embedded:,} rows want {fitting}: a search looks into lists "
                f"that are nearly empty. Prefer SOLDIER_VECTOR_INDEX=hnsw, or {_REBUILD} when the table has grown."
            )
        elif fitting > 4 * lists:
            yield (
                f"{index.name} has {lists} lists where {embedded:,} rows want {fitting}: a search compares "
                f"{embedded // lists:,} rows a list. Prefer SOLDIER_VECTOR_INDEX=hnsw."
            )


def fitting_lists(rows: int) -> int:
    """How many lists pgvector's documentation advises for so many rows: a thousandth up to a million, then the root."""
    return max(1, rows // 1_000 if rows <= 1_000_000 else math.isqrt(rows))


async def vector_status(settings: Settings) -> list[VectorTable]:
    """Look at every table with embeddings. Counting reads them from end to end; nothing is changed.

    Raises:
        StoreConnectionError: The database cannot be reached.
        ConfigurationError: The database is not migrated, or the role may not read the tables.
    """
    failure: StoreError
    try:
        async with open_for_indexes(settings) as connection:
            indexes = await present_indexes(connection, settings)
            wanted = {table_of(index): method_of(index) for index in wanted_indexes()}
            found = [
                await _look(
                    connection,
                    settings,
                    column,
                    wanted.get(name),
                    [item for item in indexes if item.table == name],
                )
                for name, column in vector_columns().items()
            ]
    except Exception as error:  # noqa: BLE001 - no exception of the driver may leave.
        failure = as_store_error(driver_error(error), _OPERATION)
    else:
        return found
    raise failure


async def _look(
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
