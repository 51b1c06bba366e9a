"""Bringing a database to the schema of this package, from a checkout or from the installed wheel."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any, Literal

import pgvector.sqlalchemy
from alembic import command, context
from alembic.autogenerate import rewriter
from alembic.autogenerate.api import AutogenContext
from alembic.config import Config
from alembic.operations import ops
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, MetaData, text
from sqlalchemy.dialects.postgresql.asyncpg import AsyncAdapt_asyncpg_dbapi
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.types import TypeEngine

from soldier_data.base.engine import create_engine
from soldier_data.base.failures import as_store_error
from soldier_data.base.orm import EmbeddingVector, embedding_dimensions
from soldier_data.base.statements import Statement
from soldier_data.errors import StoreError
from soldier_data.settings import Settings

# Any number will do that nobody else takes: the first eight bytes of "soldier_data" as a bigint.
_LOCK = int.from_bytes(b"soldier_", "big")
_LOCK_POLL_SECONDS = 0.05

_ALEMBIC = threading.Lock()

_PACKAGE = Path(__file__).parent


def script_location() -> Path:
    """The folder of the migrations: alembic/ of the checkout, or the copy inside the installed package."""
    checkout = _PACKAGE.parent / "alembic"
    return checkout if (checkout / "env.py").is_file() else _PACKAGE / "_alembic"


SCHEMA_VERSION = Statement("reading the schema version", text("SELECT version_num FROM alembic_version"))


@cache
def head_revision() -> str:
    """The newest revision that this package knows."""
    head = ScriptDirectory(str(script_location())).get_current_head()
    assert head is not None
    return head


async def upgrade(settings: Settings, revision: str = "head") -> None:
    """Run the migrations up to `revision`. Any number of processes may do so at once.

    Raises:
        StoreConnectionError: The database cannot be reached.
        ConfigurationError: The role may not do what a migration does.
    """
    config = Config()
    config.set_main_option("script_location", str(script_location()).replace("%", "%%"))

    def run(connection: Connection) -> None:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)

    try:
        async with open_for_migration(settings) as connection, _alone_in_process():
            await connection.run_sync(run)
    except Exception as error:  # noqa: BLE001 - no exception of the driver may leave.
        failure: StoreError = as_store_error(_driver_error(error), "migrating the database")
    else:
        return
    raise failure


@asynccontextmanager
async def _alone_in_process() -> AsyncIterator[None]:
    """Wait until no other task or thread runs Alembic, which keeps what it works on in global variables."""
    while not _ALEMBIC.acquire(blocking=False):  # noqa: ASYNC110 - the holder may be in another thread.
        await asyncio.sleep(_LOCK_POLL_SECONDS)
    try:
        yield
    finally:
        _ALEMBIC.release()


@asynccontextmanager
async def open_for_migration(settings: Settings) -> AsyncIterator[AsyncConnection]:
    """A connection that no other process migrates beside. DDL made meanwhile has the settings' dimensions."""
    # Building an index may take long, and rightly so.
    engine = create_engine(settings.model_copy(update={"command_timeout": timedelta(days=1)}))
    token = embedding_dimensions.set(settings.embedding_dimensions)
    try:
        async with engine.connect() as connection:
            await connection.execution_options(isolation_level="AUTOCOMMIT")
            # Asking again and again keeps no transaction open, which would block a CREATE INDEX CONCURRENTLY of
            # the process that holds the lock. Closing the connection releases it.
            lock = text("SELECT pg_try_advisory_lock(:key)")
            while not await connection.scalar(lock, {"key": _LOCK}):  # noqa: ASYNC110 - another process holds it.
                await asyncio.sleep(_LOCK_POLL_SECONDS)
            await connection.commit()
            await connection.execution_options(isolation_level="READ COMMITTED")
            yield connection
    finally:
        embedding_dimensions.reset(token)
        await engine.dispose()


def run_migrations(connection: Connection, metadata: MetaData) -> None:
    """Do on `connection` what Alembic was called for."""
    context.configure(connection=connection, transaction_per_migration=True, **configure_comparison(metadata))
    with context.begin_transaction():
        context.run_migrations()
    connection.commit()


def configure_comparison(metadata: MetaData) -> dict[str, Any]:
    """The arguments of `context.configure` that decide what autogenerate sees and writes."""
    return {
        "target_metadata": metadata,
        "compare_type": _compare_type,
        "compare_server_default": True,
        "render_item": _render_item,
        "process_revision_directives": _writer,
    }


def policy_statements(table: str) -> list[str]:
    """The SQL that lets a role without BYPASSRLS see the rows of the tenant in app.tenant_id alone."""
    tenant = "tenant_id = nullif(current_setting('app.tenant_id', true), '')::uuid"
    return [
        f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY",
        f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY",
        f"DROP POLICY IF EXISTS tenant_isolation ON {table}",
        f"CREATE POLICY tenant_isolation ON {table} USING ({tenant}) WITH CHECK ({tenant})",
    ]


_writer = rewriter.Rewriter()


@_writer.rewrites(ops.CreateTableOp)
def _create_table(
    _context: MigrationContext, _revision: Any, operation: ops.CreateTableOp
) -> list[ops.MigrateOperation]:
    operation.if_not_exists = True
    policies: Iterable[str] = policy_statements(operation.table_name)
    return [operation, *(ops.ExecuteSQLOp(statement) for statement in policies)]


@_writer.rewrites(ops.CreateIndexOp)
def _create_index(
    _context: MigrationContext, _revision: Any, operation: ops.CreateIndexOp
) -> ops.MigrateOperation:
    operation.if_not_exists = True
    return operation


@_writer.rewrites(ops.DropTableOp)
def _drop_table(
    _context: MigrationContext, _revision: Any, operation: ops.DropTableOp
) -> ops.MigrateOperation:
    operation.if_exists = True
    return operation


@_writer.rewrites(ops.DropIndexOp)
def _drop_index(
    _context: MigrationContext, _revision: Any, operation: ops.DropIndexOp
) -> ops.MigrateOperation:
    operation.if_exists = True
    return operation


def _compare_type(
    _context: MigrationContext,
    _inspected_column: Any,
    _metadata_column: Any,
    inspected_type: TypeEngine[Any],
    metadata_type: TypeEngine[Any],
) -> bool | None:
    if not isinstance(metadata_type, EmbeddingVector):
        return None
    if not isinstance(inspected_type, pgvector.sqlalchemy.VECTOR):
        return True
    return inspected_type.dim != metadata_type.dimensions


def _render_item(kind: str, item: Any, autogen_context: AutogenContext) -> str | Literal[False]:
    if kind == "type" and isinstance(item, EmbeddingVector):
        autogen_context.imports.add("from soldier_data.base.orm import EmbeddingVector")
        return "EmbeddingVector()"
    return False


def _driver_error(error: BaseException) -> BaseException:
    """What asyncpg raised below SQLAlchemy's wrappers."""
    while error.__cause__ is not None and isinstance(error, SQLAlchemyError | AsyncAdapt_asyncpg_dbapi.Error):
        error = error.__cause__
    return error
