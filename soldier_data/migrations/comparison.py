"""Comparisons that Alembic lacks: index options, check constraints, primary keys, column storage and policies.

Alembic keeps comparisons for the whole process, and an application may run migrations of its own in it. So they do
nothing in an environment that has not called `use_strict_implementation`.

PostgreSQL normalises expressions. So the table is created as the models define it, as an empty temporary table in a
savepoint that is rolled back, and the definitions that PostgreSQL reports for the two tables are compared.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pgvector.sqlalchemy
from alembic.autogenerate import comparators
from alembic.autogenerate.api import AutogenContext
from alembic.ddl._autogen import ComparisonResult
from alembic.ddl.postgresql import PostgresqlImpl
from alembic.operations import ops
from alembic.runtime.migration import MigrationContext
from alembic.util import PriorityDispatchResult
from sqlalchemy import Column, Connection, Index, Row, Table, text
from sqlalchemy.dialects.postgresql.named_types import CreateEnumType
from sqlalchemy.schema import CreateIndex, CreateTable
from sqlalchemy.types import TypeEngine

from soldier_data.migrations import enums
from soldier_data.migrations.extensions import name_operator_classes_with_schema
from soldier_data.migrations.operations import STORAGES
from soldier_data.migrations.policies import POLICY, has_policy, is_tenants
from soldier_data.migrations.source import changed_constraint, drop_policy, policies_of, storage_of
from soldier_data.postgres.orm import EmbeddingVector, column_storage
from soldier_data.postgres.vector_index import VECTOR_INDEX_KINDS

_SCRATCH = {"schema_translate_map": {None: "pg_temp"}}

_INDEX = text(
    "SELECT regexp_replace(pg_get_indexdef(i.indexrelid), '^.*? USING ', '') AS definition, i.indisvalid "
    "FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid "
    "WHERE c.relname = :index AND i.indrelid = CAST(:table AS regclass)"
)
_CONSTRAINTS = text(
    "SELECT conname, pg_get_constraintdef(oid) AS definition FROM pg_constraint "
    "WHERE conrelid = CAST(:table AS regclass) AND contype IN ('c', 'p')"
)
_STORAGE = text(
    "SELECT a.attname, CAST(a.attstorage AS text) AS present, CAST(t.typstorage AS text) AS usual "
    "FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid "
    "WHERE a.attrelid = CAST(:table AS regclass) AND a.attnum > 0 AND NOT a.attisdropped"
)
_COLUMN = text(
    "SELECT EXISTS (SELECT FROM pg_attribute WHERE attrelid = to_regclass(:table) AND attname = :column "
    "AND NOT attisdropped)"
)
_POLICIES = text("SELECT polname FROM pg_policy WHERE polrelid = CAST(:table AS regclass)")


class StrictPostgresqlImpl(PostgresqlImpl):
    """Alembic's implementation for PostgreSQL, with a comparison of all index options."""

    def create_index(self, index: Index, **kw: Any) -> None:
        """Create an index unless it exists. It is checked first, since even IF NOT EXISTS blocks writers."""
        if kw.get("if_not_exists") and not self.as_sql:
            assert self.connection is not None
            assert index.table is not None
            values = {"index": str(index.name), "table": _quoted(self.connection, index.table)}
            if self.connection.execute(_INDEX, values).one_or_none() is not None:
                return
        super().create_index(name_operator_classes_with_schema(index), **kw)

    def add_column(self, table_name: str, column: Column[Any], **kw: Any) -> None:
        """Add a column unless it exists. It is checked first, since even IF NOT EXISTS blocks readers and writers."""
        if kw.get("if_not_exists") and self._has_column(table_name, column):
            return
        super().add_column(table_name, column, **kw)

    def drop_column(self, table_name: str, column: Column[Any], **kw: Any) -> None:
        """Drop a column if it exists. It is checked first, since its table may no longer exist either."""
        if kw.get("if_exists") and not self.as_sql and not self._has_column(table_name, column):
            return
        super().drop_column(table_name, column, **kw)

    def _has_column(self, table: str, column: Column[Any]) -> bool:
        """Return True if the column exists; False when SQL is written offline."""
        if self.as_sql:
            return False
        assert self.connection is not None
        values = {"table": self.dialect.identifier_preparer.quote(table), "column": column.name}
        return bool(self.connection.scalar(_COLUMN, values))

    def compare_indexes(self, metadata_index: Index, reflected_index: Index) -> ComparisonResult:
        """Compare as Alembic does, and then method, operator classes, WITH, INCLUDE and WHERE."""
        # Not for vector indexes: Alembic compares the text of expressions, which differs in the schema of functions.
        vectors = metadata_index.kwargs.get("postgresql_using") in VECTOR_INDEX_KINDS
        result = (
            ComparisonResult.Equal() if vectors else super().compare_indexes(metadata_index, reflected_index)
        )
        if not result.is_equal:
            return result
        assert self.connection is not None
        table, name = metadata_index.table, str(metadata_index.name)
        assert table is not None
        present = self.connection.execute(
            _INDEX, {"index": name, "table": _quoted(self.connection, table)}
        ).one()
        if not present.indisvalid:
            return ComparisonResult.Different("an interrupted build left it invalid")
        with _scratch(self.connection, table) as scratch:
            self.connection.execute(
                CreateIndex(name_operator_classes_with_schema(metadata_index)), execution_options=_SCRATCH
            )
            expected = self.connection.execute(_INDEX, {"index": name, "table": scratch}).one()
        if present.definition != expected.definition:
            return ComparisonResult.Different(f"{present.definition} to {expected.definition}")
        return result


