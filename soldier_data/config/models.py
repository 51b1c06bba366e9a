"""What an agent is made of: its rules, scenarios, templates, variables and tools."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any, Literal, NamedTuple
from uuid import UUID

from pydantic import Field, ValidationInfo, field_validator

from soldier_data.base.models import AgentScoped, Model, Moment, TenantScoped, new_id


class Scope(StrEnum):
    """How far a rule or template reaches. `scope_id` names the scenario or step, and is None for global."""

    GLOBAL = "global"
    SCENARIO = "scenario"
    STEP = "step"


class TemplateMode(StrEnum):
    """How binding a template's text is."""

    SUGGEST = "suggest"
    EXCLUSIVE = "exclusive"
    FALLBACK = "fallback"


class VariableUpdatePolicy(StrEnum):
    """When a variable is resolved again."""

    ON_EACH_TURN = "on_each_turn"
    ON_DEMAND = "on_demand"
    ON_SCENARIO_ENTRY = "on_scenario_entry"
    ON_SESSION_START = "on_session_start"


def _check_scope(scope: Scope, info: ValidationInfo) -> Scope:
    # While an entity is made, the scope comes first and scope_id is checked against it.
    if "scope_id" in info.data:
        _require_scope_id(scope, info.data["scope_id"])
    return scope


def _check_scope_id(scope_id: UUID | None, info: ValidationInfo) -> UUID | None:
    _require_scope_id(info.data.get("scope", Scope.GLOBAL), scope_id)
    return scope_id


def _require_scope_id(scope: Scope, scope_id: UUID | None) -> None:
    if scope is not Scope.GLOBAL and scope_id is None:
        raise ValueError(
            f"scope_id is required for the scope {scope.value}: set it to the {scope.value}'s id"
        )


class AgentSettings(Model):
    """Which model an agent speaks with, and how."""

    llm_provider: str | None = None
    llm_model: str | None = None
    temperature: float = Field(default=0.7, ge=0, le=2)
    max_tokens: int = Field(default=1024, ge=1)


class Agent(TenantScoped):
    """One conversational agent. Its name is unique among the living agents of the tenant."""

    id: UUID = Field(default_factory=new_id)
    name: str = Field(min_length=1, max_length=100)
    description: str | None = None
    enabled: bool = True
    current_version: int = Field(default=1, ge=1)
    settings: AgentSettings = Field(default_factory=AgentSettings)


class Rule(AgentScoped):
    """When the condition holds, do the action.

    Attributes:
        priority: -100 to 100; higher is considered first.
        max_fires_per_session: 0 means without limit.
        cooldown_turns: Turns that pass before the rule may fire again.
        embedding: Of the condition; as long as SOLDIER_EMBEDDING_DIMENSIONS.
        embedding_model: Which model made the embedding.
    """

    id: UUID = Field(default_factory=new_id)
    name: str = Field(min_length=1, max_length=100)
    description: str | None = None
    condition_text: str = Field(min_length=1)
    action_text: str = Field(min_length=1)
    scope: Scope = Scope.GLOBAL
    scope_id: UUID | None = Field(default=None, validate_default=True)
    priority: int = Field(default=0, ge=-100, le=100)
    enabled: bool = True
    max_fires_per_session: int = Field(default=0, ge=0)
    cooldown_turns: int = Field(default=0, ge=0)
    is_hard_constraint: bool = False
    attached_tool_ids: list[str] = Field(default_factory=list)
    attached_template_ids: list[UUID] = Field(default_factory=list)
    embedding: list[float] | None = None
    embedding_model: str | None = None

    # Validators of the fields, because one of the model would refuse an assignment after it has been made.
    _check_scope = field_validator("scope")(_check_scope)
    _check_scope_id = field_validator("scope_id")(_check_scope_id)


class StepTransition(Model):
    """One way out of a step."""

    to_step_id: UUID
    condition_text: str
    condition_embedding: list[float] | None = None
    priority: int = 0
    condition_fields: list[str] = Field(default_factory=list)


