"""Saving and deleting rows that have a revision (see `postgres.orm.Revisioned`), each in one statement."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from functools import partial
from typing import Protocol
from uuid import UUID

from sqlalchemy import ColumnElement, Table

from soldier_data.base.models import mark_saved, new_id, utcnow
from soldier_data.base.values import check_revision
from soldier_data.errors import ConflictError, NotFoundError, StoreError
from soldier_data.postgres.executor import Executor
from soldier_data.postgres.queries import has_key
from soldier_data.postgres.revisioned_statements import (
    insert_only,
    insert_or_replace,
    mark_deleted,
    replace_revision,
    stored_revision,
)
from soldier_data.postgres.statements import Statement, Values
from soldier_data.postgres.transaction import Transaction


class Revised(Protocol):
    """An entity with a revision."""

    id: UUID
    tenant_id: UUID
    updated_at: datetime
    revision: int


class RevisionedTable:
    """The statements that save and delete rows of one table.

    Args:
        name: Name of an entity in error messages, such as "rule".
        table: A table with the columns of `Revisioned`.
        parent: Condition that a row of another table must meet before a row of this table is saved. That row is
            locked until the end of the transaction, so that it cannot be deleted concurrently.
        missing_parent: Error message if there is no such row: "agent_id: the agent does not exist ...".
        unique: Whether the table has a unique index besides the primary key.
    """

    def __init__(
        self,
        name: str,
        table: Table,
        *,
        parent: ColumnElement[bool] | None = None,
        missing_parent: str = "",
        unique: bool = False,
    ) -> None:
        self._name = name
        self._missing_parent = missing_parent
        self._unique = unique
        self._save = Statement(f"saving the {name}", partial(insert_or_replace, table, parent))
        self._insert = Statement(f"saving the {name}", partial(insert_only, table, parent))
        self._replace = Statement(f"saving the {name}", partial(replace_revision, table, parent))
        self._stored = Statement(f"saving the {name}", partial(stored_revision, table, parent))
        if "deleted_at" in table.c:
            self._delete = Statement(
                f"deleting the {name}",
                lambda: mark_deleted(table, has_key(table)).returning(table.c.id),
            )

    async def save(self, db: Executor, entity: Revised, values: Values, if_revision: int | None) -> UUID:
        """Save `values`, the row of `entity`, and set the entity's `updated_at` and `revision`.

        Raises:
            ConflictError: The row violates a unique index, or `if_revision` is not the stored revision.
            NotFoundError: The parent does not exist.
        """
        check_revision(if_revision)
        statement = self._save if if_revision is None else self._insert if if_revision == 0 else self._replace
        now = utcnow()
        row_values = {**values, "updated_at": now, "write_id": new_id(), "if_revision": if_revision}
        run = db.write_one if self._unique else db.fetch_one
        row = await run(statement, row_values)
        if row is None:
            raise await self._refusal(db, row_values)
        mark_saved(entity, now, row["revision"])
        return entity.id

    async def save_many(self, transaction: Transaction, rows: Sequence[Values]) -> dict[UUID, int]:
        """Save several rows in one round trip, and return their revisions by id. Raises as `save` does."""
        if not self._unique:
            # Concurrent calls lock common rows in the same order, which prevents deadlocks. With a unique index
            # the caller's order is kept, as one row may free a name for the next.
            rows = sorted(rows, key=lambda values: values["id"])
        written = await transaction.fetch_many(self._save, rows)
        revisions: dict[UUID, int] = {row["id"]: row["revision"] for row in written}
        for values in rows:
            if values["id"] not in revisions:
                raise await self._refusal(transaction, {**values, "if_revision": None})
        return revisions

    async def delete(self, db: Executor, tenant_id: UUID, id_: UUID) -> bool:
        """Soft-delete the row; returns False if it does not exist or is deleted already."""
        return await delete_row(db, self._delete, {"tenant_id": tenant_id, "id": id_})

    async def _refusal(self, db: Executor, values: Values) -> StoreError:
        stored = await db.fetch_one(self._stored, values)
        operation = f"saving the {self._name} {values['id']}"
        if stored is None:
            return NotFoundError(f"{operation}: {self._missing_parent}")
        if stored["revision"] is None:
            return ConflictError(
                f"{operation}: revision {values['if_revision']} was expected, but nothing is stored under this id"
            )
        return ConflictError(
            f"{operation}: revision {values['if_revision']} was expected, but {stored['revision']} is stored: "
            "read it again and repeat the change"
        )


async def delete_row(db: Executor, statement: Statement, key: Values) -> bool:
    """Run a statement made with `mark_deleted`; returns whether it deleted a row."""
    return await db.fetch_one(statement, {**key, "now": utcnow(), "write_id": new_id()}) is not None
