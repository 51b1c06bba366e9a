"""The contract of `AuditStore`, run against every backend: what cannot be stored."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from pydantic import ValidationError as PydanticValidationError

from soldier_data.audit import AuditEvent, AuditStore, TurnRecord
from soldier_data.errors import ValidationError
from tests.cases.values import NOON
from tests.contract.audit_kinds import EVENT, TURN, Kind, every_kind
from tests.factories.audit import AuditEventFactory, ToolCallFactory, TurnRecordFactory

_DEEP: list[Any] = []
for _ in range(200):
    _DEEP = [_DEEP]

_UNSTORABLE: dict[str, Any] = {
    "NUL": "a\x00b",
    "half a pair": "\ud800",
    "key of NUL": {"\x00": 1},
    "key of a number": {1: 1},
    "NaN": float("nan"),
    "infinity": float("-inf"),
    "too deep": _DEEP,
    "huge integer": 10**5000,
    "a tuple": (1, 2),
    "a datetime": NOON,
}


@every_kind
@pytest.mark.parametrize("value", _UNSTORABLE.values(), ids=_UNSTORABLE.keys())
async def test_what_is_no_json_is_refused_and_nothing_is_stored(
    audit_store: AuditStore, kind: Kind, value: Any
) -> None:
    record = kind.nested(value)
    with pytest.raises(ValidationError) as caught:
        await kind.save(audit_store, record)
    assert (caught.value.field or "").startswith(("tool_calls[0].output", "event_data"))
    with pytest.raises(ValidationError):
        await kind.save_all(audit_store, [record])
    assert await kind.get(audit_store, record) is None


@pytest.mark.parametrize(
    ("record", "field"),
    [
        (TurnRecordFactory(user_message="\x00"), "user_message"),
        (TurnRecordFactory(agent_response="\udfff"), "agent_response"),
        (
            TurnRecordFactory(tool_calls=[ToolCallFactory(), ToolCallFactory(error="\x00")]),
            "tool_calls[1].error",
        ),
        (TurnRecordFactory(tool_calls=[ToolCallFactory(input={"a": {"\x00"}})]), "tool_calls[0].input"),
        (TurnRecordFactory(turn_number=2**63), "turn_number"),
        (TurnRecordFactory(tokens_used=2**63), "tokens_used"),
        (TurnRecordFactory(timestamp=datetime.max.replace(tzinfo=UTC)), "timestamp"),
        (AuditEventFactory(event_type="\x00"), "event_type"),
        (AuditEventFactory(timestamp=datetime.min.replace(tzinfo=UTC)), "timestamp"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_values_that_cannot_be_stored_are_refused_by_name(
    audit_store: AuditStore, record: TurnRecord | AuditEvent, field: str
) -> None:
    kind = TURN if isinstance(record, TurnRecord) else EVENT
    with pytest.raises(ValidationError) as caught:
        await kind.save(audit_store, record)
    assert caught.value.field == field
    assert await kind.get(audit_store, record) is None


@pytest.mark.parametrize("field", ["tool_calls", "matched_rule_ids"])
async def test_a_list_that_was_given_a_wrong_item_is_refused(audit_store: AuditStore, field: str) -> None:
    turn = TurnRecordFactory()
    getattr(turn, field).append("not one of these")
    with pytest.raises(ValidationError) as caught:
        await audit_store.save_turn(turn)
    assert caught.value.field == field
    assert await audit_store.get_turn(turn.tenant_id, turn.turn_id) is None


@pytest.mark.parametrize(
    "fields",
    [
        {"turn_number": -1},
        {"tokens_used": -1},
        {"latency_ms": -0.5},
        {"latency_ms": float("nan")},
        {"latency_ms": float("inf")},
        {"timestamp": datetime(2026, 1, 1)},  # noqa: DTZ001 - a naive datetime is what is refused.
        {"timestamp": datetime.min.replace(tzinfo=timezone(timedelta(hours=1)))},
    ],
    ids=str,
)
def test_a_turn_with_an_impossible_value_cannot_be_made(fields: dict[str, Any]) -> None:
    with pytest.raises(PydanticValidationError):
        TurnRecordFactory(**fields)
