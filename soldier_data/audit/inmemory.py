"""The in-memory audit store: the reference implementation, and a fake for the tests of services."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from uuid import UUID

from soldier_data.audit import subjects
from soldier_data.audit.checks import R, check_list, check_period, record_id, require_same
from soldier_data.audit.models import AuditEvent, TurnRecord
from soldier_data.audit.store import AuditStore
from soldier_data.base.inmemory import InMemoryStore, MemoryTable, TableSet, copies
from soldier_data.base.paging import Cursor, check_page
from soldier_data.base.subject_rules import InMemoryRecords, InMemorySearch
from soldier_data.base.subjects import DataSubject
from soldier_data.base.values import check_storable, check_text


class _Tables(TableSet):
    def __init__(self) -> None:
        self.turn_records = MemoryTable[TurnRecord]()
        self.audit_events = MemoryTable[AuditEvent]()


class InMemoryAuditStore(AuditStore, InMemoryRecords, InMemoryStore):
    """An `AuditStore` without a database."""

    _tables: _Tables

    def __init__(self) -> None:
        self._tables = _Tables()

    async def save_turn(self, turn: TurnRecord) -> UUID:
        return _append(self._tables.turn_records, turn)

    async def save_turns(self, turns: Iterable[TurnRecord]) -> int:
        return _append_all(self._tables.turn_records, list(turns))

    async def get_turn(self, tenant_id: UUID, turn_id: UUID) -> TurnRecord | None:
        return self._tables.turn_records.get((tenant_id, turn_id))

    async def list_turns_by_session(
        self, tenant_id: UUID, session_id: UUID, *, limit: int = 100, offset: int = 0
    ) -> list[TurnRecord]:
        check_page(limit, offset)
        found = [
            turn for turn in self._tables.turn_records.of_tenant(tenant_id) if turn.session_id == session_id
        ]
        found.sort(key=lambda turn: (turn.timestamp, turn.turn_number, turn.turn_id))
        return copies(found[offset : offset + limit])

    async def list_turns_by_tenant(
        self,
        tenant_id: UUID,
        *,
        start_time: datetime | None = None,
        end_time: datetime | None = None,
        limit: int = 100,
        before: Cursor | None = None,
    ) -> list[TurnRecord]:
        check_period(start_time, end_time, limit, before)
        position = None if before is None else (before.at.astimezone(UTC), before.id)
        found = [
            turn
            for turn in self._tables.turn_records.of_tenant(tenant_id)
            if (start_time is None or turn.timestamp >= start_time)
            and (end_time is None or turn.timestamp < end_time)
            and (position is None or turn.position() < position)
        ]
        found.sort(key=TurnRecord.position, reverse=True)
        return copies(found[:limit])

    async def save_event(self, event: AuditEvent) -> UUID:
        return _append(self._tables.audit_events, event)

    async def save_events(self, events: Iterable[AuditEvent]) -> int:
        return _append_all(self._tables.audit_events, list(events))

    async def get_event(self, tenant_id: UUID, event_id: UUID) -> AuditEvent | None:
        return self._tables.audit_events.get((tenant_id, event_id))

    async def list_events_by_session(
        self, tenant_id: UUID, session_id: UUID, *, event_type: str | None = None, limit: int = 100
    ) -> list[AuditEvent]:
        check_page(limit)
        if event_type is not None:
            check_text(event_type, "event_type")
        found = [
            event
            for event in self._tables.audit_events.of_tenant(tenant_id)
            if event.session_id == session_id and event_type in (None, event.event_type)
        ]
        found.sort(key=AuditEvent.position)
        return copies(found[:limit])

    async def find_subject(self, subject: DataSubject) -> dict[str, list[UUID]]:
        return await subjects.find(InMemorySearch(subject, self._tables, {"turn_records": "turn_id"}))

    async def erase_found(
        self, tenant_id: UUID, found: Mapping[str, Sequence[UUID]]
    ) -> dict[str, list[UUID]]:
        erased: dict[str, list[UUID]] = {}
        for table, ids in found.items():
            changed = subjects.without_texts(self._tables[table].get_all(tenant_id, ids))
            for record in changed:
                self._tables[table].put((tenant_id, record_id(record)), record)
            erased[table] = [record_id(record) for record in changed]
        return erased


def _append(table: MemoryTable[R], record: R) -> UUID:
    check_storable(record)
    table.collect(partial(_write_all, table), [record])
    return record_id(record)


def _append_all(table: MemoryTable[R], listed: list[R]) -> int:
    table.collect(partial(_write_all, table), list(check_list(listed).values()))
    return len(listed)


def _write_all(table: MemoryTable[R], records: Sequence[R]) -> None:
    new: list[R] = []
    for record in records:
        stored = table.peek((record.tenant_id, record_id(record)))
        if stored is None:
            new.append(record)
        else:
            require_same(stored, record)
    for record in new:
        table.put((record.tenant_id, record_id(record)), record)
