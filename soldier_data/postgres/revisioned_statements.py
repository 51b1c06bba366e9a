"""The SQL that saves and deletes rows with a revision (see `postgres.orm.Revisioned`)."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnClause, ColumnElement, Integer, Table, and_, case, literal_column, select, update
from sqlalchemy.dialects.postgresql import Insert, insert

from soldier_data.postgres import queries
from soldier_data.postgres.queries import has_key, insert_row, is_living, or_own_write, unless_taken
from soldier_data.postgres.statements import column_param, param

_ZERO: ColumnClause[int] = literal_column("0", Integer)
_ONE: ColumnClause[int] = literal_column("1", Integer)


def mark_deleted(table: Table, where: ColumnElement[bool]) -> Any:
    """An UPDATE that soft-deletes the rows that match `where`, at the time in the parameter `now`."""
    condition = and_(where, or_own_write(table, is_living(table)))
    return queries.mark_deleted(table, condition).values(
        updated_at=param("now", table.c.updated_at.type),
        revision=_next_revision(table, column_param(table.c.write_id)),
    )


def insert_or_replace(table: Table, parent: ColumnElement[bool] | None) -> Any:
    """Insert a row, or replace the one with its key, whatever its revision."""
    statement = _insert(table, parent)
    changed = {name: statement.excluded[name] for name in _content(table)}
    changed["revision"] = _next_revision(table, statement.excluded.write_id)
    return statement.on_conflict_do_update(index_elements=["tenant_id", "id"], set_=changed).returning(
        table.c.id, table.c.revision
    )


def insert_only(table: Table, parent: ColumnElement[bool] | None) -> Any:
    """Insert a row unless one with its key exists."""
    return unless_taken(_insert(table, parent)).returning(table.c.revision)


def replace_revision(table: Table, parent: ColumnElement[bool] | None) -> Any:
    """Replace a row if it has the revision in the parameter `if_revision`."""
    expected = param("if_revision", table.c.revision.type)
    changed: dict[str, Any] = {name: column_param(table.c[name]) for name in _content(table)}
    statement = (
        update(table)
        .values({**changed, "revision": expected + 1})
        .where(has_key(table), or_own_write(table, table.c.revision == expected))
        .returning(table.c.id, table.c.revision)
    )
    return statement if parent is None else statement.where(_exists(parent))


def stored_revision(table: Table, parent: ColumnElement[bool] | None) -> Any:
    """Select the revision of a row, or NULL; no row if the parent does not exist."""
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
