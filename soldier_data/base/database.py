"""Running statements: each as its own transaction, or several in one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from time import monotonic
from typing import Any, TypeAlias, TypeVar
from uuid import UUID

import asyncpg
import stamina
from sqlalchemy.pool import PoolProxiedConnection
from sqlalchemy.util import greenlet_spawn

from soldier_data.base.engine import create_engine
from soldier_data.base.failures import TransientError, as_store_error
from soldier_data.base.statements import Statement
from soldier_data.errors import ConfigurationError, StoreConnectionError, StoreError
from soldier_data.logging import get_logger
from soldier_data.settings import Settings

T = TypeVar("T")

Values: TypeAlias = Mapping[str, Any]
"""The parameters of a statement by name, a tenant_id always among them."""

Row: TypeAlias = Mapping[str, Any]
"""One row of a result: values by column name."""


class Transaction:
    """One open transaction: its statements commit or roll back together.

    Calls made at the same time on one transaction take turns.
    """

    def __init__(self, connection: Any, settings: Settings) -> None:
        self.settings = settings
        self._connection = connection
        self._tenant_id: UUID | None = None
        self._turn = asyncio.Lock()
        self._ended = False
        self._interrupted = False

    async def fetch_all(self, statement: Statement, values: Values) -> list[Row]:
        """Run `statement` and return its rows."""
        async with self._turn:
            return await self._fetch(statement, values)

    async def fetch_one(self, statement: Statement, values: Values) -> Row | None:
        """Run `statement` and return its first row, if there is one."""
        rows = await self.fetch_all(statement, values)
        return rows[0] if rows else None

    async def fetch_many(self, statement: Statement, rows: Sequence[Values]) -> list[Row]:
        """Run `statement` once for each of `rows`, in one round trip, and return what all of them returned."""
        async with self._turn:
            await self.use_tenant(rows[0]["tenant_id"])
            arguments = [statement.arguments(values) for values in rows]
            returned: list[Row] = await self._guard(
                self._connection.fetchmany(statement.sql, arguments), statement.doing
            )
            return returned

    async def write_one(self, statement: Statement, values: Values) -> Row | None:
        """As `fetch_one`, for a statement that a unique index may refuse: the transaction stays usable."""
        return await self.atomically(lambda inner: inner.fetch_one(statement, values), statement.doing)

    async def atomically(self, work: Callable[[Transaction], Awaitable[T]], doing: str) -> T:
        """Run `work` so that all or nothing of it happens, without ending the transaction on failure."""
        async with self._turn:
            inner = Transaction(self._connection, self.settings)
            inner._tenant_id = self._tenant_id
            await self._command("SAVEPOINT inner_work", doing)
            try:
                result = await work(inner)
            except Exception:
                # The tenant goes back to what it was before the savepoint, as every SET LOCAL does.
                await self._command("ROLLBACK TO SAVEPOINT inner_work", doing)
                await self._command("RELEASE SAVEPOINT inner_work", doing)
                raise
            finally:
                inner._ended = True
                self._interrupted |= inner._interrupted
            await self._command("RELEASE SAVEPOINT inner_work", doing)
            self._tenant_id = inner._tenant_id
            return result

    async def copy_rows(
        self, table: str, columns: list[str], rows: list[tuple[Any, ...]], doing: str
    ) -> None:
        """Write `rows` by binary COPY, the fastest way for many. The values are in the order of `columns`."""
        async with self._turn:
            await self._guard(
                self._connection.copy_records_to_table(table, columns=columns, records=rows), doing
            )

    async def use_tenant(self, tenant_id: UUID) -> None:
        """Let the row-level-security policies show this tenant's rows, where they are switched on."""
        if self.settings.row_level_security and tenant_id != self._tenant_id:
            # A UUID has no character that could end the quotes, and SET takes no parameters.
            await self._command(f"SET LOCAL app.tenant_id = '{UUID(str(tenant_id))}'", "choosing the tenant")
            self._tenant_id = tenant_id

    async def begin(self) -> None:
        """Open the transaction."""
        await self._command("BEGIN", "beginning a transaction")

    async def commit(self) -> None:
        """Make everything durable.

        Raises:
            StoreError: An earlier statement failed for good or was cancelled, so that everything was undone.
        """
        async with self._turn:
            if self._ended:
                return
            self._ended = True
            end = "ROLLBACK" if self._interrupted else "COMMIT"
            status = await self._command(end, "committing", ending=True)
        if status != "COMMIT":
            raise StoreError(
                "committing: nothing was saved, because an earlier statement of this transaction failed or was "
                "cancelled and its error was not passed on: let it leave the block, then repeat the whole"
            )

    async def rollback(self) -> None:
        """Undo everything."""
        async with self._turn:
            if not self._ended:
                self._ended = True
                await self._command("ROLLBACK", "rolling back", ending=True)

    async def _fetch(self, statement: Statement, values: Values) -> list[Row]:
        await self.use_tenant(values["tenant_id"])
        arguments = statement.arguments(values)
        rows: list[Row] = await self._guard(
            self._connection.fetch(statement.sql, *arguments), _subject(statement, values)
        )
        return rows

    async def _command(self, sql: str, doing: str, *, ending: bool = False) -> str:
        status: str = await self._guard(self._connection.execute(sql), doing, ending=ending)
        return status

    async def _guard(self, call: Awaitable[Any], doing: str, *, ending: bool = False) -> Any:
        if self._ended and not ending:
            _discard(call)
            raise StoreError(f"{doing}: the unit of work has ended: begin another one")
        try:
            return await call
        except Exception as error:  # noqa: BLE001 - no exception of the driver may leave.
            failure = as_store_error(error, doing)
        except BaseException:
            # A cancelled statement may have taken effect or not, so nothing of the transaction may be kept.
            self._interrupted = True
            raise
        # Outside of the except block, so that the driver's error is not chained: its text may hold values.
        raise failure


