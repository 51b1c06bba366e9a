"""The connection that migrates: alone among all processes, and never in the way of live traffic for long."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from time import monotonic
from typing import Any

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

# Any number will do that nobody else takes: the first eight bytes of "soldier_data" as a bigint.
_LOCK = int.from_bytes(b"soldier_", "big")
_LOCK_POLL_SECONDS = 0.05

_LOCK_NOT_AVAILABLE = "55P03"
_PATIENCE = timedelta(minutes=5)

LIMIT_LOCK_WAITS = "SET lock_timeout = '50ms'"
"""Everybody who wants a table queues behind the DDL that waits for it, so the DDL gives way after this time."""

_VECTORS = {
    "vector": pgvector.sqlalchemy.VECTOR,
    "halfvec": pgvector.sqlalchemy.HALFVEC,
    "sparsevec": pgvector.sqlalchemy.SPARSEVEC,
}

_EXISTS = text("SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = :schema)")


def look_nowhere_but_in(schema: str) -> str:
    """The SQL that makes `schema` the only one in which unqualified names are looked for.

    Migrations name tables and indexes without a schema. Were there a second one in the search_path, what a migration
    drops or alters if it exists could be found there: in another deployment's tables. Types and operator classes
    of extensions are therefore named with their schema.
    """
    return f"SET search_path TO {quoted(schema)}"


@contextmanager
def _cancellation_passed_on() -> Iterator[None]:
    """Let a cancellation that arrives within leave as one.

    On the way out, SQLAlchemy and Alembic undo what was begun. The cancellation has closed the connection, so that
    this fails, with an error that would hide it.
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
async def open_for_migration(settings: Settings, *, alone: bool = True) -> AsyncIterator[AsyncConnection]:
    """A connection that no other process migrates beside, and that sees the schema of the settings alone.

    Args:
        settings: Which database and schema, and what DDL is made with meanwhile.
        alone: Wait until no other process migrates; what only reads need not.

    Raises:
        ConfigurationError: The settings are for PgBouncer, where the lock and what is set for the session would
            be left to whoever gets the server's connection next.
    """
    if settings.pgbouncer:
        raise ConfigurationError(
            "this takes a session of the database server itself: let SOLDIER_DATABASE_URL lead to the server instead "
            "of PgBouncer, and leave SOLDIER_PGBOUNCER unset for it"
        )
    with _cancellation_passed_on():
        # Building an index may take long, and rightly so.
        engine = create_engine(settings.model_copy(update={"command_timeout": timedelta(days=1)}))
        try:
            async with engine.connect() as connection:
                await connection.execution_options(isolation_level="AUTOCOMMIT")
                # Asking again and again keeps no transaction open, which would block a CREATE INDEX CONCURRENTLY of
                # the process that holds the lock. Closing the connection releases it.
                lock = text("SELECT pg_try_advisory_lock(:key)")
                while alone and not await connection.scalar(lock, {"key": _LOCK}):  # noqa: ASYNC110 - another process holds it.
                    await asyncio.sleep(_LOCK_POLL_SECONDS)
                await connection.execute(text(look_nowhere_but_in(settings.database_schema)))
                await connection.execute(text(LIMIT_LOCK_WAITS))
                await connection.commit()
                await connection.execution_options(isolation_level="READ COMMITTED")
                await connection.run_sync(_know_types_of, settings.extensions_schema)
                with use_ddl_options(DDLOptions.of(settings)):
                    yield connection
        finally:
            await engine.dispose()


def _know_types_of(connection: Connection, extensions: str) -> None:
    """Let reflection know pgvector's types as PostgreSQL spells those of a schema outside of the search_path."""
    dialect = connection.dialect
    assert isinstance(dialect, PGDialect)
    dialect.ischema_names = dialect.ischema_names | {
        f"{quoted(extensions)}.{name}": type_ for name, type_ in _VECTORS.items()
    }


def run_migrations(connection: Connection, settings: Settings, options: dict[str, Any]) -> None:
    """Do on `connection` what Alembic was called for, with `options` for its `context.configure`.

    Schemas of the settings that are missing are made first.

    Each migration is a transaction. One that cannot have a lock at once is rolled back and tried again, so that
    readers of a busy table never wait long; what was done before it stays.

    Raises:
        StoreConnectionError: A table stayed locked for five minutes.
    """
    for schema in (settings.database_schema, settings.extensions_schema):
        # Asked first, because IF NOT EXISTS takes the right to create schemas even where there is nothing to create.
        if not connection.scalar(_EXISTS, {"schema": schema}):
            connection.execute(CreateSchema(schema))
    connection.commit()
    give_up = monotonic() + _PATIENCE.total_seconds()
    while True:
        try:
            context.configure(connection=connection, transaction_per_migration=True, **options)
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
        if monotonic() > give_up:
            raise StoreConnectionError(
                "migrating the database: other transactions kept a table locked all the time: end the long ones "
                "(pg_stat_activity shows them by xact_start) and run it again",
                cause=cause,
            )
        connection.execute(text(LIMIT_LOCK_WAITS))
        connection.commit()
        await_only(asyncio.sleep(random.uniform(0.2, 0.6)))  # noqa: S311 - no secret.


def driver_error(error: BaseException) -> BaseException:
    """What asyncpg raised below SQLAlchemy's wrappers."""
    while error.__cause__ is not None and isinstance(error, SQLAlchemyError | AsyncAdapt_asyncpg_dbapi.Error):
        error = error.__cause__
    return error
