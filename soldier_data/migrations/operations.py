"""Operations for migrations that Alembic lacks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from alembic import op
from sqlalchemy import Column, DateTime, MetaData, Table, TextClause, text
from sqlalchemy.sql.elements import ColumnElement

from soldier_data.migrations.connection import LIMIT_LOCK_WAITS
from soldier_data.migrations.policies import has_policy, policy_statements
from soldier_data.postgres.ddl import ddl_options
from soldier_data.postgres.orm import EmbeddingVector, vector_storage
from soldier_data.postgres.statements import quoted
from soldier_data.postgres.vector_index import VECTOR_INDEX_KINDS, add_vector_indexes, vector_index_name

_UNFINISHED = text(
    "SELECT EXISTS (SELECT FROM pg_index WHERE indexrelid = to_regclass(quote_ident(:name)) AND NOT indisvalid)"
)
STORAGES = {"p": "PLAIN", "e": "EXTERNAL", "m": "MAIN", "x": "EXTENDED"}
"""Storage modes by their letter in pg_attribute.attstorage."""

_STORAGE = text(
    "SELECT CAST(attstorage AS text) FROM pg_attribute WHERE attrelid = CAST(:table AS regclass) AND attname = :column"
)


def create_extension(name: str) -> None:
    """Create an extension in SOLDIER_EXTENSIONS_SCHEMA unless it exists."""
    op.execute(
        f"CREATE EXTENSION IF NOT EXISTS {quoted(name)} SCHEMA {quoted(ddl_options().extensions_schema)}"
    )


def isolate_tenants(table: str) -> None:
    """Create the row-level-security policy that shows only the rows of the tenant in app.tenant_id.

    Does nothing if the table has the policy, since each statement would block readers until the migration commits.
    """
    if not op.get_context().as_sql and has_policy(op.get_bind(), quoted(table)):
        return
    for statement in policy_statements(quoted(table)):
        op.execute(statement)


def set_storage(table: str, column: str, storage: str | None = None) -> None:
    """Set the storage mode of a column unless it has that mode already.

    Args:
        table: Name of the table.
        column: Name of the column.
        storage: PLAIN, EXTERNAL, EXTENDED or MAIN. None is for embeddings: PLAIN if they fit into a row, otherwise
            EXTERNAL.
    """
    storage = storage or vector_storage()
    if not op.get_context().as_sql:
        values = {"table": quoted(table), "column": column}
        if STORAGES.get(op.get_bind().scalar(_STORAGE, values)) == storage:
            return
    op.execute(f"ALTER TABLE {quoted(table)} ALTER COLUMN {quoted(column)} SET STORAGE {storage}")


def create_index_concurrently(
    name: str, table: str, columns: Sequence[str | TextClause | ColumnElement[Any]], **options: Any
) -> None:
    """Create an index unless it exists, without blocking writers. An invalid index is dropped and built again.

    Commits the preceding operations of the migration, since PostgreSQL cannot do this in a transaction.

    Args:
        name: Name of the index.
        table: Name of the table.
        columns: Names of columns, or expressions.
        options: Further arguments of `op.create_index`.
    """
    context = op.get_context()
    with context.autocommit_block():
        # The build waits for running transactions, but blocks no others while it waits.
        op.execute("SET lock_timeout = 0")
        if not context.as_sql and op.get_bind().scalar(_UNFINISHED, {"name": name}):
            op.drop_index(name, table_name=table, postgresql_concurrently=True)
        op.create_index(name, table, columns, postgresql_concurrently=True, if_not_exists=True, **options)
        op.execute(LIMIT_LOCK_WAITS)


def create_vector_index(table: str, column: str, *, living: bool) -> None:
    """Create the vector index that SOLDIER_VECTOR_INDEX selects, if any, with `create_index_concurrently`.

    Args:
        table: Name of the table.
        column: Name of the column of embeddings.
        living: True for a table with the column deleted_at: the index then excludes deleted rows.
    """
    for index in add_vector_indexes([_vector_column(table, column, living=living)]):
        create_index_concurrently(str(index.name), table, list(index.expressions), **index.kwargs)


def drop_vector_index(table: str, column: str) -> None:
    """Drop the vector index of a column, of any type, if it exists."""
    for kind in VECTOR_INDEX_KINDS:
        op.drop_index(vector_index_name(table, column, kind), table_name=table, if_exists=True)


def _vector_column(table: str, column: str, *, living: bool) -> Column[Any]:
    deleted_at = [Column("deleted_at", DateTime(timezone=True))] if living else []
    return Table(table, MetaData(), Column(column, EmbeddingVector()), *deleted_at).c[column]
