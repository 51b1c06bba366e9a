"""The vector indexes of a database: listing existing and expected ones, and rebuilding them.

A new index is built beside the old one and replaces it when it is ready, under the same name. Searches use the old
index until then, and writes are not blocked. An interrupted rebuild leaves an index of a different name, which the next
rebuild removes.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from time import perf_counter
from typing import Any

from sqlalchemy import Column, Index, text
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.schema import CreateIndex
from sqlalchemy.sql.elements import quoted_name

from soldier_data.errors import ConfigurationError, ConflictError, StoreError
from soldier_data.migrations.connection import driver_error, open_for_migration
from soldier_data.migrations.extensions import name_operator_classes_with_schema
from soldier_data.postgres.errors import as_store_error
from soldier_data.postgres.statements import quoted
from soldier_data.postgres.vector_index import VECTOR_INDEX_KINDS, embedding_columns
from soldier_data.schema import metadata, metadata_with_vector_indexes
from soldier_data.settings import Settings

_OPERATION = "rebuilding vector indexes"
_POLL_SECONDS = 0.25
_NOT_OWNER = "42501"

# Key of the advisory lock, an arbitrary constant: the last eight bytes of "vector indexes" as a bigint.
_LOCK = int.from_bytes(b" indexes", "big")

_NEW = "_new"

_MEMORY = re.compile(r"[1-9][0-9]{0,8}(kB|MB|GB)")
_MAX_WORKERS = 1024

_SET = text("SELECT set_config(:name, :value, false)")
_PRESENT = text(
    "SELECT t.relname AS table, c.relname AS name, a.amname AS method, i.indisvalid AS valid, "
    "pg_relation_size(c.oid) AS bytes, "
    "(SELECT CAST(option_value AS integer) FROM pg_options_to_table(c.reloptions) "
    "WHERE option_name = 'lists') AS lists "
    "FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am a ON a.oid = c.relam "
    "JOIN pg_class t ON t.oid = i.indrelid JOIN pg_namespace n ON n.oid = t.relnamespace "
    "WHERE a.amname IN ('hnsw', 'ivfflat') AND n.nspname = :schema AND t.relname = ANY(:tables) "
    "ORDER BY t.relname, c.relname"
)
_PROGRESS = text(
    "SELECT phase, blocks_done, blocks_total, tuples_done, tuples_total FROM pg_stat_progress_create_index "
    "WHERE pid = :pid"
)


@dataclass(frozen=True)
class VectorIndex:
    """An existing vector index.

    Attributes:
        table: Name of its table.
        name: Name of the index.
        method: "hnsw" or "ivfflat".
        valid: False after an interrupted build; searches cannot use the index then.
        bytes: Size in bytes.
        lists: Number of lists of an IVFFlat index; None if not set.
    """

    table: str
    name: str
    method: str
    valid: bool
    bytes: int
    lists: int | None


@dataclass(frozen=True)
class BuildProgress:
    """Progress of a rebuild.

    Attributes:
        index: Name of the index that is being built.
        number: Its number, from 1 to `count`.
        count: Number of indexes to build.
        phase: Phase of the build, as in pg_stat_progress_create_index.
        done: Completed fraction of the phase, 0 to 1.
    """

    index: str
    number: int
    count: int
    phase: str
    done: float


@dataclass(frozen=True)
class Rebuilt:
    """Result of rebuilding or removing one index.

    Attributes:
        table: Name of its table.
        name: Name of the index.
        method: "hnsw" or "ivfflat"; None if the index was removed.
        before: Method of the previous index, "invalid" if it could not be used; None if there was none.
        bytes: Size of the new index in bytes.
        seconds: Duration in seconds.
    """

    table: str
    name: str
    method: str | None
    before: str | None
    bytes: int
    seconds: float


async def reindex(
    settings: Settings,
    tables: Collection[str] = (),
    *,
    memory: str | None = None,
    workers: int | None = None,
    on_progress: Callable[[BuildProgress], None] = lambda _: None,
) -> list[Rebuilt]:
    """Rebuild the vector indexes as SOLDIER_VECTOR_INDEX specifies, while the tables are in use.

    Creates missing indexes, and finally removes those that the settings do not specify, of a different method for
    example. Vector indexes whose names do not begin with `ix_<table>_` are left alone.

    Args:
        settings: The database, the index method and the dimensions of embeddings.
        tables: Names of the tables whose indexes to rebuild; by default all.
        memory: PostgreSQL's maintenance_work_mem for the builds, such as "2GB"; by default the server's setting.
        workers: PostgreSQL's max_parallel_maintenance_workers for the builds; by default the server's setting.
        on_progress: Called several times a second during each build.

    Raises:
        ConfigurationError: A table has no embeddings, `memory` or `workers` is invalid, the database is not migrated,
            or the role does not own the tables.
        ConflictError: Another process is rebuilding vector indexes.
        StoreConnectionError: The database cannot be reached.
    """
    columns = vector_columns()
    selected = sorted(tables or columns)
    _check(selected, columns, memory, workers)
    failure: StoreError
    try:
        async with open_for_indexes(settings) as builder, open_for_indexes(settings) as watcher:
            await _prepare(builder, memory, workers)
            rebuilt = await _rebuild(settings, builder, watcher, selected, on_progress)
    except Exception as error:  # noqa: BLE001 - no exception of the driver may leave.
        failure = _explained(driver_error(error))
    else:
        return rebuilt
    raise failure


def vector_columns() -> dict[str, Column[Any]]:
    """Return the columns of embeddings by the name of their table."""
    return {column.table.name: column for column in embedding_columns(metadata)}


@asynccontextmanager
async def open_for_indexes(settings: Settings) -> AsyncIterator[AsyncConnection]:
    """Open a connection in autocommit mode, since CREATE INDEX CONCURRENTLY waits for open transactions."""
    async with open_for_migration(settings, exclusive=False) as connection:
        await connection.execution_options(isolation_level="AUTOCOMMIT")
        yield connection


def expected_indexes() -> list[Index]:
    """Return the vector indexes that the models and the current DDL options define, ordered by table.

    Call it within `open_for_indexes`, which sets the DDL options.
    """
    tables = metadata_with_vector_indexes().tables
    return [
        index
        for name in sorted(vector_columns())
        for index in sorted(tables[name].indexes, key=lambda index: str(index.name))
        if method_of(index) in VECTOR_INDEX_KINDS
    ]


def table_of(index: Index) -> str:
    """Return the name of the index's table."""
    assert index.table is not None
    return str(index.table.name)


