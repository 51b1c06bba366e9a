"""The relationships of the mapped classes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import select
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import InstrumentedAttribute, RelationshipProperty, selectinload

from soldier_data import DataLayer, orm
from soldier_data.config import Rule
from soldier_data.orm import AgentRow, RunRow
from tests.factories.config import (
    RuleFactory,
    ScenarioFactory,
    TemplateFactory,
    ToolActivationFactory,
    VariableFactory,
)
from tests.factories.memory import EntityFactory, RelationshipFactory
from tests.factories.profiles import FullProfileFactory, ProfileFieldFactory
from tests.factories.runs import ArtifactFactory, LLMCallFactory, RunFactory, StepFactory
from tests.integration.orm.conftest import RELATIONSHIPS, saved_agent

# -- relationships -----------------------------------------------------------------------------------------------


class _Owner:
    """An agent, a run, a profile and an entity with parts, of which some are deleted; the same for each tenant."""

    def __init__(self) -> None:
        self.ids = {
            AgentRow: uuid4(),
            RunRow: uuid4(),
            orm.CustomerProfileRow: uuid4(),
            orm.EntityRow: uuid4(),
        }
        self.parts: dict[str, UUID] = {}

    def _id(self, name: str) -> UUID:
        return self.parts.setdefault(name, uuid4())

    async def store(self, data: DataLayer, tenant_id: UUID) -> None:
        agent = await saved_agent(data, tenant_id, id=self.ids[AgentRow])
        key = {"tenant_id": tenant_id, "agent_id": agent.id}
        factories = (RuleFactory, ScenarioFactory, TemplateFactory, VariableFactory, ToolActivationFactory)
        parts = [
            factory(**key, id=self._id(f"{factory.__name__} {number}"))
            for factory in factories
            for number in range(3)
        ]
        for number, part in enumerate(parts):
            if isinstance(part, Rule):
                part.priority = number
            if number % 3 == 2:
                part.soft_delete()
        await data.config.save_many(parts)

        run = RunFactory(tenant_id=tenant_id, id=self.ids[RunRow])
        await data.runs.save_run(run)
        key = {"tenant_id": tenant_id, "run_id": run.id}
        for number in range(2):
            step = StepFactory(**key, id=self._id(f"step {number}"), step_number=2 - number)
            await data.runs.save_step(step)
            await data.runs.save_artifact(ArtifactFactory(**key, id=self._id(f"artifact {number}")))
            await data.runs.save_llm_call(
                LLMCallFactory(**key, id=self._id(f"call {number}"), step_id=step.id)
            )

        profile = FullProfileFactory(tenant_id=tenant_id, id=self.ids[orm.CustomerProfileRow])
        await data.profiles.save(profile)
        await data.profiles.update_field(
            tenant_id, profile.id, ProfileFieldFactory(name="city", value="Bonn")
        )

        ends = [self.ids[orm.EntityRow], self._id("entity 1"), self._id("entity 2")]
        for id_ in ends:
            await data.memory.add_entity(EntityFactory(tenant_id=tenant_id, id=id_))
        for number, (start, end) in enumerate([(0, 1), (1, 0), (1, 2), (0, 2)]):
            made = RelationshipFactory(
                tenant_id=tenant_id,
                id=self._id(f"relationship {number}"),
                from_entity_id=ends[start],
                to_entity_id=ends[end],
            )
            await data.memory.add_relationship(made)
        await data.memory.delete_relationship(tenant_id, self._id("relationship 3"))


Listed = Callable[[DataLayer, UUID, UUID], Awaitable[Any]]


def _profile_list(part: str) -> Listed:
    async def listed(data: DataLayer, tenant_id: UUID, id_: UUID) -> Any:
        profile = await data.profiles.get_by_id(tenant_id, id_)
        found = getattr(profile, part)
        return list(found.values()) if isinstance(found, dict) else found

    return listed


async def _relationships(data: DataLayer, tenant_id: UUID, id_: UUID) -> Any:
    found = await data.memory.get_relationships(tenant_id, "conversation")
    return [each for each in found if id_ in (each.from_entity_id, each.to_entity_id)]


async def _templates(data: DataLayer, tenant_id: UUID, id_: UUID) -> Any:
    return await data.config.get_templates(tenant_id, id_)


LISTED: dict[str, Listed] = {
    "AgentRow.rules": lambda data, *key: data.config.get_rules(*key),
    "AgentRow.scenarios": lambda data, *key: data.config.get_scenarios(*key),
    "AgentRow.templates": _templates,
    "AgentRow.variables": lambda data, *key: data.config.get_variables(*key),
    "AgentRow.tool_activations": lambda data, *key: data.config.get_tool_activations(*key),
    "RunRow.steps": lambda data, *key: data.runs.get_steps(*key),
    "RunRow.artifacts": lambda data, *key: data.runs.get_artifacts(*key),
    "RunRow.llm_calls": lambda data, *key: data.runs.get_llm_calls(*key),
    "CustomerProfileRow.channel_identities": _profile_list("channel_identities"),
    "CustomerProfileRow.fields": _profile_list("fields"),
    "CustomerProfileRow.assets": _profile_list("assets"),
    "CustomerProfileRow.consents": _profile_list("consents"),
    "EntityRow.relationships": _relationships,
}

IDENTIFYING = {
    "CustomerProfileRow.channel_identities": "channel_user_id",
    "CustomerProfileRow.fields": "value",
    "CustomerProfileRow.consents": "consent_type",
}


@pytest.fixture(scope="module")
async def owner(data: DataLayer) -> tuple[_Owner, UUID]:
    """Rows of one tenant, and under the same ids those of another."""
    made, tenant_id = _Owner(), uuid4()
    await made.store(data, tenant_id)
    await made.store(data, uuid4())
    return made, tenant_id


def test_all_relationships_are_for_reading_and_compare_tenants() -> None:
    assert {str(each) for each in RELATIONSHIPS} == LISTED.keys()
    for each in RELATIONSHIPS:
        assert (each.viewonly, each.lazy) == (True, "raise")
        assert any(left.name == right.name == "tenant_id" for left, right in each.local_remote_pairs)


@pytest.mark.parametrize("each", RELATIONSHIPS, ids=str)
async def test_a_relationship_shows_what_the_store_lists(
    data: DataLayer, session: AsyncSession, owner: tuple[_Owner, UUID], each: RelationshipProperty[Any]
) -> None:
    made, tenant_id = owner
    row: Any = each.parent.class_
    attribute: InstrumentedAttribute[Any] = getattr(row, each.key)
    id_ = made.ids[row]
    unloaded = await session.get_one(row, (tenant_id, id_))
    with pytest.raises(InvalidRequestError, match="lazy='raise'"):
        getattr(unloaded, each.key)
    both = select(row).where(row.id == id_).options(selectinload(attribute))
    owners = (await session.scalars(both.execution_options(populate_existing=True))).all()
    assert len(owners) == 2
    name = IDENTIFYING.get(str(each), "id")
    for loaded in owners:
        parts = getattr(loaded, each.key)
        assert {part.tenant_id for part in parts} == {loaded.tenant_id}
        entities = await LISTED[str(each)](data, loaded.tenant_id, id_)
        assert [getattr(part, name) for part in parts] == [getattr(entity, name) for entity in entities]
        assert len(parts) == 2
    joined = select(row.id).join(attribute).where(row.tenant_id == tenant_id, row.id == id_)
    assert (await session.scalars(joined)).all() == [id_, id_]
