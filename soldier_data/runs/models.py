"""Runs of an agent executor, and what belongs to them."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Annotated, Any
from uuid import UUID

from pydantic import BeforeValidator, Field

from soldier_data.base.models import Model, Moment, TenantScoped, new_id, utcnow


class RunStatus(StrEnum):
    """The status of a run or a step."""

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
    """One execution of an agent, which answers a request.

    Attributes:
        actor: The user or service that made the request, named as the service likes.
        request_payload: The request, as JSON.
        autonomy_level: The degree to which the agent may act alone, named as the service likes.
        trace_id: The id of the run in tracing, unique among the living runs of the tenant.
        idempotency_key: The client's name for its request, by which a repeated request finds this run. Unique among
            the living runs of the tenant.
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
        """The sort key of the run in the list of its actor."""
        return self.created_at, self.id


class Step(Model):
    """One step of a run: a node of the executor's graph that was entered.

    Attributes:
        step_number: The position in the run. Steps that ran in parallel, or again, may have the same.
        input_data: The input, any JSON value.
        output_data: The output, any JSON value.
        llm_call_id: The id of the step's LLM call. It may be saved later than the step.
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
    """Something that a run produced and stored elsewhere.

    Attributes:
        artifact_type: The type, named as the service likes: "report", "screenshot".
        url: The location. It is stored unchanged and unchecked.
        metadata: Any JSON object.
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
        step_id: The id of the step that made the call, in the same run.
        total_tokens: The total that the provider reports, which need not be the sum of the other two.
        cost_usd: The cost in US dollars.
        latency_ms: The duration in milliseconds.
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
    """The totals of a run so far.

    Attributes:
        llm_calls: The number of LLM calls.
        cost_usd: The exact cost of all LLM calls in US dollars.
        duration_seconds: The time from created_at to completed_at; None until the run is completed.
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
