"""The checks of `soldier-data doctor`: that a deployment meets the data layer's requirements."""

from __future__ import annotations

from typing import Any, NamedTuple

from redis.asyncio import RedisCluster
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from soldier_data.errors import ConfigurationError
from soldier_data.migrations import head_revision
from soldier_data.migrations.connection import driver_error
from soldier_data.migrations.extensions import OLDEST_PGVECTOR, version_tuple
from soldier_data.migrations.ownership import own_revision
from soldier_data.postgres.engine import create_engine
from soldier_data.postgres.errors import as_store_error
from soldier_data.postgres.orm import EmbeddingVector
from soldier_data.schema import metadata
from soldier_data.sessions.connections import create_redis_client
from soldier_data.settings import Settings

_OLDEST_POSTGRES = 15
_OLDEST_REDIS = (6, 2)


class Finding(NamedTuple):
    """One line of the report.

    Attributes:
        name: The subject of the check.
        ok: False if something has to be done.
        detail: The state that was found and, if it is not ok, the remedy.
    """

    name: str
    ok: bool
    detail: str


async def examine(settings: Settings) -> list[Finding]:
    """Check those servers of `settings` that its stores use."""
    findings: list[Finding] = []
    if settings.uses_postgres:
        findings += await _examine_postgres(settings)
    if settings.session_backend == "redis":
        findings += await _examine_redis(settings)
    return findings


async def _examine_postgres(settings: Settings) -> list[Finding]:
    engine = create_engine(settings)
    try:
        async with engine.connect() as connection:
            return [
                *await _server(connection, settings.extensions_schema),
                *await _schema(connection, settings),
                *await _role(connection, settings),
            ]
    except Exception as error:  # noqa: BLE001 - no exception of the driver may leave.
        return [
            Finding("PostgreSQL", ok=False, detail=str(as_store_error(driver_error(error), "connecting")))
        ]
    finally:
        await engine.dispose()


async def _server(connection: AsyncConnection, extensions: str) -> list[Finding]:
    number = int(await connection.scalar(text("SELECT current_setting('server_version_num')")))
    found = (
        await connection.execute(
            text(
                "SELECT e.extversion, n.nspname FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace "
                "WHERE e.extname = 'vector'"
            )
        )
    ).one_or_none()
    version, schema = found or (None, None)
    digits = int(await connection.scalar(text("SELECT current_setting('extra_float_digits')")))
    return [
        _finding(
            "PostgreSQL",
            f"version {number // 10_000}.{number % 10_000}",
            ok=number // 10_000 >= _OLDEST_POSTGRES,
            remedy=f"upgrade to {_OLDEST_POSTGRES} or later",
        ),
        _finding(
            "floats",
            "exact" if digits > 0 else f"extra_float_digits is {digits}, which rounds them",
            ok=digits > 0,
            remedy="it cannot be set through PgBouncer: run ALTER ROLE (or DATABASE) ... RESET extra_float_digits",
        ),
        _finding(
            "pgvector",
            f"version {version}, in schema {schema}" if version else "not created in this database",
            ok=version is not None and schema == extensions and version_tuple(version) >= OLDEST_PGVECTOR,
            remedy=f"SOLDIER_EXTENSIONS_SCHEMA is {extensions}: set it to the schema of vector and pg_trgm"
            if schema not in (None, extensions)
            else "run `soldier-data db upgrade`, which creates it or reports why it cannot",
        ),
    ]