def use_strict_implementation(context: MigrationContext) -> None:
    """Let `context`, which has just been configured, run and compare with `StrictPostgresqlImpl`."""
    context.impl = StrictPostgresqlImpl(
        context.dialect,
        context.connection,
        context.as_sql,
        context.transactional_ddl,
        context.output_buffer,
        context.opts,
    )


def compare_type(
    _context: MigrationContext,
    _inspected_column: Any,
    _metadata_column: Any,
    inspected_type: TypeEngine[Any],
    metadata_type: TypeEngine[Any],
) -> bool | None:
    """Return True if the type or the dimensions of an embedding column differ; None leaves a column to Alembic."""
    if not isinstance(metadata_type, EmbeddingVector):
        return None
    if not isinstance(inspected_type, pgvector.sqlalchemy.VECTOR):
        return True
    return inspected_type.dim != metadata_type.dimensions


@comparators.dispatch_for("table")
def _compare_table(
    autogen_context: AutogenContext,
    modify_table_ops: ops.ModifyTableOps,
    _schema: str | None,
    _name: str,
    present: Table | None,
    expected: Table | None,
) -> PriorityDispatchResult:
    strict = isinstance(autogen_context.migration_context.impl, StrictPostgresqlImpl)
    if strict and present is not None and expected is not None:
        connection = autogen_context.connection
        assert connection is not None
        modify_table_ops.ops += [
            *enums.values_to_add(present, expected),
            *_constraint_differences(connection, expected),
            *_storage_differences(connection, expected, present),
            *_policy_differences(connection, expected),
        ]
    return PriorityDispatchResult.CONTINUE


def _constraint_differences(connection: Connection, table: Table) -> Iterator[ops.MigrateOperation]:
    present = _definitions(connection, _quoted(connection, table))
    with _scratch(connection, table) as scratch:
        expected = _definitions(connection, scratch)
    changed = {name for name in present.keys() & expected.keys() if present[name] != expected[name]}
    for name in sorted(changed | (present.keys() ^ expected.keys())):
        yield changed_constraint(table.name, name, present.get(name), expected.get(name))


def _storage_differences(
    connection: Connection, table: Table, present: Table
) -> Iterator[ops.MigrateOperation]:
    found = {row.attname: row for row in _rows(connection, _STORAGE, table)}
    for column in table.columns:
        # The operation that adds a new column also sets its storage.
        if column.name not in present.columns:
            continue
        storage, usual = STORAGES[found[column.name].present], STORAGES[found[column.name].usual]
        if storage != (column_storage(column) or usual):
            yield storage_of(table.name, column, usual=usual, instead_of=storage)


def _policy_differences(connection: Connection, table: Table) -> Iterator[ops.MigrateOperation]:
    if not is_tenants(table.columns):
        return
    for name in sorted({row.polname for row in _rows(connection, _POLICIES, table)} - {POLICY}):
        yield drop_policy(table.name, name)
    if not has_policy(connection, _quoted(connection, table)):
        yield policies_of(table.name, difference=f"row-level security of {table.name}")


@contextmanager
def _scratch(connection: Connection, table: Table) -> Iterator[str]:
    """Create `table` as an empty temporary table without foreign keys; drop it at the end of the block."""
    savepoint = connection.begin_nested()
    try:
        for enum in enums.enums_of(table.columns):
            connection.execute(CreateEnumType(enum), execution_options=_SCRATCH)
        connection.execute(CreateTable(table, include_foreign_key_constraints=[]), execution_options=_SCRATCH)
        yield f"pg_temp.{connection.dialect.identifier_preparer.format_table(table)}"
    finally:
        savepoint.rollback()


def _definitions(connection: Connection, table: str) -> dict[str, str]:
    rows = connection.execute(_CONSTRAINTS, {"table": table})
    return {row.conname: row.definition for row in rows}


def _rows(connection: Connection, statement: Any, table: Table) -> list[Row[Any]]:
    return list(connection.execute(statement, {"table": _quoted(connection, table)}))


def _quoted(connection: Connection, table: Table) -> str:
    return connection.dialect.identifier_preparer.format_table(table)
