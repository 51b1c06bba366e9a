"""The config store with another tenant's ids."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID, uuid4

from soldier_data.base.embedded_texts import TextToEmbed
from soldier_data.config import (
    Agent,
    ConfigStore,
    InMemoryConfigStore,
    MigrationPlan,
    PostgresConfigStore,
    Rule,
    Scenario,
    Scope,
    Template,
    ToolActivation,
    Variable,
)
from soldier_data.errors import ConflictError, NotFoundError, ValidationError
from tests.cases.case import Case, Domain, as_of, deletions, reads, saves_below_owners
from tests.cases.kinds.config import KINDS, PARTS
from tests.conftest import DIMENSIONS
from tests.factories.config import (
    AgentFactory,
    MigrationPlanFactory,
    RuleFactory,
    ScenarioFactory,
    TemplateFactory,
    ToolActivationFactory,
    VariableFactory,
)

MODEL = "another model"
VECTOR = [1.0] * DIMENSIONS


@dataclass(frozen=True)
class Stored:
    """What the owner has stored: an agent with one of everything, and a deleted rule."""

    agent: Agent
    rule: Rule
    scenario: Scenario
    template: Template
    variable: Variable
    activation: ToolActivation
    plan: MigrationPlan


async def seed(store: ConfigStore, tenant_id: UUID) -> Stored:
    agent: Agent = AgentFactory(tenant_id=tenant_id)
    of_agent = {"tenant_id": tenant_id, "agent_id": agent.id}
    scoped = {"scope": Scope.STEP, "scope_id": uuid4()}
    stored = Stored(
        agent,
        RuleFactory(**of_agent, **scoped, embedding=VECTOR),
        ScenarioFactory(**of_agent, entry_condition_embedding=VECTOR),
        TemplateFactory(**of_agent, **scoped),
        VariableFactory(**of_agent),
        ToolActivationFactory(**of_agent),
        MigrationPlanFactory(tenant_id=tenant_id),
    )
    deleted = RuleFactory(**of_agent)
    await store.save_many([*vars(stored).values(), deleted])
    await store.delete_rule(tenant_id, deleted.id)
    await store.archive_scenario_version(tenant_id, stored.scenario)
    return stored


async def save_agent(store: ConfigStore, own: Stored, other: UUID) -> object:
    agent = as_of(own.agent, other, description="Somebody else's")
    await store.save_agent(agent)
    return await store.get_agent(other, agent.id) == agent


async def save_plan(store: ConfigStore, own: Stored, other: UUID) -> object:
    plan = as_of(own.plan, other, to_version=7)
    await store.save_migration_plan(plan)
    return await store.get_migration_plan(other, plan.id) == plan


async def archive_same_version(store: ConfigStore, own: Stored, other: UUID) -> object:
    scenario = as_of(own.scenario, other, name="Somebody else's")
    await store.archive_scenario_version(other, scenario)
    return await store.get_archived_scenario(other, scenario.id, scenario.version) == scenario


SAVES: list[Case[ConfigStore, Stored]] = [
    *saves_below_owners(PARTS),
    Case(
        "save_rule",
        lambda store, own, other: store.save_rule(as_of(own.rule, other), if_revision=1),
        NotFoundError,
    ),
    Case(
        "save_many",
        lambda store, own, other: store.save_many([as_of(own.rule, other)]),
        NotFoundError,
        reaches=False,
    ),
    Case(
        "save_many",
        lambda store, own, other: store.save_many([AgentFactory(tenant_id=other), own.rule]),
        ValidationError,
        reaches=False,
    ),
    Case(
        "save_agent",
        lambda store, own, other: store.save_agent(as_of(own.agent, other), if_revision=1),
        ConflictError,
    ),
    Case(
        "save_migration_plan",
        lambda store, own, other: store.save_migration_plan(as_of(own.plan, other), if_revision=1),
        ConflictError,
    ),
    # What refers to nothing is stored under the same id in the intruder's own tenant.
    Case("save_agent", save_agent, expected=True, reaches=False),
    Case("save_migration_plan", save_plan, expected=True, reaches=False),
    Case("archive_scenario_version", archive_same_version, expected=True, reaches=False),
    Case(
        "archive_scenario_version",
        lambda store, own, other: store.archive_scenario_version(other, own.scenario),
        ValidationError,
        reaches=False,
    ),
]

READS: list[Case[ConfigStore, Stored]] = [
    *reads(KINDS),
    Case("get_agents", lambda store, _own, other: store.get_agents(other), ([], 0)),
    Case("get_rules", lambda store, own, other: store.get_rules(other, own.agent.id), []),
    Case(
        "get_rules",
        lambda store, own, other: store.get_rules(
            other, own.agent.id, scope=own.rule.scope, scope_id=own.rule.scope_id, enabled_only=False
        ),
        [],
    ),
    Case(
        "vector_search_rules",
        lambda store, own, other: store.vector_search_rules(VECTOR, other, own.agent.id),
        [],
    ),
    Case("get_scenarios", lambda store, own, other: store.get_scenarios(other, own.agent.id), []),
    Case(
        "vector_search_scenarios",
        lambda store, own, other: store.vector_search_scenarios(VECTOR, other, own.agent.id),
        [],
    ),
    Case(
        "get_templates",
        lambda store, own, other: store.get_templates(
            other, own.agent.id, scope=own.template.scope, scope_id=own.template.scope_id
        ),
        [],
    ),
    Case("get_variables", lambda store, own, other: store.get_variables(other, own.agent.id), []),
    Case(
        "get_variable_by_name",
        lambda store, own, other: store.get_variable_by_name(other, own.agent.id, own.variable.name),
        None,
    ),
    Case(
        "get_tool_activations", lambda store, own, other: store.get_tool_activations(other, own.agent.id), []
    ),
    Case(
        "get_migration_plan_for_versions",
        lambda store, own, other: store.get_migration_plan_for_versions(other, own.plan.scenario_id, 1, 2),
        None,
    ),
    Case("list_migration_plans", lambda store, _own, other: store.list_migration_plans(other), []),
    Case(
        "list_migration_plans",
        lambda store, own, other: store.list_migration_plans(other, own.plan.scenario_id, own.plan.status),
        [],
    ),
]

DELETIONS: list[Case[ConfigStore, Stored]] = [
    *deletions(KINDS),
    Case("count_to_embed", lambda store, _own, other: store.count_to_embed(MODEL, tenant_id=other), 0),
    Case("list_to_embed", lambda store, _own, other: store.list_to_embed(MODEL, tenant_id=other), []),
    Case(
        "set_embeddings",
        lambda store, own, other: store.set_embeddings(
            [(TextToEmbed("rule", other, own.rule.id, "x", own.rule.revision), VECTOR)], MODEL
        ),
        0,
    ),
    Case("purge_deleted", lambda store, _own, other: store.purge_deleted(other, timedelta(0)), 0),
]

DOMAIN: Domain[ConfigStore, Stored] = Domain(
    store="config",
    contract=ConfigStore,
    backends={"inmemory": InMemoryConfigStore, "postgres": PostgresConfigStore},
    seed=seed,
    cases=[*READS, *SAVES, *DELETIONS],
)
