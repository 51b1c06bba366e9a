"""The transaction of a unit of work, which begins when it is needed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import replace
from typing import TypeVar
from uuid import UUID

from sqlalchemy import Connection

from soldier_data.base.collected import raise_first
from soldier_data.errors import StoreConnectionError, StoreError
from soldier_data.postgres.collecting import CollectedWrite, combined
from soldier_data.postgres.database import Database
from soldier_data.postgres.errors import TransientError
from soldier_data.postgres.sqlalchemy_session import UnitConnection
from soldier_data.postgres.statements import Row, Statement, Values
from soldier_data.postgres.transaction import Transaction
from soldier_data.settings import Settings

T = TypeVar("T")


class UnitTransaction:
    """The transaction of a unit of work.

    Until something is written, reads run by themselves. Writes that nothing waits for are collected, and sent as one
    statement; if that is all that the unit writes, no transaction is begun for it.

    Args:
        database: The database.
        tenant_id: The tenant to set when the transaction begins, if row-level security is enabled.
    """

    def __init__(self, database: Database, tenant_id: UUID | None) -> None:
        self.settings = database.settings
        self._database = database
        self._tenant_id = tenant_id
        self._stack = AsyncExitStack()
        self._transaction: Transaction | None = None
        self._connection: Connection | None = None
        self._collected: list[tuple[object, CollectedWrite]] = []
        self._beginning = asyncio.Lock()
        self._sending = asyncio.Lock()
        self._ended = False

    def executor(self) -> UnitExecutor:
        """Return the interface for one store."""
        return UnitExecutor(self)

    def sqlalchemy_connection(self) -> UnitConnection:
        """Return an SQLAlchemy connection that begins the transaction with its first statement."""
        return UnitConnection(self._database.engine, self._connect)

    async def begun(self, *, savepoint: bool = True) -> Transaction:
        """Return the transaction; begin it unless it has begun.

        Args:
            savepoint: Whether to begin with the savepoint of the first write, which then takes no round trip.
        """
        self._check_open()
        async with self._beginning:
            if self._transaction is None:
                self._transaction = await self._stack.enter_async_context(
                    self._database.transaction(tenant_id=self._tenant_id, savepoint=savepoint)
                )
            return self._transaction

    async def fetch_all(self, statement: Statement, values: Values) -> list[Row]:
        """Run a statement: by itself, if nothing has been written and it only reads."""
        if self._transaction is None and not statement.writes and not self._database.begins_at_once:
            self._check_open()
            # A connection may have been lost while it was free. The transaction takes another one.
            with suppress(TransientError):
                return await self._database.fetch_all(statement, values)
        return await (await self.begun()).fetch_all(statement, values)

    def collect(self, owner: object, write: CollectedWrite) -> None:
        """Keep a write of the store `owner` for later."""
        self._check_open()
        # The caller may change the entity before the write is sent.
        rows = [
            {name: list(value) if isinstance(value, list) else value for name, value in row.items()}
            for row in write.rows
        ]
        self._collected.append((owner, replace(write, rows=rows)))

    def has_collected(self, owner: object) -> bool:
        """Return True if writes of the store `owner` have not been sent, or any are being sent."""
        return self._sending.locked() or any(each is owner for each, _ in self._collected)

    async def flush(self) -> None:
        """Send what has been collected.

        Raises:
            StoreError: A write was rejected; the others have taken effect.
        """
        async with self._sending:
            writes = self._take_collected()
            if writes:
                await self._write(await self.begun(), writes)

    async def commit(self) -> None:
        """Send what has been collected, and commit.

        Raises:
            StoreError: A write was rejected, and nothing has been committed.
        """
        writes = self._take_collected()
        alone = self._transaction is None and not self._database.begins_at_once
        if writes and alone and not self._database.is_distributed:
            await self._write_at_once(writes)
        elif writes:
            await self._write(await self.begun(), writes)
        self._ended = True
        if self._transaction is not None:
            await self._transaction.commit()

    async def rollback(self) -> None:
        """Discard what has been collected, and roll back."""
        self._collected.clear()
        self._ended = True
        if self._transaction is not None:
            await self._transaction.rollback()

    async def _write_at_once(self, writes: Sequence[CollectedWrite]) -> None:
        """Write in one statement, which commits by itself."""
        statement, values = combined(writes)
        try:
            await self._database.fetch_all(statement, values)
        except StoreConnectionError as error:
            # After a lost reply, each write finds out that it has taken effect.
            if not isinstance(error, TransientError):
                raise
        except StoreError:
            pass
        else:
            return
        await self._write_each(await self.begun(), writes)

    async def _write(self, transaction: Transaction, writes: Sequence[CollectedWrite]) -> None:
        one_tenant = len({row["tenant_id"] for write in writes for row in write.rows}) == 1
        if (one_tenant or not self.settings.row_level_security) and not self._database.is_distributed:
            statement, values = combined(writes)
            try:
                await transaction.write_one(statement, values)
            except StoreConnectionError:
                raise
            except StoreError:
                pass
            else:
                return
        await self._write_each(transaction, writes)

    async def _write_each(self, transaction: Transaction, writes: Sequence[CollectedWrite]) -> None:
        """Write one after the other, to find out which one is rejected and why."""
        errors: list[StoreError] = []
        for write in writes:
            try:
                await write.write(transaction, write.rows)
            except StoreConnectionError:
                raise
            except StoreError as error:
                errors.append(error)
        raise_first(errors)

    def _take_collected(self) -> list[CollectedWrite]:
        writes = [write for _, write in self._collected]
        self._collected.clear()
        return writes

    async def _connect(self) -> Connection:
        await self.flush()
        transaction = await self.begun(savepoint=False)
        if self._connection is None:
            self._connection = await transaction.share()
        return self._connection

    def _check_open(self) -> None:
        if self._ended:
            raise StoreError("the unit of work has ended: begin another one")


class UnitExecutor:
    """The interface of one store to the transaction of a unit of work.

    Writes of the store that were collected are sent before its next other statement.
    """

    def __init__(self, unit: UnitTransaction) -> None:
        self._unit = unit

    @property
    def settings(self) -> Settings:
        """The settings in force."""
        return self._unit.settings

    async def fetch_all(self, statement: Statement, values: Values) -> list[Row]:
        """Run `statement` and return its rows."""
        await self._send_collected()
        return await self._unit.fetch_all(statement, values)

    async def fetch_one(self, statement: Statement, values: Values) -> Row | None:
        """Run `statement` and return its first row, or None."""
        rows = await self.fetch_all(statement, values)
        return rows[0] if rows else None

    async def fetch_many(self, statement: Statement, rows: Sequence[Values]) -> list[Row]:
        """Run `statement` once for each of `rows`, and return the rows of all results."""
        return await (await self._begun()).fetch_many(statement, rows)

    async def write_one(self, statement: Statement, values: Values) -> Row | None:
        """Like `fetch_one`, for a statement that may violate a unique index: the transaction remains usable."""
        return await (await self._begun()).write_one(statement, values)

    async def atomically(self, work: Callable[[Transaction], Awaitable[T]], operation: str) -> T:
        """Run `work` in a savepoint."""
        return await (await self._begun()).atomically(work, operation)

    async def collect(self, write: CollectedWrite) -> None:
        """Keep a write for later."""
        self._unit.collect(self, write)

    async def _begun(self) -> Transaction:
        await self._send_collected()
        return await self._unit.begun()

    async def _send_collected(self) -> None:
        if self._unit.has_collected(self):
            await self._unit.flush()


@asynccontextmanager
async def begin_unit(database: Database, tenant_id: UUID | None) -> AsyncIterator[UnitTransaction]:
    """The transaction of a unit of work, which is rolled back if the block raises, and otherwise to be committed."""
    database.check_open("beginning a unit of work")
    unit = UnitTransaction(database, tenant_id)
    async with unit._stack:  # noqa: SLF001 - of this module.
        try:
            yield unit
        finally:
            unit._ended = True  # noqa: SLF001 - as above.
