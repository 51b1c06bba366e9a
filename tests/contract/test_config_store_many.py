"""The contract of `ConfigStore`, run against every backend: saving many at once, and purging."""

from __future__ import annotations

import random
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from soldier_data.config import Agent, ConfigStore, Rule, Scenario
from soldier_data.errors import ConflictError, NotFoundError, ValidationError
from tests.cases.kind import Kind
from tests.cases.kinds.config import PARTS, REVISIONED
from tests.factories.config import (
    AgentFactory,
    MigrationPlanFactory,
    RuleFactory,
    ScenarioFactory,
    ToolActivationFactory,
    VariableFactory,
)

NOW = timedelta(0)
DAY = timedelta(days=1)


# -- save_many -------------------------------------------------------------------------------------------------


def _mixed(tenant_id: UUID) -> tuple[Agent, list[tuple[Kind, Any]]]:
    agent: Agent = AgentFactory(tenant_id=tenant_id)
    parts = [(kind, kind.new(tenant_id, agent.id)) for kind in REVISIONED[1:] for _ in range(3)]
    return agent, [(REVISIONED[0], agent), *parts]


async def test_a_mixed_list_in_any_order_is_saved(config_store: ConfigStore, tenant_id: UUID) -> None:
    _, mixed = _mixed(tenant_id)
    random.shuffle(mixed)
    assert await config_store.save_many(entity for _, entity in mixed) == len(mixed)
    for kind, entity in mixed:
        assert entity.revision == 1
        assert await kind.get(config_store, entity) == entity


async def test_saving_many_again_replaces_and_counts(config_store: ConfigStore, tenant_id: UUID) -> None:
    _, mixed = _mixed(tenant_id)
    entities = [entity for _, entity in mixed]
    await config_store.save_many(entities)
    for kind, entity in mixed:
        kind.change(entity)
    assert await config_store.save_many(entities) == len(mixed)
    for kind, entity in mixed:
        assert entity.revision == 2
        assert await kind.get(config_store, entity) == entity


async def test_of_several_errors_every_backend_tells_the_same(
    config_store: ConfigStore, tenant_id: UUID
) -> None:
    agent: Agent = AgentFactory(tenant_id=tenant_id)
    await config_store.save_many(
        [agent, VariableFactory(tenant_id=tenant_id, agent_id=agent.id, name="taken")]
    )
    same_name = VariableFactory(tenant_id=tenant_id, agent_id=agent.id, name="taken")
    without_agent = RuleFactory(tenant_id=tenant_id, agent_id=uuid4())
    with pytest.raises(NotFoundError):
        await config_store.save_many([same_name, without_agent])


async def test_an_empty_list_saves_nothing(config_store: ConfigStore) -> None:
    assert await config_store.save_many([]) == 0


