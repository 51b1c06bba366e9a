"""The contract of the audit store."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from datetime import datetime
from uuid import UUID

from soldier_data.audit.models import AuditEvent, TurnRecord
from soldier_data.base.paging import Cursor
from soldier_data.base.subjects import SubjectStore


class AuditStore(SubjectStore):
    """Turn records and audit events. They can be added and read, but neither changed nor deleted, with one exception.

    The exception is an erasure: of the records of a data subject (see `SubjectStore`) it removes the texts. Messages
    become "[erased]", the input and output of tools are removed, and event_data becomes {"erased": true}. The method
    returns the ids of the changed records. On PostgreSQL it requires a privilege that `soldier-data db grants
    --erasure` grants.

    The records of a data subject are the turns of the person's sessions, the events of these sessions and turns, and
    the events that mention the person in event_data; the events that record erasures are not among them.

    Saving the same record again does nothing, so a save can be repeated if its outcome is unknown. Two records are the
    same if all their fields are equal: timestamps as points in time, JSON values regardless of the order of keys. In
    JSON, 1, 1.0 and true differ.

    Reads return copies, which the caller may change.

    Raises (every method):
        StoreConnectionError: The server cannot be reached or does not respond in time.
        ValidationError: An argument, or an item of a list, has the wrong type; a field of a record has an invalid
            value, or a derived class adds a field; a text contains NUL or an unpaired surrogate; a value is not valid
            JSON; a number exceeds 64 bits; a datetime has no time zone, or is outside the years 1 to 9999 in UTC; a
            limit or offset is negative. Names the field.
    """

    # -- turn records ----------------------------------------------------------------------------------------

    @abstractmethod
    async def save_turn(self, turn: TurnRecord) -> UUID:
        """Add a turn record; return its turn_id.

        Raises:
            ConflictError: A different record is stored under this id.
        """

    @abstractmethod
    async def save_turns(self, turns: Iterable[TurnRecord]) -> int:
        """Add any number of turn records of one tenant, all or none.

        Returns:
            The number of records that were passed, including those that were already stored.

        Raises:
            ConflictError: A different record is stored under one of the ids, or two different records in the list have
                the same id.
            ValidationError: A record cannot be stored, or belongs to another tenant than the first. Names its place.
        """

    @abstractmethod
    async def get_turn(self, tenant_id: UUID, turn_id: UUID) -> TurnRecord | None:
        """Return the turn record, or None if the tenant has no record with this id."""

    @abstractmethod
    async def list_turns_by_session(
        self, tenant_id: UUID, session_id: UUID, *, limit: int = 100, offset: int = 0
    ) -> list[TurnRecord]:
        """Return one page of the session's turns, oldest first: by timestamp, turn_number and turn_id.

        Args:
            tenant_id: The tenant.
            session_id: The session.
            limit: Maximum number of records.
            offset: Number of records to skip.
        """

    @abstractmethod
    async def list_turns_by_tenant(
        self,
        tenant_id: UUID,
        *,
        start_time: datetime | None = None,
        end_time: datetime | None = None,
        limit: int = 100,
        before: Cursor | None = None,
    ) -> list[TurnRecord]:
        """Return one page of the tenant's turns, newest first: by timestamp and turn_id, descending.

        Every page costs the same.

        Args:
            tenant_id: The tenant.
            start_time: Only turns at this time or later.
            end_time: Only turns before this time.
            limit: Maximum number of records.
            before: `Cursor.after` the last turn of the previous page; None for the first page.
        """

    # -- audit events ----------------------------------------------------------------------------------------

    @abstractmethod
    async def save_event(self, event: AuditEvent) -> UUID:
        """Add an audit event; return its id.

        Raises:
            ConflictError: A different event is stored under this id.
        """

    @abstractmethod
    async def save_events(self, events: Iterable[AuditEvent]) -> int:
        """Add any number of audit events of one tenant, all or none.

        Returns and raises as `save_turns`.
        """

    @abstractmethod
    async def get_event(self, tenant_id: UUID, event_id: UUID) -> AuditEvent | None:
        """Return the audit event, or None if the tenant has no event with this id."""

    @abstractmethod
    async def list_events_by_session(
        self, tenant_id: UUID, session_id: UUID, *, event_type: str | None = None, limit: int = 100
    ) -> list[AuditEvent]:
        """Return the session's events, oldest first: by timestamp and id.

        Args:
            tenant_id: The tenant.
            session_id: The session.
            event_type: Only events of this type; None for all.
            limit: Maximum number of events.
        """
