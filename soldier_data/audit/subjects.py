"""What an erasure leaves of an audit record: that something happened, and nothing that was said."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from soldier_data.audit.models import AuditEvent, ToolCall, TurnRecord
from soldier_data.base.subjects import ERASED

ERASURE_EVENTS = frozenset({"customer_erasure_begun", "customer_erased"})
"""Types of the events that erasures leave of themselves. They name the person by ids, and outlive them."""

_NOTHING_LEFT = {"erased": True}


def without_texts(records: Iterable[Any]) -> list[Any]:
    """Turn records or audit events without their texts, but for those that have none already."""
    erased = [(record, _without_text(record)) for record in records]
    return [after for before, after in erased if before != after]


def _without_text(record: TurnRecord | AuditEvent) -> TurnRecord | AuditEvent:
    return _turn_without_text(record) if isinstance(record, TurnRecord) else _event_without_data(record)


def _turn_without_text(turn: TurnRecord) -> TurnRecord:
    """The turn with its ids, times and counts, and the tools that it called, but without any text."""
    return turn.model_copy(
        update={
            "user_message": ERASED,
            "agent_response": ERASED,
            "tool_calls": [_call_without_data(call) for call in turn.tool_calls],
        }
    )


def _event_without_data(event: AuditEvent) -> AuditEvent:
    """The event with its type, ids and time, but without its data."""
    return event.model_copy(update={"event_data": _NOTHING_LEFT})


def _call_without_data(call: ToolCall) -> ToolCall:
    error = None if call.error is None else ERASED
    return call.model_copy(update={"input": {}, "output": None, "error": error})
