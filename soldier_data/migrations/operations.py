"""What migrations do beyond Alembic's own operations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from alembic import op
from sqlalchemy import TextClause, text
from sqlalchemy.sql.elements import ColumnElement

from soldier_data.migrations.connection import LIMIT_LOCK_WAITS

_UNFINISHED = text(
    "SELECT EXISTS (SELECT FROM pg_index WHERE indexrelid = to_regclass(quote_ident(:name)) AND NOT indisvalid)"
)


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
