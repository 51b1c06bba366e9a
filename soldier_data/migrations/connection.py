"""The connection for migrations: one process at a time, and no long lock waits that would block live traffic."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from time import monotonic

import pgvector.sqlalchemy
from alembic import context
from sqlalchemy import Connection, text
from sqlalchemy.dialects.postgresql.asyncpg import AsyncAdapt_asyncpg_dbapi
from sqlalchemy.dialects.postgresql.base import PGDialect
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.schema import CreateSchema
from sqlalchemy.util import await_only

from soldier_data.errors import ConfigurationError, StoreConnectionError
from soldier_data.postgres.ddl import DDLOptions, use_ddl_options
from soldier_data.postgres.engine import create_engine
from soldier_data.postgres.statements import quoted
from soldier_data.settings import Settings

# Key of the advisory lock, an arbitrary constant: the first eight bytes of "soldier_data" as a bigint.
_LOCK = int.from_bytes(b"soldier_", "big")
_LOCK_POLL_SECONDS = 0.05

_LOCK_NOT_AVAILABLE = "55P03"
_LOCK_TIMEOUT = timedelta(minutes=5)

LIMIT_LOCK_WAITS = "SET lock_timeout = '50ms'"
"""Limits the wait of DDL, because other statements queue behind DDL that waits for a lock. It is retried."""

_VECTORS = {
    "vector": pgvector.sqlalchemy.VECTOR,
    "halfvec": pgvector.sqlalchemy.HALFVEC,
    "sparsevec": pgvector.sqlalchemy.SPARSEVEC,
}

_EXISTS = text("SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = :schema)")


def set_search_path(schema: str) -> str:
    """Return the SQL that makes `schema` the only entry of the search_path.

    Migrations name tables and indexes without a schema. With a second schema in the search_path, DROP ... IF EXISTS
    could find a table of another deployment there. So the extensions' schema is not in it, and types and operator
    classes of extensions are qualified.
    """
    return f"SET search_path TO {quoted(schema)}"


@contextmanager
def _preserve_cancellation() -> Iterator[None]:
    """Raise CancelledError from the block if its task was cancelled, in place of any other error.

    A cancellation closes the connection. The rollbacks of SQLAlchemy and Alembic then fail, and their error would
    replace the CancelledError.
    """
    task = asyncio.current_task()
    assert task is not None
    before = task.cancelling()
    try:
        yield
    except Exception:
        if task.cancelling() > before:
            raise asyncio.CancelledError from None
        raise
    if task.cancelling() > before:
        raise asyncio.CancelledError


@asynccontextmanager
async def open_for_migration(settings: Settings, *, exclusive: bool = True) -> AsyncIterator[AsyncConnection]:
    """Open a connection whose search_path is the schema of `settings`, and apply their DDL options meanwhile.

    Args:
        settings: The database, its schemas, and the DDL options.
        exclusive: Wait until no other process migrates, and keep others waiting. Not needed for reading.

    Raises:
        ConfigurationError: The settings are for PgBouncer, where advisory locks and session settings would leak to
            the next client of the server connection.
    """
    if settings.pgbouncer:
        raise ConfigurationError(
            "this needs a direct connection to the database server: let SOLDIER_DATABASE_URL name the server instead "
            "of PgBouncer, and unset SOLDIER_PGBOUNCER"
        )
    with _preserve_cancellation():
        # Building an index on a large table takes long.
        engine = create_engine(settings.model_copy(update={"command_timeout": timedelta(days=1)}))
        try:
            async with engine.connect() as connection:
                await connection.execution_options(isolation_level="AUTOCOMMIT")
                # Polls, because a waiting pg_advisory_lock would keep a transaction open and block CREATE INDEX
                # CONCURRENTLY in the process that holds the lock. Closing the connection releases the lock.
                lock = text("SELECT pg_try_advisory_lock(:key)")
                while exclusive and not await connection.scalar(lock, {"key": _LOCK}):  # noqa: ASYNC110 - another process holds it.
                    await asyncio.sleep(_LOCK_POLL_SECONDS)
                await connection.execute(text(set_search_path(settings.database_schema)))
                await connection.execute(text(LIMIT_LOCK_WAITS))
                await connection.commit()
                await connection.execution_options(isolation_level="READ COMMITTED")
                await connection.run_sync(_register_vector_types, settings.extensions_schema)
                with use_ddl_options(DDLOptions.of(settings)):
                    yield connection
        finally:
            await engine.dispose()


def _register_vector_types(connection: Connection, extensions: str) -> None:
    """Register pgvector's types for reflection under their qualified names, since search_path lacks their schema."""
    dialect = connection.dialect
    assert isinstance(dialect, PGDialect)
    dialect.ischema_names = dialect.ischema_names | {
        f"{quoted(extensions)}.{name}": type_ for name, type_ in _VECTORS.items()
    }


def run_migrations(connection: Connection, settings: Settings, configure: Callable[..., None]) -> None:
    """Run the current Alembic command on `connection`, with `configure` in place of `context.configure`.

    Creates the schemas of the settings first if they do not exist. Each migration is a transaction. One that cannot
    get a lock within 50 ms is rolled back and retried, so that readers of a busy table never wait long; migrations
    that have been committed stay.

    Raises:
        StoreConnectionError: A table stayed locked for five minutes.
    """
    for schema in (settings.database_schema, settings.extensions_schema):
        # Checked first, because IF NOT EXISTS needs the privilege to create schemas even if the schema exists.
        if not connection.scalar(_EXISTS, {"schema": schema}):
            connection.execute(CreateSchema(schema))
    connection.commit()
    deadline = monotonic() + _LOCK_TIMEOUT.total_seconds()
    while True:
        try:
            configure(connection=connection, transaction_per_migration=True)
            with context.begin_transaction():
                context.run_migrations()
            connection.commit()
        except DBAPIError as error:
            if getattr(error.orig, "sqlstate", None) != _LOCK_NOT_AVAILABLE:
                raise
            cause = error.orig
        else:
            return
        connection.rollback()
        if monotonic() > deadline:
            raise StoreConnectionError(
                "migrating the database: timed out waiting for locks on a table: end the long-running transactions "
                "(see xact_start in pg_stat_activity) and run it again",
                cause=cause,
            )
        connection.execute(text(LIMIT_LOCK_WAITS))
        connection.commit()
        await_only(asyncio.sleep(random.uniform(0.2, 0.6)))  # noqa: S311 - no secret.


def driver_error(error: BaseException) -> BaseException:
    """Return the exception of asyncpg that SQLAlchemy wrapped."""
    while error.__cause__ is not None and isinstance(error, SQLAlchemyError | AsyncAdapt_asyncpg_dbapi.Error):
        error = error.__cause__
    return error
