"""Units of work: one transaction across all stores."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import cached_property
from typing import Any, Protocol, TypeVar, cast
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from soldier_data.audit.store import AuditStore
from soldier_data.base.collected import CollectedInMemory
from soldier_data.base.inmemory import InMemoryStore
from soldier_data.config.store import ConfigStore
from soldier_data.errors import ConfigurationError, StoreError
from soldier_data.memory.store import MemoryStore
from soldier_data.postgres.database import Database
from soldier_data.postgres.executor import Executor
from soldier_data.postgres.joining import JoinedTransaction, call_after_commit, join_transaction
from soldier_data.postgres.sqlalchemy_session import UnitConnection, UnitSession
from soldier_data.postgres.unit_transaction import UnitTransaction, begin_unit
from soldier_data.profiles.store import ProfileStore
from soldier_data.runs.store import RunStore
from soldier_data.sessions.durable import DurableSessionStore
from soldier_data.sessions.store import SessionStore, UnitSessions
from soldier_data.settings import Settings
from soldier_data.vectors.store import VectorStore

S = TypeVar("S")

_COMMITTED = (
    "This error was raised by a callback of after_commit. The unit of work itself has been committed. "
    "The callbacks after this one were not called."
)


class Stores(Protocol):
    """The stores of a `DataLayer` that take part in units of work."""

    config: ConfigStore
    memory: MemoryStore
    audit: AuditStore
    profiles: ProfileStore
    runs: RunStore
    vectors: VectorStore
    sessions: SessionStore


class UnitOfWork:
    """The stores in one transaction: either everything commits, or nothing does.

    The transaction begins when it is needed: until something is written, reads run by themselves. Writes that only add
    (turn records, audit events, episodes, entities, relationships, steps, artifacts, LLM calls and embeddings), and
    saves of sessions with `if_revision`, are collected, and sent together as one statement: before the next other call
    on the same store, before a statement of `session` or `connection`, by `flush()`, and at the end of the block. If
    one of them is rejected, the error is raised there, as in a session of SQLAlchemy; call `flush()` to have it
    at once.

    Concurrent calls within a unit run one after the other. A rejected write (a duplicate name, for example) leaves
    the unit usable. Saves set `revision` on the entities passed to them: after a rollback, read those entities again.

    When two units change the same entity, or use the same unique value, at the same time, PostgreSQL makes the second
    one wait until the first has ended. In-memory stores do not wait: the unit that commits last fails as a whole, with
    a ConflictError at the end of its block.
    """

    def __init__(
        self,
        transaction: UnitTransaction | JoinedTransaction | None,
        stores: Stores,
        session: AsyncSession | None = None,
    ) -> None:
        self._transaction = transaction
        self._in_memory: list[InMemoryStore] = []
        self._collected = CollectedInMemory()
        self._callbacks: list[Callable[[], Any]] = []
        self._session = session
        self.config: ConfigStore = self._joined("config", stores.config)
        self.memory: MemoryStore = self._joined("memory", stores.memory)
        self.audit: AuditStore = self._joined("audit", stores.audit)
        self.profiles: ProfileStore = self._joined("profiles", stores.profiles)
        self.runs: RunStore = self._joined("runs", stores.runs)
        self.vectors: VectorStore = self._joined("vectors", stores.vectors)
        self._sessions = self._joined_sessions(stores.sessions)

    @property
    def sessions(self) -> UnitSessions:
        """The sessions, if they are stored in PostgreSQL or in memory.

        Raises:
            ConfigurationError: They are stored in Redis alone.
        """
        if self._sessions is None:
            raise ConfigurationError(
                "uow.sessions: sessions are stored in Redis alone, which cannot commit with the unit of work: set "
                "SOLDIER_SESSION_DURABILITY=postgres, or save the session in uow.after_commit"
            )
        return self._sessions

    @cached_property
    def connection(self) -> AsyncConnection:
        """An SQLAlchemy connection in the unit's transaction, for statements of your own.

        It cannot run statements at the same time as the unit's stores, and cannot commit or roll back.

        Raises:
            ConfigurationError: No store of the data layer uses PostgreSQL.
        """
        if self._transaction is None:
            raise ConfigurationError(
                "the unit of work has no transaction: no store of the data layer uses PostgreSQL"
            )
        return self._transaction.sqlalchemy_connection()

    @property
    def session(self) -> AsyncSession:
        """An SQLAlchemy session in the unit's transaction, for mapped classes of your own and `soldier_data.orm`.

        It sees what the stores have written. Stores see what it has written after `await session.flush()`, and so
        does the database at the end of the block. It cannot run statements at the same time as the unit's stores, and
        cannot commit or roll back.

        Raises:
            ConfigurationError: No store of the data layer uses PostgreSQL.
        """
        if self._session is None:
            self._session = UnitSession(self.connection)
        return self._session

    async def flush(self) -> None:
        """Send the writes that the unit has collected, and wait for their outcome.

        Raises:
            StoreError: A write was rejected; the others have taken effect.
        """
        self._collected.flush()
        if self._transaction is not None:
            await self._transaction.flush()

    def after_commit(self, callback: Callable[[], Any]) -> None:
        """Register `callback` to be called, and its result awaited if it is awaitable, after the commit.

        Use it for work that cannot be part of the transaction, such as saving a session in Redis. Callbacks run in
        the order of registration. If one raises, the rest are not called and the error propagates, with a note that
        the unit has been committed. A `StoreError` then has `committed` set to True, and `run_in_transaction` does
        not retry.
        """
        self._callbacks.append(callback)

    @property
    def has_work_after_commit(self) -> bool:
        """True if there are callbacks to run or changes to in-memory stores to apply."""
        return bool(self._callbacks or self._in_memory)

    async def rollback(self) -> None:
        """Roll back, and discard the callbacks. No further calls are possible; the block may end normally."""
        self._callbacks.clear()
        self.end_in_memory()
        await self.close_session()
        if self._transaction is not None:
            await self._transaction.rollback()

    async def flush_session(self) -> None:
        """Write the pending changes of the session."""
        if self._session is not None:
            await self._session.flush()

    async def close_session(self) -> None:
        """Detach the objects of the unit's own session, and reject further use of it and of the unit's connection."""
        if isinstance(self._session, UnitSession):
            await self._session.close()
        connection = vars(self).get("connection")
        if isinstance(connection, UnitConnection):
            await connection.close()

    def flush_in_memory(self) -> None:
        """Make the collected writes of in-memory stores."""
        self._collected.flush()

    def check_in_memory(self) -> None:
        """Check that the changes to in-memory stores can be committed. Called before PostgreSQL commits.

        Raises:
            ConflictError: Another caller has changed the same entities meanwhile.
        """
        for store in self._in_memory:
            store.check()

    def commit_in_memory(self) -> None:
        """Apply the changes to the data layer's in-memory stores. Called after PostgreSQL has committed."""
        for store in self._in_memory:
            store.commit()

    def end_in_memory(self) -> None:
        """Discard uncommitted changes to in-memory stores, and reject further calls."""
        self._collected.clear()
        for store in self._in_memory:
            store.end()
        self._in_memory.clear()

    async def finish_joined(self) -> None:
        """Apply the changes to in-memory stores and run the callbacks, after the caller's transaction is committed."""
        self.commit_in_memory()
        await self.run_callbacks()

    async def run_callbacks(self) -> None:
        """Run the callbacks that were registered with `after_commit`."""
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

    def _joined_sessions(self, store: SessionStore) -> UnitSessions | None:
        if isinstance(store, InMemoryStore):
            return cast("UnitSessions", self._joined("sessions", store))
        return (
            store.join(self._executor(), self.after_commit)
            if isinstance(store, DurableSessionStore)
            else None
        )

    def _joined(self, name: str, store: S) -> S:
        """Return the store to use in place of `store` within this unit."""
        if isinstance(store, InMemoryStore):
            begun = store.begin(self._collected)
            self._in_memory.append(begun)
            return cast("S", begun)
        # Looked up on the class, because a wrapper's __getattr__ may delegate to the wrapped store.
        join = getattr(type(store), "join", None)
        if join is None:
            raise ConfigurationError(
                f"beginning a unit of work: the store assigned to {name}, a {type(store).__name__}, has no method "
                "join(transaction): add one that returns a store on that transaction, or self if its writes do not "
                "have to commit or roll back with the rest"
            )
        return cast("S", join(store, self._executor()))

    def _executor(self) -> Executor | None:
        return None if self._transaction is None else self._transaction.executor()


