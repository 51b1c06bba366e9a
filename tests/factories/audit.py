"""Entities of the audit domain."""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid4

import factory

from soldier_data.audit import AuditEvent, ToolCall, TurnRecord


class ToolCallFactory(factory.Factory[ToolCall]):  # factory-boy ships no types.
    class Meta:
        model = ToolCall

    tool_id: str = factory.Sequence(lambda number: f"tool-{number}")
    tool_name: str = "Look up an order"
    input: dict[str, Any] = factory.LazyFunction(lambda: {"order_id": "A-1"})
    output: Any = factory.LazyFunction(lambda: {"status": "sent", "lines": [1, 2.5, None, True]})
    success: bool = True
    latency_ms: float = 12.5


class TurnRecordFactory(factory.Factory[TurnRecord]):  # As above.
    class Meta:
        model = TurnRecord

    tenant_id: UUID = factory.LazyFunction(uuid4)
    agent_id: UUID = factory.LazyFunction(uuid4)
    session_id: UUID = factory.LazyFunction(uuid4)
    turn_number: int = factory.Sequence(lambda number: number)
    user_message: str = factory.Faker("sentence")
    agent_response: str = factory.Faker("sentence")
    tool_calls: list[ToolCall] = factory.LazyFunction(lambda: [ToolCallFactory()])
    latency_ms: float = 250
    tokens_used: int = 420


class AuditEventFactory(factory.Factory[AuditEvent]):  # As above.
    class Meta:
        model = AuditEvent

    tenant_id: UUID = factory.LazyFunction(uuid4)
    event_type: str = "rule_fired"
    event_data: dict[str, Any] = factory.LazyFunction(lambda: {"rule": "refunds", "score": 0.5})
    session_id: UUID = factory.LazyFunction(uuid4)
