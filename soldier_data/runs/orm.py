"""The tables of the runs domain."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import Double, ForeignKeyConstraint, Index, Numeric
from sqlalchemy.orm import Mapped, Relationship, mapped_column

from soldier_data.base.models import utcnow
from soldier_data.postgres.orm import LIVING, Base, Document, Revisioned, SoftDeleted, TenantKey, listed
from soldier_data.runs.models import RunStatus


def _parts(row: str, order_by: str) -> Relationship[Any]:
    join = f"and_(RunRow.tenant_id == {row}.tenant_id, RunRow.id == {row}.run_id)"
    return listed(join, order_by.format(row=row))


class RunRow(TenantKey, Revisioned, SoftDeleted, Base):
    """One execution of an agent (`Run`).

    One index serves the list of an actor's runs, another the list of those with one status.
    """

    __tablename__ = "runs"
    __table_args__ = (
        Index(
            "uq_runs_trace_id",
            "tenant_id",
            "trace_id",
            unique=True,
            postgresql_where=LIVING,
            info={"conflict": "trace_id: another run of the tenant has it: choose another one"},
        ),
        Index(
            "uq_runs_idempotency_key",
            "tenant_id",
            "idempotency_key",
            unique=True,
            postgresql_where=LIVING,
            info={"conflict": "idempotency_key: another run of the tenant has it: use that one"},
        ),
        Index("ix_runs_page", "tenant_id", "actor", "created_at", "id", postgresql_where=LIVING),
        Index("ix_runs_status", "tenant_id", "actor", "status", "created_at", "id", postgresql_where=LIVING),
    )

    actor: Mapped[str]
    request_payload: Mapped[dict[str, Any]] = mapped_column(default=dict)
    status: Mapped[str] = mapped_column(default=RunStatus.PENDING)
    autonomy_level: Mapped[str | None]
    trace_id: Mapped[str]
    idempotency_key: Mapped[str | None]
    completed_at: Mapped[datetime | None]
    error_message: Mapped[str | None]

    steps: Mapped[list[StepRow]] = _parts("StepRow", "({row}.step_number, {row}.started_at, {row}.id)")
    artifacts: Mapped[list[ArtifactRow]] = _parts("ArtifactRow", "({row}.created_at, {row}.id)")
    llm_calls: Mapped[list[LLMCallRow]] = _parts("LLMCallRow", "({row}.created_at, {row}.id)")


class RunPartRow(TenantKey):
    """Columns of entities that belong to a run, and are deleted with it."""

    run_id: Mapped[UUID] = mapped_column(sort_order=1)


def _run_key() -> ForeignKeyConstraint:
    return ForeignKeyConstraint(["tenant_id", "run_id"], ["runs.tenant_id", "runs.id"], ondelete="CASCADE")


class StepRow(RunPartRow, Base):
    """A step of a run (`Step`)."""

    __tablename__ = "steps"
    __table_args__ = (_run_key(), Index("ix_steps_run", "tenant_id", "run_id", "step_number"))

    step_number: Mapped[int]
    node_name: Mapped[str]
    input_data: Mapped[Any] = mapped_column(Document, nullable=False, default=lambda: None)
    output_data: Mapped[Any] = mapped_column(Document, nullable=False, default=lambda: None)
    llm_call_id: Mapped[UUID | None]
    started_at: Mapped[datetime] = mapped_column(default=utcnow)
    completed_at: Mapped[datetime | None]
    status: Mapped[str] = mapped_column(default=RunStatus.PENDING)
    error_message: Mapped[str | None]


class ArtifactRow(RunPartRow, Base):
    """Something that a run produced and stored elsewhere (`Artifact`)."""

    __tablename__ = "artifacts"
    __table_args__ = (_run_key(), Index("ix_artifacts_run", "tenant_id", "run_id", "created_at"))

    artifact_type: Mapped[str]
    url: Mapped[str]
    # All ORM classes share an attribute `metadata`.
    metadata_: Mapped[dict[str, Any]] = mapped_column("metadata", default=dict)
    created_at: Mapped[datetime] = mapped_column(default=utcnow)


class LLMCallRow(RunPartRow, Base):
    """A call of a language model in a run (`LLMCall`). Costs are NUMERIC, which is exact."""

    __tablename__ = "llm_calls"
    __table_args__ = (
        _run_key(),
        # Not ON DELETE SET NULL (step_id): Citus rejects SET NULL on every key with the distribution column, whatever
        # columns it lists. `delete_step` of the store sets it to NULL.
        ForeignKeyConstraint(["tenant_id", "step_id"], ["steps.tenant_id", "steps.id"]),
        Index("ix_llm_calls_run", "tenant_id", "run_id", "created_at"),
        Index("ix_llm_calls_step", "tenant_id", "step_id"),
    )

    step_id: Mapped[UUID | None]
    model: Mapped[str]
    provider: Mapped[str]
    prompt_tokens: Mapped[int]
    completion_tokens: Mapped[int]
    total_tokens: Mapped[int]
    cost_usd: Mapped[Decimal] = mapped_column(Numeric)
    latency_ms: Mapped[float | None] = mapped_column(Double)
    created_at: Mapped[datetime] = mapped_column(default=utcnow)
