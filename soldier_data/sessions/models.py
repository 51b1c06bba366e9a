"""A conversation's state between two turns, and how long it is kept."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Annotated, Any, Self
from uuid import UUID

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, model_validator

from soldier_data.base.channels import Channel
from soldier_data.base.models import Model, new_id, utcnow


def _in_utc(value: datetime) -> datetime:
    try:
        return value.astimezone(UTC)
    except OverflowError:
        raise ValueError("lies outside the years 1 to 9999 in UTC") from None


# JSON keeps the offset of a datetime in whole minutes, and some historical zones differ from UTC by seconds:
# in UTC every moment comes back exactly.
Moment = Annotated[AwareDatetime, AfterValidator(_in_utc)]


MILLISECOND = timedelta(milliseconds=1)


class SessionStatus(StrEnum):
    """What a session is operation."""

    ACTIVE = "active"
    IDLE = "idle"
    PROCESSING = "processing"
    INTERRUPTED = "interrupted"
    CLOSED = "closed"


class PendingMigration(Model):
    """A mark on a session: move it to another scenario version when its customer comes back."""

    target_version: int
    anchor_content_hash: str
    migration_plan_id: UUID
    marked_at: Moment = Field(default_factory=utcnow)


class StepVisit(Model):
    """One stay at one scenario step.

    Attributes:
        step_content_hash: Hash of the step's content as it was then; scenario migrations find sessions by it.
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
        user_channel_id: The customer's address on the channel: a phone number, a user id, ...
        config_version: Version of the agent's configuration that the conversation runs on.
        step_history: Visits in order; the last one is where the conversation stands.
        rule_fires: How often each rule fired, by rule id.
        rule_last_fire_turn: Turn at which each rule fired last, by rule id.
        variables: Free JSON.
        last_activity_at: Set by each save.
        revision: 0 until the session is saved; each save adds one. `if_revision` compares with it.
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
        """Where the conversation stands, or None before its first step."""
        return self.step_history[-1] if self.step_history else None


class SessionTierConfig(BaseModel):
    """How long sessions are kept, and under which keys.

    Durations are exact to the millisecond.

    Attributes:
        hot_ttl: Time since the last save (or promotion) after which a session leaves the hot tier.
        persist_ttl: Time since the last save after which a session is gone.
        max_session_age: Time since `created_at` after which a session is gone, however busy it is.
        key_prefix: First part of every Redis key.
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
                "hot_ttl is longer than persist_ttl: a session would be gone while it is still hot"
            )
        return self
