"""One transaction over all stores. The only module that joins them."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Protocol, TypeVar, cast
from uuid import UUID

from soldier_data.audit.store import AuditStore
from soldier_data.base.inmemory import InMemoryStore
from soldier_data.config.store import ConfigStore
from soldier_data.errors import ConfigurationError, StoreError
from soldier_data.memory.store import MemoryStore
from soldier_data.postgres.database import Database
from soldier_data.postgres.transaction import Transaction
from soldier_data.profiles.store import ProfileStore
from soldier_data.runs.store import RunStore
from soldier_data.vectors.store import VectorStore

S = TypeVar("S")

_COMMITTED = (
    "This is the error of a callback of after_commit: everything that the unit of work wrote had been committed "
    "and stays saved. Callbacks after this one were not called."
)


class Stores(Protocol):
    """The stores that take part in units of work, as a `DataLayer` has them."""

    config: ConfigStore
    memory: MemoryStore
    audit: AuditStore
    profiles: ProfileStore
    runs: RunStore
    vectors: VectorStore


class UnitOfWork:
    """The stores, in one transaction: everything commits together, or nothing does.

    Calls made at the same time take turns. A refused write leaves the unit usable. Saves set revisions on the
    entities that were passed: after a rollback, read those entities again.

    Of two units that change the same entity, or take the same unique value, at the same time, PostgreSQL lets the
    second one wait for the end of the first, and decides then. Stores in memory never wait: what the unit that
    commits last has changed is refused as a whole, by a ConflictError on leaving the block.
    """

    def __init__(self, transaction: Transaction | None, stores: Stores) -> None:
        self._transaction = transaction
        self._in_memory: list[InMemoryStore] = []
        self._callbacks: list[Callable[[], Any]] = []
        self.config: ConfigStore = self._joined("config", stores.config)
        self.memory: MemoryStore = self._joined("memory", stores.memory)
        self.audit: AuditStore = self._joined("audit", stores.audit)
        self.profiles: ProfileStore = self._joined("profiles", stores.profiles)
        self.runs: RunStore = self._joined("runs", stores.runs)
        self.vectors: VectorStore = self._joined("vectors", stores.vectors)

    def after_commit(self, callback: Callable[[], Any]) -> None:
        """Call `callback`, and await what it returns, once everything is committed; in order of registration.

        This is the place for what cannot take part in the transaction, such as saving a session in Redis. An
        error of a callback leaves the block, and the callbacks after it are not called. What the unit wrote is
        saved all the same: the error has a note that says so, a `StoreError` also `committed` set to True, and
        `run_in_transaction` does not repeat it.
        """
        self._callbacks.append(callback)

    async def rollback(self) -> None:
        """Undo everything and forget the callbacks. The unit has ended then; the block may be left normally."""
        self._callbacks.clear()
        self.end_in_memory()
        if self._transaction is not None:
            await self._transaction.rollback()

    def check_in_memory(self) -> None:
        """Check that the changes of in-memory stores can be committed, before PostgreSQL commits its part.

        Raises:
            ConflictError: Another caller changed the same things meanwhile.
        """
        for store in self._in_memory:
            store.check()

    def commit_in_memory(self) -> None:
        """Give the changes of in-memory stores to the data layer, once PostgreSQL has committed its part."""
        for store in self._in_memory:
            store.commit()

    def end_in_memory(self) -> None:
        """Forget the changes of in-memory stores that were not committed, and refuse further calls."""
        for store in self._in_memory:
            store.end()
        self._in_memory.clear()

    async def run_callbacks(self) -> None:
        """Run what `after_commit` registered."""
        for callback in self._callbacks:
            try:
                result = callback()
                if inspect.isawaitable(result):
                    await result
            except BaseException as error:
                error.add_note(_COMMITTED)
                if isinstance(error, StoreError):
                    error.committed = True
                raise

    def _joined(self, name: str, store: S) -> S:
        """`store` within this unit."""
        if isinstance(store, InMemoryStore):
            begun = store.begin()
            self._in_memory.append(begun)
            return cast("S", begun)
        # Of the class, because a wrapper may pass on whatever it is asked for to the store that it wraps.
        join = getattr(type(store), "join", None)
        if join is None:
            raise ConfigurationError(
                f"beginning a unit of work: the store assigned to {name}, a {type(store).__name__}, does not say how "
                "it takes part: give it a method join(transaction) that returns the store to use in the unit, on that "
                "transaction, or itself if what it writes need not commit or roll back with the rest"
            )
        return cast("S", join(store, self._transaction))


@asynccontextmanager
async def begin_unit_of_work(
    database: Database | None, stores: Stores, tenant_id: UUID | None
) -> AsyncIterator[UnitOfWork]:
    """Begin a unit of work; commit on leaving, roll back on any exception. Callbacks are left to the caller."""
    async with AsyncExitStack() as stack:
        transaction = None if database is None else await stack.enter_async_context(database.transaction())
        if transaction is not None and tenant_id is not None:
            await transaction.use_tenant(tenant_id)
        unit = UnitOfWork(transaction, stores)
        try:
            yield unit
            unit.check_in_memory()
            if transaction is not None:
                await transaction.commit()
            unit.commit_in_memory()
        finally:
            unit.end_in_memory()