@asynccontextmanager
async def begin_unit_of_work(
    database: Database | None, stores: Stores, tenant_id: UUID | None
) -> AsyncIterator[UnitOfWork]:
    """Begin a unit of work; commit at the end, or roll back on an exception. The caller runs the callbacks."""
    async with AsyncExitStack() as stack:
        transaction = (
            None if database is None else await stack.enter_async_context(begin_unit(database, tenant_id))
        )
        unit = UnitOfWork(transaction, stores)
        try:
            yield unit
            await unit.flush_session()
            unit.flush_in_memory()
            unit.check_in_memory()
            if transaction is not None:
                await transaction.commit()
            unit.commit_in_memory()
        finally:
            unit.end_in_memory()
            await unit.close_session()


@asynccontextmanager
async def join_unit_of_work(
    settings: Settings,
    stores: Stores,
    tenant_id: UUID | None,
    session: AsyncSession | None,
    connection: AsyncConnection | None,
) -> AsyncIterator[UnitOfWork]:
    """Begin a unit of work in a savepoint of the caller's transaction, which the caller commits or rolls back."""
    if session is not None:
        if connection is not None:
            raise ConfigurationError("beginning a unit of work: pass session or connection, not both")
        connection = await session.connection()
    assert connection is not None
    transaction = await join_transaction(connection, settings)
    # It also flushes the session: the stores may refer to rows that it has not written yet.
    async with (session or connection).begin_nested():
        if session is not None:
            # A session sends SAVEPOINT when its connection is next used.
            await session.connection()
        if tenant_id is not None:
            await transaction.use_tenant(tenant_id)
        unit = UnitOfWork(transaction, stores, session)
        try:
            yield unit
            await unit.flush_session()
            unit.flush_in_memory()
            unit.check_in_memory()
        except BaseException:
            unit.end_in_memory()
            raise
        finally:
            transaction.end()
            await unit.close_session()
    if unit.has_work_after_commit:
        await call_after_commit(connection, unit.finish_joined)