async def _schema(connection: AsyncConnection, settings: Settings) -> list[Finding]:
    schema = settings.database_schema
    try:
        revision = await connection.run_sync(own_revision, settings, "reading the schema version")
        version = _finding(
            "schema",
            f"revision {revision or 'none'}",
            ok=revision == head_revision(),
            remedy=f"this package needs {head_revision()}: run `soldier-data db upgrade`",
        )
    except ConfigurationError as error:
        version = Finding("schema", ok=False, detail=str(error))
    findings = [version]
    rows = await connection.execute(
        text(
            "SELECT c.relname, a.attname, a.atttypmod, c.relrowsecurity AND c.relforcerowsecurity AND EXISTS "
            "(SELECT FROM pg_policy WHERE polrelid = c.oid AND polname = 'tenant_isolation') AS secured "
            "FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid "
            "JOIN pg_namespace n ON n.oid = c.relnamespace "
            "WHERE c.relname = ANY(:tables) AND n.nspname = :schema AND a.attnum > 0"
        ),
        {"tables": list(metadata.tables), "schema": schema},
    )
    columns = {(row.relname, row.attname): row for row in rows}
    vectors = {
        (table.name, column.name)
        for table in metadata.tables.values()
        for column in table.columns
        if isinstance(column.type, EmbeddingVector)
    }
    if not columns:
        return findings
    lengths = {columns[key].atttypmod for key in vectors & columns.keys()}
    findings.append(
        _finding(
            "dimensions",
            ", ".join(map(str, sorted(lengths))),
            ok=lengths == {settings.embedding_dimensions},
            remedy=f"SOLDIER_EMBEDDING_DIMENSIONS is {settings.embedding_dimensions}: set it to the number that the "
            "database was created with",
        )
    )
    open_tables = sorted(
        table for (table, column), row in columns.items() if column == "tenant_id" and not row.secured
    )
    findings.append(
        _finding(
            "policies",
            f"missing on {', '.join(open_tables)}" if open_tables else "on every table",
            ok=not open_tables,
            remedy="`soldier-data db check` shows the migration that adds them",
        )
    )
    return findings


async def _role(connection: AsyncConnection, settings: Settings) -> list[Finding]:
    row = (
        await connection.execute(
            text(
                "SELECT r.rolsuper OR r.rolbypassrls AS unbound, EXISTS (SELECT FROM pg_class c "
                "JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relname = ANY(:tables) AND n.nspname = :schema "
                "AND pg_has_role(r.oid, c.relowner, 'MEMBER')) AS owner, ARRAY(SELECT c.relname FROM pg_class c "
                "JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relname = ANY(:tables) AND n.nspname = :schema "
                "AND NOT (has_table_privilege(c.oid, 'SELECT') AND has_table_privilege(c.oid, 'INSERT')) "
                "ORDER BY 1) AS denied FROM pg_roles r WHERE rolname = current_user"
            ),
            {"tables": list(metadata.tables), "schema": settings.database_schema},
        )
    ).one()
    bound = not row.unbound and not row.owner
    if row.denied:
        detail = f"lacks privileges on {', '.join(row.denied)}: have the owner run `soldier-data db grants ROLE --run`"
        return [Finding("role", ok=False, detail=detail)]
    if bound and not settings.row_level_security:
        detail = (
            "is subject to the policies, which hide all rows from it: set SOLDIER_ROW_LEVEL_SECURITY=true"
        )
        return [Finding("role", ok=False, detail=detail)]
    return [
        _finding(
            "role",
            "is subject to the policies"
            if bound
            else "is not subject to the policies: it owns the tables, or is a superuser",
            ok=bound or not settings.row_level_security,
            remedy="create a separate role for services: `soldier-data db grants ROLE`",
        )
    ]


async def _examine_redis(settings: Settings) -> list[Finding]:
    client = create_redis_client(settings)
    try:
        # One node represents the cluster: all nodes should have the same configuration.
        where = {"target_nodes": client.RANDOM} if isinstance(client, RedisCluster) else {}
        info: dict[str, Any] = await client.info(**where)
    except Exception as error:  # noqa: BLE001 - reported by class only, since the text may hold the URL's password.
        detail = f"does not answer ({type(error).__name__}): check SOLDIER_REDIS_URL and the server"
        return [Finding("Redis", ok=False, detail=detail)]
    finally:
        await client.aclose()
    version, policy = str(info["redis_version"]), info.get("maxmemory_policy")
    appends = str(info.get("aof_enabled")) == "1"
    return [
        _finding(
            "Redis",
            f"version {version}",
            ok=version_tuple(version) >= _OLDEST_REDIS,
            remedy="upgrade to 6.2 or later",
        ),
        _finding(
            "Redis persistence",
            "append-only file on" if appends else "append-only file off",
            ok=appends,
            remedy="sessions are stored in Redis only: set `appendonly yes`",
        ),
        _finding(
            "Redis eviction",
            f"maxmemory-policy {policy}",
            ok=policy == "noeviction",
            remedy="sessions would be evicted when memory runs out: set `maxmemory-policy noeviction`",
        ),
    ]


def _finding(name: str, found: str, *, ok: bool, remedy: str) -> Finding:
    return Finding(name, ok, found if ok else f"{found}: {remedy}")
