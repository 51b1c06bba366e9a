"""Sessions, the state of conversations between turns, and their lifetimes."""

from __future__ import annotations

from datetime import timedelta
from enum import StrEnum
from typing import Any, Self
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, model_validator

from soldier_data.base.channels import Channel
from soldier_data.base.models import Model, Moment, new_id, utcnow

MILLISECOND = timedelta(milliseconds=1)


class SessionStatus(StrEnum):
    """The status of a conversation."""

    ACTIVE = "active"
    IDLE = "idle"
    PROCESSING = "processing"
    INTERRUPTED = "interrupted"
    CLOSED = "closed"


class PendingMigration(Model):
    """A mark on a session: move it to another scenario version when the customer returns."""

    target_version: int
    anchor_content_hash: str
    migration_plan_id: UUID
    marked_at: Moment = Field(default_factory=utcnow)


class StepVisit(Model):
    """A visit to one scenario step.

    Attributes:
        step_content_hash: Hash of the step's content at the time; scenario migrations find sessions by it.
    """

    step_id: UUID
    step_name: str | None = None
    entered_at: Moment = Field(default_factory=utcnow)
    turn_number: int
    transition_reason: str | None = None
    confidence: float = Field(default=1.0, ge=0, le=1)
    is_checkpoint: bool = False
    checkpoint_description: str | None = None
    step_content_hash: str | None = None


class Session(Model):
    """The state of one conversation.

    Attributes:
        user_channel_id: The customer's address on the channel, such as a phone number or a user id.
        config_version: The version of the agent's configuration that the conversation uses.
        step_history: Visits in order; the last one is at the current step.
        rule_fires: Number of times each rule has fired, by rule id.
        rule_last_fire_turn: Turn in which each rule last fired, by rule id.
        variables: Any JSON values, by name.
        last_activity_at: Time of the last save, set by the store.
        revision: 0 for a session that was never saved; each save adds one. `if_revision` is compared with it.
    """

    session_id: UUID = Field(default_factory=new_id)
    tenant_id: UUID
    agent_id: UUID
    channel: Channel
    user_channel_id: str
    customer_profile_id: UUID | None = None
    config_version: int

    active_scenario_id: UUID | None = None
    active_step_id: UUID | None = None
    active_scenario_version: int | None = None
    step_history: list[StepVisit] = Field(default_factory=list)
    relocalization_count: int = Field(default=0, ge=0)

    rule_fires: dict[str, int] = Field(default_factory=dict)
    rule_last_fire_turn: dict[str, int] = Field(default_factory=dict)
    variables: dict[str, Any] = Field(default_factory=dict)
    variable_updated_at: dict[str, Moment] = Field(default_factory=dict)

    turn_count: int = Field(default=0, ge=0)
    status: SessionStatus = SessionStatus.ACTIVE
    pending_migration: PendingMigration | None = None
    scenario_checksum: str | None = None
    created_at: Moment = Field(default_factory=utcnow)
    last_activity_at: Moment = Field(default_factory=utcnow)
    revision: int = Field(default=0, ge=0)

    @property
    def last_visit(self) -> StepVisit | None:
        """The visit at the current step, or None before the first step."""
        return self.step_history[-1] if self.step_history else None


class SessionTierConfig(BaseModel):
    """The lifetimes of sessions, and the prefix of their Redis keys.

    Durations have a resolution of 1 ms and are at least that long.

    Attributes:
        hot_ttl: Time after the last save (or promotion) at which a session leaves the hot tier.
        persist_ttl: Time after the last save at which a session expires; not shorter than `hot_ttl`.
        max_session_age: Time after `created_at` at which a session expires, regardless of activity.
        key_prefix: Prefix of every Redis key.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    hot_ttl: timedelta = timedelta(minutes=30)
    persist_ttl: timedelta = timedelta(days=7)
    max_session_age: timedelta = timedelta(days=7)
    key_prefix: str = Field(default="session", pattern=r"^[^{}\s]+$")

    @model_validator(mode="after")
    def _check_durations(self) -> Self:
        for name in ("hot_ttl", "persist_ttl", "max_session_age"):
            if getattr(self, name) < MILLISECOND:
                raise ValueError(f"{name} must be at least one millisecond")
        if self.hot_ttl > self.persist_ttl:
            raise ValueError(
                "hot_ttl is longer than persist_ttl: sessions would expire while they are still hot"
            )
        return self
