"""The PostgreSQL extensions that the tables need, and their schema."""

from __future__ import annotations

import re

from alembic.operations import ops
from sqlalchemy import Connection, Index, text

from soldier_data.errors import ConfigurationError
from soldier_data.postgres.ddl import ddl_options
from soldier_data.postgres.statements import quoted
from soldier_data.settings import Settings

OLDEST_PGVECTOR = (0, 8)

_STATE = text(
    "SELECT a.name, a.default_version, a.installed_version, n.nspname AS schema, "
    # Trusted extensions need only CREATE on the database.
    "(SELECT rolsuper FROM pg_roles WHERE rolname = current_user) OR v.trusted "
    "AND has_database_privilege(current_database(), 'CREATE') AS may_create "
    "FROM pg_available_extensions a "
    "JOIN pg_available_extension_versions v ON v.name = a.name AND v.version = a.default_version "
    "LEFT JOIN pg_extension e ON e.extname = a.name LEFT JOIN pg_namespace n ON n.oid = e.extnamespace "
    "WHERE a.name IN ('vector', 'pg_trgm')"
)

# Operator classes of extensions. PostgreSQL's own need no schema.
_OPERATOR_CLASS = re.compile(
    r"(vector|halfvec|sparsevec)(_\w+)?_ops|bit_(hamming|jaccard)_ops|(gin|gist)_trgm_ops"
)


def check_extensions(connection: Connection, settings: Settings) -> None:
    """Check that the extensions exist or can be created.

    Raises:
        ConfigurationError: An extension is missing, too old or in a different schema, or the role may not create it.
    """
    found = {row.name: row for row in connection.execute(_STATE)}
    for name, package in (("vector", "pgvector"), ("pg_trgm", "PostgreSQL's contrib modules")):
        row = found.get(name)
        if row is None:
            raise ConfigurationError(
                f"the extension {name} is not installed on the database server: install {package} there "
                "(see docs/operations.md)"
            )
        if row.installed_version is None and not row.may_create:
            raise ConfigurationError(
                f"the database role may not create the extension {name}: have a superuser run "
                f"`CREATE EXTENSION {name}` in this database, then run it again"
            )
        if row.schema not in (None, settings.extensions_schema):
            raise ConfigurationError(
                f"the extension {name} is in the schema {row.schema}, but SOLDIER_EXTENSIONS_SCHEMA is "
                f"{settings.extensions_schema}: set it to the schema of vector and pg_trgm, which must be the same "
                "(`ALTER EXTENSION ... SET SCHEMA ...` moves an extension)"
            )
        version = row.installed_version or row.default_version
        if name == "vector" and version_tuple(version) < OLDEST_PGVECTOR:
            remedy = (
                "run `ALTER EXTENSION vector UPDATE` in this database"
                if version_tuple(row.default_version) >= OLDEST_PGVECTOR
                else "install pgvector 0.8 or later on the database server"
            )
            raise ConfigurationError(f"pgvector {version} is too old, 0.8 or later is required: {remedy}")


def name_operator_classes_with_schema(index: Index) -> Index:
    """Return a copy of `index` for DDL whose extension operator classes are qualified with their schema."""
    copy = ops.CreateIndexOp.from_index(index).to_index()
    options = copy.dialect_options["postgresql"]
    options["ops"] = {
        column: in_extensions(name) if _OPERATOR_CLASS.fullmatch(name) else name
        for column, name in options["ops"].items()
    }
    return copy


def in_extensions(name: str) -> str:
    """Return `name`, the name of an object of an extension, qualified with the extensions' schema."""
    return f"{quoted(ddl_options().extensions_schema)}.{name}"


def version_tuple(version: str) -> tuple[int, ...]:
    """Return the numbers of a version, to compare it with others."""
    return tuple(int(part) for part in version.split(".") if part.isdigit())
