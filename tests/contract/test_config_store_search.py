"""The contract of `ConfigStore`, run against every backend: vector search and embeddings."""

from __future__ import annotations

import math
import random
from typing import Any
from uuid import UUID, uuid4

import pytest

from soldier_data.config import Agent, ConfigStore, Rule
from soldier_data.errors import ValidationError
from tests.cases.kind import Kind
from tests.cases.kinds.config import RULE, SCENARIO
from tests.conftest import DIMENSIONS
from tests.factories.config import AgentFactory, RuleFactory, ScenarioFactory, StepTransitionFactory

both = pytest.mark.parametrize("kind", [RULE, SCENARIO], ids=lambda kind: kind.name)

QUERY = [1.0] + [0.0] * (DIMENSIONS - 1)
REFUSED = {
    "too short": [1.0] * (DIMENSIONS - 1),
    "too long": [1.0] * (DIMENSIONS + 1),
    "empty": [],
    "NaN": [math.nan] + [1.0] * (DIMENSIONS - 1),
    "infinite": [math.inf] + [1.0] * (DIMENSIONS - 1),
    "zero": [0.0] * DIMENSIONS,
    "zero in float32": [1e-30] * DIMENSIONS,
    "infinite in float32": [1e30] * DIMENSIONS,
}
refused_vectors = pytest.mark.parametrize("embedding", REFUSED.values(), ids=REFUSED.keys())


def at_angle(degrees: float, length: float = 1.0) -> list[float]:
    """A vector whose cosine with QUERY is that of `degrees`."""
    angle = math.radians(degrees)
    return [length * math.cos(angle), length * math.sin(angle)] + [0.0] * (DIMENSIONS - 2)


def new(kind: Kind, agent: Agent, embedding: list[float] | None, **fields: Any) -> Any:
    name = "embedding" if kind is RULE else "entry_condition_embedding"
    return kind.new(agent.tenant_id, agent.id, **{name: embedding}, **fields)


async def search(
    store: ConfigStore, kind: Kind, agent: Agent, query: list[float] | None = None, **options: Any
) -> list[tuple[Any, float]]:
    method = store.vector_search_rules if kind is RULE else store.vector_search_scenarios
    found: Any = await method(QUERY if query is None else query, agent.tenant_id, agent.id, **options)
    return list(found)


@both
async def test_the_closest_come_first_with_their_cosine(
    config_store: ConfigStore, agent: Agent, kind: Kind
) -> None:
    angles = [0, 10, 25.5, 60, 89]
    entities = [
        new(kind, agent, at_angle(angle, length=10.0**angle_no)) for angle_no, angle in enumerate(angles)
    ]
    await config_store.save_many(random.sample(entities, len(entities)))

    found = await search(config_store, kind, agent)

    assert [entity.id for entity, _ in found] == [entity.id for entity in entities]
    assert [score for _, score in found] == pytest.approx(
        [math.cos(math.radians(angle)) for angle in angles], abs=1e-5
    )
    for entity, _ in found:
        assert entity == await kind.get(config_store, entity)


@both
async def test_scores_of_any_vectors_are_their_cosines(
    config_store: ConfigStore, agent: Agent, kind: Kind
) -> None:
    def gauss() -> list[float]:
        return [random.gauss(0, 1) for _ in range(DIMENSIONS)]

    def cosine(first: list[float], second: list[float]) -> float:
        dot = sum(a * b for a, b in zip(first, second, strict=True))
        return dot / (math.hypot(*first) * math.hypot(*second))

    query = gauss()
    vectors = [gauss() for _ in range(50)]
    entities = {uuid4(): vector for vector in vectors}
    await config_store.save_many([new(kind, agent, vector, id=id_) for id_, vector in entities.items()])
    found = await search(config_store, kind, agent, query, limit=50, min_score=-1.0)
    assert len(found) == 50
    scores = [score for _, score in found]
    assert scores == sorted(scores, reverse=True)
    for entity, score in found:
        assert score == pytest.approx(cosine(query, entities[entity.id]), abs=1e-5)


