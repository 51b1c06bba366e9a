"""What every store refuses of an entity that got around the validation of assignments, and what it finds again."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable
from typing import Any, NamedTuple
from uuid import UUID

import pytest
from pydantic import create_model

from soldier_data.data_layer import DataLayer
from soldier_data.errors import ValidationError
from soldier_data.settings import Settings
from tests.conftest import DIMENSIONS, settings_for
from tests.factories.audit import AuditEventFactory, TurnRecordFactory
from tests.factories.config import AgentFactory, RuleFactory, ScenarioFactory
from tests.factories.memory import EntityFactory, EpisodeFactory
from tests.factories.profiles import CustomerProfileFactory
from tests.factories.runs import RunFactory
from tests.factories.sessions import SessionFactory
from tests.factories.vectors import EmbeddingFactory


class Kind(NamedTuple):
    """Something that a store saves.

    Attributes:
        store: Its store's name in a data layer.
        save: The method that saves it.
        make: Makes one.
        moment: A field that holds a moment.
    """

    store: str
    save: str
    make: Callable[..., Any]
    moment: str

    async def saved(self, data: DataLayer, entity: Any) -> None:
        await getattr(getattr(data, self.store), self.save)(entity)

    async def refused(self, data: DataLayer, entity: Any) -> str | None:
        with pytest.raises(ValidationError) as error:
            await self.saved(data, entity)
        assert "secret" not in str(error.value)
        return error.value.field


KINDS = [
    Kind("config", "save_agent", AgentFactory, "created_at"),
    Kind("memory", "add_episode", EpisodeFactory, "recorded_at"),
    Kind("memory", "add_entity", EntityFactory, "valid_from"),
    Kind("audit", "save_turn", TurnRecordFactory, "timestamp"),
    Kind("audit", "save_event", AuditEventFactory, "timestamp"),
    Kind("profiles", "save", CustomerProfileFactory, "created_at"),
    Kind("runs", "save_run", RunFactory, "created_at"),
    Kind("vectors", "add_embedding", EmbeddingFactory, "created_at"),
    Kind("sessions", "save", SessionFactory, "created_at"),
]

every_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.save)


@pytest.fixture(params=["inmemory", "servers"])
def place(request: pytest.FixtureRequest, tenant_id: UUID) -> Settings | None:
    """Nowhere but in memory, then where servers are."""
    if request.param == "inmemory":
        return None
    urls = [request.getfixturevalue(name) for name in ("shared_database_url", "redis_url")]
    return settings_for(urls[0], redis_url=urls[1], session_key_prefix=f"t{tenant_id}")


@pytest.fixture
async def stores(place: Settings | None) -> AsyncIterator[DataLayer]:
    """All stores, in each place in turn."""
    opened = DataLayer.open(place) if place else DataLayer.in_memory(settings_for("postgresql://"))
    async with opened as data:
        yield data


@every_kind
async def test_a_copy_with_something_of_a_wrong_type_is_refused(stores: DataLayer, kind: Kind) -> None:
    for wrong in ("secret yesterday", 5):
        entity = kind.make().model_copy(update={kind.moment: wrong})
        assert await kind.refused(stores, entity) == kind.moment
    assert await kind.refused(stores, kind.make().model_copy(update={"tenant_id": "secret"})) == "tenant_id"


@every_kind
async def test_what_a_derived_class_adds_is_refused(stores: DataLayer, kind: Kind) -> None:
    entity = kind.make()
    values = dict(entity)
    further = create_model("Further", __base__=type(entity), colour=(str, "secret"))
    assert await kind.refused(stores, further(**values)) == "colour"
    assert await kind.refused(stores, entity.model_copy(update={"colour": "secret"})) == "colour"
    open_ended = type("Open", (type(entity),), {"model_config": {"extra": "allow"}})
    assert await kind.refused(stores, open_ended(**values, colour="secret")) == "colour"
    await kind.saved(stores, type("Same", (type(entity),), {})(**values))


async def test_what_a_part_of_a_derived_class_adds_is_refused(stores: DataLayer, tenant_id: UUID) -> None:
    agent = AgentFactory(tenant_id=tenant_id)
    settings = create_model("Further", __base__=type(agent.settings), colour=(str, "secret"))()
    kind = KINDS[0]
    assert await kind.refused(stores, agent.model_copy(update={"settings": settings})) == "settings.colour"


async def test_what_breaks_a_rule_of_its_entity_is_refused(stores: DataLayer, tenant_id: UUID) -> None:
    kind = KINDS[1]
    for field, wrong in (("importance", 5.0), ("content_type", "secret"), ("entity_ids", [1])):
        episode = EpisodeFactory(tenant_id=tenant_id).model_copy(update={field: wrong})
        found = await kind.refused(stores, episode)
        assert found is not None
        assert found.startswith(field)
    assert await KINDS[0].refused(stores, AgentFactory().model_copy(update={"name": ""})) == "name"


async def test_an_identical_vector_has_the_score_one(stores: DataLayer, tenant_id: UUID) -> None:
    chance = random.Random(8)  # noqa: S311 - not for secrets.
    agent = AgentFactory(tenant_id=tenant_id)
    await stores.config.save_agent(agent)
    vectors = [
        [chance.uniform(-1, 1) * 10 ** chance.randint(-3, 3) for _ in range(DIMENSIONS)] for _ in range(100)
    ]
    for vector in vectors:
        episode = EpisodeFactory(tenant_id=tenant_id, embedding=vector)
        await stores.memory.add_episode(episode)
        found = await stores.memory.vector_search_episodes(vector, tenant_id, min_score=1.0)
        assert episode.id in [hit.episode.id for hit in found]
        assert found[0].score == 1.0
    vector = vectors[0]
    rule = RuleFactory(tenant_id=tenant_id, agent_id=agent.id, embedding=vector)
    await stores.config.save_rule(rule)
    assert await stores.config.vector_search_rules(vector, tenant_id, agent.id, min_score=1.0)
    scenario = ScenarioFactory(
        tenant_id=tenant_id, agent_id=agent.id, entry_condition_text="c", entry_condition_embedding=vector
    )
    await stores.config.save_scenario(scenario)
    assert await stores.config.vector_search_scenarios(vector, tenant_id, agent.id, min_score=1.0)
    await stores.vectors.add_embedding(EmbeddingFactory(tenant_id=tenant_id, embedding=vector))
    assert await stores.vectors.search(vector, tenant_id, min_score=1.0)
