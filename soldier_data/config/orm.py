"""The tables of the config domain."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ForeignKeyConstraint, Index, text
from sqlalchemy.orm import Mapped, Relationship, mapped_column

from soldier_data.base.models import utcnow
from soldier_data.config.models import AgentSettings, Scope, TemplateMode, VariableUpdatePolicy
from soldier_data.config.scenario_migrations import MigrationPlanStatus
from soldier_data.postgres.orm import (
    LIVING,
    STORED_INLINE,
    Base,
    Document,
    Revisioned,
    SoftDeleted,
    TenantKey,
    listed,
    purge_index,
)


def _parts(row: str, order_by: str) -> Relationship[Any]:
    return listed(
        f"and_(AgentRow.tenant_id == {row}.tenant_id, AgentRow.id == {row}.agent_id, {row}.deleted_at == None)",
        order_by.format(row=row),
    )


class AgentRow(TenantKey, Revisioned, SoftDeleted, Base):
    """A conversational agent (`Agent`)."""

    __tablename__ = "agents"
    __table_args__ = (
        Index(
            "uq_agents_name",
            "tenant_id",
            "name",
            unique=True,
            postgresql_where=LIVING,
            info={"conflict": "the name is taken by another agent of the tenant: choose another name"},
        ),
        Index("ix_agents_page", "tenant_id", "created_at", "id", postgresql_where=LIVING),
        purge_index("agents"),
    )

    name: Mapped[str]
    description: Mapped[str | None]
    enabled: Mapped[bool] = mapped_column(default=True)
    current_version: Mapped[int] = mapped_column(default=1)
    settings: Mapped[dict[str, Any]] = mapped_column(default=lambda: AgentSettings().model_dump())

    rules: Mapped[list[RuleRow]] = _parts("RuleRow", "({row}.priority.desc(), {row}.created_at, {row}.id)")
    scenarios: Mapped[list[ScenarioRow]] = _parts("ScenarioRow", "({row}.created_at, {row}.id)")
    templates: Mapped[list[TemplateRow]] = _parts("TemplateRow", "({row}.created_at, {row}.id)")
    variables: Mapped[list[VariableRow]] = _parts("VariableRow", "{row}.name.collate('C')")
    tool_activations: Mapped[list[ToolActivationRow]] = _parts(
        "ToolActivationRow", "{row}.tool_id.collate('C')"
    )


class AgentPartRow(TenantKey, Revisioned, SoftDeleted):
    """Columns of the parts of an agent."""

    agent_id: Mapped[UUID] = mapped_column(sort_order=1)


def _agent_key() -> ForeignKeyConstraint:
    return ForeignKeyConstraint(["tenant_id", "agent_id"], ["agents.tenant_id", "agents.id"])


def _page_index(table: str) -> Index:
    return Index(f"ix_{table}_page", "tenant_id", "agent_id", "created_at", "id", postgresql_where=LIVING)


class RuleRow(AgentPartRow, Base):
    """A rule of an agent (`Rule`)."""

    __tablename__ = "rules"
    __table_args__ = (
        _agent_key(),
        Index(
            "ix_rules_page",
            "tenant_id",
            "agent_id",
            text("priority DESC"),
            "created_at",
            "id",
            postgresql_where=LIVING,
        ),
        purge_index("rules"),
    )

    name: Mapped[str]
    description: Mapped[str | None]
    condition_text: Mapped[str]
    action_text: Mapped[str]
    scope: Mapped[str] = mapped_column(default=Scope.GLOBAL)
    scope_id: Mapped[UUID | None]
    priority: Mapped[int] = mapped_column(default=0)
    enabled: Mapped[bool] = mapped_column(default=True)
    max_fires_per_session: Mapped[int] = mapped_column(default=0)
    cooldown_turns: Mapped[int] = mapped_column(default=0)
    is_hard_constraint: Mapped[bool] = mapped_column(default=False)
    attached_tool_ids: Mapped[list[str]] = mapped_column(default=list)
    attached_template_ids: Mapped[list[UUID]] = mapped_column(default=list)
    embedding: Mapped[list[float] | None]
    embedding_model: Mapped[str | None] = mapped_column(info=STORED_INLINE)


class ScenarioRow(AgentPartRow, Base):
    """A scenario of an agent (`Scenario`). The steps are read and written only with their scenario, as one document."""

    __tablename__ = "scenarios"
    __table_args__ = (_agent_key(), _page_index("scenarios"), purge_index("scenarios"))

    name: Mapped[str]
    description: Mapped[str | None]
    entry_step_id: Mapped[UUID]
    steps: Mapped[list[Any]] = mapped_column(Document, default=list)
    entry_condition_text: Mapped[str | None]
    entry_condition_embedding: Mapped[list[float] | None]
    entry_condition_embedding_model: Mapped[str | None] = mapped_column(info=STORED_INLINE)
    version: Mapped[int] = mapped_column(default=1)
    content_hash: Mapped[str | None]
    tags: Mapped[list[str]] = mapped_column(default=list)
    enabled: Mapped[bool] = mapped_column(default=True)


class ScenarioArchiveRow(TenantKey, Base):
    """An archived version of a scenario.

    Attributes:
        id: The id of the scenario, which may have been deleted since.
        scenario: The scenario as a document, with all fields of `Scenario`.
    """

    __tablename__ = "scenario_archives"

    id: Mapped[UUID] = mapped_column(primary_key=True, sort_order=-1)
    version: Mapped[int] = mapped_column(primary_key=True)
    archived_at: Mapped[datetime] = mapped_column(default=utcnow)
    scenario: Mapped[dict[str, Any]]


class TemplateRow(AgentPartRow, Base):
    """A template of an agent (`Template`)."""

    __tablename__ = "templates"
    __table_args__ = (_agent_key(), _page_index("templates"), purge_index("templates"))

    name: Mapped[str]
    text: Mapped[str]
    mode: Mapped[str] = mapped_column(default=TemplateMode.SUGGEST)
    scope: Mapped[str] = mapped_column(default=Scope.GLOBAL)
    scope_id: Mapped[UUID | None]
    conditions: Mapped[str | None]


class VariableRow(AgentPartRow, Base):
    """A variable of an agent (`Variable`)."""

    __tablename__ = "variables"
    __table_args__ = (
        _agent_key(),
        Index(
            "uq_variables_name",
            "tenant_id",
            "agent_id",
            "name",
            unique=True,
            postgresql_where=LIVING,
            info={"conflict": "the name is taken by another variable of the agent: choose another name"},
        ),
        purge_index("variables"),
    )

    name: Mapped[str]
    description: Mapped[str | None]
    resolver_tool_id: Mapped[str]
    update_policy: Mapped[str] = mapped_column(default=VariableUpdatePolicy.ON_DEMAND)
    cache_ttl_seconds: Mapped[int] = mapped_column(default=0)


class ToolActivationRow(AgentPartRow, Base):
    """The permission of an agent to use a tool (`ToolActivation`)."""

    __tablename__ = "tool_activations"
    __table_args__ = (
        _agent_key(),
        Index(
            "uq_tool_activations_tool_id",
            "tenant_id",
            "agent_id",
            "tool_id",
            unique=True,
            postgresql_where=LIVING,
            info={"conflict": "tool_id: the agent has another activation of this tool: change that one"},
        ),
        purge_index("tool_activations"),
    )

    tool_id: Mapped[str]
    status: Mapped[str] = mapped_column(default="enabled")
    policy_override: Mapped[dict[str, Any] | None] = mapped_column(Document(none_as_null=True))
    enabled_at: Mapped[datetime | None]
    disabled_at: Mapped[datetime | None]


class MigrationPlanRow(TenantKey, Revisioned, Base):
    """A plan for migrating sessions (`MigrationPlan`): columns to search by, and the whole plan as a document.

    Attributes:
        plan: The plan with all fields of `MigrationPlan`. The other columns repeat its values.
    """

    __tablename__ = "migration_plans"
    __table_args__ = (
        Index(
            "ix_migration_plans_versions",
            "tenant_id",
            "scenario_id",
            "from_version",
            "to_version",
            text("created_at DESC"),
        ),
        Index("ix_migration_plans_page", "tenant_id", text("created_at DESC"), text("id DESC")),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, sort_order=-1)
    scenario_id: Mapped[UUID]
    from_version: Mapped[int]
    to_version: Mapped[int]
    status: Mapped[str] = mapped_column(default=MigrationPlanStatus.PENDING)
    plan: Mapped[dict[str, Any]]
