"""The contract of `ConfigStore`, run against every backend: saving, reading and deleting one entity."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from soldier_data.base.models import utcnow
from soldier_data.config import Agent, ConfigStore
from soldier_data.errors import NotFoundError
from tests.cases.kind import Kind
from tests.cases.kinds.config import (
    ACTIVATION,
    PARTS,
    PLAN,
    REVISIONED,
    RULE,
    SCENARIO,
    SOFTLY_DELETED,
    VARIABLE,
)
from tests.factories.config import AgentFactory

every_kind = pytest.mark.parametrize("kind", REVISIONED, ids=lambda kind: kind.name)
every_part = pytest.mark.parametrize("kind", PARTS, ids=lambda kind: kind.name)
every_softly_deleted = pytest.mark.parametrize("kind", SOFTLY_DELETED, ids=lambda kind: kind.name)


# -- saving and reading ----------------------------------------------------------------------------------------


async def test_an_empty_policy_is_not_none(config_store: ConfigStore, agent: Agent) -> None:
    overrides: list[dict[str, Any] | None] = [{}, None]
    for override in overrides:
        activation = ACTIVATION.new(agent.tenant_id, agent.id, policy_override=override)
        await config_store.save_tool_activation(activation)
        assert (await ACTIVATION.get(config_store, activation)).policy_override == override


@every_kind
async def test_saving_sets_updated_at_and_counts_revisions(
    config_store: ConfigStore, agent: Agent, kind: Kind
) -> None:
    entity = kind.new(agent.tenant_id, agent.id)
    for revision in (1, 2, 3):
        before = utcnow()
        await kind.save(config_store, entity)
        assert entity.revision == revision
        assert before <= entity.updated_at <= utcnow()
        assert await kind.get(config_store, entity) == entity


async def test_the_stored_revision_counts_and_not_the_one_that_is_passed(
    config_store: ConfigStore, tenant_id: UUID
) -> None:
    agent: Agent = AgentFactory(tenant_id=tenant_id, revision=41)
    await config_store.save_agent(agent)
    assert agent.revision == 1


@every_kind
async def test_what_does_not_exist_is_none(config_store: ConfigStore, agent: Agent, kind: Kind) -> None:
    assert await kind.get(config_store, kind.new(agent.tenant_id, agent.id)) is None


async def test_variables_and_activations_are_found_by_name(config_store: ConfigStore, agent: Agent) -> None:
    variable = VARIABLE.new(agent.tenant_id, agent.id, name="order_id")
    await config_store.save_variable(variable)
    assert await config_store.get_variable_by_name(agent.tenant_id, agent.id, "order_id") == variable
    assert await config_store.get_variable_by_name(agent.tenant_id, agent.id, "ORDER_ID") is None
    assert await config_store.get_variable_by_name(agent.tenant_id, uuid4(), "order_id") is None
    assert await config_store.get_tool_activation(agent.tenant_id, agent.id, "order_id") is None


@every_kind
async def test_what_is_returned_and_what_was_passed_are_copies(
    config_store: ConfigStore, agent: Agent, kind: Kind
) -> None:
    entity = kind.new(agent.tenant_id, agent.id, **kind.full())
    await kind.save(config_store, entity)
    stored = await kind.get(config_store, entity)
    kept = stored.model_copy(deep=True)

    for copy in (entity, stored):
        kind.change(copy)
        for value in copy.__dict__.values():
            if isinstance(value, list | dict):
                value.clear()
        if isinstance(copy, Agent):
            copy.settings.llm_model = "changed"

    assert await kind.get(config_store, kept) == kept


# -- the agent -------------------------------------------------------------------------------------------------


@every_part
@pytest.mark.parametrize("if_revision", [None, 0, 1])
async def test_an_agent_that_the_tenant_has_not_is_not_found(
    config_store: ConfigStore, agent: Agent, kind: Kind, if_revision: int | None
) -> None:
    deleted: Agent = AgentFactory(tenant_id=agent.tenant_id)
    foreign: Agent = AgentFactory()
    for other in (deleted, foreign):
        await config_store.save_agent(other)
    await config_store.delete_agent(deleted.tenant_id, deleted.id)

    for agent_id in (uuid4(), deleted.id, foreign.id):
        entity = kind.new(agent.tenant_id, agent_id)
        before = entity.model_copy(deep=True)
        with pytest.raises(NotFoundError, match="agent_id"):
            await kind.save(config_store, entity, if_revision=if_revision)
        assert entity == before
        assert await kind.get(config_store, entity) is None


@every_part
async def test_an_entity_can_move_to_another_agent(
    config_store: ConfigStore, agent: Agent, kind: Kind
) -> None:
    other: Agent = AgentFactory(tenant_id=agent.tenant_id)
    await config_store.save_agent(other)
    entity = kind.new(agent.tenant_id, agent.id)
    await kind.save(config_store, entity)
    entity.agent_id = other.id
    await kind.save(config_store, entity)
    assert await kind.get(config_store, entity) == entity
    await config_store.delete_agent(agent.tenant_id, agent.id)
    assert await kind.get(config_store, entity) == entity


async def test_deleting_an_agent_deletes_what_belongs_to_it(config_store: ConfigStore, agent: Agent) -> None:
    other: Agent = AgentFactory(tenant_id=agent.tenant_id)
    await config_store.save_agent(other)
    its = [(kind, kind.new(agent.tenant_id, agent.id)) for kind in PARTS for _ in range(2)]
    others = [(kind, kind.new(agent.tenant_id, other.id)) for kind in PARTS]
    for kind, entity in its + others:
        await kind.save(config_store, entity)

    assert await config_store.delete_agent(agent.tenant_id, agent.id) is True
    assert await config_store.delete_agent(agent.tenant_id, agent.id) is False

    for kind, entity in its:
        assert await kind.get(config_store, entity) is None
        assert await kind.delete(config_store, entity) is False
    for kind, entity in others:
        assert await kind.get(config_store, entity) == entity

    # They stay deleted when the agent comes back.
    await config_store.save_agent(agent)
    for kind, entity in its:
        assert await kind.get(config_store, entity) is None
    assert await config_store.get_rules(agent.tenant_id, agent.id, enabled_only=False) == []


# -- deleting --------------------------------------------------------------------------------------------------


@every_kind
async def test_a_deletion_is_true_once(config_store: ConfigStore, agent: Agent, kind: Kind) -> None:
    entity = kind.new(agent.tenant_id, agent.id)
    assert await kind.delete(config_store, entity) is False
    await kind.save(config_store, entity)
    assert await kind.delete(config_store, entity) is True
    assert await kind.delete(config_store, entity) is False
    assert await kind.get(config_store, entity) is None


@every_softly_deleted
async def test_saving_over_a_deleted_entity_brings_it_back(
    config_store: ConfigStore, agent: Agent, kind: Kind
) -> None:
    entity = kind.new(agent.tenant_id, agent.id)
    await kind.save(config_store, entity)
    await kind.delete(config_store, entity)
    await kind.save(config_store, entity)
    assert entity.revision == 3
    assert await kind.get(config_store, entity) == entity
    assert await kind.delete(config_store, entity) is True


async def test_a_deleted_plan_is_gone_for_good(config_store: ConfigStore, tenant_id: UUID) -> None:
    plan = PLAN.new(tenant_id, uuid4())
    await config_store.save_migration_plan(plan)
    await config_store.delete_migration_plan(tenant_id, plan.id)
    await config_store.save_migration_plan(plan, if_revision=0)
    assert plan.revision == 1


@every_softly_deleted
async def test_saving_an_entity_marked_as_deleted_deletes_it(
    config_store: ConfigStore, agent: Agent, kind: Kind
) -> None:
    entity = kind.new(agent.tenant_id, agent.id)
    await kind.save(config_store, entity)
    entity.soft_delete()
    await kind.save(config_store, entity)
    assert await kind.get(config_store, entity) is None
    assert await kind.delete(config_store, entity) is False


async def test_what_belongs_to_an_agent_marked_as_deleted_is_hidden(
    config_store: ConfigStore, agent: Agent
) -> None:
    parts = [(kind, kind.new(agent.tenant_id, agent.id)) for kind in PARTS]
    for kind, entity in parts:
        await kind.save(config_store, entity)
    agent.soft_delete()
    await config_store.save_agent(agent)
    for kind, entity in parts:
        assert await kind.get(config_store, entity) is None
        assert await kind.delete(config_store, entity) is True
        assert await kind.delete(config_store, entity) is False


# -- tenants ---------------------------------------------------------------------------------------------------


@every_kind
async def test_another_tenant_neither_sees_nor_deletes_an_entity(
    config_store: ConfigStore, agent: Agent, kind: Kind
) -> None:
    entity = kind.new(agent.tenant_id, agent.id)
    await kind.save(config_store, entity)
    stranger = uuid4()
    assert await kind.get(config_store, entity, stranger) is None
    assert await kind.delete(config_store, entity, stranger) is False
    assert await kind.get(config_store, entity) == entity


async def test_tenants_may_have_entities_of_the_same_id(config_store: ConfigStore, agent: Agent) -> None:
    twin = agent.model_copy(update={"tenant_id": uuid4(), "description": "the twin"}, deep=True)
    await config_store.save_agent(twin, if_revision=0)
    scenario = SCENARIO.new(agent.tenant_id, agent.id)
    await config_store.save_scenario(scenario)
    other = scenario.model_copy(update={"tenant_id": twin.tenant_id, "description": "another"}, deep=True)
    await config_store.save_scenario(other, if_revision=0)

    assert await config_store.get_scenario(agent.tenant_id, scenario.id) == scenario
    await config_store.delete_agent(twin.tenant_id, twin.id)
    assert await config_store.get_agent(agent.tenant_id, agent.id) == agent
    assert await config_store.get_scenario(agent.tenant_id, scenario.id) == scenario


async def test_times_are_kept_to_the_microsecond(config_store: ConfigStore, agent: Agent) -> None:
    rule = RULE.new(agent.tenant_id, agent.id, created_at=utcnow() - timedelta(microseconds=1))
    await config_store.save_rule(rule)
    found = await config_store.get_rule(agent.tenant_id, rule.id)
    assert found is not None
    assert (found.created_at, found.updated_at) == (rule.created_at, rule.updated_at)