def method_of(index: Index) -> str:
    """Return the index method: "btree", "hnsw" or another."""
    return str(index.dialect_options["postgresql"]["using"] or "btree")


async def present_indexes(connection: AsyncConnection, settings: Settings) -> list[VectorIndex]:
    """Return the existing vector indexes on this package's tables, ordered by table and name."""
    values = {"schema": settings.database_schema, "tables": list(vector_columns())}
    return [VectorIndex(**row) for row in (await connection.execute(_PRESENT, values)).mappings()]


def _explained(error: BaseException) -> StoreError:
    if getattr(error, "sqlstate", None) == _NOT_OWNER:
        return ConfigurationError(
            f"{_OPERATION}: the database role does not own the tables: run it as the role that runs the migrations",
            cause=error,
        )
    return as_store_error(error, _OPERATION)


def _check(
    selected: Collection[str], columns: Collection[str], memory: str | None, workers: int | None
) -> None:
    if unknown := [table for table in selected if table not in columns]:
        raise ConfigurationError(
            f"{_OPERATION}: {', '.join(unknown)} has no embeddings: choose from {', '.join(columns)}"
        )
    if memory is not None and not _MEMORY.fullmatch(memory):
        raise ConfigurationError(f"{_OPERATION}: memory must be a number with kB, MB or GB, such as 2GB")
    if workers is not None and not 0 <= workers <= _MAX_WORKERS:
        raise ConfigurationError(f"{_OPERATION}: workers must be a number from 0 to {_MAX_WORKERS}")