class ScenarioStep(Model):
    """One step of a scenario."""

    id: UUID = Field(default_factory=new_id)
    scenario_id: UUID
    name: str
    description: str | None = None
    transitions: list[StepTransition] = Field(default_factory=list)
    template_ids: list[UUID] = Field(default_factory=list)
    rule_ids: list[UUID] = Field(default_factory=list)
    tool_ids: list[str] = Field(default_factory=list)
    is_entry: bool = False
    is_terminal: bool = False
    can_skip: bool = False
    reachable_from_anywhere: bool = False
    collects_profile_fields: list[str] = Field(default_factory=list)
    performs_action: bool = False
    is_required_action: bool = False
    is_checkpoint: bool = False
    checkpoint_description: str | None = None


class Scenario(AgentScoped):
    """A conversation's plan: steps and the transitions between them.

    Attributes:
        entry_condition_embedding: Of the entry condition; as long as SOLDIER_EMBEDDING_DIMENSIONS.
        entry_condition_embedding_model: Which model made that embedding.
    """

    id: UUID = Field(default_factory=new_id)
    name: str = Field(min_length=1, max_length=100)
    description: str | None = None
    entry_step_id: UUID
    steps: list[ScenarioStep] = Field(default_factory=list)
    entry_condition_text: str | None = None
    entry_condition_embedding: list[float] | None = None
    entry_condition_embedding_model: str | None = None
    version: int = Field(default=1, ge=1)
    content_hash: str | None = None
    tags: list[str] = Field(default_factory=list)
    enabled: bool = True


class Template(AgentScoped):
    """A prepared text."""

    id: UUID = Field(default_factory=new_id)
    name: str = Field(min_length=1, max_length=100)
    text: str = Field(min_length=1)
    mode: TemplateMode = TemplateMode.SUGGEST
    scope: Scope = Scope.GLOBAL
    scope_id: UUID | None = Field(default=None, validate_default=True)
    conditions: str | None = None

    # Validators of the fields, because one of the model would refuse an assignment after it has been made.
    _check_scope = field_validator("scope")(_check_scope)
    _check_scope_id = field_validator("scope_id")(_check_scope_id)


class Variable(AgentScoped):
    """A value that a tool resolves. Its name is unique among the living variables of the agent."""

    id: UUID = Field(default_factory=new_id)
    name: str = Field(max_length=50, pattern=r"^[a-z_][a-z0-9_]*$")
    description: str | None = None
    resolver_tool_id: str
    update_policy: VariableUpdatePolicy = VariableUpdatePolicy.ON_DEMAND
    cache_ttl_seconds: int = Field(default=0, ge=0)


class ToolActivation(AgentScoped):
    """Whether an agent may use a tool. One living activation for each tool of an agent."""

    id: UUID = Field(default_factory=new_id)
    tool_id: str
    status: Literal["enabled", "disabled"] = "enabled"
    policy_override: dict[str, Any] | None = None
    enabled_at: Moment | None = None
    disabled_at: Moment | None = None

    @property
    def is_enabled(self) -> bool:
        """Whether the status is "enabled"."""
        return self.status == "enabled"

    def enable(self) -> None:
        """Switch the tool on, as of now."""
        self.status = "enabled"
        self.enabled_at = self._now()

    def disable(self) -> None:
        """Switch the tool off, as of now."""
        self.status = "disabled"
        self.disabled_at = self._now()

    def _now(self) -> datetime:
        self.touch()
        return self.updated_at


AgentPart = Rule | Scenario | Template | Variable | ToolActivation
"""The entities that go when their agent is deleted."""


class RuleHit(NamedTuple):
    """A rule that a search found. Unpacks as a pair.

    Attributes:
        score: The cosine similarity to the query, -1 to 1.
    """

    rule: Rule
    score: float


class ScenarioHit(NamedTuple):
    """A scenario that a search found. Unpacks as a pair.

    Attributes:
        score: The cosine similarity to the query, -1 to 1.
    """

    scenario: Scenario
    score: float
