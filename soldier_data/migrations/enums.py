"""Enumerated types of PostgreSQL, which Alembic neither makes with a new column nor compares.

The tables of the package keep enums as text, which their entities check; these are for columns that say otherwise.
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


def create_enum(name: str, *values: str) -> None:
    """Make an enumerated type, unless it is there."""
    made = ENUM(*values, name=name)
    if op.get_context().as_sql:
        op.execute(CreateEnumType(made))
    else:
        made.create(op.get_bind(), checkfirst=True)


def add_enum_value(name: str, value: str, *, after: str | None = None, before: str | None = None) -> None:
    """Add a value to an enumerated type, unless it has it. Neither `after` nor `before`: as the last one."""
    place = f" AFTER {_literal(after)}" if after else f" BEFORE {_literal(before)}" if before else ""
    op.execute(text(f"ALTER TYPE {_quoted(name)} ADD VALUE IF NOT EXISTS {_literal(value)}{place}"))


def drop_enum(name: str) -> None:
    """Drop an enumerated type, unless another column is of it."""
    op.execute(
        text(
            f"DO $$ BEGIN DROP TYPE IF EXISTS {_quoted(name)}; "
            "EXCEPTION WHEN dependent_objects_still_exist THEN NULL; END $$"
        )
    )


def enums_of(items: Iterable[SchemaItem]) -> list[Enum]:
    """The enumerated types of columns, each once."""
    found = {
        item.type.name: item.type
        for item in items
        if isinstance(item, Column) and isinstance(item.type, Enum) and item.type.native_enum
    }
    return list(found.values())


def with_enums(
    operations: Iterable[ops.MigrateOperation], written: Iterable[ops.MigrateOperation]
) -> list[ops.MigrateOperation]:
    """What is `written` for `operations`, and around it the types that their columns need and leave behind."""
    made, dropped = _columns(operations)
    # Each table that shares a type sees the values that the type lacks.
    once = {item.says if isinstance(item, SourceOp) else item: item for item in written}
    return [
        *(_source(f"enum {enum.name}", "create_enum", enum.name, *enum.enums) for enum in enums_of(made)),
        *once.values(),
        *(_source(f"enum {enum.name}", "drop_enum", enum.name) for enum in enums_of(dropped)),
    ]


def values_to_add(present: Table, wanted: Table) -> Iterator[SourceOp]:
    """Values that types of the database lack. One that it has beyond them stays: PostgreSQL cannot take it away."""
    for enum in enums_of(column for column in wanted.columns if column.name in present.columns):
        found = next((item for item in enums_of(present.columns) if item.name == enum.name), enum)
        for position, value in enumerate(enum.enums):
            if value not in found.enums:
                place = {"after": enum.enums[position - 1]} if position else {"before": found.enums[0]}
                says = f"value {value!r} of enum {enum.name}"
                yield _source(says, "add_enum_value", enum.name, value, **place)


def _columns(operations: Iterable[ops.MigrateOperation]) -> tuple[list[SchemaItem], list[SchemaItem]]:
    """The columns that are made, and those that are dropped."""
    made: list[SchemaItem] = []
    dropped: list[SchemaItem] = []
    for item in operations:
        match item:
            case ops.ModifyTableOps():
                inner_made, inner_dropped = _columns(item.ops)
                made += inner_made
                dropped += inner_dropped
            case ops.CreateTableOp():
                made += item.columns
            case ops.AddColumnOp():
                made.append(item.column)
            case ops.DropTableOp() | ops.DropColumnOp():
                dropped += _columns([item.reverse()])[0]
    return made, dropped


def _source(says: str, operation: str, *values: str | None, **places: str) -> SourceOp:
    arguments = [*map(repr, values), *(f"{name}={value!r}" for name, value in places.items())]
    line = f"{operation}({', '.join(arguments)})"
    return SourceOp(says, [line], [], (f"from soldier_data.migrations import {operation}",))


def _literal(value: str | None) -> str:
    # A colon would begin a parameter.
    return "'" + str(value).replace("'", "''").replace(":", "\\:") + "'"


def _quoted(name: str) -> str:
    return op.get_context().dialect.identifier_preparer.quote(name)
