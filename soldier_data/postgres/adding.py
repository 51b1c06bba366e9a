"""Adding rows to a table, each under a new id: one at a time, or many by COPY."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar
from uuid import UUID

from sqlalchemy import Table, select

from soldier_data.base.collected import MOST_COLLECTED
from soldier_data.base.items import id_taken
from soldier_data.base.models import new_id
from soldier_data.errors import ConflictError
from soldier_data.postgres.collecting import CollectedWrite, Insertion
from soldier_data.postgres.executor import Executor
from soldier_data.postgres.queries import equals, has_key, insert_row, insert_rows, unless_taken
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

    Attributes:
        insertion: How a collected statement adds rows.
    """

    def __init__(self, name: str, plural: str, table: Table) -> None:
        self._table = table
        self._columns = [column.name for column in table.columns]
        self._operation = f"adding {plural}"
        self._add = Statement(f"adding the {name}", lambda: unless_taken(insert_row(table)))
        self.insertion = Insertion(table, lambda rows, _: unless_taken(insert_rows(table, rows)))
        self._own_row = Statement(
            self._operation, lambda: select(table.c.id).where(has_key(table), equals(table.c.write_id))
        )

    async def add(self, db: Executor, values: Values) -> None:
        """Add one row, collected in a unit of work.

        Args:
            db: The database, or the transaction of a unit of work.
            values: The row's columns, with a `write_id` made for this call.

        Raises:
            ConflictError: The id is taken.
        """
        await db.collect(CollectedWrite(self.insertion, [values], self._add_row))

    async def add_many(
        self, db: Executor, entities: Sequence[E], values_of: Callable[[E, UUID], Values]
    ) -> None:
        """Add a row for each of `entities`, all or nothing. In a unit of work they are collected, unless they are many.

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
        if len(entities) <= MOST_COLLECTED:
            rows = [values_of(entity, write_id) for entity in entities]
            await db.collect(CollectedWrite(self.insertion, rows, self._add_rows))
            return

        def batches() -> Iterator[list[Values]]:
            for start in range(0, len(entities), _ROWS_AT_A_TIME):
                batch = entities[start : start + _ROWS_AT_A_TIME]
                yield [values_of(entity, write_id) for entity in batch]

        await self._add_batches(db, batches, values_of(entities[0], write_id))

    async def _add_row(self, db: Executor, rows: Sequence[Values]) -> None:
        [values] = rows
        if await db.fetch_one(self._add, values) is None:
            raise id_taken(describe(self._add, values))

    async def _add_rows(self, db: Executor, rows: Sequence[Values]) -> None:
        await self._add_batches(db, lambda: [rows], rows[0])

    async def _add_batches(
        self, db: Executor, batches: Callable[[], Iterable[Sequence[Values]]], first: Values
    ) -> None:
        async def work(transaction: Transaction) -> None:
            for rows in batches():
                await self._write(transaction, rows)

        try:
            await db.atomically(work, self._operation)
        except ConflictError:
            taken = True
        else:
            taken = False
        # COPY fails on the rows of an earlier attempt whose reply was lost. It wrote either all of them or none.
        if taken and await db.fetch_one(self._own_row, first) is None:
            raise id_taken(self._operation)

    async def _write(self, transaction: Transaction, rows: Sequence[Values]) -> None:
        if not transaction.settings.row_level_security:
            records: list[tuple[Any, ...]] = [in_order(self._columns, row, self._operation) for row in rows]
            await transaction.copy_rows(self._table.name, self._columns, records, self._operation)
        # PostgreSQL refuses COPY to a table whose policies bind the role.
        elif len(await transaction.fetch_many(self._add, rows)) < len(rows):
            raise id_taken(self._operation)
