"""The contract of `ConfigStore`, run against every backend: conditional saves, and names that are taken."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest

from soldier_data.config import Agent, ConfigStore, Rule
from soldier_data.errors import ConflictError, ValidationError
from tests.cases.kind import Kind
from tests.cases.kinds.config import ACTIVATION, AGENT, REVISIONED, SOFTLY_DELETED, VARIABLE
from tests.factories.config import AgentFactory, RuleFactory, ToolActivationFactory, VariableFactory

every_kind = pytest.mark.parametrize("kind", REVISIONED, ids=lambda kind: kind.name)
every_softly_deleted = pytest.mark.parametrize("kind", SOFTLY_DELETED, ids=lambda kind: kind.name)
with_unique_name = pytest.mark.parametrize("kind", [AGENT, VARIABLE, ACTIVATION], ids=lambda kind: kind.name)


# -- revisions -------------------------------------------------------------------------------------------------


@every_kind
async def test_a_conditional_save_needs_the_stored_revision(
    config_store: ConfigStore, agent: Agent, kind: Kind
) -> None:
    entity = kind.new(agent.tenant_id, agent.id)
    await kind.save(config_store, entity, if_revision=0)
    kind.change(entity)
    await kind.save(config_store, entity, if_revision=1)
    assert entity.revision == 2
    assert await kind.get(config_store, entity) == entity

    for stale in (0, 1, 3):
        before = entity.model_copy(deep=True)
        with pytest.raises(ConflictError, match=f"revision {stale} was expected, but 2 is stored"):
            await kind.save(config_store, entity, if_revision=stale)
        assert entity == before
    assert await kind.get(config_store, entity) == entity


@every_kind
async def test_a_conditional_save_of_what_is_not_stored_is_a_conflict(
    config_store: ConfigStore, agent: Agent, kind: Kind
) -> None:
    entity = kind.new(agent.tenant_id, agent.id)
    with pytest.raises(ConflictError, match="revision 1 was expected"):
        await kind.save(config_store, entity, if_revision=1)
    assert await kind.get(config_store, entity) is None


@every_softly_deleted
async def test_a_deletion_counts_as_a_revision(config_store: ConfigStore, agent: Agent, kind: Kind) -> None:
    entity = kind.new(agent.tenant_id, agent.id)
    await kind.save(config_store, entity)
    await kind.delete(config_store, entity)
    for stale in (0, 1):
        with pytest.raises(ConflictError, match="but 2 is stored"):
            await kind.save(config_store, entity, if_revision=stale)
    await kind.save(config_store, entity, if_revision=2)
    assert entity.revision == 3
    assert await kind.get(config_store, entity) == entity


@every_kind
async def test_an_impossible_revision_is_refused(config_store: ConfigStore, agent: Agent, kind: Kind) -> None:
    for revision in (-1, 2**63, -(2**70)):
        with pytest.raises(ValidationError) as refused:
            await kind.save(config_store, kind.new(agent.tenant_id, agent.id), if_revision=revision)
        assert refused.value.field == "if_revision"


# -- names -----------------------------------------------------------------------------------------------------


def _named(kind: Kind, agent: Agent, name: str) -> Any:
    return kind.new(agent.tenant_id, agent.id, **{"tool_id" if kind is ACTIVATION else "name": name})


@with_unique_name
async def test_a_taken_name_is_a_conflict_that_names_the_field(
    config_store: ConfigStore, agent: Agent, kind: Kind
) -> None:
    first, second = _named(kind, agent, "taken"), _named(kind, agent, "other")
    await kind.save(config_store, first)
    await kind.save(config_store, second)
    clashing = _named(kind, agent, "taken")
    renamed = _named(kind, agent, "taken").model_copy(update={"id": second.id})

    for entity in (clashing, renamed):
        before = entity.model_copy(deep=True)
        with pytest.raises(ConflictError, match="tool_id" if kind is ACTIVATION else "name"):
            await kind.save(config_store, entity)
        assert entity == before
    assert await kind.get(config_store, first) == first
    assert await kind.get(config_store, second) == second
    await kind.save(config_store, first)


@with_unique_name
async def test_a_name_is_free_again_after_deletion_or_renaming(
    config_store: ConfigStore, agent: Agent, kind: Kind
) -> None:
    first, second, third = (_named(kind, agent, "wanted") for _ in range(3))
    await kind.save(config_store, first)
    await kind.delete(config_store, first)
    await kind.save(config_store, second)
    with pytest.raises(ConflictError):
        await kind.save(config_store, first)

    setattr(second, "tool_id" if kind is ACTIVATION else "name", "renamed")
    await kind.save(config_store, second)
    await kind.save(config_store, third)
    assert await kind.get(config_store, third) == third


async def test_names_are_compared_by_character(config_store: ConfigStore, tenant_id: UUID) -> None:
    for name in ("Support", "support", "SUPPORT", "support ", "süpport", "su\u0308pport"):
        await config_store.save_agent(AgentFactory(tenant_id=tenant_id, name=name))
    assert (await config_store.get_agents(tenant_id))[1] == 6


async def test_tenants_and_agents_have_names_of_their_own(config_store: ConfigStore, agent: Agent) -> None:
    other: Agent = AgentFactory(tenant_id=agent.tenant_id)
    await config_store.save_agent(other)
    await config_store.save_agent(AgentFactory(name=agent.name))
    for owner in (agent, other):
        await config_store.save_variable(
            VariableFactory(tenant_id=owner.tenant_id, agent_id=owner.id, name="same")
        )
        await config_store.save_tool_activation(
            ToolActivationFactory(tenant_id=owner.tenant_id, agent_id=owner.id, tool_id="same")
        )
        for _ in range(2):
            rule: Rule = RuleFactory(tenant_id=owner.tenant_id, agent_id=owner.id, name="same")
            await config_store.save_rule(rule)
    assert len(await config_store.get_rules(agent.tenant_id, agent.id)) == 2
