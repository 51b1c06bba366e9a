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
    """Turn records and audit events. They are added and read, never changed and never deleted, with one exception.

    Of a person (`SubjectStore`) are the turns of their sessions; the events of those sessions and turns, and those
    that mention the person in event_data, but for the events that erasures leave of themselves. An erasure leaves
    these records and takes their texts: messages become "[erased]", what tools were given and answered goes, and
    the data of an event become {"erased": true}. It returns the ids of the records that it changed. In PostgreSQL
    this takes a privilege that `soldier-data db grants --erasure` gives.

    Saving the same record again is a no-op, so that a save can be repeated whenever its outcome is not known.
    Records are the same if all their fields are: timestamps as moments, JSON documents as JSON, in which the
    order of keys does not count and 1, 1.0 and true differ.

    What is returned is the caller's own copy. Lists come in a fixed order; ties go by id.

    Raises (every method):
        StoreConnectionError: The server is unreachable or does not answer in time.
        ValidationError: An argument, or something in a list, is of a wrong type; a field of an entity does not take
            what it holds, or a derived class adds one; a text holds NUL or half of a
            surrogate pair, a JSON value is no JSON, a number does not fit 64 bits, a datetime has no time zone or
            lies at the very end of the calendar; a limit or offset is negative. Names the field.

    Raises (every save):
        ConflictError: A different record is stored under the id. Nothing was saved.
    """

    # -- turn records ----------------------------------------------------------------------------------------

    @abstractmethod
    async def save_turn(self, turn: TurnRecord) -> UUID:
        """Add the record; returns its turn_id."""

    @abstractmethod
    async def save_turns(self, turns: Iterable[TurnRecord]) -> int:
        """Add any number of records of one tenant, all or nothing; returns how many were passed.

        Those that were stored before count too, so that a repeated call returns the same. The same record may be
        in the list twice; two different ones under one id are a ConflictError, records of several tenants a
        ValidationError.
        """

    @abstractmethod
    async def get_turn(self, tenant_id: UUID, turn_id: UUID) -> TurnRecord | None:
        """The record, or None if the tenant has none of that id."""

    @abstractmethod
    async def list_turns_by_session(
        self, tenant_id: UUID, session_id: UUID, *, limit: int = 100, offset: int = 0
    ) -> list[TurnRecord]:
        """One page of the session's turns, oldest first: by timestamp, then by turn_number."""

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
        """One page of all turns of the tenant, newest first: by timestamp, then by turn_id, both falling.

        Args:
            tenant_id: The tenant.
            start_time: Turns at this moment or later.
            end_time: Turns earlier than this moment, so that adjoining periods share no turn.
            limit: The size of the page.
            before: `Cursor.after` the last turn of the page before. Any page costs what the first one costs.
        """

    # -- audit events ----------------------------------------------------------------------------------------

    @abstractmethod
    async def save_event(self, event: AuditEvent) -> UUID:
        """Add the event; returns its id."""

    @abstractmethod
    async def save_events(self, events: Iterable[AuditEvent]) -> int:
        """Add any number of events of one tenant, all or nothing, as `save_turns` does."""

    @abstractmethod
    async def get_event(self, tenant_id: UUID, event_id: UUID) -> AuditEvent | None:
        """The event, or None if the tenant has none of that id."""

    @abstractmethod
    async def list_events_by_session(
        self, tenant_id: UUID, session_id: UUID, *, event_type: str | None = None, limit: int = 100
    ) -> list[AuditEvent]:
        """The session's first events, oldest first, optionally those of one type (compared exactly)."""
