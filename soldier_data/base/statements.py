"""SQL statements: written with SQLAlchemy, compiled once, executed by asyncpg.

Compiling and executing through SQLAlchemy's connection costs several times what a short query itself takes (the
figures are in benchmarks/RESULTS.md). A `Statement` therefore keeps the compiled text; the database executes it on
the driver's connection, where asyncpg keeps it prepared.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import (
    BindParameter,
    ClauseElement,
    Column,
    ColumnElement,
    Dialect,
    FromClause,
    Table,
    bindparam,
)
from sqlalchemy.dialects.postgresql import asyncpg as asyncpg_dialect
from sqlalchemy.orm import DeclarativeBase
from sqlalchemy.types import TypeEngine

_DIALECT: Dialect = asyncpg_dialect.dialect()  # type: ignore[no-untyped-call]

# SQLAlchemy reserves the plain names of columns for itself in INSERT and UPDATE.
_PREFIX = "p_"


class Statement:
    """One SQL statement, its parameters named.

    Attributes:
        doing: What the statement does, for error messages: "saving the rule".
        sql: The text, with parameters in asyncpg's form: $1, $2, ...
    """

    __slots__ = ("_constants", "_names", "doing", "sql")

    def __init__(self, doing: str, clause: ClauseElement) -> None:
        compiled = clause.compile(dialect=_DIALECT)
        self.doing = doing
        self.sql = str(compiled)
        self._constants = {name: value for name, value in compiled.params.items() if value is not None}
        self._names = tuple(
            name.removeprefix(_PREFIX) for name in getattr(compiled, "positiontup", None) or ()
        )

    def arguments(self, values: Mapping[str, Any]) -> list[Any]:
        """The parameters in order, taken from `values` by the names given to `param()`."""
        constants = self._constants
        return [constants[name] if name in constants else values[name] for name in self._names]


def param(name: str, type_: TypeEngine[Any]) -> BindParameter[Any]:
    """A parameter of a statement."""
    return bindparam(_PREFIX + name, type_=type_)


def column_param(column: Column[Any]) -> BindParameter[Any]:
    """A parameter named and typed as `column`."""
    return param(column.name, column.type)


def has_key(table: Table) -> ColumnElement[bool]:
    """The row that the parameters tenant_id and id lead to."""
    return (table.c.tenant_id == column_param(table.c.tenant_id)) & (table.c.id == column_param(table.c.id))


def table_of(row: type[DeclarativeBase]) -> Table:
    """The table of an ORM class."""
    table: FromClause = row.__table__
    assert isinstance(table, Table)
    return table
