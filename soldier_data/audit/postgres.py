"""The audit store on PostgreSQL."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import ConfigDict, TypeAdapter

from soldier_data.audit import statements as sql
from soldier_data.audit import subjects
from soldier_data.audit.checks import R, check_list, check_period, record_id, require_same
from soldier_data.audit.models import AuditEvent, ToolCall, TurnRecord
from soldier_data.audit.store import AuditStore
from soldier_data.base.paging import Cursor, check_page
from soldier_data.base.subjects import DataSubject, SubjectRecords
from soldier_data.base.values import check_storable, check_text
from soldier_data.postgres.base_store import PostgresStore
from soldier_data.postgres.collecting import CollectedWrite
from soldier_data.postgres.executor import Executor
from soldier_data.postgres.queries import cursor_values
from soldier_data.postgres.statements import Row, Values
from soldier_data.postgres.subjects import PostgresSearch, StoredRecords, erase_in_batches
from soldier_data.postgres.transaction import Transaction

_TOOL_CALLS = TypeAdapter(list[ToolCall], config=ConfigDict(defer_build=True))
# json.dumps(..., ensure_ascii=False) would create an encoder for each call.
_to_json = json.JSONEncoder(ensure_ascii=False).encode


class PostgresAuditStore(AuditStore, PostgresStore, SubjectRecords):
    """An `AuditStore` on a `Database`, or on the `Transaction` of a unit of work."""

    def __init__(self, database: Executor) -> None:
        self._db = database

    async def save_turn(self, turn: TurnRecord) -> UUID:
        return await self._append(sql.turns, turn, _turn)

    async def save_turns(self, turns: Iterable[TurnRecord]) -> int:
        return await self._append_all(sql.turns, list(turns), _turn)

    async def get_turn(self, tenant_id: UUID, turn_id: UUID) -> TurnRecord | None:
        row = await self._db.fetch_one(sql.turns.get, {"tenant_id": tenant_id, "id": turn_id})
        return _turn(row) if row else None

    async def list_turns_by_session(
        self, tenant_id: UUID, session_id: UUID, *, limit: int = 100, offset: int = 0
    ) -> list[TurnRecord]:
        check_page(limit, offset)
        values = {"tenant_id": tenant_id, "session_id": session_id, "limit": limit, "offset": offset}
        return [_turn(row) for row in await self._db.fetch_all(sql.list_turns_by_session, values)]

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
        statement = sql.list_turns_by_tenant(
            start=start_time is not None, end=end_time is not None, before=before is not None
        )
        values = {
            "tenant_id": tenant_id,
            "start_time": start_time,
            "end_time": end_time,
            "limit": limit,
            **cursor_values(before),
        }
        return [_turn(row) for row in await self._db.fetch_all(statement, values)]

    async def save_event(self, event: AuditEvent) -> UUID:
        return await self._append(sql.events, event, _event)

    async def save_events(self, events: Iterable[AuditEvent]) -> int:
        return await self._append_all(sql.events, list(events), _event)

    async def get_event(self, tenant_id: UUID, event_id: UUID) -> AuditEvent | None:
        row = await self._db.fetch_one(sql.events.get, {"tenant_id": tenant_id, "id": event_id})
        return _event(row) if row else None

    async def list_events_by_session(
        self, tenant_id: UUID, session_id: UUID, *, event_type: str | None = None, limit: int = 100
    ) -> list[AuditEvent]:
        check_page(limit)
        if event_type is not None:
            check_text(event_type, "event_type")
        statement = sql.list_events_by_session(event_type=event_type is not None)
        values = {"tenant_id": tenant_id, "session_id": session_id, "event_type": event_type, "limit": limit}
        return [_event(row) for row in await self._db.fetch_all(statement, values)]

    async def find_subject(self, subject: DataSubject) -> dict[str, list[UUID]]:
        operation = "looking for the customer's audit records"
        return await subjects.find(PostgresSearch(subject, self._db, operation))

    async def read_found(
        self, tenant_id: UUID, table: str, ids: Sequence[UUID], *, with_embeddings: bool = True
    ) -> list[Any]:
        return await _RECORDS[table].read(self._db, tenant_id, ids, with_embeddings=with_embeddings)

    async def erase_found(
        self, tenant_id: UUID, found: Mapping[str, Sequence[UUID]]
    ) -> dict[str, list[UUID]]:
        operation = "erasing the text of the customer's audit records"
        return await erase_in_batches(self._db, tenant_id, found, _erase, operation)

    async def _append(
        self, statements: sql.RecordStatements, record: R, record_of: Callable[[Row], R]
    ) -> UUID:
        check_storable(record)

        async def write(db: Executor, rows: Sequence[Values]) -> None:
            [values] = rows
            if await db.fetch_one(statements.insert, values) is None:
                row = await db.fetch_one(statements.get, values)
                require_same(record_of(row) if row else None, record)

        await self._db.collect(CollectedWrite(statements.insertion, [_values(record)], write))
        return record_id(record)

    async def _append_all(
        self, statements: sql.RecordStatements, listed: list[R], record_of: Callable[[Row], R]
    ) -> int:
        records = check_list(listed)
        if not records:
            return 0

        async def write(db: Executor, rows: Sequence[Values]) -> None:
            async def work(transaction: Transaction) -> None:
                inserted = {row["id"] for row in await transaction.fetch_many(statements.insert, rows)}
                existing = [id_ for id_ in records if id_ not in inserted]
                if not existing:
                    return
                values = {"tenant_id": listed[0].tenant_id, "ids": existing}
                stored = {
                    row["id"]: record_of(row)
                    for row in await transaction.fetch_all(statements.get_listed, values)
                }
                for id_ in existing:
                    require_same(stored.get(id_), records[id_])

            await db.atomically(work, statements.insert.operation)

        rows = [_values(record) for record in records.values()]
        await self._db.collect(CollectedWrite(statements.insertion, rows, write))
        return len(listed)


async def _erase(
    transaction: Transaction, tenant_id: UUID, table: str, ids: Sequence[UUID]
) -> dict[str, list[UUID]]:
    changed = subjects.without_texts(await _RECORDS[table].read(transaction, tenant_id, ids))
    if changed:
        await transaction.fetch_many(sql.erase[table], [_values(record) for record in changed])
    return {table: [record_id(record) for record in changed]}


def _values(record: TurnRecord | AuditEvent) -> Values:
    """The columns of the record's row: fields by column name, JSON documents as text."""
    if isinstance(record, AuditEvent):
        return {**record.__dict__, "event_data": _to_json(record.event_data)}
    tool_calls = _TOOL_CALLS.dump_json(record.tool_calls).decode()
    return {**record.__dict__, "id": record.turn_id, "tool_calls": tool_calls}


def _turn(row: Row) -> TurnRecord:
    return TurnRecord.model_validate(
        {
            **row,
            "turn_id": row["id"],
            "tool_calls": _TOOL_CALLS.validate_json(row["tool_calls"], extra="ignore"),
        }
    )


def _event(row: Row) -> AuditEvent:
    return AuditEvent.model_validate({**row, "event_data": json.loads(row["event_data"])})


_RECORDS = {
    str(table.name): StoredRecords(table, list(table.columns), to_record, "the customer's audit records")
    for table, to_record in ((sql.TURNS, _turn), (sql.EVENTS, _event))
}
