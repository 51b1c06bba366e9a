"""One transaction on one connection."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from itertools import groupby
from typing import Any, TypeVar
from uuid import UUID

from sqlalchemy import Connection

from soldier_data.errors import StoreError
from soldier_data.postgres import bulk
from soldier_data.postgres.collecting import CollectedWrite
from soldier_data.postgres.errors import as_store_error
from soldier_data.postgres.statements import Row, Schemas, Statement, Values
from soldier_data.settings import Settings

T = TypeVar("T")

_ENDED = "the unit of work has ended: begin another one"
_INTERRUPTED = (
    "an earlier call of this unit of work was cancelled or timed out, so nothing of it can be saved: let the error "
    "leave the block, then repeat the unit of work"
)


class Transaction:
    """An open transaction: its statements commit or roll back together.

    Concurrent calls on one transaction run one after the other.

    Attributes:
        settings: The settings in force.
        connect: Returns an SQLAlchemy connection in this transaction.
        interrupted: Whether a statement was cancelled or timed out. It may still be running, so the transaction
            cannot be committed, and its connection has to be closed.
    """

    def __init__(
        self,
        connection: Any,
        settings: Settings,
        schemas: Schemas,
        connect: Callable[[], Connection],
    ) -> None:
        self.settings = settings
        self.connect = connect
        self._schemas = schemas
        self._connection = connection
        self._tenant_id: UUID | None = None
        self._turn = asyncio.Lock()
        self._time_out = settings.command_timeout.total_seconds()
        self._ended = False
        self.interrupted = False
        self._savepoint = "inner_work"
        # Nothing has been written since the savepoint was set, nor the tenant been changed.
        self._savepoint_is_new = False
        # To be released together with setting the next one, which saves a round trip.
        self._savepoint_is_open = False
        # Whether the service runs statements in this transaction too.
        self._is_shared = False

    async def fetch_all(self, statement: Statement, values: Values) -> list[Row]:
        """Run `statement` and return its rows."""
        async with self._turn:
            return await self._fetch(statement, values)

    async def fetch_one(self, statement: Statement, values: Values) -> Row | None:
        """Run `statement` and return its first row, or None."""
        rows = await self.fetch_all(statement, values)
        return rows[0] if rows else None

    async def fetch_many(self, statement: Statement, rows: Sequence[Values]) -> list[Row]:
        """Run `statement` once for each of `rows`, and return the rows of all results.

        Takes one round trip; with row-level security, one for each run of rows of the same tenant.
        """
        sql = statement.sql_in(self._schemas)
        returned: list[Row] = []
        async with self._turn:
            self._savepoint_is_new = False
            for tenant_id, of_tenant in self._groups(rows):
                await self.use_tenant(tenant_id)
                arguments = [statement.arguments(values) for values in of_tenant]
                call = bulk.fetch_many(self._connection, sql, arguments, self._time_out)
                returned += await self._guard(call, statement.operation)
        return returned

    async def write_one(self, statement: Statement, values: Values) -> Row | None:
        """Like `fetch_one`, for a statement that may violate a unique index: the transaction remains usable."""
        return await self.atomically(lambda inner: inner.fetch_one(statement, values), statement.operation)

    async def collect(self, write: CollectedWrite) -> None:
        """Make the write at once."""
        await write.write(self, write.rows)

    async def atomically(self, work: Callable[[Transaction], Awaitable[T]], operation: str) -> T:
        """Run `work` in a savepoint: if it fails, its changes are undone and the transaction remains usable."""
        async with self._turn:
            inner = Transaction(self._connection, self.settings, self._schemas, self.connect)
            inner._savepoint = f"{self._savepoint}_inner"
            inner._tenant_id = self._tenant_id
            if not self._savepoint_is_new:
                release = f"RELEASE SAVEPOINT {self._savepoint}; " if self._savepoint_is_open else ""
                await self._command(f"{release}SAVEPOINT {self._savepoint}", operation)
            self._savepoint_is_new, self._savepoint_is_open = False, True
            try:
                try:
                    result = await work(inner)
                finally:
                    inner._ended = True
                    self.interrupted |= inner.interrupted
            except Exception:
                # On a lost connection this fails too, and the first error is the one to raise.
                with suppress(StoreError):
                    # This also restores the tenant, as it was set with SET LOCAL.
                    await self._command(f"ROLLBACK TO SAVEPOINT {self._savepoint}", operation)
                    await self._release(operation)
                raise
            if self._is_shared:
                await self._release(operation)
            self._tenant_id = inner._tenant_id
            return result

    async def share(self) -> Connection:
        """Return an SQLAlchemy connection in this transaction.

        From now on savepoints are released at once: to release them later would release the caller's own too.
        """
        async with self._turn:
            self._is_shared = True
            if self._savepoint_is_open:
                await self._release("beginning to use the connection of the unit of work")
        return self.connect()

    async def _release(self, operation: str) -> None:
        self._savepoint_is_open = self._savepoint_is_new = False
        await self._command(f"RELEASE SAVEPOINT {self._savepoint}", operation)

    async def copy_rows(
        self, table: str, columns: list[str], rows: list[tuple[Any, ...]], operation: str
    ) -> None:
        """Insert `rows` with binary COPY, the fastest way for many rows. Values are in the order of `columns`."""
        async with self._turn:
            self._savepoint_is_new = False
            call = bulk.copy_rows(
                self._connection, self._schemas.tables, table, columns, rows, self._time_out
            )
            await self._guard(call, operation)

    async def use_tenant(self, tenant_id: UUID) -> None:
        """Set the tenant that row-level-security policies compare with, if they are enabled."""
        if self.settings.row_level_security and tenant_id != self._tenant_id:
            # To roll back to the savepoint would restore the tenant that was set before.
            self._savepoint_is_new = False
            await self._command(_set_tenant(tenant_id), "choosing the tenant")
            self._tenant_id = tenant_id

    async def begin(self, tenant_id: UUID | None, *, savepoint: bool = False) -> None:
        """Begin the transaction, in one round trip.

        Args:
            tenant_id: The tenant to set, as in `use_tenant`, unless it is None.
            savepoint: Whether to set the savepoint of the first call of `atomically` as well.
        """
        commands = ["BEGIN"]
        if tenant_id is not None and self.settings.row_level_security:
            commands.append(_set_tenant(tenant_id))
            self._tenant_id = tenant_id
        if savepoint:
            commands.append(f"SAVEPOINT {self._savepoint}")
            self._savepoint_is_new = self._savepoint_is_open = True
        await self._command("; ".join(commands), "beginning a transaction")

    async def commit(self) -> None:
        """Commit the transaction.

        Raises:
            StoreError: An earlier statement failed or was cancelled, so that the transaction was rolled back.
        """
        async with self._turn:
            if self._ended:
                return
            self._ended = True
            status = "" if self.interrupted else await self._command("COMMIT", "committing", ending=True)
        if status != "COMMIT":
            raise StoreError(
                "committing: nothing was saved, because an earlier statement of this transaction failed or was "
                "cancelled and its error was caught: let the error leave the block, then repeat the unit of work"
            )

    async def rollback(self) -> None:
        """Roll the transaction back."""
        async with self._turn:
            if not self._ended:
                self._ended = True
                if not self.interrupted:
                    await self._command("ROLLBACK", "rolling back", ending=True)

    def _groups(self, rows: Sequence[Values]) -> Iterable[tuple[UUID, Sequence[Values]]]:
        """The rows in groups that can be sent together, each with its tenant."""
        if not self.settings.row_level_security:
            return [(rows[0]["tenant_id"], rows)]
        by_tenant = groupby(rows, key=lambda values: values["tenant_id"])
        return [(tenant_id, list(of_tenant)) for tenant_id, of_tenant in by_tenant]

    async def _fetch(self, statement: Statement, values: Values) -> list[Row]:
        await self.use_tenant(values["tenant_id"])
        self._savepoint_is_new &= not statement.writes
        arguments = statement.arguments(values)
        rows: list[Row] = await self._guard(
            self._connection.fetch(statement.sql_in(self._schemas), *arguments), describe(statement, values)
        )
        return rows

    async def _command(self, sql: str, operation: str, *, ending: bool = False) -> str:
        status: str = await self._guard(self._connection.execute(sql), operation, ending=ending)
        return status

    async def _guard(self, call: Awaitable[Any], operation: str, *, ending: bool = False) -> Any:
        if self.interrupted or (self._ended and not ending):
            _discard(call)
            raise StoreError(f"{operation}: {_INTERRUPTED if self.interrupted else _ENDED}")
        try:
            return await call
        except Exception as error:  # noqa: BLE001 - no driver exception may leave the package.
            self.interrupted = isinstance(error, TimeoutError)
            failure = as_store_error(error, operation)
        except BaseException:
            self.interrupted = True
            raise
        # Raised outside the except block: the driver's error may hold values, and must not be chained.
        raise failure


def describe(statement: Statement, values: Values) -> str:
    """The operation for an error message, with the id of the entity."""
    return f"{statement.operation} {values['id']}" if "id" in values else statement.operation


def _set_tenant(tenant_id: UUID) -> str:
    # SET takes no parameters; a UUID contains no character that needs quoting.
    return f"SET LOCAL app.tenant_id = '{UUID(str(tenant_id))}'"


def _discard(call: Awaitable[Any]) -> None:
    close = getattr(call, "close", None)
    if close is not None:
        close()
