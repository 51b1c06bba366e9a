"""The kinds of records that the audit store keeps. Nothing changes or deletes them."""

from __future__ import annotations

from functools import partial
from typing import Any
from uuid import UUID, uuid4

from soldier_data.audit import AuditEvent, ToolCall, TurnRecord
from tests.cases.kind import Kind
from tests.cases.values import BEFORE_1970, DOCUMENT, LEAP_DAY, TEXT
from tests.factories.audit import AuditEventFactory, ToolCallFactory, TurnRecordFactory

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
        "timestamp": LEAP_DAY,
    }


def _full_event() -> dict[str, Any]:
    return {
        "id": uuid4(),
        "event_type": TEXT,
        "event_data": DOCUMENT,
        "session_id": uuid4(),
        "turn_id": uuid4(),
        "timestamp": BEFORE_1970,
    }


_audit = partial(Kind, store="audit", adds_many="save_{name}s", updates=None, deletes=None)

TURN = _audit("turn", TurnRecord, TurnRecordFactory, _full_turn, tables=("turn_records",), id_field="turn_id")
EVENT = _audit("event", AuditEvent, AuditEventFactory, _full_event, tables=("audit_events",))

KINDS = (TURN, EVENT)
