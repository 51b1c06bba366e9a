"""Telling the tables of this package from those of other applications in the same schema."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, Row, Table, text

from soldier_data.errors import ConfigurationError
from soldier_data.migrations.scripts import head_revision, script_directory
from soldier_data.schema import metadata
from soldier_data.settings import Settings

_SEPARATE = (
    "Set SOLDIER_VERSION_TABLE to a different name, such as soldier_data_version, or SOLDIER_DATABASE_SCHEMA to a "
    "schema for the tables of soldier-data alone"
)

# Autogenerate writes both operations this way, and ruff changes the quotes.
_OPERATION = re.compile(r"""\bop\.(create|drop)_table\(\s*["'](\w+)""")
# Autogenerate numbers the revisions of this package, and random ones have 12 hexadecimal digits.
_NUMBER = re.compile(r"\d{4,11}")

_VERSION_COLUMNS = ["version_num"]

_RELATIONS = text(
    "SELECT c.relname AS name, CAST(c.relkind AS text) IN ('r', 'p') AS is_table, "
    "ARRAY(SELECT CAST(attname AS text) FROM pg_attribute WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped) "
    "AS columns, "
    "ARRAY(SELECT CAST(a.attname AS text) FROM pg_index i JOIN pg_attribute a ON a.attrelid = c.oid "
    "AND a.attnum = ANY(i.indkey) WHERE i.indrelid = c.oid AND i.indisprimary) AS key "
    "FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
    "WHERE n.nspname = :schema AND c.relkind NOT IN ('i', 'I')"
)


def include_object(
    item: Any,
    name: str | None,  # noqa: ARG001 - Alembic passes it.
    type_: str,
    reflected: bool,  # noqa: ARG001 - Alembic passes it.
    compare_to: Any,
) -> bool:
    """Return False for the tables of this package, with their columns, indexes and constraints; True for all others.

    Pass it to `context.configure` in the env.py of an application whose tables are in the same schema: autogenerate
    then leaves the tables of this package alone. Together with a filter of the application:

        def include(*arguments):
            return include_object(*arguments) and my_filter(*arguments)

    Version tables of Alembic, this package's or others, are left alone too. Tables are recognised by their name,
    primary key and columns, so that the schema and the settings do not matter.
    """
    candidates = (item, compare_to) if type_ == "table" else (getattr(item, "table", None),)
    return not any(_is_own_or_version_table(table) for table in candidates if isinstance(table, Table))


def include_own_tables(
    name: str | None,
    type_: str,
    parent_names: Mapping[Any, Any],  # noqa: ARG001 - Alembic passes it.
) -> bool:
    """Return False for tables of other applications: those neither in the models nor created by a migration.

    A table that was removed from the models is still compared, so that autogenerate drops it. This is the argument
    `include_name` of `context.configure`.
    """
    return type_ != "table" or name in metadata.tables or name in _tables_by_revision()[head_revision()]


def own_revision(connection: Connection, settings: Settings, operation: str) -> str | None:
    """Return the revision of the database; None if no migration has been run.

    Raises:
        ConfigurationError: The version table belongs to another application, or the database is newer than this
            package.
    """
    table = settings.version_table
    relations = _relations(connection, settings)
    if table not in relations:
        return None
    if relations[table].columns != _VERSION_COLUMNS:
        raise ConfigurationError(
            f"{operation}: {settings.database_schema}.{table} is not a version table. {_SEPARATE}"
        )
    context = MigrationContext.configure(
        connection, opts={"version_table": table, "version_table_schema": settings.database_schema}
    )
    revisions = context.get_current_heads()
    # Read again after the revision, because another process may be creating the tables.
    relations = _relations(connection, settings)
    if not all(_is_own_revision(revision, relations.values(), table) for revision in revisions):
        raise ConfigurationError(
            f"{operation}: {settings.database_schema}.{table} is the version table of another application, which is at "
            f"revision {', '.join(revisions)}. {_SEPARATE}"
        )
    for revision in revisions:
        if revision not in _tables_by_revision():
            raise ConfigurationError(
                f"{operation}: the database is at revision {revision}, which this package does not have: a newer "
                "soldier-data migrated it. Install that version or a later one"
            )
    return revisions[0] if revisions else None


def check_names(connection: Connection, settings: Settings, revision: str | None, operation: str) -> None:
    """Check that no table of another application has the name of a table that migrations after `revision` create.

    Raises:
        ConfigurationError: Some have; the message names them.
    """
    tables = _tables_by_revision()
    pending = list(tables.values())[list(tables).index(revision) :]
    created = frozenset[str]().union(*pending) - tables[revision]
    taken = sorted(
        name
        for name, relation in _relations(connection, settings).items()
        if name in created and not _is_own(relation)
    )
    if taken:
        raise ConfigurationError(
            f"{operation}: the schema {settings.database_schema} already contains {', '.join(taken)}, not created by "
            "soldier-data: rename it, or set SOLDIER_DATABASE_SCHEMA to a schema for the tables of soldier-data alone"
        )


@cache
def _tables_by_revision() -> dict[str | None, frozenset[str]]:
    """Return the names of the tables that exist after each revision, oldest first, beginning with None for none."""
    existing: set[str] = set()
    found: dict[str | None, frozenset[str]] = {None: frozenset()}
    for script in reversed(list(script_directory().walk_revisions())):
        upgrade = Path(script.path).read_text(encoding="utf-8").partition("\ndef downgrade(")[0]
        for operation, name in _OPERATION.findall(upgrade):
            (existing.add if operation == "create" else existing.discard)(name)
        found[script.revision] = frozenset(existing)
    return found


def _relations(connection: Connection, settings: Settings) -> dict[str, Row[Any]]:
    """Return the tables, views and sequences in the schema of the tables, by name."""
    rows = connection.execute(_RELATIONS, {"schema": settings.database_schema})
    return {row.name: row for row in rows}


def _is_own_revision(revision: str, relations: Collection[Row[Any]], version_table: str) -> bool:
    """Return True if this package recorded `revision`; another application may number its revisions too."""
    tables = _tables_by_revision().get(revision)
    if tables is None and not _NUMBER.fullmatch(revision):
        return False
    if any(_is_own(relation) for relation in relations):
        return True
    # The first revision creates no table. Its version table is this package's if nobody else uses the schema.
    others = {row.name for row in relations if row.is_table} - {version_table}
    return tables is not None and not tables and not others


def _is_own(relation: Row[Any]) -> bool:
    return relation.is_table and _matches_model(relation.name, relation.key, relation.columns)


def _is_own_or_version_table(table: Table) -> bool:
    columns = table.columns.keys()
    return columns == _VERSION_COLUMNS or _matches_model(
        table.name, table.primary_key.columns.keys(), columns
    )


def _matches_model(name: str, key: Iterable[str], columns: Collection[str]) -> bool:
    """Return True for a table of this package, which may lack columns of later revisions or have additional ones."""
    model = metadata.tables.get(name)
    return (
        model is not None
        and set(key) == set(model.primary_key.columns.keys())
        and 2 * len(set(columns) & set(model.columns.keys())) > len(model.columns)
    )
