"""The store for `SOLDIER_SESSION_DURABILITY=postgres`: sessions in PostgreSQL, with copies in Redis."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any, Literal, NamedTuple
from uuid import UUID

from soldier_data.base.channels import Channel
from soldier_data.base.models import mark_saved, utcnow
from soldier_data.base.paging import check_page
from soldier_data.base.scope_filters import ScopeFilter
from soldier_data.base.subjects import DataSubject, batches
from soldier_data.base.values import check_revision, check_storable, check_text
from soldier_data.errors import ConflictError, StoreConnectionError, StoreError, ValidationError
from soldier_data.postgres.database import Database
from soldier_data.postgres.executor import Executor
from soldier_data.sessions.codec import last_write, new_write_id, stored_values
from soldier_data.sessions.connections import RedisClient
from soldier_data.sessions.models import (
    MILLISECOND,
    PendingMigration,
    Session,
    SessionStatus,
    SessionTierConfig,
)
from soldier_data.sessions.redis import RedisSessionStore
from soldier_data.sessions.refusals import changed_while_marking
from soldier_data.sessions.removal import DELETE, delete_sessions, deletion
from soldier_data.sessions.rows import SessionRows, StoredSession, prepare
from soldier_data.sessions.step_places import check_place, in_scope
from soldier_data.sessions.store import UnitSessions
from soldier_data.sessions.unconfirmed import Write

OnlyInRedis = Literal["keep", "adopt", "delete"]
"""Treatment of sessions in `DurableSessionStore.repair` that PostgreSQL lacks, or has in an earlier revision."""

# Copies that a repair writes at once.
_COPIES_AT_ONCE = 20


class SessionRepair(NamedTuple):
    """Result of `DurableSessionStore.repair`.

    Attributes:
        checked: Number of sessions in PostgreSQL.
        copied: Number of those that Redis lacked, or had in a different revision.
        only_in_redis: Number of sessions that PostgreSQL lacked, or had in an earlier revision.
    """

    checked: int
    copied: int
    only_in_redis: int


class DurableSessionStore(RedisSessionStore):
    """Stores sessions in PostgreSQL, and copies of them in the two tiers of Redis.

    PostgreSQL decides about revisions: a save writes there first, then to Redis. `get` reads Redis, and PostgreSQL if
    Redis does not have the session, which it then copies to Redis. Lists and look-ups read PostgreSQL, in one round
    trip, so that they are complete whatever Redis has lost.

    If a process ends between the two writes, Redis has an earlier revision. A save with `if_revision` that is based on
    it raises ConflictError; `get(..., fresh=True)` and `repair` replace it.

    PostgreSQL knows a session by its tenant and id. A save under the id of another tenant's session is refused if Redis
    has that session.

    Args:
        client: As for `RedisSessionStore`.
        database: The database.
        config: As for `RedisSessionStore`.
        options: Further arguments of `RedisSessionStore`.
    """

    def __init__(
        self,
        client: RedisClient,
        database: Database,
        config: SessionTierConfig | None = None,
        **options: Any,
    ) -> None:
        super().__init__(client, config, **options)
        self._database = database
        self._rows = SessionRows(database, self.config)

    def join(
        self, transaction: Executor | None, after_commit: Callable[[Callable[[], Any]], None]
    ) -> UnitSessions:
        """Return the sessions of a unit of work; a callback of `after_commit` writes the copies to Redis.

        Raises:
            ConfigurationError: The unit of work has no transaction, or one on a different database.
        """
        return _DurableUnitSessions(self._rows.join(transaction), self._write_copy_of_save, after_commit)

    async def get(
        self, session_id: UUID, *, tenant_id: UUID | None = None, fresh: bool = False
    ) -> Session | None:
        self._rows.check_tenant(tenant_id)
        if not fresh and (session := await super().get(session_id, tenant_id=tenant_id)) is not None:
            return session
        stored = await self._rows.get(session_id, tenant_id)
        if stored is None:
            return None
        try:
            await self._write_copies([stored])
        except StoreConnectionError:
            # A Redis that accepts no writes must not prevent reads.
            if fresh:
                raise
        return stored.session

    async def save(self, session: Session, *, if_revision: int | None = None) -> UUID:
        check_revision(if_revision)
        write = self._unconfirmed.start(session, if_revision)
        new = prepare(session, write, self.config)
        try:
            saved = await self._rows.save(new)
            await self._write_copy_of_save(saved)
        except (StoreConnectionError, asyncio.CancelledError):
            self._unconfirmed.add(session, write, new.body)
            raise
        mark_saved(session, write.time, saved.revision, "last_activity_at")
        return session.session_id

    async def delete(self, session_id: UUID, *, tenant_id: UUID | None = None) -> bool:
        self._rows.check_tenant(tenant_id)
        # Redis comes first: from then on it refuses copies that others have read from PostgreSQL.
        keys, arguments = deletion(self._keys, session_id, tenant_id, durable=True)
        in_redis = await self._redis.script(f"deleting session {session_id}", DELETE, keys, *arguments)
        in_rows = await self._rows.delete(session_id, tenant_id)
        self._log.debug("session_deleted", session_id=str(session_id), found=in_rows)
        return in_rows or in_redis > 0

    async def delete_many(self, tenant_id: UUID, session_ids: Iterable[UUID]) -> int:
        ids = list(session_ids)
        in_redis = await delete_sessions(self._redis, self._keys, self._lookup, tenant_id, ids, durable=True)
        removed = max(in_redis, await self._rows.delete_many(tenant_id, ids))
        self._log.debug("sessions_deleted", tenant_id=str(tenant_id), removed=removed)
        return removed

    async def get_by_channel(self, tenant_id: UUID, channel: Channel, user_channel_id: str) -> Session | None:
        found = await self.list_by_channel(tenant_id, channel, user_channel_id, limit=1)
        return found[0] if found else None

    async def list_by_channel(
        self, tenant_id: UUID, channel: Channel, user_channel_id: str, *, limit: int = 100
    ) -> list[Session]:
        check_page(limit)
        check_text(user_channel_id, "user_channel_id")
        return await self._rows.list_by_channel(tenant_id, channel, user_channel_id, limit)

    async def list_by_agent(
        self, tenant_id: UUID, agent_id: UUID, *, status: SessionStatus | None = None, limit: int = 100
    ) -> list[Session]:
        check_page(limit)
        return await self._rows.list_by_agent(tenant_id, agent_id, status, limit)

    async def list_by_customer(
        self, tenant_id: UUID, customer_profile_id: UUID, *, limit: int = 100
    ) -> list[Session]:
        check_page(limit)
        return await self._rows.list_by_customer(tenant_id, customer_profile_id, limit)

    async def list_by_subject(self, subject: DataSubject) -> list[Session]:
        found = await self._rows.list_by_subject(subject)
        # Redis may have sessions that PostgreSQL lacks (see `repair`); an outdated copy may be another customer's now.
        known = {session.session_id for session in found}
        others = [one for one in await super().list_by_subject(subject) if one.session_id not in known]
        if others:
            known = await self._rows.known(subject.tenant_id, [one.session_id for one in others])
        return found + [one for one in others if one.session_id not in known]

    async def find_sessions_by_step_hash(
        self,
        tenant_id: UUID,
        scenario_id: UUID,
        scenario_version: int,
        step_content_hash: str,
        scope_filter: ScopeFilter | None = None,
    ) -> list[Session]:
        check_place(scenario_version, step_content_hash)
        found = await self._rows.list_at_step(tenant_id, (scenario_id, scenario_version, step_content_hash))
        now = utcnow()
        return [session for session in found if in_scope(session, scope_filter, now)]

    async def mark_pending_migration(
        self, tenant_id: UUID, session_ids: Sequence[UUID], pending: PendingMigration
    ) -> int:
        check_storable(pending)
        marked, left = await self._rows.mark(tenant_id, session_ids, pending)
        await self._write_copies(marked)
        self._log.debug("sessions_marked", tenant_id=str(tenant_id), marked=len(marked))
        if left:
            raise changed_while_marking(left, len(marked))
        return len(marked)

    async def health_check(self) -> bool:
        try:
            return await super().health_check() and not await self._database.is_read_only()
        except StoreError:
            return False

    async def cleanup_expired(self) -> int:
        """Remove expired sessions from PostgreSQL and Redis, and index entries whose session does not exist.

        Reads all rows and scans the whole key space in small steps, between which other clients are served.

        Returns:
            The number of rows, sessions in Redis, and entries removed.

        Raises:
            ConfigurationError: The database role is subject to row-level security.
        """
        await self._rows.check_unbound()
        return await self._rows.remove_expired() + await super().cleanup_expired()

    async def repair(self, only_in_redis: OnlyInRedis = "keep") -> SessionRepair:
        """Bring Redis in line with PostgreSQL, page by page; for operators.

        Writes the sessions that Redis lacks or has in a different revision. Calls may run concurrently with saves and
        with each other.

        Args:
            only_in_redis: Treatment of sessions that PostgreSQL lacks, or has in an earlier revision. Such sessions
                were saved before `SOLDIER_SESSION_DURABILITY` was set, or the server has lost them. "adopt" saves them
                in PostgreSQL, "delete" removes them from Redis, "keep" leaves them.

        Raises:
            ConfigurationError: The database role is subject to row-level security.
        """
        await self._rows.check_unbound()
        alone = await self._repair_alone(only_in_redis)
        checked = copied = 0
        async for page in self._rows.pages():
            keys = [self._keys.session(stored.session.session_id)[1] for stored in page]
            values = await self._lookup.values(keys)
            behind = [
                stored
                for stored, value in zip(page, values, strict=True)
                if value is None or _is_earlier(value, stored)
            ]
            await self._write_copies(behind)
            checked += len(page)
            copied += len(behind)
        self._log.debug("sessions_repaired", checked=checked, copied=copied, only_in_redis=alone)
        return SessionRepair(checked, copied, alone)

    async def _write_copy(self, stored: StoredSession) -> None:
        """Write the copy in Redis, unless Redis has this revision or a later one.

        Raises:
            ConflictError: In Redis the id belongs to another tenant.
        """
        session = stored.session
        ttl = max(1, (stored.expires_at - utcnow()) // MILLISECOND)
        values = stored_values(str(session.tenant_id), session.created_at, stored.body, stored.packed)
        kept = await self._store(session, stored.write, ttl, values, stored.revision)
        # Redis is written after PostgreSQL: a later revision is that of another save, or one that PostgreSQL has lost.
        if kept > stored.revision and await self._rows.stored_revision(session) < kept:
            await super().delete(session.session_id, tenant_id=session.tenant_id)

    async def _write_copy_of_save(self, saved: StoredSession) -> None:
        try:
            await self._write_copy(saved)
        except ConflictError:
            # A stored session keeps its id, although Redis has another tenant's session under it.
            if saved.revision > 1:
                return
            await self._rows.undo(saved)
            raise

    async def _write_copies(self, page: Sequence[StoredSession]) -> None:
        async def write(stored: StoredSession) -> None:
            # Redis may have another tenant's session with this id.
            with suppress(ConflictError):
                await self._write_copy(stored)

        for batch in batches(page, _COPIES_AT_ONCE):
            await asyncio.gather(*(write(stored) for stored in batch))

    async def _repair_alone(self, treatment: OnlyInRedis) -> int:
        """Treat sessions that PostgreSQL lacks, or has in an earlier revision, and return their number."""
        alone = 0
        async for page in self._redis.scan("repairing sessions", self._keys.pattern("persist"), "string"):
            ids = [id_ for key in page if (id_ := self._keys.session_id(key, "persist")) is not None]
            # Redis is read first: a session that is saved meanwhile is found in PostgreSQL.
            found = (
                [session for session in await self._lookup.read(ids) if session is not None] if ids else []
            )
            revisions = await self._rows.revisions(ids) if found else {}
            for session in found:
                stored = revisions.get((session.tenant_id, session.session_id), 0)
                if session.revision > stored and not self._lookup.is_expired(session):
                    alone += 1
                    await self._treat_alone(session, treatment)
        return alone

    async def _treat_alone(self, session: Session, treatment: OnlyInRedis) -> None:
        if treatment == "adopt":
            write = Write(new_write_id(), session.last_activity_at, None)
            try:
                await self._rows.adopt(prepare(session, write, self.config))
            except ValidationError as error:
                # It must not prevent the adoption of the others.
                self._log.error("session_not_adopted", session_id=str(session.session_id), error=str(error))
        elif treatment == "delete":
            await super().delete(session.session_id, tenant_id=session.tenant_id)


def _is_earlier(value: bytes, stored: StoredSession) -> bool:
    """Return whether a value of Redis has an earlier revision, or is a different write under the same one."""
    copied = last_write(value)
    return copied is not None and (
        copied[0] < stored.revision or (copied[0] == stored.revision and copied[1] != stored.write.id)
    )


class _DurableUnitSessions(UnitSessions):
    """The sessions of a unit of work.

    Args:
        rows: The rows, on the unit's transaction.
        write_copy: Writes a copy to Redis.
        after_commit: Registers a callback of the unit.
    """

    def __init__(
        self,
        rows: SessionRows,
        write_copy: Callable[[StoredSession], Awaitable[None]],
        after_commit: Callable[[Callable[[], Any]], None],
    ) -> None:
        self._rows = rows
        self._write_copy = write_copy
        self._after_commit = after_commit
        self._saved: dict[UUID, StoredSession] = {}
        self._registered = False

    async def get(self, session_id: UUID, *, tenant_id: UUID | None = None) -> Session | None:
        stored = await self._rows.get(session_id, tenant_id)
        return None if stored is None else stored.session

    async def save(self, session: Session, *, if_revision: int | None = None) -> UUID:
        check_revision(if_revision)
        session_id = session.session_id
        write = Write(new_write_id(), utcnow(), if_revision)
        new = prepare(session, write, self._rows.config)
        if if_revision is None:
            new = await self._rows.save(new)
        else:
            new = new._replace(revision=if_revision + 1)
            await self._rows.collect(new, lambda: self._saved.pop(session_id, None))
        mark_saved(session, write.time, new.revision, "last_activity_at")
        if not self._registered:
            self._registered = True
            self._after_commit(self._write_copies)
        # The caller may change the session before the commit.
        self._saved[session_id] = new.unshared()
        return session_id

    async def _write_copies(self) -> None:
        for saved in self._saved.values():
            await self._write_copy(saved)
