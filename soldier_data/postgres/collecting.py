"""Writes of a unit of work that are collected and sent together, as one statement.

asyncpg cannot send several statements at once, so every statement costs a round trip. One statement can insert into
several tables: a CTE for each, whose rows come from arrays.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from sqlalchemy import (
    ARRAY,
    CTE,
    JSON,
    BigInteger,
    Column,
    FromClause,
    Integer,
    Table,
    Text,
    cast,
    column,
    func,
    literal_column,
    select,
)
from sqlalchemy.types import TypeEngine, UserDefinedType

from soldier_data.postgres.ddl import ddl_options
from soldier_data.postgres.executor import Executor
from soldier_data.postgres.orm import Base, Document, EmbeddingVector
from soldier_data.postgres.statements import Statement, Values, param, quoted
from soldier_data.postgres.vector_codec import encode_vector


@dataclass(frozen=True, eq=False)
class Insertion:
    """How rows of one table are inserted by a collected statement.

    Attributes:
        table: The table.
        build: Returns the INSERT, which returns the id of each row that it writes, and leaves out rejected ones. Its
            arguments are the new rows, with the columns of the table, and the insertions into other tables that the
            same statement makes before it, by table name.
    """

    table: Table
    build: Callable[[FromClause, Mapping[str, CTE]], Any]


@dataclass(frozen=True)
class CollectedWrite:
    """A write that a unit of work may send later, together with others.

    Attributes:
        insertion: How its rows are inserted.
        rows: The columns of its rows.
        write: Writes the rows by themselves, and raises the error if they are rejected.
    """

    insertion: Insertion
    rows: Sequence[Values]
    write: Callable[[Executor, Sequence[Values]], Awaitable[object]]


def combined(writes: Iterable[CollectedWrite]) -> tuple[Statement, dict[str, Any]]:
    """Return a statement that makes all of `writes`, and its parameters.

    It fails, and writes nothing, if one of the rows is rejected.
    """
    rows: dict[Insertion, list[Values]] = {}
    for write in writes:
        rows.setdefault(write.insertion, []).extend(write.rows)
    insertions = sorted(rows, key=_position)
    values: dict[str, Any] = {"expected": sum(map(len, rows.values()))}
    for insertion in insertions:
        for each in insertion.table.columns:
            encode = _encoder(each.type)
            values[_name(each)] = [encode(row[each.name]) for row in rows[insertion]]
    values["tenant_id"] = rows[insertions[0]][0]["tenant_id"]
    return all_insertions(tuple(insertions)), values


@cache
def all_insertions(insertions: tuple[Insertion, ...]) -> Statement:
    """Return the statement that makes several insertions. Tables come after those that they refer to."""
    earlier: dict[str, CTE] = {}
    for insertion in insertions:
        name = insertion.table.name
        earlier[name] = insertion.build(_new_rows(insertion.table), earlier).cte(f"into_{name}")
    count: Any = sum(
        (select(func.count()).select_from(cte).scalar_subquery() for cte in earlier.values()),
        start=literal_column("0", BigInteger),
    )
    # The division fails if fewer rows were written than expected. It cannot be evaluated before the statement runs.
    complete = cast(count == param("expected", BigInteger()), Integer)
    return Statement(
        "writing what the unit of work has collected",
        select((literal_column("1", Integer) / complete).label("complete")),
    )


def _new_rows(table: Table) -> FromClause:
    """The rows in the array parameters, one for each column of the table."""
    # Subqueries hide the lengths of the arrays, which would make PostgreSQL plan the statement anew for each call.
    arrays = func.unnest(*(select(_array(each)).scalar_subquery() for each in table.columns))
    rows = arrays.table_valued(
        *(column(each.name, each.type) for each in table.columns), name="arrays"
    ).render_derived("arrays")
    values = (
        cast(rows.c[each.name], each.type) if _is_text(each.type) else rows.c[each.name]
        for each in table.columns
    )
    labelled = (value.label(each.name) for value, each in zip(values, table.columns, strict=True))
    return select(*labelled).subquery(f"new_{table.name}")


def _array(of: Column[Any]) -> Any:
    """The array parameter of a column."""
    if isinstance(of.type, EmbeddingVector):
        return cast(param(_name(of), _VectorArray()), _VectorArray())
    return param(_name(of), ARRAY(Text() if _is_text(of.type) else of.type))


def _is_text(type_: TypeEngine[Any]) -> bool:
    """Return True for arrays, whose dimensions would all be unnested, and for documents, which are text already."""
    return isinstance(type_, ARRAY | JSON | Document)


def _name(of: Column[Any]) -> str:
    return f"{of.table.name}__{of.name}"


def _encoder(type_: TypeEngine[Any]) -> Callable[[Any], Any]:
    if isinstance(type_, EmbeddingVector):
        # asyncpg would take a list of lists for a matrix.
        return lambda vector: None if vector is None else encode_vector(vector)
    return _array_literal if isinstance(type_, ARRAY) else lambda value: value


def _array_literal(elements: Iterable[Any] | None) -> str | None:
    if elements is None:
        return None
    escaped = (str(element).replace("\\", "\\\\").replace('"', '\\"') for element in elements)
    return "{" + ",".join(f'"{element}"' for element in escaped) + "}"


@cache
def _positions() -> dict[str, int]:
    return {table.name: position for position, table in enumerate(Base.metadata.sorted_tables)}


def _position(insertion: Insertion) -> tuple[int, str]:
    """Tables come after those that they refer to."""
    return _positions()[insertion.table.name], insertion.table.name


class _VectorArray(UserDefinedType[list[bytes]]):
    """An array of vectors of any length. The columns that they are inserted into check their length."""

    cache_ok = True

    def get_col_spec(self, **_kw: Any) -> str:
        """The type in SQL."""
        return f"{quoted(ddl_options().extensions_schema)}.vector[]"
