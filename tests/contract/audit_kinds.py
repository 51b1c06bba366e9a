"""The two kinds of audit records, so that one test can state what is true of both."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias
from uuid import UUID, uuid4

import pytest

from soldier_data.audit import (
    AuditEvent,
    AuditStore,
    InMemoryAuditStore,
    PostgresAuditStore,
    ToolCall,
    TurnRecord,
)
from soldier_data.base.database import Database
from tests.factories.audit import AuditEventFactory, ToolCallFactory, TurnRecordFactory

Record: TypeAlias = TurnRecord | AuditEvent

TEXT = 'Größe "5\'" 100% _\\ \n\t; DROP TABLE turn_records; -- $1 {0} 漢字 👩‍👩‍👧 \u202e\u0001\ufffe'
"""Text with everything that a badly written store trips over."""

DOCUMENT: dict[str, Any] = {
    TEXT: [TEXT, None, True, 1, 1.0, -0.0, 1e22, 1e308, 5e-324, 0.1, 2**70, -(10**600), {"": {}}, []],
    "b": None,
    "a": {"nested": {"deeper": [[]]}},
}
"""JSON with everything that a badly written store changes."""

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


@dataclass(frozen=True)
class Kind:
    """One kind of record.

    Attributes:
        name: The last part of the names of the store's methods.
        id_field: The field with the id that a record is stored under.
        make: Makes a record from keyword arguments.
        full: The fields of a record in which no field has its default.
        changes: Another value for every field but the key.
        nested: Makes a record that holds a JSON value somewhere.
    """

    name: str
    model: type[Any]
    id_field: str
    make: Callable[..., Any]
    full: Callable[[], dict[str, Any]]
    changes: dict[str, Any]
    nested: Callable[..., Any]

    def id(self, record: Any) -> UUID:
        """The id that the record is stored under."""
        id_: UUID = getattr(record, self.id_field)
        return id_

    async def save(self, store: AuditStore, record: Any) -> UUID:
        """Save the record."""
        saved: UUID = await getattr(store, f"save_{self.name}")(record)
        return saved

    async def save_all(self, store: AuditStore, records: Any) -> int:
        """Save the records at once."""
        count: int = await getattr(store, f"save_{self.name}s")(records)
        return count

    async def get(self, store: AuditStore, record: Any, tenant_id: UUID | None = None) -> Any:
        """Read what is stored under the record's id, or under the same one of another tenant."""
        return await getattr(store, f"get_{self.name}")(tenant_id or record.tenant_id, self.id(record))


OUTPUTS: tuple[Any, ...] = (TEXT, 2**70, -0.0, False, [], {}, None, [DOCUMENT])
"""What a tool may return."""


def _full_turn() -> dict[str, Any]:
    return {
        "turn_id": uuid4(),
        "turn_number": 2**63 - 1,
        "user_message": TEXT,
        "agent_response": "x" * 100_000,
        "matched_rule_ids": [uuid4(), UUID(int=0)],
        "scenario_id": uuid4(),
        "step_id": uuid4(),
        "tool_calls": [
            ToolCall(
                tool_id=TEXT,
                tool_name=TEXT,
                input=DOCUMENT,
                output=DOCUMENT,
                success=False,
                error=TEXT,
                latency_ms=0.1 + 0.2,
            ),
            *(ToolCallFactory(output=output) for output in OUTPUTS),
        ],
        "latency_ms": 5e-324,
        "tokens_used": 2**40,
        "timestamp": datetime(2024, 2, 29, 23, 59, 59, 999_999, tzinfo=UTC),
    }


def _full_event() -> dict[str, Any]:
    return {
        "id": uuid4(),
        "event_type": TEXT,
        "event_data": DOCUMENT,
        "session_id": uuid4(),
        "turn_id": uuid4(),
        "timestamp": datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
    }


TURN = Kind(
    "turn",
    TurnRecord,
    "turn_id",
    TurnRecordFactory,
    _full_turn,
    {
        "agent_id": uuid4(),
        "session_id": uuid4(),
        "turn_number": 2**40,
        "user_message": "changed",
        "agent_response": "changed",
        "matched_rule_ids": [uuid4()],
        "scenario_id": uuid4(),
        "step_id": uuid4(),
        "tool_calls": [],
        "latency_ms": 0.5,
        "tokens_used": 1,
        "timestamp": NOON + timedelta(microseconds=1),
    },
    lambda value, **fields: TurnRecordFactory(tool_calls=[ToolCallFactory(output=value)], **fields),
)
EVENT = Kind(
    "event",
    AuditEvent,
    "id",
    AuditEventFactory,
    _full_event,
    {
        "event_type": "changed",
        "event_data": {},
        "session_id": uuid4(),
        "turn_id": uuid4(),
        "timestamp": NOON + timedelta(microseconds=1),
    },
    lambda value, **fields: AuditEventFactory(event_data={"value": value}, **fields),
)
KINDS = (TURN, EVENT)

every_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)


def exactly(record: Record | None) -> str:
    """The record as text, in which 1, 1.0 and True differ, and so do 0.0 and -0.0."""
    return "nothing" if record is None else json.dumps(record.model_dump(mode="json"))


@asynccontextmanager
async def unit_of_work(store: AuditStore) -> AsyncIterator[AuditStore]:
    """A store whose records are kept together when the block is left, or given up on an exception."""
    if isinstance(store, InMemoryAuditStore):
        unit = store.begin()
        try:
            yield unit
            unit.commit()
        finally:
            unit.end()
    else:
        assert isinstance(store, PostgresAuditStore)
        assert isinstance(store._db, Database)
        async with store._db.transaction() as transaction:
            yield PostgresAuditStore(transaction)
