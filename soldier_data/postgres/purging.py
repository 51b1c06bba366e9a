"""Removing what was deleted long ago, some rows at a time.

One statement for all of it would take longer than SOLDIER_COMMAND_TIMEOUT allows once there is enough to remove, and
then nothing would ever go.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnClause, DateTime, Integer, Select, Table, literal_column, select

from soldier_data.postgres.queries import of_tenant
from soldier_data.postgres.statements import param

ROWS_AT_A_TIME = 1_000
"""So many rows of a table go at once: in some 10 ms each, or a second on a slow disk."""

AT_A_TIME: ColumnClause[int] = literal_column(str(ROWS_AT_A_TIME), Integer)

BEFORE = param("before", DateTime(timezone=True))
"""What was deleted earlier than this moment is old."""


def oldest(table: Table, limit: int = ROWS_AT_A_TIME) -> Select[Any]:
    """The ids of the old rows of a tenant that were deleted first, at most `limit`."""
    return (
        select(table.c.id)
        .where(of_tenant(table), table.c.deleted_at < BEFORE)
        .order_by(table.c.deleted_at)
        .limit(literal_column(str(limit)))
    )