@both
async def test_ties_go_by_id(config_store: ConfigStore, agent: Agent, kind: Kind) -> None:
    ids = sorted((uuid4() for _ in range(8)), key=lambda id_: id_.bytes)
    for place, id_ in enumerate(random.sample(ids, 8)):
        # Powers of two change the length and leave the direction as it is, to the last bit.
        await kind.save(config_store, new(kind, agent, at_angle(30, length=2.0**place), id=id_))
    assert [entity.id for entity, _ in await search(config_store, kind, agent)] == ids
    assert [entity.id for entity, _ in await search(config_store, kind, agent, limit=3)] == ids[:3]


@both
async def test_a_score_below_the_least_is_left_out(
    config_store: ConfigStore, agent: Agent, kind: Kind
) -> None:
    angles = [0, 45, 100, 135, 180]
    await config_store.save_many([new(kind, agent, at_angle(angle)) for angle in angles])

    async def scores(**options: Any) -> list[float]:
        return [round(score, 3) for _, score in await search(config_store, kind, agent, **options)]

    assert await scores() == [1.0, 0.707]
    assert await scores(min_score=0.7) == [1.0, 0.707]
    assert await scores(min_score=0.71) == [1.0]
    assert await scores(min_score=-0.2) == [1.0, 0.707, -0.174]
    assert await scores(min_score=-1.0) == [1.0, 0.707, -0.174, -0.707, -1.0]
    assert await scores(min_score=-1.0, limit=2) == [1.0, 0.707]
    assert await scores(min_score=1.5) == []
    assert await scores(min_score=-5.0, limit=100) == await scores(min_score=-1.0)


@both
async def test_no_score_is_outside_of_minus_one_to_one(
    config_store: ConfigStore, agent: Agent, kind: Kind
) -> None:
    for _ in range(30):
        vector = [random.gauss(0, 1) for _ in range(DIMENSIONS)]
        entity = new(kind, agent, vector)
        await kind.save(config_store, entity)
        for query in (vector, [-number for number in vector]):
            for _, score in await search(config_store, kind, agent, query, min_score=-2.0, limit=99):
                assert -1.0 <= score <= 1.0


@both
@pytest.mark.parametrize("limit", [0, 1, 10, 11])
async def test_limit_is_the_most_that_is_found(
    config_store: ConfigStore, agent: Agent, kind: Kind, limit: int
) -> None:
    await config_store.save_many([new(kind, agent, at_angle(angle)) for angle in range(11)])
    assert len(await search(config_store, kind, agent, limit=limit)) == limit
    assert len(await search(config_store, kind, agent)) == 10


@both
async def test_only_living_enabled_entities_with_an_embedding_are_found(
    config_store: ConfigStore, agent: Agent, kind: Kind
) -> None:
    other_agent: Agent = AgentFactory(tenant_id=agent.tenant_id)
    other_tenant = agent.model_copy(update={"tenant_id": uuid4()})
    await config_store.save_agent(other_agent)
    await config_store.save_agent(other_tenant)
    wanted = new(kind, agent, at_angle(50))
    deleted = new(kind, agent, QUERY)
    for entity in (
        wanted,
        deleted,
        new(kind, agent, QUERY, enabled=False),
        new(kind, agent, None),
        new(kind, other_agent, QUERY),
        new(kind, other_tenant, QUERY),
    ):
        await kind.save(config_store, entity)
    await kind.delete(config_store, deleted)
    assert [entity.id for entity, _ in await search(config_store, kind, agent)] == [wanted.id]

    await config_store.delete_agent(agent.tenant_id, agent.id)
    assert await search(config_store, kind, agent) == []


@both
async def test_an_embedding_can_be_changed_and_taken_away(
    config_store: ConfigStore, agent: Agent, kind: Kind
) -> None:
    entity = new(kind, agent, at_angle(180))
    await kind.save(config_store, entity)
    assert await search(config_store, kind, agent) == []
    await kind.save(config_store, new(kind, agent, QUERY, id=entity.id))
    assert len(await search(config_store, kind, agent)) == 1
    await kind.save(config_store, new(kind, agent, None, id=entity.id))
    assert await search(config_store, kind, agent) == []


