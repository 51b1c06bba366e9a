"""What `embed_missing` asks of the config store and the memory store, run against every backend of both."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

import pytest

from soldier_data.base.embedded_texts import TextToEmbed
from soldier_data.config import Agent, ConfigStore, InMemoryConfigStore, PostgresConfigStore
from soldier_data.errors import ValidationError
from soldier_data.memory import InMemoryMemoryStore, MemoryStore, PostgresMemoryStore
from tests.conftest import DIMENSIONS
from tests.contract.conftest import executor_of
from tests.factories.config import AgentFactory, RuleFactory, ScenarioFactory
from tests.factories.memory import EpisodeFactory

KINDS = ("rule", "scenario", "episode")
MODEL = "model-1"
VECTOR = [1.0] + [0.0] * (DIMENSIONS - 1)


@dataclass
class Kept:
    """One kind of text in its store."""

    store: Any
    kind: str
    add: Callable[..., Awaitable[Any]]
    get: Callable[[UUID], Awaitable[Any]]
    delete: Callable[[UUID], Awaitable[bool]]

    async def listed(self, tenant_id: UUID, **options: Any) -> list[TextToEmbed]:
        found: list[TextToEmbed] = await self.store.list_to_embed(MODEL, tenant_id=tenant_id, **options)
        return found


@pytest.fixture(
    params=[f"{kind}, {backend}" for kind in KINDS for backend in ("inmemory", "postgres", "session")],
)
def kept(request: pytest.FixtureRequest, tenant_id: UUID) -> Kept:
    """Each kind of text in each of its stores; a rule's and a scenario's agent is saved with it."""
    kind, _, backend = request.param.partition(", ")
    database = None if backend == "inmemory" else executor_of(request, backend)
    if kind == "episode":
        memory: MemoryStore = PostgresMemoryStore(database) if database else InMemoryMemoryStore(DIMENSIONS)

        async def add_episode(text: str, embedding: Any = None, model: Any = None, **fields: Any) -> Any:
            fields = {"tenant_id": tenant_id, "embedding": embedding, "embedding_model": model, **fields}
            episode = EpisodeFactory(content=text, **fields)
            await memory.add_episode(episode)
            return episode

        return Kept(
            memory,
            "episode",
            add_episode,
            lambda id_: memory.get_episode(tenant_id, id_),
            lambda id_: memory.delete_episode(tenant_id, id_),
        )
    config: ConfigStore = PostgresConfigStore(database) if database else InMemoryConfigStore(DIMENSIONS)

    async def add_rule(text: str, embedding: Any = None, model: Any = None, **fields: Any) -> Any:
        agent: Agent = AgentFactory(tenant_id=fields.pop("tenant_id", tenant_id))
        fields = {"tenant_id": agent.tenant_id, "agent_id": agent.id, **fields}
        rule = RuleFactory(condition_text=text, embedding=embedding, embedding_model=model, **fields)
        await config.save_many([agent, rule])
        return rule

    async def add_scenario(text: str | None, embedding: Any = None, model: Any = None, **fields: Any) -> Any:
        agent: Agent = AgentFactory(tenant_id=fields.pop("tenant_id", tenant_id))
        fields = {"tenant_id": agent.tenant_id, "agent_id": agent.id, **fields}
        scenario = ScenarioFactory(
            entry_condition_text=text,
            entry_condition_embedding=embedding,
            entry_condition_embedding_model=model,
            **fields,
        )
        await config.save_many([agent, scenario])
        return scenario

    if kind == "rule":
        return Kept(
            config,
            "rule",
            add_rule,
            lambda id_: config.get_rule(tenant_id, id_),
            lambda id_: config.delete_rule(tenant_id, id_),
        )
    return Kept(
        config,
        "scenario",
        add_scenario,
        lambda id_: config.get_scenario(tenant_id, id_),
        lambda id_: config.delete_scenario(tenant_id, id_),
    )


def _embedding(entity: Any) -> Any:
    return getattr(entity, "embedding", None) or getattr(entity, "entry_condition_embedding", None)


async def test_a_text_without_an_embedding_is_listed_and_not_once_it_has_one(
    kept: Kept, tenant_id: UUID
) -> None:
    entity = await kept.add("Where is my parcel?")

    [text] = await kept.listed(tenant_id)
    assert (text.kind, text.tenant_id, text.id) == (kept.kind, tenant_id, entity.id)
    assert text.text == "Where is my parcel?"
    assert await kept.store.count_to_embed(MODEL, tenant_id=tenant_id) == 1

    assert await kept.store.set_embeddings([(text, VECTOR)], MODEL) == 1

    assert _embedding(await kept.get(entity.id)) == VECTOR
    assert await kept.listed(tenant_id) == []
    assert await kept.store.count_to_embed(MODEL, tenant_id=tenant_id) == 0


async def test_setting_an_embedding_changes_nothing_else_but_the_revision(
    kept: Kept, tenant_id: UUID
) -> None:
    entity = await kept.add("Where is my parcel?")
    before = await kept.get(entity.id)
    await kept.store.set_embeddings([(text, VECTOR) for text in await kept.listed(tenant_id)], MODEL)
    after = await kept.get(entity.id)

    changed = {name for name, value in after if value != getattr(before, name)}
    if kept.kind == "episode":
        assert changed == {"embedding", "embedding_model"}
    elif kept.kind == "rule":
        assert changed == {"embedding", "embedding_model", "revision", "updated_at"}
    else:
        embedded = {"entry_condition_embedding", "entry_condition_embedding_model"}
        assert changed == embedded | {"revision", "updated_at"}
    if kept.kind != "episode":
        assert after.revision == before.revision + 1
        assert after.updated_at > before.updated_at


async def test_an_embedding_of_another_or_an_unknown_model_is_listed(kept: Kept, tenant_id: UUID) -> None:
    other = await kept.add("By another", embedding=VECTOR, model="model-0")
    unknown = await kept.add("By nobody knows", embedding=VECTOR)
    await kept.add("By this one", embedding=VECTOR, model=MODEL)

    listed = {text.id for text in await kept.listed(tenant_id)}

    assert listed == {other.id, unknown.id}


async def test_disabled_texts_are_listed_and_deleted_ones_are_not(kept: Kept, tenant_id: UUID) -> None:
    disabled = {} if kept.kind == "episode" else {"enabled": False}
    entity = await kept.add("Where is my parcel?", **disabled)
    gone = await kept.add("Where was my parcel?")
    assert await kept.delete(gone.id)

    assert [text.id for text in await kept.listed(tenant_id)] == [entity.id]


async def test_an_empty_text_needs_no_embedding(kept: Kept, tenant_id: UUID) -> None:
    # A rule's condition is never empty.
    if kept.kind != "rule":
        await kept.add("")
    if kept.kind == "scenario":
        await kept.add(None)

    assert await kept.listed(tenant_id) == []
    assert await kept.store.count_to_embed(MODEL, tenant_id=tenant_id) == 0


async def test_pages_follow_each_other_without_gaps_even_if_nothing_is_embedded(
    kept: Kept, tenant_id: UUID
) -> None:
    entities = [await kept.add(f"Text {number}") for number in range(7)]
    found: list[TextToEmbed] = []
    while page := await kept.listed(tenant_id, after=found[-1] if found else None, limit=3):
        assert len(page) <= 3
        found += page

    assert [text.id for text in found] == sorted(entity.id for entity in entities)


async def test_a_page_goes_over_from_rules_to_scenarios(
    config_store: ConfigStore, agent: Agent, tenant_id: UUID
) -> None:
    owned = {"tenant_id": tenant_id, "agent_id": agent.id}
    await config_store.save_many(RuleFactory.build_batch(3, **owned))
    await config_store.save_many(ScenarioFactory.build_batch(3, entry_condition_text="When", **owned))

    first = await config_store.list_to_embed(MODEL, tenant_id=tenant_id, limit=4)
    second = await config_store.list_to_embed(MODEL, tenant_id=tenant_id, after=first[-1], limit=4)
    exactly = await config_store.list_to_embed(MODEL, tenant_id=tenant_id, limit=3)
    after_rules = await config_store.list_to_embed(MODEL, tenant_id=tenant_id, after=exactly[-1])

    assert [text.kind for text in first + second] == ["rule"] * 3 + ["scenario"] * 3
    assert first[:3] == exactly
    assert [text.kind for text in after_rules] == ["scenario"] * 3
    assert await config_store.count_to_embed(MODEL, tenant_id=tenant_id) == 6
    assert await config_store.set_embeddings([(text, VECTOR) for text in first], MODEL) == 4
    assert await config_store.list_to_embed(MODEL, tenant_id=tenant_id) == second


async def test_the_rules_of_a_deleted_agent_are_not_listed(
    config_store: ConfigStore, agent: Agent, tenant_id: UUID
) -> None:
    await config_store.save_rule(RuleFactory(tenant_id=tenant_id, agent_id=agent.id))
    await config_store.delete_agent(tenant_id, agent.id)

    assert await config_store.list_to_embed(MODEL, tenant_id=tenant_id) == []


async def test_an_entity_that_was_saved_meanwhile_is_left_as_it_is(kept: Kept, tenant_id: UUID) -> None:
    if kept.kind == "episode":
        return  # Episodes never change.
    entity = await kept.add("Where is my parcel?")
    listed = await kept.listed(tenant_id)
    setattr(entity, "condition_text" if kept.kind == "rule" else "entry_condition_text", "Where is it?")
    await kept.store.save_many([entity])

    assert await kept.store.set_embeddings([(text, VECTOR) for text in listed], MODEL) == 0

    assert await kept.get(entity.id) == entity
    assert [text.text for text in await kept.listed(tenant_id)] == ["Where is it?"]


async def test_an_entity_that_was_deleted_meanwhile_stays_deleted(kept: Kept, tenant_id: UUID) -> None:
    gone = await kept.add("Where is my parcel?")
    stays = await kept.add("Where is my order?")
    listed = await kept.listed(tenant_id)
    await kept.delete(gone.id)

    assert await kept.store.set_embeddings([(text, VECTOR) for text in listed], MODEL) == 1

    assert await kept.get(gone.id) is None
    assert _embedding(await kept.get(stays.id)) == VECTOR


async def test_a_tenant_lists_its_own_texts_and_nobody_all_of_them(kept: Kept, tenant_id: UUID) -> None:
    mine = await kept.add("Mine")
    theirs = await kept.add("Theirs", tenant_id=uuid4())

    assert [text.id for text in await kept.listed(tenant_id)] == [mine.id]
    # Other tests have texts in the same database.
    everything: list[TextToEmbed] = []
    while page := await kept.store.list_to_embed(MODEL, after=everything[-1] if everything else None):
        everything += page
    assert {mine.id, theirs.id} <= {text.id for text in everything}
    assert [text.position() for text in everything] == sorted(text.position() for text in everything)
    assert await kept.store.count_to_embed(MODEL) >= 2


async def test_another_tenants_text_cannot_be_given_an_embedding(kept: Kept, tenant_id: UUID) -> None:
    entity = await kept.add("Mine")
    [text] = await kept.listed(tenant_id)
    forged = TextToEmbed(text.kind, uuid4(), text.id, text.text, text.revision)

    assert await kept.store.set_embeddings([(forged, VECTOR)], MODEL) == 0
    assert _embedding(await kept.get(entity.id)) is None


@pytest.mark.parametrize(
    "vector",
    [[1.0], [0.0] * DIMENSIONS, [math.nan] * DIMENSIONS],
    ids=["too short", "zero", "not a number"],
)
async def test_a_vector_that_cannot_be_stored_is_refused_with_its_place_and_none_is_kept(
    kept: Kept, tenant_id: UUID, vector: list[float]
) -> None:
    await kept.add("One")
    await kept.add("Two")
    first, second = await kept.listed(tenant_id)

    with pytest.raises(ValidationError, match=r"embeddings\[1\]"):
        await kept.store.set_embeddings([(first, VECTOR), (second, vector)], MODEL)

    assert await kept.listed(tenant_id) == [first, second]


async def test_a_text_of_another_store_is_refused(kept: Kept, tenant_id: UUID) -> None:
    foreign = TextToEmbed("episode" if kept.kind != "episode" else "rule", tenant_id, uuid4(), "x")
    with pytest.raises(ValidationError, match=r"embeddings\[0\]"):
        await kept.store.set_embeddings([(foreign, VECTOR)], MODEL)


async def test_nothing_to_set_is_nothing_done(kept: Kept) -> None:
    assert await kept.store.set_embeddings([], MODEL) == 0


async def test_wrong_arguments_are_refused(kept: Kept, tenant_id: UUID) -> None:
    with pytest.raises(ValidationError, match="limit"):
        await kept.listed(tenant_id, limit=-1)
    assert await kept.listed(tenant_id, limit=0) == []
    for call in (kept.store.list_to_embed, kept.store.count_to_embed):
        with pytest.raises(ValidationError, match="embedding_model"):
            await call("a\0b", tenant_id=tenant_id)
    with pytest.raises(ValidationError, match="embedding_model"):
        await kept.store.set_embeddings([], "a\0b")
