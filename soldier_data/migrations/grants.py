"""Privileges of the services' database role."""

from __future__ import annotations

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from soldier_data.errors import ConfigurationError, StoreError
from soldier_data.migrations.connection import driver_error, open_for_migration
from soldier_data.postgres.errors import as_store_error
from soldier_data.postgres.statements import Schemas, quoted
from soldier_data.schema import metadata
from soldier_data.settings import Settings

_ROLE = text(
    "SELECT r.rolsuper, r.rolbypassrls, EXISTS (SELECT FROM pg_class c WHERE c.relname = ANY(:tables) "
    "AND c.relnamespace = to_regnamespace(:schema) AND pg_has_role(r.oid, c.relowner, 'MEMBER')) AS owner "
    "FROM pg_roles r WHERE r.rolname = :role"
)


def grant_statements(
    role: str, schemas: Schemas, *, erasure: bool = False, version_table: str = "alembic_version"
) -> list[str]:
    """Return the SQL that grants `role` access to the tables: append-only tables can only be read and added to.

    Args:
        role: The role that services log in with.
        schemas: The schemas of the tables and the extensions.
        erasure: Also let it erase customers, by updating the text columns of append-only tables.
        version_table: The table with the revision of the database, which services read to report their health.
    """

    def named(table: str) -> str:
        return f"{quoted(schemas.tables)}.{quoted(table)}"

    name, versions = quoted(role), named(version_table)
    tables = sorted(metadata.tables.values(), key=lambda table: table.name)
    append_only = [named(table.name) for table in tables if table.info.get("append_only")]
    others = [named(table.name) for table in tables if not table.info.get("append_only")]
    everything = ", ".join(sorted([*append_only, *others, versions]))
    return [
        # First, so that running it again removes privileges that were granted by an earlier version or manually.
        f"REVOKE ALL ON {everything} FROM {name}",
        f"GRANT USAGE ON SCHEMA {', '.join(sorted({quoted(schema) for schema in schemas}))} TO {name}",
        f"GRANT SELECT ON {versions} TO {name}",
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON {', '.join(others)} TO {name}",
        f"GRANT SELECT, INSERT ON {', '.join(append_only)} TO {name}",
        *(
            f"GRANT UPDATE ({', '.join(map(quoted, table.info['erasable']))}) ON {named(table.name)} TO {name}"
            for table in tables
            if erasure and table.info.get("append_only")
        ),
    ]


async def run_grants(settings: Settings, role: str, *, erasure: bool = False) -> None:
    """Run the statements of `grant_statements` in one transaction.

    Raises:
        StoreConnectionError: The database cannot be reached.
        ConfigurationError: The role does not exist or is not subject to row-level security, the database is not
            migrated, or the current role may not grant privileges.
    """
    operation = "granting privileges"
    failure: StoreError
    try:
        async with open_for_migration(settings) as connection:
            await _check_role(connection, role, settings.database_schema, operation)
            for statement in grant_statements(
                role, Schemas.of(settings), erasure=erasure, version_table=settings.version_table
            ):
                await connection.execute(text(statement))
            await connection.commit()
    except Exception as error:  # noqa: BLE001 - no exception of the driver may leave.
        failure = as_store_error(driver_error(error), operation)
    else:
        return
    raise failure


async def _check_role(connection: AsyncConnection, role: str, schema: str, operation: str) -> None:
    values = {"role": role, "schema": quoted(schema), "tables": list(metadata.tables)}
    found = (await connection.execute(_ROLE, values)).one_or_none()
    if found is None:
        raise ConfigurationError(
            f"{operation}: there is no such role: create it with CREATE ROLE ... LOGIN first"
        )
    if found.rolsuper or found.rolbypassrls or found.owner:
        raise ConfigurationError(
            f"{operation}: the policies do not apply to a superuser, a role with BYPASSRLS or an owner of the "
            "tables: use a different role for services"
        )
