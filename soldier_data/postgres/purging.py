"""Parts of statements that permanently remove rows deleted long ago, in batches.

With enough rows to remove, a single statement would exceed SOLDIER_COMMAND_TIMEOUT, and no row would ever be removed.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnClause, DateTime, Integer, Select, Table, literal_column, select

from soldier_data.postgres.queries import of_tenant
from soldier_data.postgres.statements import param

ROWS_AT_A_TIME = 1_000
"""Size of a batch in rows of one table. Removing it takes about 10 ms, or a second on a slow disk."""

AT_A_TIME: ColumnClause[int] = literal_column(str(ROWS_AT_A_TIME), Integer)

BEFORE = param("before", DateTime(timezone=True))
"""Rows deleted before this time are old."""


def oldest(table: Table, limit: int = ROWS_AT_A_TIME) -> Select[Any]:
    """Select the ids of the tenant's old rows, at most `limit`, those deleted first."""
    return (
        select(table.c.id)
        .where(of_tenant(table), table.c.deleted_at < BEFORE)
        .order_by(table.c.deleted_at)
        .limit(literal_column(str(limit)))
    )
