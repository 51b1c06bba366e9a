"""What the methods of the PostgreSQL stores send."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeAlias
from uuid import uuid4

from soldier_data.errors import StoreError
from soldier_data.postgres.base_store import PostgresStore
from soldier_data.postgres.collecting import CollectedWrite
from soldier_data.postgres.database import Database
from soldier_data.postgres.statements import Row, Statement, Values
from soldier_data.settings import Settings
from tests.cases.case import Domain, public_methods
from tests.statements.common import Call


@dataclass(frozen=True)
class Copy:
    """A COPY of rows into a table."""

    table: str
    columns: tuple[str, ...]

    @property
    def sql(self) -> str:
        """The text that asyncpg sends."""
        columns = ", ".join(f'"{name}"' for name in self.columns)
        return f'COPY "public"."{self.table}"({columns}) FROM STDIN (FORMAT binary)'


Event: TypeAlias = Statement | Copy | str
"""What a method does: it sends something, or calls the method of that name of its own store."""


class Recorder:
    """An executor that notes what one method of a store sends, but not what other methods send that it calls.

    Args:
        inner: Executes the statements.
        method: The method.
        events: What was noted.
        running: The methods that are running, each called by the one before.

    Attributes:
        seems_changed: Whether to answer the next statement that returns one row as if it had found that another
            transaction has changed the profile.
    """

    seems_changed = False

    def __init__(self, inner: Any, method: str, events: list[Event], running: list[str]) -> None:
        self._inner = inner
        self._method = method
        self._events = events
        self._running = running

    @property
    def settings(self) -> Settings:
        settings: Settings = self._inner.settings
        return settings

    def note(self, event: Event) -> None:
        if self._running == [self._method] and event not in self._events:
            self._events.append(event)

    async def fetch_all(self, statement: Statement, values: Values) -> list[Row]:
        self.note(statement)
        rows: list[Row] = await self._inner.fetch_all(statement, values)
        return rows

    async def fetch_one(self, statement: Statement, values: Values) -> Row | None:
        self.note(statement)
        row: Row | None = await self._inner.fetch_one(statement, values)
        if self.seems_changed:
            self.seems_changed = False
            return {"done": False}
        return row

    async def write_one(self, statement: Statement, values: Values) -> Row | None:
        return await self.fetch_one(statement, values)

    async def fetch_many(self, statement: Statement, rows: Sequence[Values]) -> list[Row]:
        self.note(statement)
        returned: list[Row] = await self._inner.fetch_many(statement, rows)
        return returned

    async def collect(self, write: CollectedWrite) -> None:
        await write.write(self, write.rows)

    async def copy_rows(
        self, table: str, columns: list[str], rows: list[tuple[Any, ...]], operation: str
    ) -> None:
        self.note(Copy(table, tuple(columns)))
        await self._inner.copy_rows(table, columns, rows, operation)

    async def atomically(self, work: Callable[[Any], Awaitable[Any]], operation: str) -> Any:
        async def recorded(transaction: Any) -> Any:
            return await work(Recorder(transaction, self._method, self._events, self._running))

        return await self._inner.atomically(recorded, operation)

    def watch(self, store: Any) -> None:
        """Note when methods of the store begin and end."""

        def watched(name: str) -> Callable[..., Awaitable[Any]]:
            method = getattr(store, name)

            async def call(*args: Any, **options: Any) -> Any:
                self.note(name)
                self._running.append(name)
                try:
                    return await method(*args, **options)
                finally:
                    self._running.pop()

            return call

        for name in public_methods(type(store)) - public_methods(PostgresStore):
            setattr(store, name, watched(name))


async def record(domain: Domain[Any, Any], call: Call, database: Database) -> list[Event]:
    """What a method sends if the owner of what is stored calls it, and if another tenant does."""
    events: list[Event] = []
    class_ = domain.backends["postgres"]
    tenant_id = uuid4()
    own = await domain.seed(class_(database), tenant_id)
    for caller in (tenant_id, uuid4()):
        recorder = Recorder(database, call.method, events, [])
        store = class_(recorder)
        recorder.watch(store)
        with suppress(StoreError):
            await call.call(store, own, caller)
    return events
