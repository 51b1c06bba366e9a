"""The contract of `ConfigStore`, run against every backend: lists, their order and filters, plans, archives."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from soldier_data.config import Agent, ConfigStore, MigrationPlan, MigrationPlanStatus, Rule, Scenario, Scope
from soldier_data.errors import ValidationError
from tests.cases.kind import Kind
from tests.cases.kinds.config import PLAN, RULE, SCENARIO, TEMPLATE
from tests.cases.values import HALVES
from tests.factories.config import (
    AgentFactory,
    MigrationPlanFactory,
    RuleFactory,
    ScenarioFactory,
    TemplateFactory,
    ToolActivationFactory,
    VariableFactory,
)

MONDAY = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)


def _shuffled(entities: list[Any]) -> list[Any]:
    return random.sample(entities, len(entities))


def _by_creation(make: Any, **fields: Any) -> list[Any]:
    """Six entities in the order of their creation; the middle four were made in one moment."""
    ids = sorted((uuid4() for _ in range(4)), key=lambda id_: id_.bytes)
    return [
        make(**fields, created_at=MONDAY - timedelta(microseconds=1)),
        *(make(**fields, id=id_, created_at=MONDAY) for id_ in ids),
        make(**fields, created_at=MONDAY + timedelta(microseconds=1)),
    ]


async def test_agents_come_by_creation_in_pages_with_the_total(
    config_store: ConfigStore, tenant_id: UUID
) -> None:
    agents = _by_creation(AgentFactory, tenant_id=tenant_id)
    for agent in _shuffled(agents):
        await config_store.save_agent(agent)

    assert await config_store.get_agents(tenant_id) == (agents, 6)
    assert await config_store.get_agents(tenant_id, limit=2) == (agents[:2], 6)
    assert await config_store.get_agents(tenant_id, limit=2, offset=4) == (agents[4:], 6)
    assert await config_store.get_agents(tenant_id, limit=10, offset=5) == (agents[5:], 6)
    assert await config_store.get_agents(tenant_id, offset=6) == ([], 6)
    assert await config_store.get_agents(tenant_id, offset=2**63 - 1, limit=2**63 - 1) == ([], 6)
    assert await config_store.get_agents(tenant_id, limit=0) == ([], 6)
    assert await config_store.get_agents(uuid4()) == ([], 0)


async def test_a_page_has_twenty_agents_unless_asked_for_more(
    config_store: ConfigStore, tenant_id: UUID
) -> None:
    await config_store.save_many([AgentFactory(tenant_id=tenant_id) for _ in range(21)])
    page, total = await config_store.get_agents(tenant_id)
    assert (len(page), total) == (20, 21)
    assert len((await config_store.get_agents(tenant_id, limit=100))[0]) == 21


async def test_disabled_and_deleted_agents_are_left_out_of_page_and_total(
    config_store: ConfigStore, tenant_id: UUID
) -> None:
    enabled, disabled, deleted = _by_creation(AgentFactory, tenant_id=tenant_id)[:3]
    disabled.enabled = False
    for agent in (enabled, disabled, deleted):
        await config_store.save_agent(agent)
    await config_store.delete_agent(tenant_id, deleted.id)
    assert await config_store.get_agents(tenant_id, enabled_only=True) == ([enabled], 1)
    assert await config_store.get_agents(tenant_id) == ([enabled, disabled], 2)


@pytest.mark.parametrize("page", [{"limit": -1}, {"offset": -1}, {"limit": 2**63}, {"offset": 2**63}])
async def test_an_impossible_page_is_refused(
    config_store: ConfigStore, tenant_id: UUID, page: dict[str, int]
) -> None:
    with pytest.raises(ValidationError) as refused:
        await config_store.get_agents(tenant_id, **page)  # type: ignore[arg-type]
    assert refused.value.field == next(iter(page))


async def test_rules_come_by_priority_then_creation_then_id(config_store: ConfigStore, agent: Agent) -> None:
    owner = {"tenant_id": agent.tenant_id, "agent_id": agent.id}
    rules = [
        RuleFactory(**owner, priority=100, created_at=MONDAY + timedelta(days=1)),
        *_by_creation(RuleFactory, **owner, priority=5),
        RuleFactory(**owner, priority=0, created_at=MONDAY - timedelta(days=2)),
        RuleFactory(**owner, priority=-100, created_at=MONDAY - timedelta(days=3)),
    ]
    for rule in _shuffled(rules):
        await config_store.save_rule(rule)
    assert await config_store.get_rules(agent.tenant_id, agent.id) == rules


async def test_scenarios_and_templates_come_by_creation(config_store: ConfigStore, agent: Agent) -> None:
    owner = {"tenant_id": agent.tenant_id, "agent_id": agent.id}
    scenarios = _by_creation(ScenarioFactory, **owner)
    templates = _by_creation(TemplateFactory, **owner)
    await config_store.save_many(_shuffled(scenarios + templates))
    assert await config_store.get_scenarios(agent.tenant_id, agent.id) == scenarios
    assert await config_store.get_templates(agent.tenant_id, agent.id) == templates


async def test_variables_come_by_name_and_activations_by_tool_id_in_the_order_of_code_points(
    config_store: ConfigStore, agent: Agent
) -> None:
    owner = {"tenant_id": agent.tenant_id, "agent_id": agent.id}
    variables = [VariableFactory(**owner, name=name) for name in ("_z", "a", "a0", "a_b", "aa", "b")]
    activations = [
        ToolActivationFactory(**owner, tool_id=tool_id)
        for tool_id in ("", "A", "Z", "_", "a", "a b", "a-b", "ab", "ä", "\uffff", "😀")
    ]
    await config_store.save_many(_shuffled(variables + activations))
    assert await config_store.get_variables(agent.tenant_id, agent.id) == variables
    assert await config_store.get_tool_activations(agent.tenant_id, agent.id) == activations


async def test_lists_keep_to_the_agent_and_the_tenant(config_store: ConfigStore, agent: Agent) -> None:
    other: Agent = AgentFactory(tenant_id=agent.tenant_id)
    twin = agent.model_copy(update={"tenant_id": uuid4()})
    for owner in (other, twin):
        await config_store.save_agent(owner)
        its = {"tenant_id": owner.tenant_id, "agent_id": owner.id}
        for make in (RuleFactory, ScenarioFactory, TemplateFactory, VariableFactory, ToolActivationFactory):
            await config_store.save_many([make(**its)])
    key = (agent.tenant_id, agent.id)
    assert await config_store.get_rules(*key, enabled_only=False) == []
    assert await config_store.get_scenarios(*key, enabled_only=False) == []
    assert await config_store.get_templates(*key) == []
    assert await config_store.get_variables(*key) == []
    assert await config_store.get_tool_activations(*key) == []
    assert await config_store.get_agents(twin.tenant_id) == ([twin], 1)
    assert len(await config_store.get_rules(twin.tenant_id, twin.id)) == 1


async def test_deleted_entities_are_in_no_list(config_store: ConfigStore, agent: Agent) -> None:
    owner = {"tenant_id": agent.tenant_id, "agent_id": agent.id}
    key = (agent.tenant_id, agent.id)
    rule, scenario, template = RuleFactory(**owner), ScenarioFactory(**owner), TemplateFactory(**owner)
    variable, activation = VariableFactory(**owner), ToolActivationFactory(**owner)
    await config_store.save_many([rule, scenario, template, variable, activation])
    await config_store.delete_rule(agent.tenant_id, rule.id)
    await config_store.delete_scenario(agent.tenant_id, scenario.id)
    await config_store.delete_template(agent.tenant_id, template.id)
    await config_store.delete_variable(agent.tenant_id, variable.id)
    await config_store.delete_tool_activation(*key, activation.tool_id)
    assert await config_store.get_rules(*key, enabled_only=False) == []
    assert await config_store.get_scenarios(*key, enabled_only=False) == []
    assert await config_store.get_templates(*key) == []
    assert await config_store.get_variables(*key) == []
    assert await config_store.get_variable_by_name(*key, variable.name) is None
    assert await config_store.get_tool_activations(*key) == []


@pytest.mark.parametrize("kind", [RULE, SCENARIO], ids=lambda kind: kind.name)
async def test_disabled_rules_and_scenarios_are_listed_on_request(
    config_store: ConfigStore, agent: Agent, kind: Kind
) -> None:
    enabled = kind.new(agent.tenant_id, agent.id, created_at=MONDAY)
    disabled = kind.new(
        agent.tenant_id, agent.id, enabled=False, created_at=MONDAY + timedelta(microseconds=1)
    )
    await config_store.save_many([disabled, enabled])
    get = config_store.get_rules if kind is RULE else config_store.get_scenarios
    assert await get(agent.tenant_id, agent.id) == [enabled]
    assert await get(agent.tenant_id, agent.id, enabled_only=False) == [enabled, disabled]


@pytest.mark.parametrize("kind", [RULE, TEMPLATE], ids=lambda kind: kind.name)
async def test_rules_and_templates_are_filtered_by_scope(
    config_store: ConfigStore, agent: Agent, kind: Kind
) -> None:
    first, second = uuid4(), uuid4()
    scopes = [
        (Scope.GLOBAL, None),
        (Scope.GLOBAL, first),
        (Scope.SCENARIO, first),
        (Scope.SCENARIO, second),
        (Scope.STEP, first),
    ]
    entities = [
        kind.new(
            agent.tenant_id,
            agent.id,
            scope=scope,
            scope_id=scope_id,
            created_at=MONDAY + timedelta(microseconds=place),
        )
        for place, (scope, scope_id) in enumerate(scopes)
    ]
    await config_store.save_many(entities)
    get = config_store.get_rules if kind is RULE else config_store.get_templates

    async def places(**filters: Any) -> list[int]:
        found: Any = await get(agent.tenant_id, agent.id, **filters)
        return [entities.index(entity) for entity in found]

    assert await places() == [0, 1, 2, 3, 4]
    assert await places(scope=Scope.GLOBAL) == [0, 1]
    assert await places(scope=Scope.SCENARIO) == [2, 3]
    assert await places(scope_id=first) == [1, 2, 4]
    assert await places(scope=Scope.SCENARIO, scope_id=first) == [2]
    assert await places(scope="step", scope_id=first) == [4]
    assert await places(scope=Scope.STEP, scope_id=second) == []


# -- migration plans -------------------------------------------------------------------------------------------


async def test_the_newest_plan_between_two_versions_is_found(
    config_store: ConfigStore, tenant_id: UUID
) -> None:
    scenario_id = uuid4()
    plans = _by_creation(MigrationPlanFactory, tenant_id=tenant_id, scenario_id=scenario_id)
    others = [
        MigrationPlanFactory(tenant_id=tenant_id, scenario_id=scenario_id, from_version=2, to_version=3),
        MigrationPlanFactory(tenant_id=tenant_id, scenario_id=scenario_id, from_version=1, to_version=3),
        MigrationPlanFactory(tenant_id=tenant_id),
        MigrationPlanFactory(scenario_id=scenario_id),
    ]
    for plan in _shuffled(plans + others):
        await config_store.save_migration_plan(plan)

    async def newest() -> MigrationPlan | None:
        return await config_store.get_migration_plan_for_versions(tenant_id, scenario_id, 1, 2)

    while plans:
        assert await newest() == plans[-1]
        assert await config_store.delete_migration_plan(tenant_id, plans.pop().id)
    assert await newest() is None


async def test_plans_are_listed_newest_first_by_scenario_and_status(
    config_store: ConfigStore, tenant_id: UUID
) -> None:
    plans = _by_creation(MigrationPlanFactory, tenant_id=tenant_id)[::-1]
    plans[1].status = plans[4].status = MigrationPlanStatus.APPROVED
    plans[4].scenario_id = plans[5].scenario_id = plans[0].scenario_id
    for plan in _shuffled(plans):
        await config_store.save_migration_plan(plan)
    await config_store.save_migration_plan(MigrationPlanFactory(scenario_id=plans[0].scenario_id))

    listed = config_store.list_migration_plans
    approved, scenario_id = MigrationPlanStatus.APPROVED, plans[0].scenario_id
    assert await listed(tenant_id) == plans
    assert await listed(tenant_id, limit=2) == plans[:2]
    assert await listed(tenant_id, limit=0) == []
    assert await listed(tenant_id, scenario_id) == [plans[0], plans[4], plans[5]]
    assert await listed(tenant_id, status=approved) == [plans[1], plans[4]]
    assert await listed(tenant_id, scenario_id, approved) == [plans[4]]
    assert await listed(tenant_id, uuid4()) == []


async def test_fifty_plans_are_listed_unless_asked_for_more(
    config_store: ConfigStore, tenant_id: UUID
) -> None:
    await config_store.save_many([MigrationPlanFactory(tenant_id=tenant_id) for _ in range(51)])
    assert len(await config_store.list_migration_plans(tenant_id)) == 50
    assert len(await config_store.list_migration_plans(tenant_id, limit=60)) == 51


async def test_a_plan_can_be_moved_from_status_to_status(config_store: ConfigStore, tenant_id: UUID) -> None:
    plan = PLAN.new(tenant_id, uuid4())
    await config_store.save_migration_plan(plan)
    plan.status = MigrationPlanStatus.REJECTED
    await config_store.save_migration_plan(plan, if_revision=plan.revision)
    assert await config_store.list_migration_plans(tenant_id, status=MigrationPlanStatus.PENDING) == []
    assert await config_store.list_migration_plans(tenant_id, status=MigrationPlanStatus.REJECTED) == [plan]


# -- archives --------------------------------------------------------------------------------------------------


async def test_a_version_is_archived_as_it_was(config_store: ConfigStore, agent: Agent) -> None:
    scenario: Scenario = SCENARIO.new(agent.tenant_id, agent.id, **SCENARIO.full())
    await config_store.save_scenario(scenario)
    first = scenario.model_copy(deep=True)
    await config_store.archive_scenario_version(agent.tenant_id, scenario)
    assert scenario == first

    scenario.version += 1
    scenario.steps.clear()
    await config_store.save_scenario(scenario)
    await config_store.archive_scenario_version(agent.tenant_id, scenario)

    archived = config_store.get_archived_scenario
    assert await archived(agent.tenant_id, scenario.id, first.version) == first
    assert await archived(agent.tenant_id, scenario.id, scenario.version) == scenario
    assert await archived(agent.tenant_id, scenario.id, 1) is None
    assert await archived(agent.tenant_id, uuid4(), first.version) is None
    assert await archived(uuid4(), scenario.id, first.version) is None

    await config_store.delete_scenario(agent.tenant_id, scenario.id)
    assert await archived(agent.tenant_id, scenario.id, first.version) == first


async def test_archiving_a_version_again_replaces_it(config_store: ConfigStore, tenant_id: UUID) -> None:
    scenario: Scenario = ScenarioFactory(tenant_id=tenant_id)
    await config_store.archive_scenario_version(tenant_id, scenario)
    scenario.name = "changed"
    await config_store.archive_scenario_version(tenant_id, scenario)
    assert await config_store.get_archived_scenario(tenant_id, scenario.id, 1) == scenario

    found = await config_store.get_archived_scenario(tenant_id, scenario.id, 1)
    assert found is not None
    found.name = "the caller's own copy"
    assert await config_store.get_archived_scenario(tenant_id, scenario.id, 1) == scenario


async def test_another_tenants_scenario_is_not_archived(config_store: ConfigStore, tenant_id: UUID) -> None:
    scenario: Scenario = ScenarioFactory()
    with pytest.raises(ValidationError) as refused:
        await config_store.archive_scenario_version(tenant_id, scenario)
    assert refused.value.field == "tenant_id"
    for tenant in (tenant_id, scenario.tenant_id):
        assert await config_store.get_archived_scenario(tenant, scenario.id, 1) is None


async def test_an_archived_scenario_is_checked_as_a_saved_one(
    config_store: ConfigStore, tenant_id: UUID
) -> None:
    scenario: Scenario = ScenarioFactory(tenant_id=tenant_id, entry_condition_embedding=HALVES[1:])
    with pytest.raises(ValidationError) as refused:
        await config_store.archive_scenario_version(tenant_id, scenario)
    assert refused.value.field == "entry_condition_embedding"


async def test_a_rule_keeps_its_place_when_it_is_saved_again(config_store: ConfigStore, agent: Agent) -> None:
    rules: list[Rule] = _by_creation(RuleFactory, tenant_id=agent.tenant_id, agent_id=agent.id)
    await config_store.save_many(rules)
    await config_store.save_rule(rules[2])
    assert [rule.id for rule in await config_store.get_rules(agent.tenant_id, agent.id)] == [
        rule.id for rule in rules
    ]
