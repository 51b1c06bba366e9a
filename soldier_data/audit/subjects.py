"""The rules that say which audit records are a person's, and what an erasure leaves of them.

A record stays, so that it remains known that something happened, but loses every text.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from uuid import UUID

from soldier_data.audit.models import AuditEvent, ToolCall, TurnRecord
from soldier_data.base.subject_rules import In, Mentions, NotIn, SubjectSearch
from soldier_data.base.subjects import ERASED

ERASURE_EVENTS = frozenset({"customer_erasure_begun", "customer_erased"})
"""The types of the events that record erasures. They name the person by ids, and are not erased."""

_EVENTS = NotIn("event_type", "erasure_events") & (
    In("session_id", "session_ids") | In("turn_id", "turn_ids") | Mentions("event_data")
)

_NOTHING_LEFT = {"erased": True}


async def find(search: SubjectSearch) -> dict[str, list[UUID]]:
    """The ids of the turns of the person's sessions, and of the events that are about these or mention the person."""
    turns = await search.look_up("turn_records", "session_id", search.subject.session_ids)
    events = await search.ids(
        "audit_events", _EVENTS, turn_ids=frozenset(turns), erasure_events=ERASURE_EVENTS
    )
    return {"turn_records": turns, "audit_events": events}


def without_texts(records: Iterable[Any]) -> list[Any]:
    """Return copies of turn records or audit events without their texts, leaving out those that have none."""
    erased = [(record, _without_text(record)) for record in records]
    return [after for before, after in erased if before != after]


def _without_text(record: TurnRecord | AuditEvent) -> TurnRecord | AuditEvent:
    return _turn_without_text(record) if isinstance(record, TurnRecord) else _event_without_data(record)


def _turn_without_text(turn: TurnRecord) -> TurnRecord:
    """The turn with its ids, times and counts, and the names of the tools that it called."""
    return turn.model_copy(
        update={
            "user_message": ERASED,
            "agent_response": ERASED,
            "tool_calls": [_call_without_data(call) for call in turn.tool_calls],
        }
    )


def _event_without_data(event: AuditEvent) -> AuditEvent:
    """The event with its type, ids and time."""
    return event.model_copy(update={"event_data": _NOTHING_LEFT})


def _call_without_data(call: ToolCall) -> ToolCall:
    error = None if call.error is None else ERASED
    return call.model_copy(update={"input": {}, "output": None, "error": error})
