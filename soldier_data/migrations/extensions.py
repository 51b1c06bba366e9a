"""The extensions of PostgreSQL that the tables need."""

from __future__ import annotations

from sqlalchemy import Connection, text

from soldier_data.errors import ConfigurationError

_OLDEST_PGVECTOR = (0, 8)

_STATE = text(
    "SELECT a.name, a.default_version, a.installed_version, "
    # Trusted extensions take no more than CREATE on the database.
    "(SELECT rolsuper FROM pg_roles WHERE rolname = current_user) OR v.trusted "
    "AND has_database_privilege(current_database(), 'CREATE') AS may_create "
    "FROM pg_available_extensions a "
    "JOIN pg_available_extension_versions v ON v.name = a.name AND v.version = a.default_version "
    "WHERE a.name IN ('vector', 'pg_trgm')"
)


def check_extensions(connection: Connection) -> None:
    """See that the extensions are there or can be created.

    Raises:
        ConfigurationError: One is missing or too old, or the role may not create it; the message says what to do.
    """
    found = {row.name: row for row in connection.execute(_STATE)}
    for name, package in (("vector", "pgvector"), ("pg_trgm", "PostgreSQL's contrib modules")):
        row = found.get(name)
        if row is None:
            raise ConfigurationError(
                f"the extension {name} is not installed on the database server: install {package} there "
                "(docs/operations.md says how)"
            )
        if row.installed_version is None and not row.may_create:
            raise ConfigurationError(
                f"the database role may not create the extension {name}: have a superuser run "
                f"`CREATE EXTENSION {name}` in this database, then run it again"
            )
        version = row.installed_version or row.default_version
        if name == "vector" and _numbers(version) < _OLDEST_PGVECTOR:
            remedy = (
                "run `ALTER EXTENSION vector UPDATE` in this database"
                if _numbers(row.default_version) >= _OLDEST_PGVECTOR
                else "install pgvector 0.8 or later on the database server"
            )
            raise ConfigurationError(
                f"pgvector {version} is too old, 0.8 is the oldest that will do: {remedy}"
            )


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())
