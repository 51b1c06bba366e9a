"""Generates docs/schema.md from the metadata."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator

from sqlalchemy import Column, ForeignKeyConstraint, Index, Table
from sqlalchemy.dialects import postgresql
from sqlalchemy.schema import CreateIndex

from soldier_data.postgres.orm import Base, EmbeddingVector
from soldier_data.schema import metadata_with_vector_indexes

_LENGTH = re.compile(r"[\w.]*HALFVEC\(\d+\)")

_DIALECT = postgresql.dialect()  # type: ignore[no-untyped-call]  # SQLAlchemy's dialects have no types.


def schema_page() -> str:
    """Return the page as Markdown: a Mermaid diagram of the foreign keys, and the columns and indexes of each table."""
    tables = sorted(metadata_with_vector_indexes().tables.values(), key=lambda table: table.name)
    lines = [
        "# The schema",
        "",
        "Generated from the ORM models by `soldier-data db document > docs/schema.md`; a test compares them.",
        "",
        "Every table has a row-level-security policy that shows only the rows of the tenant in `app.tenant_id`.",
        "*N* is the number of dimensions of embeddings, `SOLDIER_EMBEDDING_DIMENSIONS`. `SOLDIER_VECTOR_INDEX` selects",
        "the type of their indexes.",
        "",
        "```mermaid",
        "erDiagram",
        *(line for table in tables for line in _entity(table)),
        *(_relation(table, key) for table in tables for key in _foreign_keys(table)),
        "```",
    ]
    for table in tables:
        lines += ["", f"## {table.name}", "", *_description(table), *_columns(table), *_indexes(table)]
    return "\n".join(lines) + "\n"


def _entity(table: Table) -> Iterator[str]:
    yield f"    {table.name} {{"
    linked = {column.name for key in _foreign_keys(table) for column in key.columns}
    for column in table.columns:
        marks = [mark for mark, is_so in (("PK", column.primary_key), ("FK", column.name in linked)) if is_so]
        if marks:
            # Mermaid allows no spaces in a type.
            yield f"        {_type(column).replace(' ', '_')} {column.name} {','.join(marks)}"
    yield "    }"


def _relation(table: Table, key: ForeignKeyConstraint) -> str:
    columns = ", ".join(column.name for column in key.columns if column.name != "tenant_id")
    return f'    {key.referred_table.name} ||--o{{ {table.name} : "{columns}"'


def _description(table: Table) -> list[str]:
    text = next((row.__doc__ for row in _rows() if row.__tablename__ == table.name), None)
    return [*inspect.cleandoc(text or "").partition("\n\n")[0].splitlines(), ""]


def _columns(table: Table) -> Iterator[str]:
    yield "| column | type | null | key |"
    yield "| --- | --- | --- | --- |"
    keys = {
        column.name: key.referred_table.name
        for key in _foreign_keys(table)
        for column in key.columns
        if column.name != "tenant_id"
    }
    for column in table.columns:
        key = "primary" if column.primary_key else ""
        if column.name in keys:
            key = f"{key}, {keys[column.name]}".removeprefix(", ")
        yield f"| {column.name} | {_type(column)} | {'yes' if column.nullable else 'no'} | {key} |"


def _indexes(table: Table) -> Iterator[str]:
    indexes = sorted(table.indexes, key=lambda index: str(index.name))
    if indexes:
        yield ""
    for index in indexes:
        yield f"- `{_definition(index)}`"


def _definition(index: Index) -> str:
    text = str(CreateIndex(index).compile(dialect=_DIALECT))
    return _LENGTH.sub("halfvec(N)", " ".join(text.split()).removeprefix("CREATE "))


def _type(column: Column[object]) -> str:
    if isinstance(column.type, EmbeddingVector):
        return "vector(N)"
    return str(column.type.compile(dialect=_DIALECT)).lower().replace(" with time zone", "tz")


def _foreign_keys(table: Table) -> list[ForeignKeyConstraint]:
    return sorted(table.foreign_key_constraints, key=lambda key: str(key.name))


def _rows() -> list[type[Base]]:
    return [mapper.class_ for mapper in Base.registry.mappers]
