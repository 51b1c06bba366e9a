"""Several calls as one: what commits together, what rolls back, and what a refused write leaves behind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest

from soldier_data.config import Agent, ConfigStore, Rule
from soldier_data.data_layer import DataLayer
from soldier_data.errors import (
    ConflictError,
    NotFoundError,
    StoreConnectionError,
    StoreError,
    ValidationError,
)
from soldier_data.postgres.engine import driver_url
from soldier_data.postgres.unit_transaction import UnitTransaction
from soldier_data.settings import Settings
from soldier_data.unit_of_work import UnitOfWork
from tests.conftest import DIMENSIONS
from tests.factories.config import AgentFactory, MigrationPlanFactory, RuleFactory, ScenarioFactory


class Stop(Exception):  # noqa: N818 - raised by tests only.
    pass


@pytest.fixture(params=["inmemory", "postgres"])
async def layer(request: pytest.FixtureRequest, shared_layer: DataLayer) -> AsyncIterator[DataLayer]:
    """A data layer in memory, and one on PostgreSQL that all tests of this module share."""
    if request.param == "postgres":
        yield shared_layer
        return
    async with DataLayer.in_memory(Settings(embedding_dimensions=DIMENSIONS)) as data:
        yield data


@pytest.fixture(scope="module")
async def shared_layer(shared_database_url: str) -> AsyncIterator[DataLayer]:
    settings = Settings(
        database_url=shared_database_url, session_backend="inmemory", embedding_dimensions=DIMENSIONS
    )
    async with DataLayer.open(settings) as data:
        yield data


@pytest.fixture
async def agent(layer: DataLayer, tenant_id: UUID) -> Agent:
    saved: Agent = AgentFactory(tenant_id=tenant_id)
    await layer.config.save_agent(saved)
    return saved


def rule_of(agent: Agent, **fields: Any) -> Rule:
    rule: Rule = RuleFactory(tenant_id=agent.tenant_id, agent_id=agent.id, **fields)
    return rule


async def test_everything_commits_together(layer: DataLayer, tenant_id: UUID) -> None:
    agent: Agent = AgentFactory(tenant_id=tenant_id)
    rule = rule_of(agent)
    async with layer.unit_of_work(tenant_id) as uow:
        await uow.config.save_agent(agent)
        await uow.config.save_rule(rule)
        assert await uow.config.get_rule(tenant_id, rule.id) == rule
        assert await layer.config.get_agent(tenant_id, agent.id) is None
        assert await layer.config.get_agents(tenant_id) == ([], 0)
    assert await layer.config.get_agent(tenant_id, agent.id) == agent
    assert await layer.config.get_rules(tenant_id, agent.id) == [rule]


@pytest.mark.parametrize("error", [Stop, asyncio.CancelledError, ValidationError])
async def test_any_exception_rolls_everything_back_and_is_passed_on(
    layer: DataLayer, agent: Agent, error: type[BaseException]
) -> None:
    stored, rule = rule_of(agent), rule_of(agent)
    await layer.config.save_rule(stored)
    with pytest.raises(error):  # noqa: PT012 - the whole block is what raises.
        async with layer.unit_of_work() as uow:
            await uow.config.save_rule(rule)
            await uow.config.save_many([rule_of(agent), MigrationPlanFactory(tenant_id=agent.tenant_id)])
            await uow.config.delete_rule(agent.tenant_id, stored.id)
            scenario = ScenarioFactory(tenant_id=agent.tenant_id)
            await uow.config.archive_scenario_version(agent.tenant_id, scenario)
            assert await uow.config.get_rule(agent.tenant_id, stored.id) is None
            raise error("stop")
    assert await layer.config.get_rules(agent.tenant_id, agent.id) == [stored]
    assert await layer.config.list_migration_plans(agent.tenant_id) == []
    assert await layer.config.get_archived_scenario(agent.tenant_id, scenario.id, 1) is None


async def test_a_refused_write_leaves_the_unit_usable(layer: DataLayer, agent: Agent) -> None:
    before, after = rule_of(agent), rule_of(agent)
    clash: Agent = AgentFactory(tenant_id=agent.tenant_id, name=agent.name)
    async with layer.unit_of_work() as uow:
        await uow.config.save_rule(before)
        for _ in range(2):
            with pytest.raises(ConflictError, match="name"):
                await uow.config.save_agent(clash)
            with pytest.raises(NotFoundError):
                await uow.config.save_rule(RuleFactory(tenant_id=agent.tenant_id))
            with pytest.raises(ConflictError, match="revision"):
                await uow.config.save_agent(agent, if_revision=7)
            with pytest.raises(ValidationError):
                await uow.config.save_rule(rule_of(agent, embedding=[0.0] * DIMENSIONS))
            with pytest.raises(NotFoundError):
                await uow.config.save_many([rule_of(agent), RuleFactory(tenant_id=agent.tenant_id)])
            with pytest.raises(ConflictError):
                await uow.config.save_many([rule_of(agent), clash])
        assert clash.revision == 0
        await uow.config.save_rule(after)
    found = await layer.config.get_rules(agent.tenant_id, agent.id)
    assert found == [before, after]
    assert (await layer.config.get_agents(agent.tenant_id))[1] == 1


async def test_a_refused_list_within_a_unit_is_undone_alone(layer: DataLayer, agent: Agent) -> None:
    async with layer.unit_of_work() as uow:
        await uow.config.save_agent(agent)
        with pytest.raises(NotFoundError):
            await uow.config.save_many(
                [AgentFactory(tenant_id=agent.tenant_id), RuleFactory(tenant_id=agent.tenant_id)]
            )
        assert await uow.config.get_agents(agent.tenant_id) == ([agent], 1)
    assert await layer.config.get_agent(agent.tenant_id, agent.id) == agent


async def test_rollback_undoes_everything_and_ends_the_unit(layer: DataLayer, agent: Agent) -> None:
    called: list[str] = []
    async with layer.unit_of_work() as uow:
        await uow.config.save_rule(rule_of(agent))
        uow.after_commit(lambda: called.append("never"))
        await uow.rollback()
        with pytest.raises(StoreError, match="has ended"):
            await uow.config.save_rule(rule_of(agent))
        await uow.rollback()
    assert await layer.config.get_rules(agent.tenant_id, agent.id) == []
    assert called == []


async def test_a_unit_refuses_calls_after_its_end(layer: DataLayer, agent: Agent) -> None:
    units: list[UnitOfWork] = []
    async with layer.unit_of_work() as uow:
        units.append(uow)
    with pytest.raises(Stop):  # noqa: PT012 - the whole block is what raises.
        async with layer.unit_of_work() as uow:
            units.append(uow)
            raise Stop
    for ended in units:
        for call in (
            ended.config.get_agent(agent.tenant_id, agent.id),
            ended.config.save_agent(agent),
            ended.config.save_many([agent]),
            ended.config.delete_agent(agent.tenant_id, agent.id),
            ended.config.purge_deleted(agent.tenant_id, timedelta(0)),
        ):
            with pytest.raises(StoreError, match="has ended"):
                await call
    assert await layer.config.get_agent(agent.tenant_id, agent.id) == agent


async def test_callbacks_run_in_order_once_everything_is_committed(layer: DataLayer, agent: Agent) -> None:
    called: list[str] = []
    rule = rule_of(agent)

    async def slow() -> None:
        await asyncio.sleep(0.01)
        assert await layer.config.get_rule(agent.tenant_id, rule.id) == rule
        called.append("slow")

    async with layer.unit_of_work() as uow:
        uow.after_commit(slow)
        uow.after_commit(lambda: called.append("quick"))
        await uow.config.save_rule(rule)
        assert called == []
    assert called == ["slow", "quick"]


async def test_callbacks_do_not_run_after_an_exception(layer: DataLayer, agent: Agent) -> None:
    called: list[str] = []
    with pytest.raises(Stop):  # noqa: PT012 - the whole block is what raises.
        async with layer.unit_of_work() as uow:
            uow.after_commit(lambda: called.append("never"))
            raise Stop
    assert called == []


async def test_an_error_of_a_callback_is_passed_on_and_the_work_stays(layer: DataLayer, agent: Agent) -> None:
    called: list[str] = []
    rule = rule_of(agent)

    def fail() -> None:
        raise Stop

    with pytest.raises(Stop):  # noqa: PT012 - the whole block is what raises.
        async with layer.unit_of_work() as uow:
            uow.after_commit(fail)
            uow.after_commit(lambda: called.append("never"))
            await uow.config.save_rule(rule)
    assert called == []
    assert await layer.config.get_rule(agent.tenant_id, rule.id) == rule


@pytest.mark.parametrize("error", [Stop, StoreConnectionError, asyncio.CancelledError])
async def test_an_error_of_a_callback_says_that_the_work_is_saved(
    layer: DataLayer, agent: Agent, error: type[BaseException]
) -> None:
    rule = rule_of(agent)

    async def fail() -> None:
        raise error("the callback failed")

    with pytest.raises(error) as raised:  # noqa: PT012 - the whole block is what raises.
        async with layer.unit_of_work() as uow:
            uow.after_commit(fail)
            await uow.config.save_rule(rule)
    (note,) = raised.value.__notes__
    assert "The unit of work itself has been committed" in note
    assert getattr(raised.value, "committed", True) is True
    assert StoreConnectionError("another").committed is False
    assert await layer.config.get_rule(agent.tenant_id, rule.id) == rule


async def test_an_error_of_a_callback_is_never_a_reason_to_repeat_the_work(
    layer: DataLayer, agent: Agent
) -> None:
    runs = 0

    def fail() -> None:
        raise StoreConnectionError("Redis is away")

    async def work(uow: UnitOfWork) -> None:
        nonlocal runs
        runs += 1
        uow.after_commit(fail)
        await uow.config.save_rule(rule_of(agent))

    with pytest.raises(StoreConnectionError) as raised:
        await layer.run_in_transaction(work)
    assert raised.value.committed
    assert runs == 1
    assert len(await layer.config.get_rules(agent.tenant_id, agent.id)) == 1


async def test_calls_made_at_once_within_a_unit_take_turns(layer: DataLayer, agent: Agent) -> None:
    rules = [rule_of(agent) for _ in range(20)]
    async with layer.unit_of_work() as uow:
        results = await asyncio.gather(
            *(uow.config.save_rule(rule) for rule in rules),
            *(uow.config.save_many([rule_of(agent), rule_of(agent)]) for _ in range(5)),
            *(uow.config.save_agent(AgentFactory(tenant_id=agent.tenant_id, name="same")) for _ in range(5)),
            uow.config.get_rules(agent.tenant_id, agent.id),
            return_exceptions=True,
        )
        assert sum(isinstance(result, ConflictError) for result in results) == 4
        assert sum(isinstance(result, BaseException) for result in results) == 4
    assert len(await layer.config.get_rules(agent.tenant_id, agent.id)) == 30


async def test_units_side_by_side_do_not_see_each_other(layer: DataLayer, agent: Agent) -> None:
    async with layer.unit_of_work() as first, layer.unit_of_work() as second:
        mine = rule_of(agent)
        await first.config.save_rule(mine)
        assert await second.config.get_rules(agent.tenant_id, agent.id) == []
        assert await first.config.get_rules(agent.tenant_id, agent.id) == [mine]


# -- run_in_transaction ----------------------------------------------------------------------------------------


async def test_run_in_transaction_returns_what_the_work_returns(layer: DataLayer, agent: Agent) -> None:
    called: list[str] = []

    async def work(uow: UnitOfWork) -> UUID:
        uow.after_commit(lambda: called.append("after"))
        return await uow.config.save_rule(rule_of(agent))

    saved = await layer.run_in_transaction(work, tenant_id=agent.tenant_id)
    assert [rule.id for rule in await layer.config.get_rules(agent.tenant_id, agent.id)] == [saved]
    assert called == ["after"]


async def test_run_in_transaction_does_not_repeat_the_works_own_errors(
    layer: DataLayer, agent: Agent
) -> None:
    runs = 0

    async def work(uow: UnitOfWork) -> None:
        nonlocal runs
        runs += 1
        await uow.config.save_rule(rule_of(agent))
        raise Stop

    with pytest.raises(Stop):
        await layer.run_in_transaction(work)
    assert runs == 1
    assert await layer.config.get_rules(agent.tenant_id, agent.id) == []


async def _terminate_others(url: str) -> None:
    connection = await asyncpg.connect(driver_url(url))
    await connection.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    await connection.close()


async def test_the_whole_work_is_repeated_after_a_lost_connection(data: DataLayer) -> None:
    agent: Agent = AgentFactory()
    await data.config.save_agent(agent)
    called: list[int] = []
    runs = 0

    async def work(uow: UnitOfWork) -> int:
        nonlocal runs
        runs += 1
        this_run = runs
        uow.after_commit(lambda: called.append(this_run))
        read = await uow.config.get_agent(agent.tenant_id, agent.id)
        assert read is not None
        read.current_version += 1
        await uow.config.save_agent(read, if_revision=read.revision)
        if runs < 3:
            await _terminate_others(data.settings.database_url)
        return read.current_version

    assert await data.run_in_transaction(work) == 2
    assert runs == 3
    assert called == [3]
    found = await data.config.get_agent(agent.tenant_id, agent.id)
    assert found is not None
    assert (found.current_version, found.revision) == (2, 2)


async def test_increments_by_run_in_transaction_are_never_lost(data: DataLayer) -> None:
    agent: Agent = AgentFactory()
    await data.config.save_agent(agent)

    async def increment(uow: UnitOfWork) -> None:
        read = await uow.config.get_agent(agent.tenant_id, agent.id)
        assert read is not None
        read.current_version += 1
        await uow.config.save_agent(read, if_revision=read.revision)

    results = await asyncio.gather(
        *(data.run_in_transaction(increment) for _ in range(40)), return_exceptions=True
    )
    done = sum(result is None for result in results)
    assert {type(result) for result in results} <= {type(None), ConflictError}
    found = await data.config.get_agent(agent.tenant_id, agent.id)
    assert found is not None
    assert done >= 1
    assert (found.current_version, found.revision) == (1 + done, 1 + done)


# -- errors that are swallowed ---------------------------------------------------------------------------------


async def test_a_swallowed_lost_connection_does_not_lose_the_work_silently(data: DataLayer) -> None:
    agent: Agent = AgentFactory()
    with pytest.raises(StoreError, match="committing"):  # noqa: PT012 - the whole block is what raises.
        async with data.unit_of_work() as uow:
            await uow.config.save_agent(agent)
            await _terminate_others(data.settings.database_url)
            with pytest.raises(StoreError):
                await uow.config.get_agent(agent.tenant_id, agent.id)
    assert await data.config.get_agent(agent.tenant_id, agent.id) is None


async def test_a_swallowed_failure_of_a_statement_does_not_lose_the_work_silently(data: DataLayer) -> None:
    agent: Agent = AgentFactory()
    called: list[str] = []
    with pytest.raises(StoreError, match="nothing was saved"):  # noqa: PT012 - the whole block is what raises.
        async with data.unit_of_work() as uow:
            uow.after_commit(lambda: called.append("never"))
            await uow.config.save_agent(agent)
            assert isinstance(uow._transaction, UnitTransaction)
            transaction = await uow._transaction.begun()
            with pytest.raises(StoreError):
                await transaction._command("SELECT 1 / 0", "dividing")
    assert called == []
    assert await data.config.get_agent(agent.tenant_id, agent.id) is None


async def _save_while_locked(store: ConfigStore, agent: Agent, url: str) -> None:
    """A list of which the first half can be saved, and the second has to wait until it is given up."""
    connection = await asyncpg.connect(driver_url(url))
    transaction = connection.transaction()
    await transaction.start()
    await connection.execute("LOCK TABLE rules")
    try:
        async with asyncio.timeout(0.2):
            await store.save_many([agent, rule_of(agent)])
    finally:
        await transaction.rollback()
        await connection.close()


async def test_a_swallowed_time_out_does_not_commit_half_of_a_list(data: DataLayer) -> None:
    first, second = AgentFactory(), AgentFactory()
    with pytest.raises(StoreError, match="cancelled"):  # noqa: PT012 - the whole block is what raises.
        async with data.unit_of_work() as uow:
            await uow.config.save_agent(first)
            with pytest.raises(TimeoutError):
                await _save_while_locked(uow.config, second, data.settings.database_url)
    for agent in (first, second):
        assert await data.config.get_agent(agent.tenant_id, agent.id) is None
    assert await data.config.get_agents(uuid4()) == ([], 0)
