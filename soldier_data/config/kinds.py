"""The kinds of entities that a config store saves."""

from __future__ import annotations

from soldier_data.config.models import Agent, AgentPart, Rule, Scenario, Template, ToolActivation, Variable
from soldier_data.config.scenario_migrations import MigrationPlan
from soldier_data.errors import ValidationError

ConfigEntity = Agent | AgentPart | MigrationPlan
"""An entity that a config store saves."""

TABLES: dict[type[ConfigEntity], str] = {
    Agent: "agents",
    Rule: "rules",
    Scenario: "scenarios",
    Template: "templates",
    Variable: "variables",
    ToolActivation: "tool_activations",
    MigrationPlan: "migration_plans",
}
"""The table of each kind, in the order of saving: agents first, because the others refer to them."""


def kind_of(entity: ConfigEntity) -> type[ConfigEntity]:
    """Return the kind of an entity, which may be an instance of a derived class.

    Raises:
        ValidationError: It is of none of the kinds.
    """
    for kind in TABLES:
        if isinstance(entity, kind):
            return kind
    raise ValidationError(f"a config store does not store entities of the type {type(entity).__name__}")
