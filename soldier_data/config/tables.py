"""The tables of the in-memory config store."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID

from soldier_data.base.inmemory import MemoryTable, TableSet
from soldier_data.config.kinds import TABLES, ConfigEntity, kind_of
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


class Tables(TableSet):
    """Agents, their parts, migration plans and archived scenarios."""

    def __init__(self) -> None:
        self.agents = MemoryTable[Agent]()
        self.rules = MemoryTable[Rule](embedding="embedding")
        self.scenarios = MemoryTable[Scenario](embedding="entry_condition_embedding")
        self.templates = MemoryTable[Template]()
        self.variables = MemoryTable[Variable]()
        self.tool_activations = MemoryTable[ToolActivation]()
        self.migration_plans = MemoryTable[MigrationPlan]()
        self.scenario_archives = MemoryTable[Scenario]()

    def parts(self) -> tuple[MemoryTable[Any], ...]:
        """The tables whose entities are deleted with their agent."""
        return (self.rules, self.scenarios, self.templates, self.variables, self.tool_activations)

    def of(self, entity: ConfigEntity) -> MemoryTable[Any]:
        """The table of the entity's kind."""
        return self[TABLES[kind_of(entity)]]

    def has_agent(self, entity: AgentPart) -> bool:
        """Return True if the agent of the entity exists and is not deleted."""
        agent = self.agents.peek((entity.tenant_id, entity.agent_id))
        return agent is not None and not agent.is_deleted

    def check_unique(self, entity: ConfigEntity) -> None:
        """Check the values that are unique among entities that are not deleted.

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
        for other in self.of(entity).living(entity.tenant_id):
            if other.id != entity.id and taken(other):
                raise ConflictError(
                    f"saving the {type(entity).__name__} {entity.id}: the {field} is taken: choose another one"
                )

    def remove_of_scenario(self, tenant_id: UUID, scenario_id: UUID) -> None:
        """Remove the archived versions and the migration plans of a scenario."""
        for archived in list(self.scenario_archives.of_tenant(tenant_id)):
            if archived.id == scenario_id:
                self.scenario_archives.remove((tenant_id, scenario_id, archived.version))
        for plan in list(self.migration_plans.of_tenant(tenant_id)):
            if plan.scenario_id == scenario_id:
                self.migration_plans.remove((tenant_id, plan.id))
