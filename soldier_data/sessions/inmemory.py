"""The reference implementation: sessions in the memory of the process."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from uuid import UUID

from pydantic import BaseModel

from soldier_data.base.channels import Channel
from soldier_data.base.inmemory import InMemoryStore, MemoryTable, TableSet
from soldier_data.base.models import mark_saved, utcnow
from soldier_data.base.paging import check_page
from soldier_data.base.scope_filters import ScopeFilter
from soldier_data.base.values import check_revision, check_storable, check_text
from soldier_data.logging import get_logger
from soldier_data.sessions.codec import encode, join
from soldier_data.sessions.lifetimes import milliseconds_to_live, past_max_age
from soldier_data.sessions.models import PendingMigration, Session, SessionStatus, SessionTierConfig
from soldier_data.sessions.refusals import conflict, id_taken
from soldier_data.sessions.step_places import check_place, in_scope, step_place
from soldier_data.sessions.store import SessionStore, UnitSessions


class _Record(BaseModel):
    session: Session
    expires_at: datetime


class _Tables(TableSet):
    """The sessions, by their id alone: it is unique among all tenants."""

    def __init__(self) -> None:
        self.sessions: MemoryTable[_Record] = MemoryTable()


class InMemorySessionStore(SessionStore, UnitSessions, InMemoryStore):
    """Stores sessions in a dict, for tests and for development without Redis.

    Args:
        config: Lifetimes, as for Redis. There are no tiers, so `hot_ttl` has no effect.
        now: The clock; tests may pass their own.
    """

    _tables: _Tables

    def __init__(
        self, config: SessionTierConfig | None = None, *, now: Callable[[], datetime] = utcnow
    ) -> None:
        self.config = config or SessionTierConfig()
        self._now = now
        self._tables = _Tables()
        self._log = get_logger(__name__)

    async def get(
        self,
        session_id: UUID,
        *,
        tenant_id: UUID | None = None,
        fresh: bool = False,  # noqa: ARG002 - there is no other copy.
    ) -> Session | None:
        session = self._find(session_id)
        if session is not None and tenant_id not in {None, session.tenant_id}:
            session = None
        self._log.debug("session_get", session_id=str(session_id), found=session is not None)
        return session and session.model_copy(deep=True)

    async def save(self, session: Session, *, if_revision: int | None = None) -> UUID:
        check_revision(if_revision)
        now = self._now()
        ttl = timedelta(milliseconds=milliseconds_to_live(session, self.config, now))
        # Converted to JSON and back, so that reads return the same as from Redis.
        body = encode(session, now)
        if if_revision is None:
            revision = self._write(session, None, body, now + ttl)
        else:
            revision = if_revision + 1
            self._tables.sessions.collect(lambda _: self._write(session, if_revision, body, now + ttl), [])
        mark_saved(session, now, revision, "last_activity_at")
        self._log.debug("session_saved", session_id=str(session.session_id), revision=session.revision)
        return session.session_id

    def _write(self, session: Session, if_revision: int | None, body: bytes, expires_at: datetime) -> int:
        """Store the body of a session, and return the new revision."""
        stored = self._find(session.session_id)
        if stored is not None and stored.tenant_id != session.tenant_id:
            raise id_taken(session)
        revision = stored.revision if stored is not None else 0
        if if_revision is not None and if_revision != revision:
            raise conflict(session, if_revision, revision)
        copy = Session.model_validate_json(join(revision + 1, str(session.tenant_id), body))
        self._put(copy, expires_at)
        return revision + 1

    async def delete(self, session_id: UUID, *, tenant_id: UUID | None = None) -> bool:
        session = self._find(session_id)
        found = session is not None and tenant_id in {None, session.tenant_id}
        if found:
            self._tables.sessions.remove((session_id,))
        self._log.debug("session_deleted", session_id=str(session_id), found=found)
        return found

    async def delete_many(self, tenant_id: UUID, session_ids: Iterable[UUID]) -> int:
        return sum([await self.delete(session_id, tenant_id=tenant_id) for session_id in set(session_ids)])

    async def get_by_channel(self, tenant_id: UUID, channel: Channel, user_channel_id: str) -> Session | None:
        found = await self.list_by_channel(tenant_id, channel, user_channel_id, limit=1)
        return found[0] if found else None

    async def list_by_channel(
        self, tenant_id: UUID, channel: Channel, user_channel_id: str, *, limit: int = 100
    ) -> list[Session]:
        check_text(user_channel_id, "user_channel_id")
        return self._select(
            "session_list_by_channel",
            tenant_id,
            lambda session: session.channel == channel and session.user_channel_id == user_channel_id,
            limit,
        )

    async def list_by_agent(
        self, tenant_id: UUID, agent_id: UUID, *, status: SessionStatus | None = None, limit: int = 100
    ) -> list[Session]:
        return self._select(
            "session_list_by_agent",
            tenant_id,
            lambda session: session.agent_id == agent_id and status in {None, session.status},
            limit,
        )

    async def list_by_customer(
        self, tenant_id: UUID, customer_profile_id: UUID, *, limit: int = 100
    ) -> list[Session]:
        return self._select(
            "session_list_by_customer",
            tenant_id,
            lambda session: session.customer_profile_id == customer_profile_id,
            limit,
        )

    async def find_sessions_by_step_hash(
        self,
        tenant_id: UUID,
        scenario_id: UUID,
        scenario_version: int,
        step_content_hash: str,
        scope_filter: ScopeFilter | None = None,
    ) -> list[Session]:
        check_place(scenario_version, step_content_hash)
        place = (scenario_id, scenario_version, step_content_hash)
        now = self._now()
        return self._select(
            "session_find_by_step",
            tenant_id,
            lambda session: step_place(session) == place and in_scope(session, scope_filter, now),
        )

    async def mark_pending_migration(
        self, tenant_id: UUID, session_ids: Sequence[UUID], pending: PendingMigration
    ) -> int:
        check_storable(pending)
        marked = 0
        for session_id in set(session_ids):
            record = self._tables.sessions.get((session_id,))
            if record is not None and record.session.tenant_id == tenant_id and not self._is_expired(record):
                record.session.pending_migration = pending.model_copy()
                record.session.revision += 1
                self._put(record.session, record.expires_at)
                marked += 1
        self._log.debug("sessions_marked", tenant_id=str(tenant_id), marked=marked)
        return marked

    async def health_check(self) -> bool:
        return True

    def _put(self, session: Session, expires_at: datetime) -> None:
        record = _Record.model_construct(session=session, expires_at=expires_at)
        self._tables.sessions.put((session.session_id,), record)

    def _find(self, session_id: UUID) -> Session | None:
        """The stored session itself, which must not be changed."""
        record = self._tables.sessions.peek((session_id,))
        return None if record is None or self._is_expired(record) else record.session

    def _select(
        self, event: str, tenant_id: UUID, matches: Callable[[Session], bool], limit: int | None = None
    ) -> list[Session]:
        if limit is not None:
            check_page(limit)
        found: list[Session] = []
        for record in list(self._tables.sessions.rows(None)):
            if self._is_expired(record):
                self._tables.sessions.remove((record.session.session_id,))
            elif record.session.tenant_id == tenant_id and matches(record.session):
                found.append(record.session)
        found.sort(key=lambda session: (session.last_activity_at, str(session.session_id)), reverse=True)
        copies = [session.model_copy(deep=True) for session in found[:limit]]
        self._log.debug(event, found=len(copies))
        return copies

    def _is_expired(self, record: _Record) -> bool:
        now = self._now()
        return record.expires_at <= now or past_max_age(record.session, self.config, now)
