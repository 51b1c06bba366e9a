"""Rules for generated migrations: they can be run again, create policies, and build indexes concurrently."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any, Literal

import pgvector.sqlalchemy
from alembic.autogenerate.api import AutogenContext
from alembic.operations import ops
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Column, Enum, MetaData
from sqlalchemy.schema import SchemaItem

from soldier_data.migrations.comparison import compare_type
from soldier_data.migrations.enums import with_enums
from soldier_data.migrations.ownership import include_own_tables
from soldier_data.migrations.policies import is_tenants
from soldier_data.migrations.source import (
    ConcurrentIndexOp,
    SourceOp,
    VectorIndexOp,
    policies_of,
    storage_of,
    vector_index_of,
)
from soldier_data.postgres.orm import Document, EmbeddingVector, column_storage

# Revision ids that Alembic generates unless `--rev-id` is given.
_RANDOM_REVISION = re.compile(r"[0-9a-f]{12}")


def configure_comparison(metadata: MetaData) -> dict[str, Any]:
    """Return the arguments of `context.configure` for autogenerate."""
    return {
        "target_metadata": metadata,
        "include_name": include_own_tables,
        "compare_type": compare_type,
        "compare_server_default": True,
        "render_item": render_item,
        "process_revision_directives": _write,
    }


def render_item(kind: str, item: Any, autogen_context: AutogenContext) -> str | Literal[False]:
    """Return the code of a type that Alembic does not render correctly; False leaves an item to Alembic."""
    if kind == "type" and isinstance(item, Document):
        autogen_context.imports.add("from sqlalchemy.dialects import postgresql")
        return "postgresql.JSON(astext_type=sa.Text())"
    if kind == "type" and isinstance(item, EmbeddingVector):
        autogen_context.imports.add("from soldier_data.postgres.orm import EmbeddingVector")
        return "EmbeddingVector()"
    if kind == "type" and isinstance(item, pgvector.sqlalchemy.VECTOR):
        autogen_context.imports.add("from soldier_data.postgres.orm import EmbeddingVector")
        return f"EmbeddingVector({item.dim or ''})"
    if kind == "type" and isinstance(item, Enum) and item.native_enum:
        autogen_context.imports.add("from sqlalchemy.dialects import postgresql")
        values = ", ".join(map(repr, item.enums))
        return f"postgresql.ENUM({values}, name={item.name!r}, create_type=False)"
    if kind == "type" and type(item).__module__.startswith("pgvector."):
        autogen_context.imports.add("import pgvector.sqlalchemy")
    return False


def _write(context: MigrationContext, _revision: Any, directives: list[ops.MigrationScript]) -> None:
    for script in directives:
        if _RANDOM_REVISION.fullmatch(script.rev_id or ""):
            script.rev_id = _next_revision(context)
        for container in (script.upgrade_ops, script.downgrade_ops):
            assert container is not None
            new_tables = {item.table_name for item in container.ops if isinstance(item, ops.CreateTableOp)}
            written = list(_rewritten(container.ops, new_tables))
            # Last, because building an index concurrently commits the operations before it.
            written.sort(key=lambda item: isinstance(item, ConcurrentIndexOp | VectorIndexOp))
            container.ops = with_enums(container.ops, written)


def _next_revision(context: MigrationContext) -> str:
    """Return the number after the greatest existing one: 0010 after 0009."""
    environment = context.environment_context
    assert environment is not None
    numbers = [
        int(known.revision) for known in environment.script.walk_revisions() if known.revision.isdigit()
    ]
    return f"{max(numbers, default=0) + 1:04d}"


def _rewritten(
    operations: Iterable[ops.MigrateOperation], new_tables: set[str]
) -> Iterator[ops.MigrateOperation]:
    for item in operations:
        match item:
            case ops.ModifyTableOps():
                yield from _rewritten(item.ops, new_tables)
            case ops.CreateTableOp():
                item.if_not_exists = True
                yield item
                yield from _storage_of_new(item.table_name, item.columns)
                if is_tenants(item.columns):
                    yield policies_of(item.table_name, difference=f"row-level security of {item.table_name}")
            case ops.AddColumnOp():
                item.if_not_exists = True
                yield item
                yield from _storage_of_new(item.table_name, [item.column])
            case ops.AlterColumnOp() if isinstance(item.modify_type, EmbeddingVector):
                yield item
                # Changing the type resets the storage.
                yield from _storage_of_new(item.table_name, [Column(item.column_name, item.modify_type)])
            case ops.CreateIndexOp() if built := vector_index_of(item):
                yield built
            case ops.CreateIndexOp() if item.table_name not in new_tables:
                yield ConcurrentIndexOp.from_index(item.to_index())
            case ops.CreateIndexOp():
                item.if_not_exists = True
                yield item
            case ops.AddConstraintOp():
                dropped = item.reverse()
                assert isinstance(dropped, ops.DropConstraintOp)
                # PostgreSQL has no IF NOT EXISTS for constraints.
                dropped.if_exists = True
                yield dropped
                yield item
            case ops.DropTableOp() | ops.DropIndexOp() | ops.DropColumnOp() | ops.DropConstraintOp():
                item.if_exists = True
                yield item
            case _:
                yield item


def _storage_of_new(table: str, items: Iterable[SchemaItem]) -> Iterator[SourceOp]:
    for item in items:
        if isinstance(item, Column) and column_storage(item):
            yield storage_of(table, item)
