"""An operation of generated migrations that is more than one of Alembic's own."""

from __future__ import annotations

from typing import Any

from alembic.autogenerate import render_op_text, renderers
from alembic.autogenerate.api import AutogenContext
from alembic.operations import ops
from sqlalchemy import Column

from soldier_data.postgres.orm import EmbeddingVector
from soldier_data.postgres.vector_index import VECTOR_INDEX_KINDS, vector_index_name


class SourceOp(ops.MigrateOperation):
    """Lines of Python in a generated migration.

    Attributes:
        says: What differs, for `alembic check`.
        up: The lines.
        down: The lines that undo them.
        imports: What the lines need.
    """

    def __init__(self, says: str, up: list[str], down: list[str], imports: tuple[str, ...] = ()) -> None:
        self.says = says
        self.up = up
        self.down = down
        self.imports = imports

    def reverse(self) -> SourceOp:
        """The same backwards."""
        return SourceOp(self.says, self.down, self.up, self.imports)

    def to_diff_tuple(self) -> tuple[Any, ...]:
        """How `alembic check` reports it."""
        return ("differs", self.says)


class ConcurrentIndexOp(ops.CreateIndexOp):
    """An index on a table that is in use."""


class VectorIndexOp(SourceOp):
    """An index of embeddings, as the settings choose when the migration runs."""


def vector_index_of(create: ops.CreateIndexOp) -> VectorIndexOp | None:
    """The operation that builds the index, if it is the vector index of a column; dropping it is Alembic's own."""
    table, name = create.table_name, create.index_name or ""
    kind = create.kw.get("postgresql_using")
    column = name.removeprefix(f"ix_{table}_").removesuffix(f"_{kind}")
    if kind not in VECTOR_INDEX_KINDS or name != vector_index_name(table, column, kind):
        return None
    living = create.kw.get("postgresql_where") is not None
    up = [f"create_vector_index({table!r}, {column!r}, living={living})"]
    return VectorIndexOp(f"index {name}", up, [], _import("create_vector_index"))


def policies_of(table: str, *, says: str) -> SourceOp:
    """The tenant policy of `table`. Undoing it is left to dropping the table: no revision went without it."""
    return SourceOp(says, [f"isolate_tenants({table!r})"], [], _import("isolate_tenants"))


def storage_of(
    table: str, column: Column[Any], *, usual: str | None = None, instead_of: str | None = None
) -> SourceOp:
    """The storage of a column, `usual` if it declares none.

    Undoing it brings back `instead_of`, or is left to dropping a column that is new.
    """
    arguments = f"{table!r}, {column.name!r}"
    storage = column.info.get("storage", usual)
    vector = isinstance(column.type, EmbeddingVector)
    return SourceOp(
        f"storage of {table}.{column.name}",
        [f"set_storage({arguments})" if vector else f"set_storage({arguments}, {storage!r})"],
        [] if instead_of is None else [f"set_storage({arguments}, {instead_of!r})"],
        _import("set_storage"),
    )


def changed_constraint(table: str, name: str, old: str | None, new: str | None) -> SourceOp:
    """A check or primary key becomes the definition `new`, or goes."""
    drop = _execute(f'ALTER TABLE {table} DROP CONSTRAINT IF EXISTS "{name}"')
    up, down = (
        [drop]
        if wanted is None
        else [drop, _execute(f'ALTER TABLE {table} ADD CONSTRAINT "{name}" {wanted}')]
        for wanted in (new, old)
    )
    return SourceOp(f"constraint {name} of {table}", up, down)


def without_policy(table: str, policy: str) -> SourceOp:
    """A policy that the models do not know is dropped."""
    return SourceOp(
        f"policy {policy} of {table}", [_execute(f'DROP POLICY IF EXISTS "{policy}" ON {table}')], []
    )


def _import(operation: str) -> tuple[str, ...]:
    return (f"from soldier_data.migrations import {operation}",)


def _execute(statement: str) -> str:
    return f"op.execute({statement!r})"


@renderers.dispatch_for(SourceOp)
def _render_source(autogen_context: AutogenContext, operation: SourceOp) -> list[str]:
    if operation.up:
        autogen_context.imports.update(operation.imports)
    return operation.up


@renderers.dispatch_for(ConcurrentIndexOp)
def _render_concurrent_index(autogen_context: AutogenContext, operation: ConcurrentIndexOp) -> str:
    autogen_context.imports.add("from soldier_data.migrations import create_index_concurrently")
    plain = render_op_text(autogen_context, ops.CreateIndexOp.from_index(operation.to_index()))
    return plain.replace("op.create_index(", "create_index_concurrently(", 1)