class Database:
    """A pool of connections. Each call is a transaction of its own; reads and single statements take one round trip.

    Calls that fail because a connection was lost, or by a deadlock or a serialization failure, are repeated for up
    to `settings.retry_budget`.

    Raises (every method):
        StoreConnectionError: The server is unreachable, refuses the log-in or does not answer in time.
        ConfigurationError: The database is not migrated.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._engine = create_engine(settings)
        # Autocommit cannot carry SET LOCAL, and PgBouncer may send two messages of one statement to two servers
        # unless a transaction holds them together.
        self._always_begin = settings.row_level_security or settings.pgbouncer
        self._recycle = settings.pool_recycle.total_seconds()
        # Taking a connection out of SQLAlchemy's pool and putting it back takes as long as a short query does, so
        # free connections stay checked out here, the last used on top.
        self._free: list[_Lease] = []
        self._in_use: set[_Lease] = set()
        self._abandoning: set[asyncio.Task[None]] = set()
        self._waiting = 0
        # Callers wait here and never at the pool, which does not wake those who wait when a connection could not
        # be made: they would sit out their time while the server is down.
        self._turns = asyncio.Semaphore(settings.pool_size + settings.pool_overflow)
        self._closed = False
        self._idle = asyncio.Event()
        self._log = get_logger(__name__)

    async def fetch_all(self, statement: Statement, values: Values) -> list[Row]:
        """Run `statement` and return its rows."""
        try:
            return await self._fetch(statement, values)
        except TransientError as error:
            failure = error
        return await self._repeat(lambda: self._fetch(statement, values), failure)

    async def fetch_one(self, statement: Statement, values: Values) -> Row | None:
        """Run `statement` and return its first row, if there is one."""
        rows = await self.fetch_all(statement, values)
        return rows[0] if rows else None

    async def fetch_now(self, statement: Statement, values: Values) -> list[Row]:
        """As `fetch_all`, failing at once where that would try again."""
        return await self._fetch(statement, values)

    async def write_one(self, statement: Statement, values: Values) -> Row | None:
        """As `fetch_one`, for a statement that a unique index may refuse."""
        return await self.fetch_one(statement, values)

    async def atomically(self, work: Callable[[Transaction], Awaitable[T]], doing: str) -> T:
        """Run `work` in a transaction of its own; `work` is repeated after a transient failure."""

        async def attempt() -> T:
            async with self.transaction(doing) as transaction:
                return await work(transaction)

        return await self.repeating(attempt)

    async def repeating(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """Await `attempt()`, again and again while it fails transiently and the retry budget lasts."""
        try:
            return await attempt()
        except TransientError as error:
            failure = error
        return await self._repeat(attempt, failure)

    @asynccontextmanager
    async def transaction(self, doing: str = "beginning a unit of work") -> AsyncIterator[Transaction]:
        """A transaction that commits on leaving and rolls back on any exception. It is not repeated."""
        lease = await self._acquire(doing)
        transaction = Transaction(lease.driver, self.settings)
        broken = True
        try:
            await transaction.begin()
            yield transaction
            await transaction.commit()
            broken = False
        except Exception:
            # Any other exception is a cancellation: a statement may still be running, so the connection is given
            # up, which rolls back.
            broken = not await _rolled_back(transaction, lease)
            raise
        finally:
            await self._release(lease, broken=broken)

    async def close(self) -> None:
        """Wait for what is running, `command_timeout` at most, and close every connection."""
        self._closed = True
        if self._in_use or self._waiting:
            self._idle.clear()
            try:
                async with asyncio.timeout(self.settings.command_timeout.total_seconds()):
                    await self._idle.wait()
            except TimeoutError:
                self._log.warning("database.close_timeout", abandoned=len(self._in_use))
                for lease in list(self._in_use):
                    lease.driver.terminate()
        while self._free:
            await greenlet_spawn(self._free.pop().proxy.close)
        await self._engine.dispose()

    async def _fetch(self, statement: Statement, values: Values) -> list[Row]:
        if self._always_begin:
            async with self.transaction(statement.doing) as transaction:
                return await transaction.fetch_all(statement, values)
        arguments = statement.arguments(values)
        lease = await self._acquire(statement.doing)
        broken = True
        try:
            rows: list[Row] = await lease.driver.fetch(statement.sql, *arguments)
            broken = False
        except Exception as error:  # noqa: BLE001 - no exception of the driver may leave.
            failure = as_store_error(error, _subject(statement, values))
            # A connection opened before the migrations ran does not know the vector type: it is not kept.
            broken = not isinstance(error, asyncpg.PostgresError) or isinstance(failure, ConfigurationError)
        else:
            return rows
        finally:
            await self._release(lease, broken=broken)
        raise failure

    async def _acquire(self, doing: str) -> _Lease:
        if self._closed:
            raise StoreError(f"{doing}: the data layer is closed")
        self._waiting += 1
        try:
            await self._take_turn(doing)
            try:
                lease = await self._connect()
            except BaseException:
                self._turns.release()
                raise
        except Exception as error:  # noqa: BLE001 - no exception of the driver may leave.
            failure = as_store_error(error, doing)
        else:
            self._in_use.add(lease)
            return lease
        finally:
            self._waiting -= 1
            self._notice_idle()
        raise failure

    async def _take_turn(self, doing: str) -> None:
        if not self._turns.locked():
            await self._turns.acquire()
            return
        try:
            async with asyncio.timeout(self.settings.pool_timeout.total_seconds()):
                await self._turns.acquire()
        except TimeoutError:
            in_vain = True
        else:
            in_vain = False
        if in_vain:
            raise StoreConnectionError(
                f"{doing}: all database connections are in use: raise SOLDIER_POOL_SIZE or SOLDIER_POOL_TIMEOUT"
            )

    async def _connect(self) -> _Lease:
        while self._free:
            lease = self._free.pop()
            if not lease.driver.is_closed() and monotonic() - lease.since < self._recycle:
                return lease
            lease.proxy.invalidate()
            await greenlet_spawn(lease.proxy.close)
        while True:
            proxy = await greenlet_spawn(self._engine.pool.connect)
            lease = _Lease(proxy)
            if not lease.driver.is_closed():
                return lease
            proxy.invalidate()

    async def _release(self, lease: _Lease, *, broken: bool) -> None:
        if broken and not lease.driver.is_closed():
            # Not awaited: it may be a cancelled task that gives the connection back.
            task = asyncio.create_task(self._abandon(lease))
            self._abandoning.add(task)
            task.add_done_callback(self._abandoning.discard)
            return
        await self._put_back(lease)

    async def _abandon(self, lease: _Lease) -> None:
        """Close a connection on which a statement may still run. Closing cancels it; hanging up would not."""
        try:
            async with asyncio.timeout(self.settings.connect_timeout.total_seconds()):
                await lease.driver.close()
        except Exception as error:  # noqa: BLE001 - the server may be gone as well.
            self._log.debug("database.abandoned", error=type(error).__name__)
            lease.driver.terminate()
        await self._put_back(lease)

    async def _put_back(self, lease: _Lease) -> None:
        self._in_use.discard(lease)
        try:
            if lease.driver.is_closed():
                lease.proxy.invalidate()
            elif not self._closed and len(self._free) < self.settings.pool_size:
                self._free.append(lease)
                return
            await greenlet_spawn(lease.proxy.close)
        finally:
            self._turns.release()
            self._notice_idle()

    def _notice_idle(self) -> None:
        if self._closed and not self._in_use and not self._waiting:
            self._idle.set()

    async def _repeat(self, attempt: Callable[[], Awaitable[T]], failure: TransientError) -> T:
        budget = self.settings.retry_budget.total_seconds()
        if budget <= 0 or self._closed:
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


class _Lease:
    """A connection taken out of the pool."""

    __slots__ = ("driver", "proxy", "since")

    def __init__(self, proxy: PoolProxiedConnection) -> None:
        self.proxy = proxy
        self.driver: Any = proxy.driver_connection
        # SQLAlchemy replaces connections by age when they are checked out; these stay out.
        self.since: float = proxy.info.setdefault("since", monotonic())


async def _rolled_back(transaction: Transaction, lease: _Lease) -> bool:
    if lease.driver.is_closed():
        return False
    try:
        await transaction.rollback()
    except StoreError:
        return False
    return not lease.driver.is_in_transaction()


Executor: TypeAlias = Database | Transaction
"""What a store needs. With a `Database` each call stands alone; with a `Transaction` calls commit together."""


def _subject(statement: Statement, values: Values) -> str:
    return f"{statement.doing} {values['id']}" if "id" in values else statement.doing


def _discard(call: Awaitable[Any]) -> None:
    close = getattr(call, "close", None)
    if close is not None:
        close()
