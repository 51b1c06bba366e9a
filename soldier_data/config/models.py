"""Agents and their parts: rules, scenarios, templates, variables and tool activations."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any, Literal, NamedTuple
from uuid import UUID

from pydantic import Field, ValidationInfo, field_validator

from soldier_data.base.models import AgentScoped, Model, Moment, TenantScoped, new_id


class Scope(StrEnum):
    """The part of a conversation that a rule or template applies to.

    `scope_id` is the id of the scenario or step, and None if the scope is global.
    """

    GLOBAL = "global"
    SCENARIO = "scenario"
    STEP = "step"


class TemplateMode(StrEnum):
    """The degree to which a template determines the answer."""

    SUGGEST = "suggest"
    EXCLUSIVE = "exclusive"
    FALLBACK = "fallback"


class VariableUpdatePolicy(StrEnum):
    """The occasions on which a variable is resolved again."""

    ON_EACH_TURN = "on_each_turn"
    ON_DEMAND = "on_demand"
    ON_SCENARIO_ENTRY = "on_scenario_entry"
    ON_SESSION_START = "on_session_start"


def _check_scope(scope: Scope, info: ValidationInfo) -> Scope:
    # On construction the scope is validated first, and scope_id is then checked against it.
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
    """The language model of an agent, and its parameters."""

    llm_provider: str | None = None
    llm_model: str | None = None
    temperature: float = Field(default=0.7, ge=0, le=2)
    max_tokens: int = Field(default=1024, ge=1)


class Agent(TenantScoped):
    """A conversational agent. Its name is unique in the tenant, deleted agents aside."""

    id: UUID = Field(default_factory=new_id)
    name: str = Field(min_length=1, max_length=100)
    description: str | None = None
    enabled: bool = True
    current_version: int = Field(default=1, ge=1)
    settings: AgentSettings = Field(default_factory=AgentSettings)


class Rule(AgentScoped):
    """An action that an agent takes when a condition is met.

    Attributes:
        priority: -100 to 100; rules with a higher priority are considered first.
        max_fires_per_session: Maximum number of times the rule fires in a session; 0 for no limit.
        cooldown_turns: Number of turns before the rule may fire again.
        embedding: The embedding of the condition, of SOLDIER_EMBEDDING_DIMENSIONS numbers.
        embedding_model: The model that made the embedding.
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

    # Field validators, because a model validator would reject an assignment only after making it.
    _check_scope = field_validator("scope")(_check_scope)
    _check_scope_id = field_validator("scope_id")(_check_scope_id)


class StepTransition(Model):
    """A transition from one step to another."""

    to_step_id: UUID
    condition_text: str
    condition_embedding: list[float] | None = None
    priority: int = 0
    condition_fields: list[str] = Field(default_factory=list)


class ScenarioStep(Model):
    """A step of a scenario."""

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
    """A plan for a conversation: steps, and transitions between them.

    Attributes:
        entry_condition_embedding: The embedding of the entry condition, of SOLDIER_EMBEDDING_DIMENSIONS numbers.
        entry_condition_embedding_model: The model that made the embedding.
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
    """A prepared text for answers."""

    id: UUID = Field(default_factory=new_id)
    name: str = Field(min_length=1, max_length=100)
    text: str = Field(min_length=1)
    mode: TemplateMode = TemplateMode.SUGGEST
    scope: Scope = Scope.GLOBAL
    scope_id: UUID | None = Field(default=None, validate_default=True)
    conditions: str | None = None

    # Field validators, because a model validator would reject an assignment only after making it.
    _check_scope = field_validator("scope")(_check_scope)
    _check_scope_id = field_validator("scope_id")(_check_scope_id)


class Variable(AgentScoped):
    """A value that a tool resolves. Its name is unique in the agent, deleted variables aside."""

    id: UUID = Field(default_factory=new_id)
    name: str = Field(max_length=50, pattern=r"^[a-z_][a-z0-9_]*$")
    description: str | None = None
    resolver_tool_id: str
    update_policy: VariableUpdatePolicy = VariableUpdatePolicy.ON_DEMAND
    cache_ttl_seconds: int = Field(default=0, ge=0)


class ToolActivation(AgentScoped):
    """The permission of an agent to use a tool: at most one for each agent and tool, deleted ones aside."""

    id: UUID = Field(default_factory=new_id)
    tool_id: str
    status: Literal["enabled", "disabled"] = "enabled"
    policy_override: dict[str, Any] | None = None
    enabled_at: Moment | None = None
    disabled_at: Moment | None = None

    @property
    def is_enabled(self) -> bool:
        """True if the status is "enabled"."""
        return self.status == "enabled"

    def enable(self) -> None:
        """Enable the tool now."""
        self.status = "enabled"
        self.enabled_at = self._now()

    def disable(self) -> None:
        """Disable the tool now."""
        self.status = "disabled"
        self.disabled_at = self._now()

    def _now(self) -> datetime:
        self.touch()
        return self.updated_at


AgentPart = Rule | Scenario | Template | Variable | ToolActivation
"""The entities that are deleted with their agent."""


class RuleHit(NamedTuple):
    """A search result, which unpacks as a pair.

    Attributes:
        rule: The rule.
        score: The cosine similarity of its condition to the query, -1 to 1.
    """

    rule: Rule
    score: float


class ScenarioHit(NamedTuple):
    """A search result, which unpacks as a pair.

    Attributes:
        scenario: The scenario.
        score: The cosine similarity of its entry condition to the query, -1 to 1.
    """

    scenario: Scenario
    score: float