async def _prepare(builder: AsyncConnection, memory: str | None, workers: int | None) -> None:
    if not await builder.scalar(text("SELECT pg_try_advisory_lock(:key)"), {"key": _LOCK}):
        raise ConflictError(
            f"{_OPERATION}: another process is doing this: wait until it has ended, or end it"
        )
    # The build waits for running transactions, but blocks no others while it waits.
    await builder.execute(text("SET lock_timeout = 0"))
    limits = {"maintenance_work_mem": memory, "max_parallel_maintenance_workers": workers}
    for name, value in limits.items():
        if value is not None:
            await builder.execute(_SET, {"name": name, "value": str(value)})


async def _rebuild(
    settings: Settings,
    builder: AsyncConnection,
    watcher: AsyncConnection,
    tables: Collection[str],
    on_progress: Callable[[BuildProgress], None],
) -> list[Rebuilt]:
    present = {item.name: item for item in await present_indexes(builder, settings) if item.table in tables}
    expected = [index for index in expected_indexes() if table_of(index) in tables]
    rebuilt: list[Rebuilt] = []
    for number, index in enumerate(expected, start=1):
        started = perf_counter()
        name = str(index.name)
        report = partial(_report, on_progress, name, number, len(expected))
        await _drop(builder, name + _NEW)
        await _build(builder, watcher, index, name + _NEW, report)
        await _drop(builder, name)
        await builder.exec_driver_sql(f"ALTER INDEX {quoted(name + _NEW)} RENAME TO {quoted(name)}")
        new = next(item for item in await present_indexes(builder, settings) if item.name == name)
        before = _before(present.get(name))
        rebuilt.append(Rebuilt(new.table, name, new.method, before, new.bytes, perf_counter() - started))
    rebuilt_names = {item.name for item in rebuilt}
    for item in present.values():
        if item.name.startswith(f"ix_{item.table}_") and item.name.removesuffix(_NEW) not in rebuilt_names:
            started = perf_counter()
            await _drop(builder, item.name)
            rebuilt.append(Rebuilt(item.table, item.name, None, _before(item), 0, perf_counter() - started))
    return rebuilt


def _report(
    on_progress: Callable[[BuildProgress], None], name: str, number: int, count: int, phase: str, done: float
) -> None:
    on_progress(BuildProgress(name, number, count, phase, done))


def _before(index: VectorIndex | None) -> str | None:
    if index is None:
        return None
    return index.method if index.valid else "invalid"


async def _build(
    builder: AsyncConnection,
    watcher: AsyncConnection,
    index: Index,
    name: str,
    report: Callable[[str, float], None],
) -> None:
    """Build `index` under `name`, and report the phase and its completed fraction meanwhile."""
    copy = name_operator_classes_with_schema(index)
    copy.name = quoted_name(name, quote=None)
    copy.dialect_options["postgresql"]["concurrently"] = True
    pid = await builder.scalar(text("SELECT pg_backend_pid()"))
    building = asyncio.ensure_future(builder.execute(CreateIndex(copy)))
    try:
        while not building.done():
            await asyncio.wait([building], timeout=_POLL_SECONDS)
            row = (await watcher.execute(_PROGRESS, {"pid": pid})).one_or_none()
            if row is not None:
                # IVFFlat reports tuples in its last phase. Its other phases and HNSW report blocks.
                by_tuples, by_blocks = (
                    (row.tuples_done, row.tuples_total),
                    (row.blocks_done, row.blocks_total),
                )
                done, total = by_tuples if row.tuples_total else by_blocks
                report(row.phase, done / total if total else 0.0)
        await building
    finally:
        # The connection must not be closed while the statement is running.
        building.cancel()
        await asyncio.wait([building])


async def _drop(builder: AsyncConnection, name: str) -> None:
    await builder.exec_driver_sql(f"DROP INDEX CONCURRENTLY IF EXISTS {quoted(name)}")
