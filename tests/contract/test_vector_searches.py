"""What all five vector searches promise alike, on every backend."""

from __future__ import annotations

import math
import random
from typing import Any
from uuid import UUID

import pytest

from soldier_data.errors import ValidationError
from soldier_data.postgres.database import Database
from tests.conftest import DIMENSIONS, settings_for
from tests.contract.conftest import executor_of
from tests.searches import SEARCHED, Searched, agent_of, direction

QUERY = direction(1.0)
REFUSED = {
    "too short": [1.0] * (DIMENSIONS - 1),
    "too long": [1.0] * (DIMENSIONS + 1),
    "empty": [],
    "NaN": direction(math.nan, 1.0),
    "infinite": direction(-math.inf, 1.0),
    "zero": direction(0.0),
    "zero in float32": direction(1e-30),
    "infinite in float32": direction(1e30),
}

every_search = pytest.mark.parametrize("searched", SEARCHED, ids=lambda searched: searched.table)


@pytest.fixture(params=["inmemory", "postgres", "session"])
def store(request: pytest.FixtureRequest, searched: Searched) -> Any:
    """Each store of what is searched, in turn."""
    if request.param == "inmemory":
        return searched.in_memory(DIMENSIONS)
    return searched.on_postgres(executor_of(request, request.param))


@pytest.fixture(params=["inmemory", "postgres"])
async def store_with_model(request: pytest.FixtureRequest, searched: Searched) -> Any:
    """The same with SOLDIER_EMBEDDING_MODEL set to "first"."""
    if request.param == "inmemory":
        yield searched.in_memory(DIMENSIONS, "first")
        return
    url = request.getfixturevalue("shared_database_url")
    database = Database(settings_for(url, embedding_model="first"))
    yield searched.on_postgres(database)
    await database.close()


async def _fill(searched: Searched, store: Any, tenant_id: UUID) -> tuple[Any, dict[str | None, UUID]]:
    """One entity of each model, the nearer the later; returns the agent and the ids by model."""
    agent = agent_of(tenant_id)
    entities = {
        model: searched.new(agent, direction(1.0, length), model)
        for model, length in (("first", 0.3), ("second", 0.2), (None, 0.1))
    }
    await searched.fill(store, agent, list(entities.values()))
    return agent, {model: entity.id for model, entity in entities.items()}


@every_search
async def test_a_query_that_names_a_model_finds_embeddings_of_that_model_alone(
    searched: Searched, store: Any, tenant_id: UUID
) -> None:
    agent, ids = await _fill(searched, store, tenant_id)
    for model in ("first", "second"):
        found = await searched.find(store, QUERY, agent, embedding_model=model)
        assert [entity.id for entity, _ in found] == [ids[model]]
        assert getattr(found[0][0], f"{searched.column}_model") == model
    assert await searched.find(store, QUERY, agent, embedding_model="third") == []


@every_search
async def test_without_a_model_embeddings_of_all_models_are_ranked(
    searched: Searched, store: Any, tenant_id: UUID
) -> None:
    agent, ids = await _fill(searched, store, tenant_id)
    found = await searched.find(store, QUERY, agent)
    assert [entity.id for entity, _ in found] == [ids[None], ids["second"], ids["first"]]


@every_search
async def test_the_configured_model_holds_for_queries_that_name_none(
    searched: Searched, store_with_model: Any, tenant_id: UUID
) -> None:
    store = store_with_model
    agent, ids = await _fill(searched, store, tenant_id)
    assert [entity.id for entity, _ in await searched.find(store, QUERY, agent)] == [ids["first"]]
    found = await searched.find(store, QUERY, agent, embedding_model="second")
    assert [entity.id for entity, _ in found] == [ids["second"]]


