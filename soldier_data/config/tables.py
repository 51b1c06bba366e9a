"""What the config store in memory keeps."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar
from uuid import UUID

from soldier_data.base.embeddings import TextToEmbed, cosine_similarity, to_float32
from soldier_data.base.inmemory import MemoryTable
from soldier_data.config.models import (
    Agent,
    AgentPart,
    Rule,
    Scenario,
    Template,
    ToolActivation,
    Variable,
)
from soldier_data.config.scenario_migrations import MigrationPlan
from soldier_data.errors import ConflictError

Searched = TypeVar("Searched", Rule, Scenario)


class Tables:
    """The tables of the store, or of one unit of work on them."""

    def __init__(self, parent: Tables | None = None) -> None:
        self.agents: MemoryTable[Agent] = MemoryTable(parent.agents if parent else None)
        self.rules: MemoryTable[Rule] = MemoryTable(parent.rules if parent else None)
        self.scenarios: MemoryTable[Scenario] = MemoryTable(parent.scenarios if parent else None)
        self.templates: MemoryTable[Template] = MemoryTable(parent.templates if parent else None)
        self.variables: MemoryTable[Variable] = MemoryTable(parent.variables if parent else None)
        self.activations: MemoryTable[ToolActivation] = MemoryTable(parent.activations if parent else None)
        self.plans: MemoryTable[MigrationPlan] = MemoryTable(parent.plans if parent else None)
        self.archives: MemoryTable[Scenario] = MemoryTable(parent.archives if parent else None)

    def parts(self) -> tuple[MemoryTable[Any], ...]:
        """The tables whose entities go with their agent."""
        return (self.rules, self.scenarios, self.templates, self.variables, self.activations)

    def of(self, entity: Agent | AgentPart | MigrationPlan) -> MemoryTable[Any]:
        """The table that keeps `entity`."""
        match entity:
            case Agent():
                return self.agents
            case Rule():
                return self.rules
            case Scenario():
                return self.scenarios
            case Template():
                return self.templates
            case Variable():
                return self.variables
            case ToolActivation():
                return self.activations
            case MigrationPlan():
                return self.plans

    def all(self) -> tuple[MemoryTable[Any], ...]:
        """Every table."""
        return (self.agents, *self.parts(), self.plans, self.archives)

    def is_living(self, part: AgentPart) -> bool:
        """Whether reads return it: neither it nor its agent is deleted."""
        agent = self.agents.peek((part.tenant_id, part.agent_id))
        return not part.is_deleted and agent is not None and not agent.is_deleted

    def to_embed(self, embedding_model: str, tenant_id: UUID | None) -> list[TextToEmbed]:
        """What `ConfigStore.list_to_embed` lists, in no order."""
        rules = [
            TextToEmbed("rule", rule.tenant_id, rule.id, rule.condition_text, rule.revision)
            for rule in self.rules.rows(tenant_id)
            if self.is_living(rule) and (rule.embedding is None or rule.embedding_model != embedding_model)
        ]
        scenarios = [
            TextToEmbed("scenario", found.tenant_id, found.id, found.entry_condition_text, found.revision)
            for found in self.scenarios.rows(tenant_id)
            if self.is_living(found)
            and found.entry_condition_text
            and (
                found.entry_condition_embedding is None
                or found.entry_condition_embedding_model != embedding_model
            )
        ]
        return rules + scenarios

    def check_unique(self, entity: Agent | AgentPart | MigrationPlan) -> None:
        """Check what is unique among the living.

        Raises:
            ConflictError: The name or tool_id is taken.
        """
        taken: Callable[[Any], bool]
        match entity:
            case Agent(deleted_at=None, name=name):
                field = "name"
                taken = lambda other: other.name == name  # noqa: E731
            case Variable(deleted_at=None, name=name, agent_id=agent_id):
                field = "name"
                taken = lambda other: (other.agent_id, other.name) == (agent_id, name)  # noqa: E731
            case ToolActivation(deleted_at=None, tool_id=tool_id, agent_id=agent_id):
                field = "tool_id"
                taken = lambda other: (other.agent_id, other.tool_id) == (agent_id, tool_id)  # noqa: E731
            case _:
                return
        for other in self.of(entity).of_tenant(entity.tenant_id):
            if other.id != entity.id and not other.is_deleted and taken(other):
                raise ConflictError(
                    f"saving the {type(entity).__name__} {entity.id}: the {field} is taken: choose another one"
                )

    def forget_scenario(self, tenant_id: UUID, scenario_id: UUID) -> None:
        """Remove its archived versions and migration plans."""
        for archived in list(self.archives.of_tenant(tenant_id)):
            if archived.id == scenario_id:
                self.archives.remove((tenant_id, scenario_id, archived.version))
        for plan in list(self.plans.of_tenant(tenant_id)):
            if plan.scenario_id == scenario_id:
                self.plans.remove((tenant_id, plan.id))


def rank_by_similarity(
    entities: Iterable[Searched],
    column: str,
    query: Sequence[float],
    model: str | None,
    limit: int,
    min_score: float,
) -> list[tuple[Searched, float]]:
    """Copies of the enabled entities that score `min_score` at least, with their scores, best first.

    Args:
        entities: What is searched.
        column: The field of the embeddings.
        query: What is searched for.
        model: Only embeddings by this model; None for any.
        limit: How many at most.
        min_score: The least score.
    """
    wanted = to_float32(query)
    scored = [
        (cosine_similarity(wanted, embedding), entity)
        for entity in entities
        if entity.enabled
        and (embedding := getattr(entity, column)) is not None
        and model in (None, getattr(entity, f"{column}_model"))
    ]
    found = sorted(
        ((score, entity) for score, entity in scored if score >= min_score),
        key=lambda item: (-item[0], item[1].id),
    )
    return [(entity.model_copy(deep=True), score) for score, entity in found[:limit]]
