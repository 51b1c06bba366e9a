"""Units of work in memory that overlap: what the one that commits last has changed is refused, not lost."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeAlias
from uuid import UUID, uuid4

import pytest

from soldier_data.data_layer import DataLayer
from soldier_data.errors import ConflictError
from soldier_data.profiles import Channel
from soldier_data.settings import Settings
from soldier_data.unit_of_work import UnitOfWork
from tests.conftest import DIMENSIONS
from tests.factories.audit import TurnRecordFactory
from tests.factories.config import AgentFactory, RuleFactory
from tests.factories.memory import EntityFactory, EpisodeFactory
from tests.factories.profiles import CustomerProfileFactory, ProfileFieldFactory
from tests.factories.runs import RunFactory
from tests.factories.vectors import EmbeddingFactory

Change: TypeAlias = Callable[[Any], Awaitable[object]]
"""What is done to the stores of a unit of work, or of the data layer."""


@pytest.fixture
async def data() -> AsyncIterator[DataLayer]:
    async with DataLayer.in_memory(Settings(embedding_dimensions=DIMENSIONS)) as opened:
        yield opened


async def refused(data: DataLayer, first: Change, second: Change) -> None:
    """Both changes are made before either is committed, and only the one that is committed first is kept."""
    with pytest.raises(ConflictError):  # noqa: PT012 - the whole block is what raises.
        async with data.unit_of_work() as late:
            async with data.unit_of_work() as early:
                await first(early)
                await second(late)
            late.after_commit(lambda: pytest.fail("the later unit was committed"))


async def test_the_same_entity_changed_in_both_is_refused(data: DataLayer, tenant_id: UUID) -> None:
    agent = AgentFactory(tenant_id=tenant_id)
    await data.config.save_agent(agent)
    first, second = agent.model_copy(deep=True), agent.model_copy(deep=True)
    first.description, second.description = "first", "second"
    await refused(data, lambda uow: uow.config.save_agent(first), lambda uow: uow.config.save_agent(second))
    found = await data.config.get_agent(tenant_id, agent.id)
    assert found is not None
    assert (found.description, found.revision) == ("first", 2)


async def test_an_entity_changed_beside_the_unit_is_refused(data: DataLayer, tenant_id: UUID) -> None:
    agent = AgentFactory(tenant_id=tenant_id)
    await data.config.save_agent(agent)
    with pytest.raises(ConflictError, match="repeat"):  # noqa: PT012 - the whole block is what raises.
        async with data.unit_of_work() as uow:
            await uow.config.delete_agent(tenant_id, agent.id)
            await data.config.save_agent(agent)
    assert await data.config.get_agent(tenant_id, agent.id) == agent


async def test_a_refused_unit_leaves_no_store_changed(data: DataLayer, tenant_id: UUID) -> None:
    agent = AgentFactory(tenant_id=tenant_id)
    entity = EntityFactory(tenant_id=tenant_id)
    await data.config.save_agent(agent)
    with pytest.raises(ConflictError):  # noqa: PT012 - the whole block is what raises.
        async with data.unit_of_work() as uow:
            await uow.memory.add_entity(entity)
            await uow.vectors.add_embedding(EmbeddingFactory(tenant_id=tenant_id))
            await uow.config.save_agent(agent)
            await data.config.save_agent(agent)
    assert await data.memory.get_entity(tenant_id, entity.id) is None
    assert await data.vectors.search([1.0] * DIMENSIONS, tenant_id) == []


UNIQUE: dict[str, Callable[[UUID], tuple[Change, Change]]] = {
    "name of an agent": lambda tenant_id: (
        lambda uow: uow.config.save_agent(AgentFactory(tenant_id=tenant_id, name="same")),
        lambda uow: uow.config.save_agent(AgentFactory(tenant_id=tenant_id, name="same")),
    ),
    "trace_id of a run": lambda tenant_id: (
        lambda uow: uow.runs.save_run(RunFactory(tenant_id=tenant_id, trace_id="same")),
        lambda uow: uow.runs.save_run(RunFactory(tenant_id=tenant_id, trace_id="same")),
    ),
    "identity of a customer": lambda tenant_id: (
        lambda uow: uow.profiles.get_or_create(tenant_id, Channel.SLACK, "same"),
        lambda uow: uow.profiles.get_or_create(tenant_id, Channel.SLACK, "same"),
    ),
    "id of an episode": lambda tenant_id: (
        lambda uow: uow.memory.add_episode(EpisodeFactory(tenant_id=tenant_id, id=UUID(int=1))),
        lambda uow: uow.memory.add_episode(EpisodeFactory(tenant_id=tenant_id, id=UUID(int=1))),
    ),
    "id of an embedding": lambda tenant_id: (
        lambda uow: uow.vectors.add_embedding(EmbeddingFactory(tenant_id=tenant_id, id=UUID(int=1))),
        lambda uow: uow.vectors.add_embedding(EmbeddingFactory(tenant_id=tenant_id, id=UUID(int=1))),
    ),
    "id of a turn": lambda tenant_id: (
        lambda uow: uow.audit.save_turn(TurnRecordFactory(tenant_id=tenant_id, turn_id=UUID(int=1))),
        lambda uow: uow.audit.save_turn(TurnRecordFactory(tenant_id=tenant_id, turn_id=UUID(int=1))),
    ),
}


@pytest.mark.parametrize("changes", UNIQUE.values(), ids=UNIQUE.keys())
async def test_a_unique_value_taken_in_both_is_refused(
    data: DataLayer, tenant_id: UUID, changes: Callable[[UUID], tuple[Change, Change]]
) -> None:
    await refused(data, *changes(tenant_id))


async def test_parts_of_one_profile_changed_in_both_are_refused(data: DataLayer, tenant_id: UUID) -> None:
    profile = CustomerProfileFactory(tenant_id=tenant_id)
    await data.profiles.save(profile)

    def updating(name: str) -> Change:
        field = ProfileFieldFactory(name=name)
        return lambda uow: uow.profiles.update_field(tenant_id, profile.id, field)

    await refused(data, updating("first"), updating("second"))
    found = await data.profiles.get_by_id(tenant_id, profile.id)
    assert found is not None
    assert set(found.fields) == {"city", "first"}


async def test_units_that_change_different_entities_both_commit(data: DataLayer, tenant_id: UUID) -> None:
    agent = AgentFactory(tenant_id=tenant_id)
    await data.config.save_agent(agent)
    of_agent = {"tenant_id": tenant_id, "agent_id": agent.id}
    rules = RuleFactory(**of_agent), RuleFactory(**of_agent)
    async with data.unit_of_work() as first, data.unit_of_work() as second:
        await first.config.save_rule(rules[0])
        await second.config.save_many([rules[1]])
    assert await data.config.get_rules(tenant_id, agent.id) == list(rules)


async def test_a_unit_sees_what_was_committed_meanwhile_and_may_change_it(
    data: DataLayer, tenant_id: UUID
) -> None:
    agent = AgentFactory(tenant_id=tenant_id)
    async with data.unit_of_work() as uow:
        assert await uow.config.get_agent(tenant_id, agent.id) is None
        await data.config.save_agent(agent)
        found = await uow.config.get_agent(tenant_id, agent.id)
        assert found == agent
        await uow.config.save_agent(found, if_revision=1)
    assert (await data.config.get_agent(tenant_id, agent.id)) == found


async def test_a_unit_that_is_rolled_back_conflicts_with_nothing(data: DataLayer, tenant_id: UUID) -> None:
    agent = AgentFactory(tenant_id=tenant_id, id=uuid4())
    units: list[UnitOfWork] = []
    async with data.unit_of_work() as uow:
        units.append(uow)
        await uow.config.save_agent(agent.model_copy())
        await data.config.save_agent(agent)
        await uow.rollback()
    assert await data.config.get_agent(tenant_id, agent.id) == agent
