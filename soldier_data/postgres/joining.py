"""Taking part in a transaction that an SQLAlchemy session or connection of the service begins and ends."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import asyncpg
from sqlalchemy import Connection, event
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.util import await_only

from soldier_data.base.models import new_id
from soldier_data.errors import ConfigurationError, StoreError
from soldier_data.postgres.observed import ObservedConnection, is_observed
from soldier_data.postgres.statements import Row, Schemas, Statement, Values
from soldier_data.postgres.transaction import Transaction
from soldier_data.postgres.vector_codec import has_vector_codec
from soldier_data.settings import Settings

T = TypeVar("T")

_CALLBACKS = "soldier_data.callbacks"


class JoinedTransaction(Transaction):
    """A transaction of the service. Each write is in a savepoint, so that a rejected one leaves it usable.

    Nothing is collected: the service's own statements see what its stores have written.
    """

    def __init__(self, driver: Any, settings: Settings, connection: AsyncConnection) -> None:
        super().__init__(driver, settings, Schemas.of(settings), lambda: _sync(connection))
        self._given = connection
        self._is_shared = True

    def executor(self) -> JoinedTransaction:
        """Return the interface for a store."""
        return self

    def sqlalchemy_connection(self) -> AsyncConnection:
        """Return the service's connection."""
        return self._given

    async def flush(self) -> None:
        """Do nothing: everything has been sent."""

    async def fetch_all(self, statement: Statement, values: Values) -> list[Row]:
        """Run `statement` and return its rows."""
        if not statement.writes:
            self._check_open(statement.operation)
            return await super().fetch_all(statement, values)
        return await self.atomically(lambda inner: inner.fetch_all(statement, values), statement.operation)

    async def fetch_many(self, statement: Statement, rows: Sequence[Values]) -> list[Row]:
        """Run `statement` once for each of `rows`, and return the rows of all results."""
        return await self.atomically(lambda inner: inner.fetch_many(statement, rows), statement.operation)

    async def atomically(self, work: Callable[[Transaction], Awaitable[T]], operation: str) -> T:
        """Run `work` in a savepoint."""
        self._check_open(operation)
        return await super().atomically(work, operation)

    def end(self) -> None:
        """Reject further calls."""
        self._ended = True

    async def rollback(self) -> None:
        """Raise StoreError: the service rolls back."""
        raise StoreError(
            "uow.rollback(): the transaction is not the unit's own: raise an exception to undo the unit, or roll back "
            "the session or connection that it was begun with"
        )

    def _check_open(self, operation: str) -> None:
        """Check that the service has not ended the transaction: a statement would commit at once."""
        if not self._connection.is_in_transaction():
            raise StoreError(
                f"{operation}: the transaction that the unit of work joined has ended: commit or roll back after the "
                "unit's block"
            )


async def join_transaction(connection: AsyncConnection, settings: Settings) -> JoinedTransaction:
    """Take part in the transaction of `connection`. It begins now if the connection has sent nothing yet.

    Raises:
        ConfigurationError: The connection's driver is not asyncpg, its engine was not prepared, or its isolation level
            is AUTOCOMMIT.
    """
    raw = await connection.get_raw_connection()
    driver = raw.driver_connection
    if not isinstance(driver, asyncpg.Connection):
        raise ConfigurationError(
            "beginning a unit of work: the connection's driver is not asyncpg: create its engine with a URL that "
            "begins with postgresql+asyncpg://"
        )
    if not has_vector_codec(raw.info):
        raise ConfigurationError(
            "beginning a unit of work: the connection cannot send vectors: call soldier_data.prepare_engine(engine) "
            "before the engine opens connections, and migrate the database before that"
        )
    if not driver.is_in_transaction():
        # SQLAlchemy sends BEGIN with the first statement.
        await connection.exec_driver_sql("SELECT 1")
    if not driver.is_in_transaction():
        raise ConfigurationError(
            "beginning a unit of work: the connection's isolation level is AUTOCOMMIT, so it has no transaction to "
            "join: use another isolation level, or data.unit_of_work() without it"
        )
    sync_connection = _sync(connection)
    observed = ObservedConnection(driver, lambda: sync_connection) if is_observed(sync_connection) else driver
    return JoinedTransaction(observed, settings, connection)


async def call_after_commit(connection: AsyncConnection, callback: Callable[[], Awaitable[None]]) -> None:
    """Await `callback()` after the transaction of `connection` is committed, before the call that commits it returns.

    It is not called if the transaction is rolled back, or rolled back to a savepoint set earlier than now.
    """
    # A parameter that is local to the transaction is undone with it, also by ROLLBACK TO SAVEPOINT.
    marker = f"soldier_data.unit_{new_id().hex}"
    await connection.exec_driver_sql("SELECT set_config($1, 'joined', true)", (marker,))
    sync_connection = _sync(connection)
    sync_connection.info.setdefault(_CALLBACKS, []).append((marker, callback))
    if not event.contains(sync_connection, "commit", _commit):
        event.listen(sync_connection, "commit", _commit)
        event.listen(sync_connection, "rollback", _forget)


def _sync(connection: AsyncConnection) -> Connection:
    assert connection.sync_connection is not None
    return connection.sync_connection


def _commit(connection: Connection) -> None:
    """Commit before SQLAlchemy does, whose event comes before its COMMIT, and run the callbacks."""
    callbacks = connection.info.pop(_CALLBACKS, [])
    if not callbacks:
        return
    # Also raises if an earlier error has aborted the transaction: COMMIT would silently roll it back.
    joined = [
        callback
        for marker, callback in callbacks
        if connection.exec_driver_sql("SELECT current_setting($1, true)", (marker,)).scalar()
    ]
    try:
        connection.dialect.do_commit(connection.connection)
    except BaseException as error:  # noqa: BLE001 - passed on, as SQLAlchemy's own errors.
        connection._handle_dbapi_exception(error, None, None, None, None)  # noqa: SLF001 - as SQLAlchemy commits.
    for callback in joined:
        await_only(callback())


def _forget(connection: Connection) -> None:
    connection.info.pop(_CALLBACKS, None)
