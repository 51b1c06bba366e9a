"""What `PostgresConfigStore` does beyond the contract: round trips, races, lost replies."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from soldier_data.config import Agent, PostgresConfigStore, Rule
from soldier_data.data_layer import DataLayer
from soldier_data.errors import ConflictError, NotFoundError, StoreError
from soldier_data.postgres.database import Database
from soldier_data.postgres.engine import driver_url
from tests.backends.round_trips import Proxy
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

QUERY = [1.0] * DIMENSIONS


@pytest.fixture
def behind(behind: tuple[Proxy, Database]) -> tuple[Proxy, PostgresConfigStore]:
    """A store that reaches the server by way of a proxy."""
    passing, database = behind
    return passing, PostgresConfigStore(database)


def _parts(agent: Agent) -> list[Any]:
    owner = {"tenant_id": agent.tenant_id, "agent_id": agent.id}
    return [
        RuleFactory(**owner, embedding=QUERY),
        ScenarioFactory(**owner, entry_condition_embedding=QUERY),
        TemplateFactory(**owner),
        VariableFactory(**owner),
        ToolActivationFactory(**owner),
    ]


def _calls(store: PostgresConfigStore, agent: Agent) -> list[tuple[str, Callable[[], Awaitable[Any]]]]:
    tenant_id, rule = agent.tenant_id, _parts(agent)[0]
    scenario, template, variable, activation = _parts(agent)[1:]
    plan = MigrationPlanFactory(tenant_id=tenant_id)
    key = (tenant_id, agent.id)
    return [
        ("save_agent", lambda: store.save_agent(agent)),
        ("save_agent, conditional", lambda: store.save_agent(agent, if_revision=agent.revision)),
        ("save_rule", lambda: store.save_rule(rule)),
        ("save_rule, conditional", lambda: store.save_rule(rule, if_revision=rule.revision)),
        ("save_scenario", lambda: store.save_scenario(scenario)),
        ("save_template", lambda: store.save_template(template)),
        ("save_variable", lambda: store.save_variable(variable)),
        ("save_tool_activation", lambda: store.save_tool_activation(activation)),
        ("save_migration_plan", lambda: store.save_migration_plan(plan)),
        ("archive_scenario_version", lambda: store.archive_scenario_version(tenant_id, scenario)),
        ("get_agent", lambda: store.get_agent(*key)),
        ("get_agents", lambda: store.get_agents(tenant_id)),
        ("get_rule", lambda: store.get_rule(tenant_id, rule.id)),
        ("get_rules", lambda: store.get_rules(*key)),
        ("get_scenario", lambda: store.get_scenario(tenant_id, scenario.id)),
        ("get_template", lambda: store.get_template(tenant_id, template.id)),
        ("get_variable_by_name", lambda: store.get_variable_by_name(*key, variable.name)),
        ("get_tool_activation", lambda: store.get_tool_activation(*key, activation.tool_id)),
        ("get_migration_plan", lambda: store.get_migration_plan(tenant_id, plan.id)),
        ("list_migration_plans", lambda: store.list_migration_plans(tenant_id)),
        ("get_archived_scenario", lambda: store.get_archived_scenario(tenant_id, scenario.id, 1)),
        ("vector_search_rules", lambda: store.vector_search_rules(QUERY, *key)),
        ("vector_search_scenarios", lambda: store.vector_search_scenarios(QUERY, *key)),
        ("delete_rule", lambda: store.delete_rule(tenant_id, rule.id)),
        ("delete_scenario", lambda: store.delete_scenario(tenant_id, scenario.id)),
        ("delete_tool_activation", lambda: store.delete_tool_activation(*key, activation.tool_id)),
        ("delete_migration_plan", lambda: store.delete_migration_plan(tenant_id, plan.id)),
        ("delete_agent", lambda: store.delete_agent(*key)),
    ]


# -- round trips -----------------------------------------------------------------------------------------------


async def test_each_call_takes_one_round_trip(
    behind: tuple[Proxy, PostgresConfigStore], tenant_id: UUID
) -> None:
    passing, store = behind
    for _, call in _calls(store, AgentFactory(tenant_id=tenant_id)):
        await call()
    counted = {
        name: await passing.count(call) for name, call in _calls(store, AgentFactory(tenant_id=tenant_id))
    }
    assert counted == dict.fromkeys(counted, 1)
    assert len(counted) == 28


async def test_a_thousand_rules_take_a_few_round_trips(
    behind: tuple[Proxy, PostgresConfigStore], tenant_id: UUID
) -> None:
    passing, store = behind
    agent: Agent = AgentFactory(tenant_id=tenant_id)
    await store.save_many([agent, *_parts(agent)])
    rules = [
        RuleFactory(tenant_id=tenant_id, agent_id=agent.id, embedding=QUERY, description="x" * 2_000)
        for _ in range(1_000)
    ]
    assert await passing.count(lambda: store.save_many(rules)) <= 6
    assert await passing.count(lambda: store.save_many(rules[:1])) == 3


# -- races -----------------------------------------------------------------------------------------------------


async def test_concurrent_conditional_saves_lose_no_increment(data: DataLayer) -> None:
    agent: Agent = AgentFactory()
    await data.config.save_agent(agent)

    async def increment() -> None:
        while True:
            read = await data.config.get_agent(agent.tenant_id, agent.id)
            assert read is not None
            read.current_version += 1
            try:
                await data.config.save_agent(read, if_revision=read.revision)
            except ConflictError:
                continue
            return

    async def writer() -> None:
        for _ in range(10):
            await increment()

    await asyncio.gather(*(writer() for _ in range(20)))
    found = await data.config.get_agent(agent.tenant_id, agent.id)
    assert found is not None
    assert (found.current_version, found.revision) == (201, 201)


async def test_of_many_agents_of_one_name_one_is_saved(data: DataLayer, tenant_id: UUID) -> None:
    agents = [AgentFactory(tenant_id=tenant_id, name="wanted") for _ in range(20)]
    saves = await asyncio.gather(*(data.config.save_agent(agent) for agent in agents), return_exceptions=True)
    assert sum(isinstance(save, UUID) for save in saves) == 1
    assert sum(isinstance(save, ConflictError) for save in saves) == 19


async def test_a_rule_saved_while_its_agent_is_deleted_never_stays_visible(
    data: DataLayer, tenant_id: UUID
) -> None:
    refused = 0
    for _ in range(20):
        agent: Agent = AgentFactory(tenant_id=tenant_id)
        await data.config.save_agent(agent)
        rules: list[Rule] = [RuleFactory(tenant_id=tenant_id, agent_id=agent.id) for _ in range(6)]
        results = await asyncio.gather(
            *(data.config.save_rule(rule) for rule in rules[:3]),
            data.config.delete_agent(tenant_id, agent.id),
            *(data.config.save_rule(rule) for rule in rules[3:]),
            return_exceptions=True,
        )
        assert results[3] is True
        saves = results[:3] + results[4:]
        assert {type(save) for save in saves} <= {UUID, NotFoundError}
        refused += sum(isinstance(save, NotFoundError) for save in saves)
        assert await data.config.get_rules(tenant_id, agent.id) == []
        assert [await data.config.get_rule(tenant_id, rule.id) for rule in rules] == [None] * 6
    assert refused > 0


async def test_a_rule_committed_while_the_deletion_of_its_agent_waits_is_deleted_with_it(
    data: DataLayer, tenant_id: UUID
) -> None:
    agent: Agent = AgentFactory(tenant_id=tenant_id)
    await data.config.save_agent(agent)
    rule: Rule = RuleFactory(tenant_id=tenant_id, agent_id=agent.id, embedding=QUERY)
    async with data.unit_of_work() as uow:
        await uow.config.save_rule(rule)
        deleting = asyncio.create_task(data.config.delete_agent(tenant_id, agent.id))
        await asyncio.sleep(0.1)
        assert not deleting.done()
    assert await deleting is True
    assert await data.config.get_rule(tenant_id, rule.id) is None
    assert await data.config.get_rules(tenant_id, agent.id, enabled_only=False) == []
    assert await data.config.vector_search_rules(QUERY, tenant_id, agent.id) == []
    # It does not come back with the agent.
    await data.config.save_agent(agent, if_revision=2)
    assert await data.config.get_rules(tenant_id, agent.id, enabled_only=False) == []
    await data.config.save_rule(rule, if_revision=2)
    assert await data.config.get_rule(tenant_id, rule.id) == rule
    assert await data.config.delete_agent(tenant_id, agent.id) is True
    assert await data.config.purge_deleted(tenant_id, timedelta(0)) == 2


async def test_lists_saved_in_opposite_orders_do_not_fail_by_deadlock(
    data: DataLayer, tenant_id: UUID
) -> None:
    agent: Agent = AgentFactory(tenant_id=tenant_id)
    rules = [RuleFactory(tenant_id=tenant_id, agent_id=agent.id) for _ in range(40)]
    await data.config.save_many([agent, *rules])
    copies = [[rule.model_copy() for rule in rules[:: (-1) ** place]] for place in range(4)]
    await asyncio.gather(*(data.config.save_many(copy) for copy in copies))
    found = await data.config.get_rules(tenant_id, agent.id)
    assert {rule.revision for rule in found} == {5}


# -- lost replies ----------------------------------------------------------------------------------------------


async def test_a_save_whose_reply_is_lost_takes_effect_once(
    behind: tuple[Proxy, PostgresConfigStore], tenant_id: UUID
) -> None:
    passing, store = behind
    agent: Agent = AgentFactory(tenant_id=tenant_id)
    await store.save_agent(agent)
    for entity in [agent, *_parts(agent), MigrationPlanFactory(tenant_id=tenant_id)]:
        kind = {"ToolActivation": "tool_activation", "MigrationPlan": "migration_plan"}
        save = getattr(store, f"save_{kind.get(type(entity).__name__, type(entity).__name__.lower())}")
        start = entity.revision
        conditions = [entity.revision, entity.revision + 1, None, None]
        for done, if_revision in enumerate(conditions, start=1):
            passing.lose_next_reply()
            await save(entity, if_revision=if_revision)
            assert entity.revision == start + done
    assert passing.lost == 7 * 4
    assert await store.get_agent(tenant_id, agent.id) == agent


async def test_a_list_or_deletion_whose_reply_is_lost_takes_effect_once(
    behind: tuple[Proxy, PostgresConfigStore], tenant_id: UUID
) -> None:
    passing, store = behind
    agent: Agent = AgentFactory(tenant_id=tenant_id)
    rule, scenario, _, variable, activation = parts = _parts(agent)
    await store.save_many([agent, *parts])

    passing.lose_next_reply()
    assert await store.delete_rule(tenant_id, rule.id) is True
    passing.lose_next_reply()
    assert await store.delete_tool_activation(tenant_id, agent.id, activation.tool_id) is True
    passing.lose_next_reply()
    assert await store.delete_agent(tenant_id, agent.id) is True
    assert passing.lost == 3

    deleted: list[tuple[Any, Callable[..., Awaitable[UUID]]]] = [
        (agent, store.save_agent),
        (rule, store.save_rule),
        (variable, store.save_variable),
    ]
    for entity, save in deleted:
        # The deletion counted once.
        await save(entity, if_revision=2)
        assert entity.revision == 3
    assert await store.get_scenario(tenant_id, scenario.id) is None


async def test_a_commit_whose_reply_is_lost_is_repeated_with_one_effect(
    behind: tuple[Proxy, PostgresConfigStore], tenant_id: UUID
) -> None:
    passing, store = behind
    agent: Agent = AgentFactory(tenant_id=tenant_id)
    await store.save_many([agent])
    rules = [RuleFactory(tenant_id=tenant_id, agent_id=agent.id) for _ in range(5)]
    passing.lose_next_reply("COMMIT")
    assert await store.save_many(rules) == 5
    assert passing.lost == 1
    assert {rule.revision for rule in rules} == {1}
    assert len(await store.get_rules(tenant_id, agent.id)) == 5


# -- what others wrote -----------------------------------------------------------------------------------------


async def test_a_row_that_no_entity_can_hold_is_a_store_error_without_its_values(
    data: DataLayer, tenant_id: UUID
) -> None:
    agent = AgentFactory(tenant_id=tenant_id)
    await data.config.save_agent(agent)
    connection = await asyncpg.connect(driver_url(data.settings.database_url))
    await connection.execute("""UPDATE agents SET settings = '{"max_tokens": "canary-8QX"}'""")
    await connection.close()
    for reading in (data.config.get_agent(tenant_id, agent.id), data.config.get_agents(tenant_id)):
        with pytest.raises(
            StoreError, match="a stored row is not a valid AgentSettings: correct max_tokens"
        ) as raised:
            await reading
        assert "canary-8QX" not in str(raised.value)
        assert raised.value.__context__ is None
