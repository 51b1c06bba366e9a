"""What is kept of every turn: the record of the turn, and events beside it."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import ConfigDict, Field

from soldier_data.base.models import Model, Moment, new_id, utcnow


class ToolCall(Model):
    """One call of a tool in a turn.

    Attributes:
        input: The arguments, as JSON.
        output: What the tool returned, any JSON value.
        error: What went wrong, if it did.
    """

    tool_id: str
    tool_name: str
    input: dict[str, Any] = Field(default_factory=dict)
    output: Any = None
    success: bool
    error: str | None = None
    latency_ms: float = Field(ge=0, allow_inf_nan=False)


class TurnRecord(Model):
    """One turn of a conversation: what the user said, what the agent answered, and how it got there.

    The ids need not lead to anything: a record outlives what it tells of.

    Attributes:
        matched_rule_ids: The rules that fired, in the order that the service gives them.
        tokens_used: By all LLM calls of the turn.
        timestamp: When the turn happened, kept in UTC.
    """

    model_config = ConfigDict(frozen=True)

    turn_id: UUID = Field(default_factory=new_id)
    tenant_id: UUID
    agent_id: UUID
    session_id: UUID
    turn_number: int = Field(ge=0)
    user_message: str
    agent_response: str
    matched_rule_ids: list[UUID] = Field(default_factory=list)
    scenario_id: UUID | None = None
    step_id: UUID | None = None
    tool_calls: list[ToolCall] = Field(default_factory=list)
    latency_ms: float = Field(ge=0, allow_inf_nan=False)
    tokens_used: int = Field(ge=0)
    timestamp: Moment = Field(default_factory=utcnow)

    def position(self) -> tuple[datetime, UUID]:
        """Where the record stands in lists."""
        return self.timestamp, self.turn_id


class AuditEvent(Model):
    """Something that happened and has to be accounted for.

    Attributes:
        event_type: What happened, in the service's own words: "consent_given", "tool_failed".
        event_data: The details, as JSON.
        turn_id: The turn that it happened in. The record of that turn need not be saved (yet).
        timestamp: When it happened, kept in UTC.
    """

    model_config = ConfigDict(frozen=True)

    id: UUID = Field(default_factory=new_id)
    tenant_id: UUID
    event_type: str
    event_data: dict[str, Any] = Field(default_factory=dict)
    session_id: UUID | None = None
    turn_id: UUID | None = None
    timestamp: Moment = Field(default_factory=utcnow)

    def position(self) -> tuple[datetime, UUID]:
        """Where the event stands in lists."""
        return self.timestamp, self.id
