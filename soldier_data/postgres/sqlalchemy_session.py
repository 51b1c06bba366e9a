"""SQLAlchemy's connection and session on the transaction of a unit of work."""

from __future__ import annotations

from typing import Any, NoReturn

from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession
from sqlalchemy.pool import PoolProxiedConnection

from soldier_data.errors import StoreError


class UnitConnection(AsyncConnection):
    """The connection of a unit of work, in its transaction. Savepoints (`begin_nested`) are its only transactions."""

    def begin(self) -> NoReturn:
        """Raise StoreError: the unit has begun the transaction."""
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


class UnitSession(AsyncSession):
    """The session of a unit of work, in its transaction. Savepoints (`begin_nested`) are its only transactions.

    The unit flushes it before it commits. Then its objects are detached, and it cannot be used any more.
    """

    def __init__(self, connection: AsyncConnection) -> None:
        super().__init__(connection, close_resets_only=False)

    def begin(self) -> NoReturn:
        """Raise StoreError: the unit has begun the transaction."""
        raise _not_allowed("session.begin()")

    async def commit(self) -> NoReturn:
        """Raise StoreError: the unit commits."""
        raise _not_allowed("session.commit()")

    async def rollback(self) -> NoReturn:
        """Raise StoreError: the unit rolls back."""
        raise _not_allowed("session.rollback()")


def unit_connection(engine: AsyncEngine, proxy: PoolProxiedConnection, schema: str) -> UnitConnection:
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
    return UnitConnection(engine, connection)


def _not_allowed(call: str) -> StoreError:
    return StoreError(
        f"{call}: the unit of work commits and rolls back its transaction: leave its block to commit, raise an "
        "exception or call uow.rollback() to roll back"
    )
