"""A run of an agent executor, and what belongs to it."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Annotated, Any
from uuid import UUID

from pydantic import BeforeValidator, Field

from soldier_data.base.models import Model, Moment, TenantScoped, new_id, utcnow


class RunStatus(StrEnum):
    """How far a run or a step has come."""

    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


def _exact(value: Any) -> Any:
    if isinstance(value, float):
        raise ValueError("a float is not exact: pass a Decimal, an integer or text")  # noqa: TRY004 - for Pydantic.
    return value


Cost = Annotated[Decimal, BeforeValidator(_exact), Field(ge=0, max_digits=30, decimal_places=15)]
"""An amount of money in US dollars, exact to 15 decimal places. Floats are refused."""


class Run(TenantScoped):
    """One execution of an agent, from a request to its end.

    Attributes:
        actor: Who asked for it: a user or a service, in the service's own words.
        request_payload: What was asked for, as JSON.
        autonomy_level: How much the agent may do by itself, in the service's own words.
        trace_id: Leads to the run in tracing; unique in the tenant.
        idempotency_key: What the client calls its request, so that a repeated one finds this run; unique in the
            tenant.
    """

    id: UUID = Field(default_factory=new_id)
    actor: str = Field(min_length=1)
    request_payload: dict[str, Any] = Field(default_factory=dict)
    status: RunStatus = RunStatus.PENDING
    autonomy_level: str | None = None
    trace_id: str = Field(min_length=1)
    idempotency_key: str | None = Field(default=None, min_length=1)
    completed_at: Moment | None = None
    error_message: str | None = None

    def position(self) -> tuple[datetime, UUID]:
        """Where the run stands in the list of its actor."""
        return self.created_at, self.id


class Step(Model):
    """One step of a run: a node of the executor's graph that was entered.

    Attributes:
        step_number: The place in the run. Steps that ran side by side, or again, may share it.
        input_data: What went in, any JSON value.
        output_data: What came out, any JSON value.
        llm_call_id: The LLM call that the step is about. It may be saved later than the step.
    """

    id: UUID = Field(default_factory=new_id)
    tenant_id: UUID
    run_id: UUID
    step_number: int = Field(ge=0)
    node_name: str
    input_data: Any = None
    output_data: Any = None
    llm_call_id: UUID | None = None
    started_at: Moment = Field(default_factory=utcnow)
    completed_at: Moment | None = None
    status: RunStatus = RunStatus.PENDING
    error_message: str | None = None


class Artifact(Model):
    """Something that a run produced and put somewhere.

    Attributes:
        artifact_type: In the service's own words: "report", "screenshot".
        url: Where it lies. It is kept as it is, not looked at.
        metadata: Anything about it, as JSON.
    """

    id: UUID = Field(default_factory=new_id)
    tenant_id: UUID
    run_id: UUID
    artifact_type: str
    url: str
    metadata: dict[str, Any] = Field(default_factory=dict)
    created_at: Moment = Field(default_factory=utcnow)


class LLMCall(Model):
    """One call of a language model.

    Attributes:
        step_id: The step that made it, of the same run.
        total_tokens: As the provider counts them, which need not be the sum of the other two.
        cost_usd: What it cost, in US dollars.
        latency_ms: How long it took.
    """

    id: UUID = Field(default_factory=new_id)
    tenant_id: UUID
    run_id: UUID
    step_id: UUID | None = None
    model: str
    provider: str
    prompt_tokens: int = Field(ge=0)
    completion_tokens: int = Field(ge=0)
    total_tokens: int = Field(ge=0)
    cost_usd: Cost
    latency_ms: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    created_at: Moment = Field(default_factory=utcnow)


class RunStats(Model):
    """What a run amounts to so far.

    Attributes:
        llm_calls: How many.
        cost_usd: The exact sum of all calls, in US dollars.
        duration_seconds: From created_at to completed_at; None while the run is not completed.
    """

    run_id: UUID
    status: RunStatus
    step_count: int
    llm_calls: int
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    cost_usd: Decimal
    duration_seconds: float | None
