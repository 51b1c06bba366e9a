"""What migrations do beyond Alembic's own operations."""

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
from soldier_data.postgres.vector_index import VECTOR_INDEX_KINDS, add_vector_indexes, vector_index_name

_UNFINISHED = text(
    "SELECT EXISTS (SELECT FROM pg_index WHERE indexrelid = to_regclass(quote_ident(:name)) AND NOT indisvalid)"
)
STORAGES = {"p": "PLAIN", "e": "EXTERNAL", "m": "MAIN", "x": "EXTENDED"}
"""What the catalogue's letters stand for."""

_STORAGE = text(
    "SELECT CAST(attstorage AS text) FROM pg_attribute WHERE attrelid = CAST(:table AS regclass) AND attname = :column"
)


def create_extension(name: str) -> None:
    """Create an extension of PostgreSQL in the schema that the settings name for extensions, unless it is there."""
    op.execute(
        f"CREATE EXTENSION IF NOT EXISTS {_quoted(name)} SCHEMA {_quoted(ddl_options().extensions_schema)}"
    )


def isolate_tenants(table: str) -> None:
    """Give a table the row-level-security policy that shows a role the rows of the tenant in app.tenant_id alone.

    A table that has it is not touched: each statement would lock out its readers until the migration is done.
    """
    if not op.get_context().as_sql and has_policy(op.get_bind(), _quoted(table)):
        return
    for statement in policy_statements(_quoted(table)):
        op.execute(statement)


def set_storage(table: str, column: str, storage: str | None = None) -> None:
    """Choose how PostgreSQL keeps large values of a column, unless that is how it keeps them.

    Args:
        table: The table.
        column: Its column.
        storage: PLAIN, EXTERNAL, EXTENDED or MAIN. None is for columns of embeddings: PLAIN where they fit into
            the rows, else EXTERNAL.
    """
    storage = storage or vector_storage()
    if not op.get_context().as_sql:
        values = {"table": _quoted(table), "column": column}
        if STORAGES.get(op.get_bind().scalar(_STORAGE, values)) == storage:
            return
    op.execute(f"ALTER TABLE {_quoted(table)} ALTER COLUMN {_quoted(column)} SET STORAGE {storage}")


def create_index_concurrently(
    name: str, table: str, columns: Sequence[str | TextClause | ColumnElement[Any]], **options: Any
) -> None:
    """Build an index while others read and write the table; what a build left that was interrupted goes first.

    Commits what the migration did before, because PostgreSQL does this outside of transactions alone.

    Args:
        name: The index.
        table: Its table.
        columns: Names of columns, or expressions.
        options: As of `op.create_index`.
    """
    context = op.get_context()
    with context.autocommit_block():
        # The build waits for running transactions, but nobody waits for the build.
        op.execute("SET lock_timeout = 0")
        if not context.as_sql and op.get_bind().scalar(_UNFINISHED, {"name": name}):
            op.drop_index(name, table_name=table, postgresql_concurrently=True)
        op.create_index(name, table, columns, postgresql_concurrently=True, if_not_exists=True, **options)
        op.execute(LIMIT_LOCK_WAITS)


def create_vector_index(table: str, column: str, *, living: bool) -> None:
    """Build the index of a column of embeddings that the settings choose, if any, as `create_index_concurrently`.

    Args:
        table: The table.
        column: Its column of embeddings.
        living: Whether the table has the column deleted_at; then the index is of the rows alone that are not deleted.
    """
    for index in add_vector_indexes([_vector_column(table, column, living=living)]):
        create_index_concurrently(str(index.name), table, list(index.expressions), **index.kwargs)


def drop_vector_index(table: str, column: str) -> None:
    """Drop the index of a column of embeddings, of whichever kind it is."""
    for kind in VECTOR_INDEX_KINDS:
        op.drop_index(vector_index_name(table, column, kind), table_name=table, if_exists=True)


def _vector_column(table: str, column: str, *, living: bool) -> Column[Any]:
    deleted_at = [Column("deleted_at", DateTime(timezone=True))] if living else []
    return Table(table, MetaData(), Column(column, EmbeddingVector()), *deleted_at).c[column]


def _quoted(name: str) -> str:
    return op.get_context().dialect.identifier_preparer.quote(name)
