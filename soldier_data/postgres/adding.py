"""Adding rows to a table, each under a new id: one at a time, or many by COPY."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar
from uuid import UUID

from sqlalchemy import Table, select

from soldier_data.base.items import id_taken
from soldier_data.base.models import new_id
from soldier_data.errors import ConflictError
from soldier_data.postgres.executor import Executor
from soldier_data.postgres.queries import equals, has_key, insert_row, unless_taken
from soldier_data.postgres.statements import Statement, Values, in_order
from soldier_data.postgres.transaction import Transaction, describe

E = TypeVar("E")

# Enough rows to make COPY's own round trips negligible, and few enough to end well within the command timeout.
_ROWS_AT_A_TIME = 5_000


class AddableTable:
    """The statements that add rows to one table.

    Args:
        name: A row in messages: "episode".
        plural: Several rows in messages: "episodes".
        table: A table with a column `write_id`.
    """

    def __init__(self, name: str, plural: str, table: Table) -> None:
        self._table = table
        self._columns = [column.name for column in table.columns]
        self._operation = f"adding {plural}"
        self._add = Statement(f"adding the {name}", unless_taken(insert_row(table)))
        own_row = select(table.c.id).where(has_key(table), equals(table.c.write_id))
        self._own_row = Statement(self._operation, own_row)

    async def add(self, db: Executor, values: Values) -> None:
        """Add one row; `values` are its columns, with a `write_id` made for this call.

        Raises:
            ConflictError: The id is taken.
        """
        if await db.fetch_one(self._add, values) is None:
            raise id_taken(describe(self._add, values))

    async def add_many(
        self, db: Executor, entities: Sequence[E], values_of: Callable[[E, UUID], Values]
    ) -> None:
        """Add a row for each of `entities`, all or nothing.

        Args:
            db: The database, or the transaction of a unit of work.
            entities: Entities of one tenant.
            values_of: Returns the columns of an entity's row, given the entity and the `write_id` of the call.

        Raises:
            ConflictError: One of the ids is taken.
        """
        if not entities:
            return
        write_id = new_id()

        async def work(transaction: Transaction) -> None:
            for start in range(0, len(entities), _ROWS_AT_A_TIME):
                batch = entities[start : start + _ROWS_AT_A_TIME]
                await self._write(transaction, [values_of(entity, write_id) for entity in batch])

        try:
            await db.atomically(work, self._operation)
        except ConflictError:
            taken = True
        else:
            taken = False
        # COPY fails on the rows of an earlier attempt whose reply was lost. It wrote either all of them or none.
        if taken and await db.fetch_one(self._own_row, values_of(entities[0], write_id)) is None:
            raise id_taken(self._operation)

    async def _write(self, transaction: Transaction, rows: list[Values]) -> None:
        if not transaction.settings.row_level_security:
            records: list[tuple[Any, ...]] = [in_order(self._columns, row, self._operation) for row in rows]
            await transaction.copy_rows(self._table.name, self._columns, records, self._operation)
        # PostgreSQL refuses COPY to a table whose policies bind the role.
        elif len(await transaction.fetch_many(self._add, rows)) < len(rows):
            raise id_taken(self._operation)
