"""Saving and deleting rows that have a revision (see `postgres.orm.Revisioned`), each in one statement."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Protocol
from uuid import UUID

from sqlalchemy import ColumnClause, ColumnElement, Integer, Table, and_, case, literal_column, select, update
from sqlalchemy.dialects.postgresql import Insert, insert

from soldier_data.base.models import mark_saved, new_id, utcnow
from soldier_data.base.values import check_revision
from soldier_data.errors import ConflictError, NotFoundError, StoreError
from soldier_data.postgres import queries
from soldier_data.postgres.database import Executor
from soldier_data.postgres.queries import insert_row, is_living, or_own_write, unless_taken
from soldier_data.postgres.statements import Statement, column_param, has_key, param
from soldier_data.postgres.transaction import Transaction, Values

_ZERO: ColumnClause[int] = literal_column("0", Integer)
_ONE: ColumnClause[int] = literal_column("1", Integer)


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
        self._save = Statement(f"saving the {name}", _insert_or_replace(table, parent))
        self._insert = Statement(f"saving the {name}", _insert_only(table, parent))
        self._replace = Statement(f"saving the {name}", _replace_revision(table, parent))
        self._stored = Statement(f"saving the {name}", _what_is_stored(table, parent))
        if "deleted_at" in table.c:
            self._delete = Statement(
                f"deleting the {name}", mark_deleted(table, has_key(table)).returning(table.c.id)
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


def mark_deleted(table: Table, where: ColumnElement[bool]) -> Any:
    """An UPDATE that soft-deletes the rows that match `where`, at the time in the parameter `now`."""
    condition = and_(where, or_own_write(table, is_living(table)))
    return queries.mark_deleted(table, condition).values(
        updated_at=param("now", table.c.updated_at.type),
        revision=_next_revision(table, column_param(table.c.write_id)),
    )


def _insert_or_replace(table: Table, parent: ColumnElement[bool] | None) -> Any:
    statement = _insert(table, parent)
    changed = {name: statement.excluded[name] for name in _content(table)}
    changed["revision"] = _next_revision(table, statement.excluded.write_id)
    return statement.on_conflict_do_update(index_elements=["tenant_id", "id"], set_=changed).returning(
        table.c.id, table.c.revision
    )


def _insert_only(table: Table, parent: ColumnElement[bool] | None) -> Any:
    return unless_taken(_insert(table, parent)).returning(table.c.revision)


def _replace_revision(table: Table, parent: ColumnElement[bool] | None) -> Any:
    expected = param("if_revision", table.c.revision.type)
    changed: dict[str, Any] = {name: column_param(table.c[name]) for name in _content(table)}
    statement = (
        update(table)
        .values({**changed, "revision": expected + 1})
        .where(has_key(table), or_own_write(table, table.c.revision == expected))
        .returning(table.c.id, table.c.revision)
    )
    return statement if parent is None else statement.where(_exists(parent))


def _what_is_stored(table: Table, parent: ColumnElement[bool] | None) -> Any:
    statement = select(select(table.c.revision).where(has_key(table)).scalar_subquery().label("revision"))
    return statement if parent is None else statement.where(_exists(parent))


def _insert(table: Table, parent: ColumnElement[bool] | None) -> Insert:
    if parent is None:
        return insert_row(table).values(revision=_ONE)
    values: dict[str, Any] = {column.name: column_param(column) for column in table.columns}
    values["revision"] = _ONE
    row = select(*values.values()).where(parent).with_for_update(read=True)
    return insert(table).from_select(list(values), row)


def _exists(parent: ColumnElement[bool]) -> ColumnElement[bool]:
    return select(_ONE).where(parent).exists()


def _next_revision(table: Table, write_id: Any) -> Any:
    # A call that is repeated after a lost reply finds its own write_id, and does not count twice.
    return table.c.revision + case((table.c.write_id == write_id, _ZERO), else_=_ONE)


def _content(table: Table) -> list[str]:
    return [column.name for column in table.columns if column.name not in ("tenant_id", "id", "revision")]
