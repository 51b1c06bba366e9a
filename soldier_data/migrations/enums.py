"""Enumerated types of PostgreSQL, which Alembic neither creates with a new column nor compares.

The tables of this package store enums as text, which the entities validate. These operations are for columns that are
declared with SQLAlchemy's `Enum`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from alembic import op
from alembic.operations import ops
from sqlalchemy import Column, Enum, Table, text
from sqlalchemy.dialects.postgresql import ENUM
from sqlalchemy.dialects.postgresql.named_types import CreateEnumType
from sqlalchemy.schema import SchemaItem

from soldier_data.migrations.source import SourceOp
from soldier_data.postgres.statements import quoted


def create_enum(name: str, *values: str) -> None:
    """Create an enumerated type unless it exists."""
    enum = ENUM(*values, name=name)
    if op.get_context().as_sql:
        op.execute(CreateEnumType(enum))
    else:
        enum.create(op.get_bind(), checkfirst=True)


def add_enum_value(name: str, value: str, *, after: str | None = None, before: str | None = None) -> None:
    """Add a value to an enumerated type unless it exists: after or before another value, by default at the end."""
    place = f" AFTER {_literal(after)}" if after else f" BEFORE {_literal(before)}" if before else ""
    op.execute(text(f"ALTER TYPE {quoted(name)} ADD VALUE IF NOT EXISTS {_literal(value)}{place}"))


def drop_enum(name: str) -> None:
    """Drop an enumerated type unless a column still uses it."""
    op.execute(
        text(
            f"DO $$ BEGIN DROP TYPE IF EXISTS {quoted(name)}; "
            "EXCEPTION WHEN dependent_objects_still_exist THEN NULL; END $$"
        )
    )


def enums_of(items: Iterable[SchemaItem]) -> list[Enum]:
    """Return the distinct enumerated types of the columns among `items`."""
    found = {
        item.type.name: item.type
        for item in items
        if isinstance(item, Column) and isinstance(item.type, Enum) and item.type.native_enum
    }
    return list(found.values())


def with_enums(
    operations: Iterable[ops.MigrateOperation], written: Iterable[ops.MigrateOperation]
) -> list[ops.MigrateOperation]:
    """Return `written`, the rewritten `operations`, with the types that they create before and drop after them."""
    created, dropped = _columns(operations)
    # Each table that uses a type reports the values that the type lacks.
    distinct = {item.difference if isinstance(item, SourceOp) else item: item for item in written}
    return [
        *(_source(f"enum {enum.name}", "create_enum", enum.name, *enum.enums) for enum in enums_of(created)),
        *distinct.values(),
        *(_source(f"enum {enum.name}", "drop_enum", enum.name) for enum in enums_of(dropped)),
    ]


def values_to_add(present: Table, expected: Table) -> Iterator[SourceOp]:
    """Yield operations for the values that types of the database lack. PostgreSQL cannot remove surplus values."""
    for enum in enums_of(column for column in expected.columns if column.name in present.columns):
        found = next((item for item in enums_of(present.columns) if item.name == enum.name), enum)
        for position, value in enumerate(enum.enums):
            if value not in found.enums:
                place = {"after": enum.enums[position - 1]} if position else {"before": found.enums[0]}
                difference = f"value {value!r} of enum {enum.name}"
                yield _source(difference, "add_enum_value", enum.name, value, **place)


def _columns(operations: Iterable[ops.MigrateOperation]) -> tuple[list[SchemaItem], list[SchemaItem]]:
    """Return the columns that are created, and those that are dropped."""
    created: list[SchemaItem] = []
    dropped: list[SchemaItem] = []
    for item in operations:
        match item:
            case ops.ModifyTableOps():
                inner_created, inner_dropped = _columns(item.ops)
                created += inner_created
                dropped += inner_dropped
            case ops.CreateTableOp():
                created += item.columns
            case ops.AddColumnOp():
                created.append(item.column)
            case ops.DropTableOp() | ops.DropColumnOp():
                dropped += _columns([item.reverse()])[0]
    return created, dropped


def _source(difference: str, operation: str, *values: str | None, **places: str) -> SourceOp:
    arguments = [*map(repr, values), *(f"{name}={value!r}" for name, value in places.items())]
    line = f"{operation}({', '.join(arguments)})"
    return SourceOp(difference, [line], [], (f"from soldier_data.migrations import {operation}",))


def _literal(value: str | None) -> str:
    # SQLAlchemy would read a colon as the beginning of a parameter.
    return "'" + str(value).replace("'", "''").replace(":", "\\:") + "'"