async def test_no_match_is_an_empty_list(config_store: ConfigStore, tenant_id: UUID) -> None:
    assert await config_store.vector_search_rules(QUERY, tenant_id, uuid4()) == []
    assert await config_store.vector_search_scenarios(QUERY, tenant_id, uuid4()) == []


@both
async def test_embeddings_come_back_to_float32_precision(
    config_store: ConfigStore, agent: Agent, kind: Kind
) -> None:
    numbers = [0.1, -1 / 3, 1e-7, 123_456.789, math.pi, -0.0, 1e-30, 5.5]
    entity = new(kind, agent, numbers)
    await kind.save(config_store, entity)
    found = await kind.get(config_store, entity)
    stored = found.embedding if kind is RULE else found.entry_condition_embedding
    assert stored == pytest.approx(numbers, rel=6e-8, abs=0)
    assert stored != numbers


async def test_embeddings_of_transitions_come_back_exactly(config_store: ConfigStore, agent: Agent) -> None:
    scenario = ScenarioFactory(tenant_id=agent.tenant_id, agent_id=agent.id)
    scenario.steps[0].transitions = [StepTransitionFactory(condition_embedding=[0.1, 1 / 3] * 4)]
    await config_store.save_scenario(scenario)
    assert await config_store.get_scenario(agent.tenant_id, scenario.id) == scenario


@both
@refused_vectors
async def test_a_vector_that_cannot_be_compared_is_refused_on_write_and_query(
    config_store: ConfigStore, agent: Agent, kind: Kind, embedding: list[float]
) -> None:
    entity = new(kind, agent, embedding)
    before = entity.model_dump_json()
    with pytest.raises(ValidationError) as refused:
        await kind.save(config_store, entity)
    assert refused.value.field == ("embedding" if kind is RULE else "entry_condition_embedding")
    assert entity.model_dump_json() == before
    assert await kind.get(config_store, entity) is None

    with pytest.raises(ValidationError) as refused:
        await search(config_store, kind, agent, embedding)
    assert refused.value.field == "query_embedding"


@refused_vectors
async def test_such_a_vector_is_refused_in_a_transition(
    config_store: ConfigStore, agent: Agent, embedding: list[float]
) -> None:
    scenario = ScenarioFactory(tenant_id=agent.tenant_id, agent_id=agent.id)
    good = StepTransitionFactory(condition_embedding=[1.0] * DIMENSIONS)
    scenario.steps[1].transitions = [good, StepTransitionFactory(condition_embedding=embedding)]
    with pytest.raises(ValidationError) as refused:
        await config_store.save_scenario(scenario)
    assert refused.value.field == "steps[1].transitions[1].condition_embedding"


async def test_a_wrong_length_says_which_is_right(config_store: ConfigStore, agent: Agent) -> None:
    rule: Rule = RuleFactory(tenant_id=agent.tenant_id, agent_id=agent.id, embedding=[1.0] * 1536)
    with pytest.raises(ValidationError, match="1536 dimensions, but 8 are stored"):
        await config_store.save_rule(rule)


@both
async def test_a_query_that_is_no_list_of_numbers_is_refused(
    config_store: ConfigStore, agent: Agent, kind: Kind
) -> None:
    hostile: list[Any] = [["1"] * DIMENSIONS, [None] * DIMENSIONS, [10**400] * DIMENSIONS]
    for query in hostile:
        with pytest.raises(ValidationError) as refused:
            await search(config_store, kind, agent, query)
        assert refused.value.field == "query_embedding"


@both
async def test_an_impossible_limit_or_least_score_is_refused(
    config_store: ConfigStore, agent: Agent, kind: Kind
) -> None:
    for options in ({"limit": -1}, {"limit": 2**63}, {"min_score": math.nan}, {"min_score": math.inf}):
        with pytest.raises(ValidationError) as refused:
            await search(config_store, kind, agent, **options)
        assert refused.value.field == next(iter(options))
