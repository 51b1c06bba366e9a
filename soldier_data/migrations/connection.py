"""The connection that migrates: alone among all processes, and never in the way of live traffic for long."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from time import monotonic
from typing import Any

from alembic import context
from sqlalchemy import Connection, text
from sqlalchemy.dialects.postgresql.asyncpg import AsyncAdapt_asyncpg_dbapi
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.util import await_only

from soldier_data.base.engine import create_engine
from soldier_data.base.orm import embedding_dimensions
from soldier_data.errors import StoreConnectionError
from soldier_data.settings import Settings

# Any number will do that nobody else takes: the first eight bytes of "soldier_data" as a bigint.
_LOCK = int.from_bytes(b"soldier_", "big")
_LOCK_POLL_SECONDS = 0.05

_LOCK_NOT_AVAILABLE = "55P03"
_PATIENCE = timedelta(minutes=5)

LIMIT_LOCK_WAITS = "SET lock_timeout = '100ms'"
"""Everybody who wants a table queues behind the DDL that waits for it, so the DDL gives way after this time."""


@asynccontextmanager
async def open_for_migration(settings: Settings, *, alone: bool = True) -> AsyncIterator[AsyncConnection]:
    """A connection that no other process migrates beside. DDL made meanwhile has the settings' dimensions.

    Args:
        settings: Which database, and the dimensions.
        alone: Wait until no other process migrates; what only reads need not.
    """
    # Building an index may take long, and rightly so.
    engine = create_engine(settings.model_copy(update={"command_timeout": timedelta(days=1)}))
    token = embedding_dimensions.set(settings.embedding_dimensions)
    try:
        async with engine.connect() as connection:
            await connection.execution_options(isolation_level="AUTOCOMMIT")
            # Asking again and again keeps no transaction open, which would block a CREATE INDEX CONCURRENTLY of
            # the process that holds the lock. Closing the connection releases it.
            lock = text("SELECT pg_try_advisory_lock(:key)")
            while alone and not await connection.scalar(lock, {"key": _LOCK}):  # noqa: ASYNC110 - another process holds it.
                await asyncio.sleep(_LOCK_POLL_SECONDS)
            await connection.execute(text(LIMIT_LOCK_WAITS))
            await connection.commit()
            await connection.execution_options(isolation_level="READ COMMITTED")
            yield connection
    finally:
        embedding_dimensions.reset(token)
        await engine.dispose()


def run_migrations(connection: Connection, options: dict[str, Any]) -> None:
    """Do on `connection` what Alembic was called for, with `options` for its `context.configure`.

    Each migration is a transaction. One that cannot have a lock at once is rolled back and tried again, so that
    readers of a busy table never wait long; what was done before it stays.

    Raises:
        StoreConnectionError: A table stayed locked for five minutes.
    """
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
