"""Parts that the statements of several domains are built from: conditions, orders, pages and insertions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ColumnElement,
    Float,
    FromClause,
    Integer,
    Select,
    Subquery,
    Table,
    Uuid,
    and_,
    any_,
    func,
    literal_column,
    or_,
    select,
    tuple_,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY, Insert, insert

from soldier_data.base.paging import Cursor
from soldier_data.postgres.statements import column_param, param

LIMIT = param("limit", BigInteger())
OFFSET = param("offset", BigInteger())


# -- conditions ------------------------------------------------------------------------------------------------


def of_tenant(table: FromClause) -> ColumnElement[bool]:
    """The condition for rows of the tenant in the parameter `tenant_id`."""
    return table.c.tenant_id == param("tenant_id", Uuid())


def is_living(table: FromClause) -> ColumnElement[bool]:
    """The condition for rows that are not soft-deleted."""
    return table.c.deleted_at.is_(None)


def living(table: FromClause) -> ColumnElement[bool]:
    """The condition for rows of the tenant that are not soft-deleted."""
    return and_(of_tenant(table), is_living(table))


def equals(column: Column[Any]) -> ColumnElement[bool]:
    """The condition that a column has the value of the parameter of its name."""
    return column == column_param(column)


def or_own_write(table: Table, condition: ColumnElement[bool]) -> ColumnElement[bool]:
    """Extend a condition to rows written by an earlier attempt of the same call, whose reply was lost."""
    return or_(condition, equals(table.c.write_id))


def force_custom_plan() -> ColumnElement[bool]:
    """A condition that is true if the parameter `force_custom_plan` is, and makes PostgreSQL always use a custom plan.

    Where the best plan depends on the size of a tenant or the frequency of a word, the generic plan of a prepared
    statement can be a hundred times slower. PostgreSQL compares the estimated costs of generic and custom plans. In a
    custom plan this condition is folded to true; in the generic plan it has the cost of a scan of 10^9 rows, which is
    never executed. To set plan_cache_mode instead would take a round trip, or a parameter at connection start, which
    PgBouncer rejects.
    """
    one = literal_column("1", Integer)
    rows = select(func.count()).select_from(func.generate_series(one, literal_column("1000000000")))
    return or_(param("force_custom_plan", Boolean()), rows.scalar_subquery() == one)


def equals_any(column: ColumnElement[Any], name: str) -> ColumnElement[bool]:
    """The column equals one of the values in the array parameter `name`."""
    condition: ColumnElement[bool] = column == any_(param(name, ARRAY(column.type)))
    return condition


def has_key(table: Table) -> ColumnElement[bool]:
    """The row with the key in the parameters `tenant_id` and `id`."""
    return (table.c.tenant_id == column_param(table.c.tenant_id)) & (table.c.id == column_param(table.c.id))


# -- reading ---------------------------------------------------------------------------------------------------


def columns_except(table: Table, *names: str) -> list[Column[Any]]:
    """The columns of the table, in order, without those named."""
    return [column for column in table.columns if column.name not in names]


def newest_first(statement: Select[Any], at: Column[Any], *, before: bool = False) -> Select[Any]:
    """Order rows by `at`, then by id, both descending.

    Args:
        statement: A SELECT from the table of `at`.
        at: A column of datetimes.
        before: Whether to select only the rows after a cursor, whose parameters `cursor_values` returns.
    """
    id_ = at.table.c.id
    if before:
        position = tuple_(param("before_at", at.type), param("before_id", id_.type))
        statement = statement.where(tuple_(at, id_) < position)
    return statement.order_by(at.desc(), id_.desc())


def cursor_values(before: Cursor | None) -> dict[str, Any]:
    """The parameters of `newest_first`; empty without a cursor."""
    return {} if before is None else {"before_at": before.at, "before_id": before.id}


def nearest_first(columns: Sequence[Column[Any]], nearest: Subquery) -> Select[Any]:
    """Read the rows that `vector_search.nearest` found, with their distance, the nearest first.

    Rows further away than the parameter `max_distance` are left out.
    """
    table = columns[0].table
    return (
        select(*columns, nearest.c.distance)
        .join(nearest, and_(of_tenant(table), table.c.id == nearest.c.id))
        .where(nearest.c.distance <= param("max_distance", Float(53)))
        .order_by(nearest.c.distance, table.c.id)
    )


# -- writing ---------------------------------------------------------------------------------------------------


def insert_row(table: Table) -> Insert:
    """An INSERT of one row, whose columns are parameters of the same names."""
    return insert(table).values({column.name: column_param(column) for column in table.columns})


def insert_rows(table: Table, rows: FromClause) -> Insert:
    """An INSERT of rows that have the columns of the table."""
    names = [column.name for column in table.columns]
    return insert(table).from_select(names, select(*(rows.c[name] for name in names)))


def unless_taken(statement: Insert) -> Any:
    """Let an INSERT do nothing where the id is taken, and return the ids of the rows that it inserted.

    If the reply to an earlier attempt of the same call was lost, its rows are returned again: they are recognised by
    their `write_id` and updated with what they already hold, because RETURNING reports only rows that were written.
    """
    table = statement.table
    write_id = statement.excluded.write_id
    return statement.on_conflict_do_update(
        index_elements=["tenant_id", "id"], set_={"write_id": write_id}, where=table.c.write_id == write_id
    ).returning(table.c.id)


def mark_deleted(table: Table, where: ColumnElement[bool]) -> Any:
    """An UPDATE that soft-deletes the rows that meet `where`, at the time in the parameter `now`."""
    now = param("now", table.c.deleted_at.type)
    return update(table).values(deleted_at=now, write_id=column_param(table.c.write_id)).where(where)
