"""The audit records of a turn."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import ConfigDict, Field

from soldier_data.base.models import Model, Moment, new_id, utcnow


class ToolCall(Model):
    """A tool call in a turn.

    Attributes:
        input: The arguments, as JSON.
        output: The result of the tool, any JSON value.
        error: The error message, or None if the call succeeded.
        latency_ms: Duration in milliseconds.
    """

    tool_id: str
    tool_name: str
    input: dict[str, Any] = Field(default_factory=dict)
    output: Any = None
    success: bool
    error: str | None = None
    latency_ms: float = Field(ge=0, allow_inf_nan=False)


class TurnRecord(Model):
    """One turn of a conversation: the message of the user, the answer of the agent, and how it came about.

    The ids are not references: a record outlives the entities it names.

    Attributes:
        matched_rule_ids: The rules that matched, in the order in which the service passes them.
        latency_ms: Duration of the turn in milliseconds.
        tokens_used: Number of tokens of all LLM calls in the turn.
        timestamp: Time of the turn, stored in UTC.
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
        """The sort key in lists."""
        return self.timestamp, self.turn_id


class AuditEvent(Model):
    """An event that must be accounted for.

    Attributes:
        event_type: The type of the event, chosen by the service: "consent_given", "tool_failed".
        event_data: The details, as JSON.
        turn_id: The turn in which it happened. The record of that turn need not be stored.
        timestamp: Time of the event, stored in UTC.
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
        """The sort key in lists."""
        return self.timestamp, self.id
