"""Reading and writing the rows of durable sessions."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

from soldier_data.base.channels import Channel
from soldier_data.base.models import utcnow
from soldier_data.base.subjects import DataSubject, batches
from soldier_data.base.values import check_integer, check_key
from soldier_data.errors import ConfigurationError, ConflictError, StoreError, ValidationError
from soldier_data.logging import get_logger
from soldier_data.postgres.base_store import PostgresStore
from soldier_data.postgres.collecting import CollectedWrite
from soldier_data.postgres.database import NO_TENANT
from soldier_data.postgres.executor import Executor
from soldier_data.postgres.statements import Row, Statement, Values, quoted
from soldier_data.sessions import statements as sql
from soldier_data.sessions.codec import decode_body, encode, new_write_id, pack, unpack
from soldier_data.sessions.lifetimes import milliseconds_to_live
from soldier_data.sessions.models import PendingMigration, Session, SessionStatus, SessionTierConfig
from soldier_data.sessions.refusals import conflict
from soldier_data.sessions.step_places import StepPlace, step_place
from soldier_data.sessions.unconfirmed import Write

ROWS_AT_A_TIME = 500
"""Number of rows that a page for operators has."""

# An attempt to mark a session fails only if the session is saved within about a millisecond.
_ATTEMPTS = 20


class StoredSession(NamedTuple):
    """A session with what is stored beside it.

    Attributes:
        session: The session. Before it is saved, its revision is that of the last save.
        revision: The stored revision; 0 before the session is saved.
        write: The save.
        expires_at: Time at which the session expires unless it is saved again.
        body: See `codec.encode`.
        packed: The body in compressed form.
    """

    session: Session
    revision: int
    write: Write
    expires_at: datetime
    body: bytes
    packed: bytes

    def unshared(self) -> StoredSession:
        """Return this with a copy of the session, as stored."""
        session = decode_body(self.revision, str(self.session.tenant_id), self.body, "a session")
        return self._replace(session=session)


def prepare(session: Session, write: Write, config: SessionTierConfig) -> StoredSession:
    """Return what a save stores.

    Raises:
        ValidationError: A value cannot be stored, or the session is older than `max_session_age`.
    """
    ttl = timedelta(milliseconds=milliseconds_to_live(session, config, write.time))
    body = encode(session, write.time)
    check_key(session.user_channel_id, "user_channel_id")
    place = step_place(session)
    if place is not None:
        check_integer(place[1], "active_scenario_version")
        check_key(place[2], "step_history")
    return StoredSession(session, 0, write, write.time + ttl, body, pack(body))


class SessionRows(PostgresStore):
    """The table of sessions, on a `Database` or on the `Transaction` of a unit of work."""

    def __init__(self, db: Executor, config: SessionTierConfig) -> None:
        self._db = db
        self.config = config
        self._log = get_logger(__name__)

    def check_tenant(self, tenant_id: UUID | None) -> None:
        """Check that a tenant is given where row-level security needs one.

        Raises:
            ValidationError: It is not.
        """
        if tenant_id is None and self._db.settings.row_level_security:
            raise ValidationError(
                "tenant_id is required, because SOLDIER_ROW_LEVEL_SECURITY is set and sessions are stored in "
                "PostgreSQL",
                field="tenant_id",
            )

    async def save(self, new: StoredSession) -> StoredSession:
        """Save a session as `SessionStore.save` does, and return it with its revision.

        Raises:
            ConflictError: The stored revision is not the expected one.
        """
        expected = new.write.if_revision
        statement = sql.save if expected is None else sql.save_replacing if expected else sql.save_new
        values = self._values(**_columns(new), if_revision=expected)
        row = await self._db.fetch_one(statement, values)
        if row is not None:
            return new._replace(revision=row["revision"])
        assert expected is not None
        raise conflict(new.session, expected, await self.stored_revision(new.session), fresh=True)

    async def collect(self, new: StoredSession, forget: Callable[[], object]) -> None:
        """Save a session whose `revision` is the expected one plus one; in a unit of work it is collected.

        Args:
            new: The session.
            forget: Called if the save is rejected.

        Raises:
            ConflictError: The stored revision is not the expected one.
        """

        async def write(db: Executor, _: Sequence[Values]) -> None:
            try:
                await self.join(db).save(new)
            except ConflictError:
                forget()
                raise

        row = {**_columns(new), "revision": new.revision}
        await self._db.collect(CollectedWrite(sql.insertion, [row], write))

    async def undo(self, saved: StoredSession) -> None:
        """Remove a session if this save was the last one."""
        await self._db.fetch_one(sql.remove_write, self._values(**_columns(saved)))

    async def get(self, session_id: UUID, tenant_id: UUID | None) -> StoredSession | None:
        """Return a session of the tenant, or of any tenant."""
        self.check_tenant(tenant_id)
        statement = sql.get_of_any_tenant if tenant_id is None else sql.get
        row = await self._db.fetch_one(statement, self._values(tenant_id, id=session_id))
        return None if row is None else _stored(row)

    async def stored_revision(self, session: Session) -> int:
        """Return the stored revision of the session, or 0."""
        values = self._values(session.tenant_id, id=session.session_id)
        row = await self._db.fetch_one(sql.stored_revision, values)
        revision: int = 0 if row is None else row["revision"]
        return revision

    async def list_by_agent(
        self, tenant_id: UUID, agent_id: UUID, status: SessionStatus | None, limit: int
    ) -> list[Session]:
        """As `SessionStore.list_by_agent`."""
        statement = sql.list_by_agent(status=status is not None)
        return await self._list(statement, tenant_id, agent_id=agent_id, status=status, limit=limit)

    async def list_by_customer(self, tenant_id: UUID, profile_id: UUID, limit: int) -> list[Session]:
        """As `SessionStore.list_by_customer`."""
        return await self._list(sql.list_by_customer, tenant_id, customer_profile_id=profile_id, limit=limit)

    async def list_by_channel(
        self, tenant_id: UUID, channel: Channel, user_channel_id: str, limit: int
    ) -> list[Session]:
        """As `SessionStore.list_by_channel`."""
        return await self._list(
            sql.list_by_channel, tenant_id, channel=channel, user_channel_id=user_channel_id, limit=limit
        )

    async def list_by_subject(self, subject: DataSubject) -> list[Session]:
        """As `SessionStore.list_by_subject`, expired sessions included."""
        tenant_id = subject.tenant_id
        found: list[Session] = []
        for profile_id in subject.profile_ids:
            found += await self._list(sql.list_of_profile, tenant_id, customer_profile_id=profile_id)
        for channel, user_channel_id in subject.identities:
            found += await self._list(
                sql.list_of_address, tenant_id, channel=channel, user_channel_id=user_channel_id
            )
        return found

    async def known(self, tenant_id: UUID, session_ids: Sequence[UUID]) -> set[UUID]:
        """Return those of the ids that the tenant has a row of, expired ones included."""
        rows = await self._db.fetch_all(sql.known, self._values(tenant_id, ids=list(session_ids)))
        return {row["id"] for row in rows}

    async def list_at_step(self, tenant_id: UUID, place: StepPlace) -> list[Session]:
        """Return all active sessions at a step."""
        scenario_id, version, content_hash = place
        return await self._list(
            sql.list_at_step,
            tenant_id,
            scenario_id=scenario_id,
            scenario_version=version,
            step_content_hash=content_hash,
        )

    async def mark(
        self, tenant_id: UUID, session_ids: Sequence[UUID], pending: PendingMigration
    ) -> tuple[list[StoredSession], list[UUID]]:
        """Set `pending_migration` of sessions of the tenant, without losing what others save meanwhile.

        Returns:
            The marked sessions, and the ids of those that changed during every attempt.
        """
        # Concurrent calls lock common rows in the same order, which prevents deadlocks.
        left = sorted(set(session_ids))
        marked: list[StoredSession] = []
        for _ in range(_ATTEMPTS):
            if not left:
                break
            unmarked: list[UUID] = []
            for ids in batches(left, ROWS_AT_A_TIME):
                rows = await self._db.fetch_all(sql.get_listed, self._values(tenant_id, ids=ids))
                changed = {
                    row["id"]: _marked(row, pending) for row in sorted(rows, key=lambda row: row["id"])
                }
                if changed:
                    values = [
                        self._values(**_columns(new), if_revision=new.revision - 1)
                        for new in changed.values()
                    ]
                    done = {row["id"] for row in await self._db.fetch_many(sql.mark, values)}
                    marked += [new for id_, new in changed.items() if id_ in done]
                    unmarked += [id_ for id_ in changed if id_ not in done]
            left = unmarked
        return marked, left

    async def delete(self, session_id: UUID, tenant_id: UUID | None) -> bool:
        """Delete a session of the tenant, or of any tenant; return whether it existed."""
        self.check_tenant(tenant_id)
        statement = sql.remove_of_any_tenant if tenant_id is None else sql.remove
        row = await self._db.fetch_one(statement, self._values(tenant_id, id=session_id))
        return row is not None and row["expires_at"] > utcnow()

    async def delete_many(self, tenant_id: UUID, session_ids: Iterable[UUID]) -> int:
        """Delete sessions of the tenant, and return their number."""
        removed = 0
        for ids in batches(sorted(set(session_ids)), ROWS_AT_A_TIME):
            removed += len(await self._db.fetch_all(sql.remove_listed, self._values(tenant_id, ids=ids)))
        return removed

    # -- for operators, of all tenants -------------------------------------------------------------------------

    async def check_unbound(self) -> None:
        """Check that the role sees the rows of all tenants.

        Raises:
            ConfigurationError: It is subject to row-level security.
        """
        table = f"{quoted(self._db.settings.database_schema)}.{sql.SESSIONS.name}"
        row = await self._db.fetch_one(sql.has_policies, self._values(table=table))
        if row is not None and row["active"]:
            raise ConfigurationError(
                "the database role sees no sessions, because it is subject to the row-level-security policies: use the "
                "role that owns the tables, if it is a superuser or has BYPASSRLS"
            )

    async def pages(self) -> AsyncIterator[list[StoredSession]]:
        """Yield all living sessions, a page at a time."""
        async for rows in self._pages(sql.list_all):
            yield [_stored(row) for row in rows]

    async def remove_expired(self) -> int:
        """Remove the rows of expired sessions, a page at a time, and return their number."""
        removed = 0
        async for rows in self._pages(sql.list_expired):
            values = [self._values(row["tenant_id"], id=row["id"]) for row in rows]
            removed += len(await self._db.fetch_many(sql.remove_expired, values))
        return removed

    async def revisions(self, session_ids: Sequence[UUID]) -> dict[tuple[UUID, UUID], int]:
        """Return the revisions of the stored sessions by tenant and id."""
        rows = await self._db.fetch_all(sql.list_revisions, self._values(ids=list(session_ids)))
        return {(row["tenant_id"], row["id"]): row["revision"] for row in rows}

    async def adopt(self, session: StoredSession) -> None:
        """Store a session under the revision that it has, unless a later one is stored."""
        values = self._values(**_columns(session), revision=session.session.revision)
        await self._db.fetch_one(sql.adopt, values)

    async def _pages(self, statement: Statement) -> AsyncIterator[list[Row]]:
        last = NO_TENANT, NO_TENANT
        while True:
            values = self._values(after_tenant_id=last[0], after_id=last[1], limit=ROWS_AT_A_TIME)
            rows = await self._db.fetch_all(statement, values)
            if rows:
                yield rows
                last = rows[-1]["tenant_id"], rows[-1]["id"]
            if len(rows) < ROWS_AT_A_TIME:
                return

    async def _list(self, statement: Statement, tenant_id: UUID, **values: Any) -> list[Session]:
        rows = await self._db.fetch_all(statement, self._values(tenant_id, **values))
        found: list[Session] = []
        for row in rows:
            try:
                found.append(_stored(row).session)
            except StoreError as error:
                # It must not make other sessions inaccessible; `get` raises an error for it.
                self._log.error("session_unreadable", session_id=str(row["id"]), error=str(error))
        return found

    def _values(self, tenant_id: UUID | None = None, **values: Any) -> Values:
        now = utcnow()
        times = {"now": now, "oldest": now - self.config.max_session_age}
        return {"tenant_id": tenant_id or NO_TENANT, **times, **values}


def _columns(stored: StoredSession) -> dict[str, Any]:
    session = stored.session
    scenario_id, version, content_hash = step_place(session) or (None, None, None)
    return {
        "tenant_id": session.tenant_id,
        "id": session.session_id,
        "agent_id": session.agent_id,
        "channel": session.channel,
        "user_channel_id": session.user_channel_id,
        "customer_profile_id": session.customer_profile_id,
        "status": session.status,
        "scenario_id": scenario_id,
        "scenario_version": version,
        "step_content_hash": content_hash,
        "created_at": session.created_at,
        "last_activity_at": stored.write.time,
        "expires_at": stored.expires_at,
        "write_id": stored.write.id,
        "document": stored.packed,
    }


def _stored(row: Row) -> StoredSession:
    body = unpack(row["document"], f"the row of session {row['id']}")
    session = decode_body(row["revision"], str(row["tenant_id"]), body, f"the row of session {row['id']}")
    write = Write(row["write_id"], row["last_activity_at"], None)
    return StoredSession(session, row["revision"], write, row["expires_at"], body, row["document"])


def _marked(row: Row, pending: PendingMigration) -> StoredSession:
    stored = _stored(row)
    stored.session.pending_migration = pending
    body = encode(stored.session, stored.write.time)
    write = stored.write._replace(id=new_write_id())
    return stored._replace(revision=stored.revision + 1, write=write, body=body, packed=pack(body))