async def test_a_thousand_rules_are_saved(config_store: ConfigStore, agent: Agent) -> None:
    rules: list[Rule] = [
        RuleFactory(tenant_id=agent.tenant_id, agent_id=agent.id, name=str(number), priority=-number // 10)
        for number in range(1_000)
    ]
    assert await config_store.save_many(rules) == 1_000
    assert await config_store.get_rules(agent.tenant_id, agent.id) == rules


async def _assert_refused_as_a_whole(
    store: ConfigStore, entities: list[Any], error: type[Exception], match: str
) -> None:
    before = [entity.model_copy(deep=True) for entity in entities]
    with pytest.raises(error, match=match):
        await store.save_many(entities)
    assert entities == before


async def test_one_refused_entity_refuses_the_whole_list(config_store: ConfigStore, tenant_id: UUID) -> None:
    agent, mixed = _mixed(tenant_id)
    good = [entity for _, entity in mixed]
    owner = {"tenant_id": tenant_id, "agent_id": agent.id}
    cases: list[tuple[Any, type[Exception], str]] = [
        (RuleFactory(tenant_id=tenant_id), NotFoundError, "agent_id"),
        (ToolActivationFactory(tenant_id=tenant_id), NotFoundError, "agent_id"),
        (AgentFactory(tenant_id=tenant_id, name=agent.name), ConflictError, "name"),
        (RuleFactory(**owner, embedding=[1.0]), ValidationError, r"entities\[19\].*embedding"),
        (RuleFactory(**owner, name="a\0b"), ValidationError, r"entities\[19\].*name"),
        (RuleFactory(agent_id=agent.id), ValidationError, r"entities\[19\].tenant_id"),
        (good[3].model_copy(deep=True), ValidationError, r"entities\[19\].id is in the list twice"),
    ]
    assert len(good) == 19
    for bad, error, match in cases:
        await _assert_refused_as_a_whole(config_store, [*good, bad], error, match)
        for kind, entity in mixed:
            assert await kind.get(config_store, entity) is None
    assert await config_store.save_many(good) == len(good)


async def test_a_refused_list_leaves_what_is_stored_as_it_was(
    config_store: ConfigStore, agent: Agent
) -> None:
    owner = {"tenant_id": agent.tenant_id, "agent_id": agent.id}
    first: Any = VariableFactory(**owner, name="first")
    second: Any = VariableFactory(**owner, name="second")
    await config_store.save_many([first, second])
    stored = [first.model_copy(), second.model_copy()]
    first.description = "changed"
    second.name = "first"
    await _assert_refused_as_a_whole(config_store, [first, second], ConflictError, "name")
    assert await config_store.get_variables(agent.tenant_id, agent.id) == stored


async def test_names_may_pass_on_within_one_list(config_store: ConfigStore, agent: Agent) -> None:
    agent.name, old_name = "renamed", agent.name
    heir: Agent = AgentFactory(tenant_id=agent.tenant_id, name=old_name)
    await config_store.save_many([agent, heir])
    assert await config_store.get_agent(agent.tenant_id, heir.id) == heir


async def test_different_kinds_may_share_an_id(config_store: ConfigStore, agent: Agent) -> None:
    entities = [kind.new(agent.tenant_id, agent.id, id=agent.id) for kind in PARTS]
    assert await config_store.save_many(entities) == len(PARTS)
    for kind, entity in zip(PARTS, entities, strict=True):
        assert await kind.get(config_store, entity) == entity


async def test_entities_of_derived_classes_are_saved_as_their_base(
    config_store: ConfigStore, agent: Agent
) -> None:
    class ServiceRule(Rule):
        @property
        def note(self) -> str:
            return "not stored"

    rule = ServiceRule(
        tenant_id=agent.tenant_id, agent_id=agent.id, name="r", condition_text="c", action_text="a"
    )
    assert await config_store.save_many([rule]) == 1
    assert rule.revision == 1
    await config_store.save_rule(rule)
    found = await config_store.get_rule(agent.tenant_id, rule.id)
    assert found is not None
    assert type(found) is Rule
    assert found.model_dump() == rule.model_dump()


async def test_what_is_no_entity_is_refused(config_store: ConfigStore) -> None:
    wrong: Any = ["agent", 5, None]
    for entity in wrong:
        with pytest.raises(ValidationError, match=r"entities\[0\]"):
            await config_store.save_many([entity])


# -- purge_deleted ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", REVISIONED[:-1], ids=lambda kind: kind.name)
async def test_only_what_was_deleted_long_enough_ago_is_purged(
    config_store: ConfigStore, agent: Agent, kind: Kind
) -> None:
    deleted, living = kind.new(agent.tenant_id, agent.id), kind.new(agent.tenant_id, agent.id)
    for entity in (deleted, living):
        await kind.save(config_store, entity)
    assert await config_store.purge_deleted(agent.tenant_id, NOW) == 0
    await kind.delete(config_store, deleted)

    assert await config_store.purge_deleted(agent.tenant_id, DAY) == 0
    assert await config_store.purge_deleted(uuid4(), NOW) == 0
    with pytest.raises(ConflictError):
        await kind.save(config_store, deleted, if_revision=0)
    assert await config_store.purge_deleted(agent.tenant_id, NOW) == 1
    assert await config_store.purge_deleted(agent.tenant_id, NOW) == 0
    await kind.save(config_store, deleted, if_revision=0)
    assert await kind.get(config_store, living) == living


async def test_a_purged_agent_takes_everything_along(config_store: ConfigStore, agent: Agent) -> None:
    parts = [(kind, kind.new(agent.tenant_id, agent.id)) for kind in PARTS]
    for kind, entity in parts:
        await kind.save(config_store, entity)
    await config_store.delete_agent(agent.tenant_id, agent.id)
    assert await config_store.purge_deleted(agent.tenant_id, NOW) == 1 + len(PARTS)
    await config_store.save_agent(agent, if_revision=0)
    for kind, entity in parts:
        await kind.save(config_store, entity, if_revision=0)


async def test_parts_go_with_an_agent_that_was_saved_as_deleted(
    config_store: ConfigStore, agent: Agent
) -> None:
    parts = [(kind, kind.new(agent.tenant_id, agent.id)) for kind in PARTS]
    for kind, entity in parts:
        await kind.save(config_store, entity)
    agent.soft_delete()
    await config_store.save_agent(agent)
    assert await config_store.purge_deleted(agent.tenant_id, NOW) == 1 + len(PARTS)


async def test_a_purged_scenario_takes_its_archives_and_plans_along(
    config_store: ConfigStore, agent: Agent
) -> None:
    gone, kept = (ScenarioFactory(tenant_id=agent.tenant_id, agent_id=agent.id) for _ in range(2))
    plans = {}
    for scenario in (gone, kept):
        await config_store.save_scenario(scenario)
        for version in (1, 2):
            scenario.version = version
            await config_store.archive_scenario_version(agent.tenant_id, scenario)
        plans[scenario.id] = MigrationPlanFactory(tenant_id=agent.tenant_id, scenario_id=scenario.id)
        await config_store.save_migration_plan(plans[scenario.id])
    await config_store.delete_scenario(agent.tenant_id, gone.id)

    async def archived(scenario: Scenario) -> list[Any]:
        get = config_store.get_archived_scenario
        return [await get(agent.tenant_id, scenario.id, version) for version in (1, 2)]

    assert None not in await archived(gone)
    assert await config_store.purge_deleted(agent.tenant_id, NOW) == 1
    assert await archived(gone) == [None, None]
    assert await config_store.get_migration_plan(agent.tenant_id, plans[gone.id].id) is None
    assert None not in await archived(kept)
    assert await config_store.get_migration_plan(agent.tenant_id, plans[kept.id].id) == plans[kept.id]


async def test_a_plan_without_a_scenario_is_not_purged(config_store: ConfigStore, tenant_id: UUID) -> None:
    plan = MigrationPlanFactory(tenant_id=tenant_id)
    await config_store.save_migration_plan(plan)
    assert await config_store.purge_deleted(tenant_id, NOW) == 0
    assert await config_store.get_migration_plan(tenant_id, plan.id) == plan


@pytest.mark.parametrize("older_than", [timedelta.max, timedelta.min])
async def test_an_age_beyond_the_calendar_is_refused(
    config_store: ConfigStore, tenant_id: UUID, older_than: timedelta
) -> None:
    with pytest.raises(ValidationError) as refused:
        await config_store.purge_deleted(tenant_id, older_than)
    assert refused.value.field == "older_than"