async def test_the_ranking_by_words_takes_episodes_of_any_model(
    tenant_id: UUID, shared_database: Database
) -> None:
    searched = next(each for each in SEARCHED if each.table == "episodes")
    for store in (searched.in_memory(DIMENSIONS), searched.on_postgres(shared_database)):
        agent = agent_of(tenant_id)
        first, second = (
            searched.new(agent, QUERY, model, content=f"An apple of the {model} sort.")
            for model in ("first", "second")
        )
        await searched.add(store, [first, second])
        found = await store.hybrid_search_episodes("apple", QUERY, tenant_id, embedding_model="second")
        newest = 1 / 61 + 1 / 61
        assert [(entity.id, score) for entity, score in found] == [
            (second.id, pytest.approx(newest)),
            (first.id, pytest.approx(1 / 62)),
        ]


@every_search
@pytest.mark.parametrize("name", ["nul\x00", "\ud800"])
async def test_a_model_that_cannot_be_stored_is_refused(
    searched: Searched, store: Any, tenant_id: UUID, name: str
) -> None:
    with pytest.raises(ValidationError, match="embedding_model"):
        await searched.find(store, QUERY, agent_of(tenant_id), embedding_model=name)


@every_search
@pytest.mark.parametrize("embedding", REFUSED.values(), ids=REFUSED.keys())
async def test_vectors_that_cannot_be_compared_are_refused_on_writing_and_searching(
    searched: Searched, store: Any, tenant_id: UUID, embedding: list[float]
) -> None:
    agent = agent_of(tenant_id)
    await searched.fill(store, agent, [searched.new(agent, QUERY)])
    with pytest.raises(ValidationError, match="query_embedding"):
        await searched.find(store, embedding, agent)
    with pytest.raises(ValidationError, match=searched.column):
        await searched.add(store, [searched.new(agent, embedding)])
    assert len(await searched.find(store, QUERY, agent)) == 1


@every_search
@pytest.mark.parametrize("limit", [10_000_000, 2**63 - 1])
async def test_a_search_without_a_real_limit_finds_all(
    searched: Searched, store: Any, tenant_id: UUID, limit: int
) -> None:
    agent, ids = await _fill(searched, store, tenant_id)
    found = await searched.find(store, QUERY, agent, limit=limit)
    assert {entity.id for entity, _ in found} == set(ids.values())


@every_search
async def test_scores_are_the_cosines_of_the_stored_vectors_and_ties_go_by_id(
    searched: Searched, store: Any, tenant_id: UUID
) -> None:
    # Lengths from one end of what is stored to the other: half precision, which indexes have, holds few of them.
    agent, chance = agent_of(tenant_id), random.Random(8)  # noqa: S311 - no secret.
    entities = [
        searched.new(agent, [chance.gauss(0, 1) * 10.0**exponent for _ in range(DIMENSIONS)])
        for exponent in (-12, -6, 0, 6, 12)
        for _ in range(4)
    ]
    twins = [entity.model_copy(update={"id": UUID(int=entity.id.int ^ 1)}) for entity in entities[:6]]
    await searched.fill(store, agent, entities + twins)

    query = [chance.gauss(0, 1) for _ in range(DIMENSIONS)]
    found = await searched.find(store, query, agent, limit=50, min_score=-1.0)

    assert len(found) == len(entities) + len(twins)
    for entity, score in found:
        stored = getattr(entity, searched.column)
        dot = sum(first * second for first, second in zip(query, stored, strict=True))
        cosine = dot / (math.hypot(*query) * math.hypot(*stored))
        assert score == pytest.approx(cosine, abs=1e-5)
    assert found == sorted(found, key=lambda item: (-item[1], item[0].id))


@every_search
async def test_a_result_has_its_entity_and_score_by_name_and_unpacks(
    searched: Searched, store: Any, tenant_id: UUID
) -> None:
    agent, ids = await _fill(searched, store, tenant_id)
    best, *_ = await searched.find(store, QUERY, agent, limit=3)
    named: Any = best
    entity, score = best
    assert named._fields[-1] == "score"
    assert getattr(named, named._fields[0]) is entity
    assert entity.id == ids[None]
    assert named.score == score == pytest.approx(1.0, abs=0.02)
