"""Executing statements, each in a transaction of its own or several in one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from time import monotonic
from typing import Any, TypeAlias, TypeVar
from uuid import UUID

import asyncpg
import stamina
from sqlalchemy import Connection, func, select
from sqlalchemy.ext.asyncio import AsyncEngine

from soldier_data.errors import ConfigurationError, StoreError
from soldier_data.postgres import bulk
from soldier_data.postgres.collecting import CollectedWrite
from soldier_data.postgres.engine_pool import EnginePool
from soldier_data.postgres.errors import READ_ONLY, TransientError, as_store_error
from soldier_data.postgres.hosts import STANDBY_KINDS, read_target
from soldier_data.postgres.observed import ObservedConnection, is_observed
from soldier_data.postgres.pool import ConnectionPool, Lease
from soldier_data.postgres.sqlalchemy_session import unit_connection
from soldier_data.postgres.statements import Row, Schemas, Statement, Values
from soldier_data.postgres.transaction import Transaction, describe
from soldier_data.settings import Settings

T = TypeVar("T")

_Begin: TypeAlias = Callable[[Transaction], Awaitable[None]]

NO_TENANT = UUID(int=0)
"""The tenant_id of statements that do not belong to a tenant."""

# Also "on" for a standby.
_READ_ONLY = Statement(
    "checking whether the server accepts writes",
    select(func.current_setting("transaction_read_only").label("read_only")),
)


_SERVER = Statement(
    "beginning a transaction",
    select(
        # As the role or the database sets it.
        func.current_setting("default_transaction_isolation").label("isolation"),
        # A table of Citus.
        func.to_regclass("pg_catalog.pg_dist_partition").is_not(None).label("distributed"),
    ),
)


class Database:
    """Executes statements on a connection pool, each call in a transaction of its own.

    A call takes one round trip, unless row-level security or PgBouncer require an explicit transaction. Calls that
    fail because of a lost connection, a deadlock or a serialization failure are repeated for up to
    `settings.retry_budget`.

    Args:
        settings: The settings.
        engine: An engine that was prepared with `prepare_engine`, to use its connections; by default connections
            are opened as the settings say.

    Raises (every method):
        StoreConnectionError: The server is unreachable, rejects the login or does not answer in time.
        ConfigurationError: The database is not migrated.
    """

    def __init__(self, settings: Settings, engine: AsyncEngine | None = None) -> None:
        self.settings = settings
        self._schemas = Schemas.of(settings)
        self._time_out = settings.command_timeout.total_seconds()
        self._pool = ConnectionPool(settings) if engine is None else EnginePool(engine)
        # SET LOCAL needs a transaction; and outside of one, PgBouncer may send the messages of a statement to
        # different servers.
        self._always_begin = settings.row_level_security or settings.pgbouncer
        # Known after the first transaction.
        self._server: Row | None = None

    @property
    def engine(self) -> AsyncEngine:
        """The engine of the connections, in AUTOCOMMIT mode for SQLAlchemy."""
        return self._pool.engine

    @property
    def begins_at_once(self) -> bool:
        """True if a unit of work must begin its transaction with its first read."""
        return self._always_begin or self._server is None or self._server["isolation"] != "read committed"

    @property
    def is_distributed(self) -> bool:
        """True if Citus may distribute the tables. It runs a statement with several INSERTs on the coordinator."""
        return self._server is None or bool(self._server["distributed"])

    def check_open(self, operation: str) -> None:
        """Raise StoreError if the database has been closed."""
        if self._pool.is_closed:
            raise StoreError(f"{operation}: the data layer is closed")

    async def fetch_all(self, statement: Statement, values: Values) -> list[Row]:
        """Run `statement` and return its rows."""
        try:
            return await self._fetch(statement, values)
        except TransientError as error:
            failure = error
        return await self._repeat(lambda: self._fetch(statement, values), failure)

    async def fetch_one(self, statement: Statement, values: Values) -> Row | None:
        """Run `statement` and return its first row, or None."""
        try:
            rows = await self._fetch(statement, values)
        except TransientError as error:
            failure = error
        else:
            return rows[0] if rows else None
        rows = await self._repeat(lambda: self._fetch(statement, values), failure)
        return rows[0] if rows else None

    async def fetch_many(self, statement: Statement, rows: Sequence[Values]) -> list[Row]:
        """Run `statement` once for each of `rows`, in one round trip, and return the rows of all results.

        Either all runs take effect or none.
        """
        return await self.repeating(lambda: self._fetch(statement, *rows))

    async def fetch_now(self, statement: Statement, values: Values) -> list[Row]:
        """Like `fetch_all`, without retries."""
        return await self._fetch(statement, values)

    async def is_read_only(self) -> bool:
        """Return True if the server is read-only although the URL requests one that accepts writes. Does not retry.

        If so, later calls connect anew, to find a server that accepts writes.
        """
        wanted = read_target(self.settings).session_kind
        if wanted in STANDBY_KINDS:
            return False
        [row] = await self._fetch(_READ_ONLY, {"tenant_id": NO_TENANT})
        if row["read_only"] == "off":
            return False
        self._pool.discard_opened_until(monotonic())
        return True

    async def write_one(self, statement: Statement, values: Values) -> Row | None:
        """Like `fetch_one`, for a statement that may violate a unique index."""
        return await self.fetch_one(statement, values)

    async def collect(self, write: CollectedWrite) -> None:
        """Make the write at once."""
        await write.write(self, write.rows)

    async def atomically(self, work: Callable[[Transaction], Awaitable[T]], operation: str) -> T:
        """Run `work` in a transaction of its own, again after a transient failure."""

        async def attempt() -> T:
            async with self.transaction(operation) as transaction:
                return await work(transaction)

        return await self.repeating(attempt)

    async def repeating(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """Await `attempt()`, and repeat it after transient failures until the retry budget is used up."""
        try:
            return await attempt()
        except TransientError as error:
            failure = error
        return await self._repeat(attempt, failure)

    @asynccontextmanager
    async def transaction(
        self,
        operation: str = "beginning a unit of work",
        tenant_id: UUID | None = None,
        *,
        savepoint: bool = False,
    ) -> AsyncIterator[Transaction]:
        """A transaction that commits at the end of the block, and rolls back on an exception. It is not repeated.

        Args:
            operation: For error messages.
            tenant_id: The tenant to set at the beginning, if row-level security is enabled.
            savepoint: Whether the first thing to do is `Transaction.atomically`.
        """
        begin = partial(Transaction.begin, tenant_id=tenant_id, savepoint=savepoint)
        lease, transaction = await self._begin(operation, begin)
        broken = True
        try:
            yield transaction
            await transaction.commit()
            broken = transaction.interrupted
        except Exception as error:
            self._look_for_read_only(getattr(error, "cause", None), lease)
            # On cancellation a statement may still be running: closing the connection rolls back.
            broken = not await _rolled_back(transaction, lease)
            raise
        finally:
            await self._pool.release(lease, broken=broken)

    async def close(self) -> None:
        """Wait for running calls, for at most `command_timeout`, and close all connections."""
        await self._pool.close()

    async def _begin(self, operation: str, begin: _Begin) -> tuple[Lease, Transaction]:
        """Acquire a connection and begin a transaction on it."""
        lease = await self._pool.acquire(operation)
        try:
            return lease, await self._begin_on(lease, begin)
        except TransientError:
            # The connection was lost while idle. The next one is new, or was tested.
            pass
        lease = await self._pool.acquire(operation)
        return lease, await self._begin_on(lease, begin)

    async def _begin_on(self, lease: Lease, begin: _Begin) -> Transaction:
        try:
            if self._server is None:
                first = self._transaction_on(lease)
                await first.begin(None)
                self._server = await first.fetch_one(_SERVER, {"tenant_id": NO_TENANT})
                await first.commit()
            transaction = self._transaction_on(lease)
            await begin(transaction)
        except BaseException:
            await self._pool.release(lease, broken=True)
            raise
        return transaction

    def _transaction_on(self, lease: Lease) -> Transaction:
        return Transaction(
            self._driver_of(lease),
            self.settings,
            self._schemas,
            lambda: unit_connection(self._pool.engine, lease.proxy, self._schemas.tables),
        )

    async def _fetch(self, statement: Statement, *rows: Values) -> list[Row]:
        if self._always_begin:
            async with self.transaction(statement.operation, rows[0]["tenant_id"]) as transaction:
                if len(rows) == 1:
                    return await transaction.fetch_all(statement, rows[0])
                return await transaction.fetch_many(statement, rows)
        arguments = [statement.arguments(values) for values in rows]
        lease = await self._pool.acquire(statement.operation)
        broken, interrupted = False, True
        try:
            driver = self._driver_of(lease)
            sql = statement.sql_in(self._schemas)
            returned: list[Row] = await (
                driver.fetch(sql, *arguments[0])
                if len(arguments) == 1
                else bulk.fetch_many(driver, sql, arguments, self._time_out)
            )
            interrupted = False
        except Exception as error:  # noqa: BLE001 - no driver exception may leave the package.
            failure = as_store_error(error, describe(statement, rows[0]))
            self._look_for_read_only(error, lease)
            interrupted = isinstance(error, TimeoutError)
            # A connection opened before the database was migrated lacks the vector codec: close it.
            known = isinstance(error, asyncpg.PostgresError | TimeoutError)
            broken = not known or isinstance(failure, ConfigurationError)
        else:
            return returned
        finally:
            await self._pool.release(lease, broken=broken, interrupted=interrupted)
        raise failure

    def _driver_of(self, lease: Lease) -> Any:
        """The connection to run statements on."""
        engine = self._pool.engine.sync_engine
        if not is_observed(engine):
            return lease.driver
        return ObservedConnection(lease.driver, lambda: Connection(engine, lease.proxy))

    def _look_for_read_only(self, error: BaseException | None, lease: Lease) -> None:
        if getattr(error, "sqlstate", None) == READ_ONLY:
            # Connections opened later may be to another server.
            self._pool.discard_opened_until(lease.used)

    async def _repeat(self, attempt: Callable[[], Awaitable[T]], failure: TransientError) -> T:
        budget = self.settings.retry_budget.total_seconds()
        if budget <= 0 or self._pool.is_closed:
            raise failure
        try:
            async for again in stamina.retry_context(
                on=TransientError,
                attempts=None,
                timeout=budget,
                wait_initial=0.05,
                wait_max=1.0,
                wait_jitter=0.1,
            ):
                with again:
                    return await attempt()
        except TransientError as error:
            failure = error
        raise failure


async def _rolled_back(transaction: Transaction, lease: Lease) -> bool:
    if transaction.interrupted or lease.driver.is_closed():
        return False
    try:
        await transaction.rollback()
    except StoreError:
        return False
    return not lease.driver.is_in_transaction()
