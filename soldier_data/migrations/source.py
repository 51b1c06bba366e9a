"""Autogenerate operations that are rendered as calls of this package's own operations."""

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
        difference: The difference that the lines remove, as `alembic check` reports it.
        up: Lines of the upgrade.
        down: Lines of the downgrade.
        imports: Import statements for both.
    """

    def __init__(
        self, difference: str, up: list[str], down: list[str], imports: tuple[str, ...] = ()
    ) -> None:
        self.difference = difference
        self.up = up
        self.down = down
        self.imports = imports

    def reverse(self) -> SourceOp:
        """Return the operation with upgrade and downgrade exchanged."""
        return SourceOp(self.difference, self.down, self.up, self.imports)

    def to_diff_tuple(self) -> tuple[Any, ...]:
        """Return the entry for the report of `alembic check`."""
        return ("differs", self.difference)


class ConcurrentIndexOp(ops.CreateIndexOp):
    """Creation of an index on an existing table, rendered as `create_index_concurrently`."""


class VectorIndexOp(SourceOp):
    """Creation of a vector index, whose type the settings select when the migration runs."""


def vector_index_of(create: ops.CreateIndexOp) -> VectorIndexOp | None:
    """Return the operation for a vector index; None for any other index. Alembic's own operation drops it."""
    table, name = create.table_name, create.index_name or ""
    kind = create.kw.get("postgresql_using")
    column = name.removeprefix(f"ix_{table}_").removesuffix(f"_{kind}")
    if kind not in VECTOR_INDEX_KINDS or name != vector_index_name(table, column, kind):
        return None
    living = create.kw.get("postgresql_where") is not None
    up = [f"create_vector_index({table!r}, {column!r}, living={living})"]
    return VectorIndexOp(f"index {name}", up, [], _import("create_vector_index"))


def policies_of(table: str, *, difference: str) -> SourceOp:
    """Return the operation that creates the tenant policy of `table`. Dropping the table undoes it."""
    return SourceOp(difference, [f"isolate_tenants({table!r})"], [], _import("isolate_tenants"))


def storage_of(
    table: str, column: Column[Any], *, usual: str | None = None, instead_of: str | None = None
) -> SourceOp:
    """Return the operation that sets the storage of a column, `usual` if the column declares none.

    The downgrade restores `instead_of`; with None, for a new column, it does nothing.
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
    """Return the operation that replaces a check constraint or primary key; None as `new` drops it."""
    drop = _execute(f'ALTER TABLE {table} DROP CONSTRAINT IF EXISTS "{name}"')
    up, down = (
        [drop]
        if definition is None
        else [drop, _execute(f'ALTER TABLE {table} ADD CONSTRAINT "{name}" {definition}')]
        for definition in (new, old)
    )
    return SourceOp(f"constraint {name} of {table}", up, down)


def drop_policy(table: str, policy: str) -> SourceOp:
    """Return the operation that drops a policy which the models do not define."""
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
