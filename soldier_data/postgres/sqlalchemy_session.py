"""SQLAlchemy's connection and session in the transaction of a unit of work."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, NoReturn, Self

from sqlalchemy import Connection, CursorResult, Executable
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncResult, AsyncSession
from sqlalchemy.ext.asyncio.base import asyncstartablecontext
from sqlalchemy.ext.asyncio.engine import AsyncTransaction
from sqlalchemy.orm import Session
from sqlalchemy.pool import PoolProxiedConnection
from sqlalchemy.util import await_only

from soldier_data.errors import StoreError


class UnitConnection(AsyncConnection):
    """The connection of a unit of work, in its transaction. Savepoints (`begin_nested`) are its only transactions.

    Each call that sends a statement begins the transaction, if necessary, and sends what the unit has collected.

    Args:
        engine: The engine of the connection.
        begin: Does both, and returns the connection.
    """

    def __init__(self, engine: AsyncEngine, begin: Callable[[], Awaitable[Connection]]) -> None:
        super().__init__(engine)
        self._begin = begin

    async def start(self, is_ctxmanager: bool = False) -> Self:  # noqa: ARG002 - as SQLAlchemy calls it.
        """Begin the transaction, if necessary, and send what the unit has collected."""
        connection = await self._begin()
        if self.sync_connection is None:
            self.sync_connection = self._assign_proxied(connection)
        return self

    async def execute(self, *args: Any, **kw: Any) -> CursorResult[Any]:
        """Execute a statement."""
        await self.start()
        result: CursorResult[Any] = await super().execute(*args, **kw)
        return result

    async def scalar(self, *args: Any, **kw: Any) -> Any:
        """Execute a statement and return the first column of its first row."""
        return (await self.execute(*args, **kw)).scalar()

    async def exec_driver_sql(self, *args: Any, **kw: Any) -> CursorResult[Any]:
        """Execute SQL in the driver's syntax."""
        await self.start()
        return await super().exec_driver_sql(*args, **kw)

    @asyncstartablecontext
    async def stream(self, statement: Executable, *args: Any, **kw: Any) -> AsyncIterator[AsyncResult[Any]]:
        """Execute a statement, and stream its rows."""
        await self.start()
        async with super().stream(statement, *args, **kw) as result:
            yield result

    async def run_sync(self, fn: Callable[..., Any], *args: Any, **kw: Any) -> Any:
        """Call a synchronous function with the connection."""
        await self.start()
        return await super().run_sync(fn, *args, **kw)

    async def get_raw_connection(self) -> PoolProxiedConnection:
        """Return the pooled connection."""
        await self.start()
        return await super().get_raw_connection()

    def begin_nested(self) -> AsyncTransaction:
        """Set a savepoint."""
        return _UnitSavepoint(self, nested=True)

    def begin(self) -> NoReturn:
        """Raise StoreError: the unit begins the transaction."""
        raise _not_allowed("connection.begin()")

    async def commit(self) -> NoReturn:
        """Raise StoreError: the unit commits."""
        raise _not_allowed("connection.commit()")

    async def rollback(self) -> NoReturn:
        """Raise StoreError: the unit rolls back."""
        raise _not_allowed("connection.rollback()")

    async def close(self) -> None:
        """Reject further use. The unit returns the connection to the pool."""
        self.sync_connection = None


class _UnitSavepoint(AsyncTransaction):
    async def start(self, is_ctxmanager: bool = False) -> Self:
        await self.connection.start()
        await super().start(is_ctxmanager)
        return self


class UnitSession(AsyncSession):
    """The session of a unit of work, in its transaction. Savepoints (`begin_nested`) are its only transactions.

    The unit flushes it before it commits. Then its objects are detached, and it cannot be used any more.
    """

    def __init__(self, connection: AsyncConnection) -> None:
        if isinstance(connection, UnitConnection):
            info = {"connection": connection}
            super().__init__(sync_session_class=_SyncUnitSession, info=info, close_resets_only=False)
        else:
            super().__init__(connection, close_resets_only=False)

    def begin(self) -> NoReturn:
        """Raise StoreError: the unit begins the transaction."""
        raise _not_allowed("session.begin()")

    async def commit(self) -> NoReturn:
        """Raise StoreError: the unit commits."""
        raise _not_allowed("session.commit()")

    async def rollback(self) -> NoReturn:
        """Raise StoreError: the unit rolls back."""
        raise _not_allowed("session.rollback()")


class _SyncUnitSession(Session):
    def get_bind(self, *_args: Any, **_kw: Any) -> Connection:
        """Return the connection of the unit. SQLAlchemy calls this, in a greenlet, for each statement."""
        connection: UnitConnection = self.info["connection"]
        started = await_only(connection.start()).sync_connection
        assert started is not None
        return started


def unit_connection(engine: AsyncEngine, proxy: PoolProxiedConnection, schema: str) -> Connection:
    """A connection on `proxy`, which is in AUTOCOMMIT mode for SQLAlchemy, so that it never sends BEGIN or COMMIT.

    Args:
        engine: The engine that `proxy` belongs to.
        proxy: A checked-out connection, in a transaction.
        schema: The schema of tables that name none.
    """
    connection = Connection(engine.sync_engine, proxy)
    if schema != "public":
        options: dict[str, Any] = {"schema_translate_map": {None: schema}}
        connection = connection.execution_options(**options)
    return connection


def _not_allowed(call: str) -> StoreError:
    return StoreError(
        f"{call}: the unit of work commits and rolls back its transaction: leave its block to commit, raise an "
        "exception or call uow.rollback() to roll back"
    )
