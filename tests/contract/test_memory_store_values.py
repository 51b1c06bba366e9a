"""The contract of `MemoryStore`, run against every backend: every legal value comes back, every other is refused."""

from __future__ import annotations

import math
import struct
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, get_args
from uuid import UUID, uuid4
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError as PydanticValidationError

from soldier_data.base.paging import Cursor
from soldier_data.errors import ValidationError
from soldier_data.memory import ContentType, Entity, Episode, EpisodeSource, MemoryStore, Relationship
from tests.conftest import DIMENSIONS
from tests.factories.memory import EntityFactory, EpisodeFactory, RelationshipFactory

TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
ZONES = st.sampled_from(
    [UTC, timezone(timedelta(hours=-11)), ZoneInfo("Europe/Berlin"), ZoneInfo("Asia/Kathmandu")]
)
MOMENTS = st.datetimes(datetime(1900, 1, 1), datetime(9990, 1, 1), timezones=ZONES)  # noqa: DTZ001 - ZONES adds them.
FLOATS = st.floats(allow_nan=False, allow_infinity=False) | st.sampled_from([1e308, 5e-324, -0.0, 1e22, 0.1])
DOCUMENTS = st.dictionaries(
    TEXTS,
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.just(10**300) | FLOATS | TEXTS,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
        max_leaves=8,
    ),
    max_size=4,
)
# Short and even, so that neither rounding nor the norm is what is tested here.
VECTORS = st.none() | st.lists(
    st.integers(-8, 8).map(float), min_size=DIMENSIONS, max_size=DIMENSIONS
).filter(any)
IDS = st.uuids()
PART = st.floats(0, 1)

COMMON: dict[str, Any] = {"id": IDS, "group_id": TEXTS, "recorded_at": MOMENTS}
EPISODES: dict[str, Any] = {
    **COMMON,
    "agent_id": st.none() | IDS,
    "customer_profile_id": st.none() | IDS,
    "session_id": st.none() | IDS,
    "content": TEXTS,
    "content_type": st.sampled_from(get_args(ContentType)),
    "source": st.sampled_from(get_args(EpisodeSource)),
    "source_metadata": DOCUMENTS,
    "importance": PART,
    "occurred_at": MOMENTS,
    "embedding": VECTORS,
    "embedding_model": st.none() | TEXTS,
    "entity_ids": st.lists(IDS, max_size=3),
}
ENTITIES: dict[str, Any] = {
    **COMMON,
    "name": TEXTS,
    "entity_type": TEXTS,
    "attributes": DOCUMENTS,
    "valid_from": MOMENTS,
    "valid_to": st.none() | MOMENTS,
    "embedding": VECTORS,
    "embedding_model": st.none() | TEXTS,
}
RELATIONSHIPS: dict[str, Any] = {
    **COMMON,
    "relation_type": TEXTS,
    "attributes": DOCUMENTS,
    "confidence": PART,
    "valid_from": MOMENTS,
    "valid_to": st.none() | MOMENTS,
}
ENDS = {"from_entity_id", "to_entity_id"}


def assert_same(found: Any, added: Any) -> None:
    """Equal, down to the types of the numbers in documents and the sign of zero."""
    assert found == added
    for name in ("source_metadata", "attributes", "importance", "confidence"):
        assert repr(getattr(found, name, None)) == repr(getattr(added, name, None))


def test_every_field_is_among_those_that_vary() -> None:
    fixed = {"tenant_id", "deleted_at"}
    assert set(EPISODES) | fixed == set(Episode.model_fields)
    assert set(ENTITIES) | fixed == set(Entity.model_fields)
    assert set(RELATIONSHIPS) | fixed | ENDS == set(Relationship.model_fields)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    episode=st.fixed_dictionaries(EPISODES),
    entity=st.fixed_dictionaries(ENTITIES),
    changed=st.fixed_dictionaries(ENTITIES),
    relationship=st.fixed_dictionaries(RELATIONSHIPS),
)
async def test_any_legal_values_come_back_as_they_were(
    memory_store: MemoryStore,
    episode: dict[str, Any],
    entity: dict[str, Any],
    changed: dict[str, Any],
    relationship: dict[str, Any],
) -> None:
    tenant_id = uuid4()
    said: Episode = EpisodeFactory(tenant_id=tenant_id, **episode)
    copied = said.model_copy(update={"id": uuid4()})
    known: Entity = EntityFactory(tenant_id=tenant_id, **entity)
    related: Relationship = RelationshipFactory(
        tenant_id=tenant_id, from_entity_id=known.id, to_entity_id=known.id, **relationship
    )
    await memory_store.add_episode(said)
    await memory_store.add_episodes([copied])
    await memory_store.add_entity(known)
    await memory_store.add_relationship(related)
    assert_same(await memory_store.get_episode(tenant_id, said.id), said)
    assert_same(await memory_store.get_episode(tenant_id, copied.id), copied)
    assert_same(await memory_store.get_entity(tenant_id, known.id), known)
    assert_same(await memory_store.get_relationship(tenant_id, related.id), related)
    assert len(await memory_store.get_episodes(tenant_id, said.group_id)) == 2
    assert await memory_store.get_entities(tenant_id, known.group_id, entity_type=known.entity_type) == [
        known
    ]
    assert await memory_store.get_relationships(tenant_id, related.group_id) == [related]

    other: Entity = EntityFactory(tenant_id=tenant_id, **{**changed, "id": known.id})
    assert await memory_store.update_entity(other) is True
    assert_same(await memory_store.get_entity(tenant_id, known.id), other)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=TEXTS, data=st.data())
async def test_any_part_of_a_content_finds_it(
    memory_store: MemoryStore, content: str, data: st.DataObject
) -> None:
    start = data.draw(st.integers(0, len(content)))
    query = content[start : data.draw(st.integers(start, len(content)))]
    episode = EpisodeFactory(content=content)
    await memory_store.add_episode(episode)
    found = await memory_store.text_search_episodes(query, episode.tenant_id)
    assert found == ([episode] if query.split() else [])
    for other in (query.swapcase(), query.upper(), query.casefold()):
        # Not every case mapping is undone by folding: "ŉ".upper() is two characters, and folds to these.
        if other.casefold() == query.casefold():
            assert await memory_store.text_search_episodes(other, episode.tenant_id) == found


async def test_embeddings_come_back_in_float32(memory_store: MemoryStore, tenant_id: UUID) -> None:
    embedding = [math.pi / place for place in range(1, DIMENSIONS + 1)]
    rounded = list(struct.unpack(f"{DIMENSIONS}f", struct.pack(f"{DIMENSIONS}f", *embedding)))
    episodes = EpisodeFactory.build_batch(2, tenant_id=tenant_id, embedding=embedding)
    entity = EntityFactory(tenant_id=tenant_id, embedding=embedding)
    await memory_store.add_episode(episodes[0])
    await memory_store.add_episodes(episodes[1:])
    await memory_store.add_entity(entity)
    for episode in episodes:
        found = await memory_store.get_episode(tenant_id, episode.id)
        assert found is not None
        assert found.embedding == rounded
        assert episode.embedding == embedding
    assert await memory_store.update_entity(entity) is True
    stored = await memory_store.get_entity(tenant_id, entity.id)
    assert stored is not None
    assert stored.embedding == rounded


# -- what is refused -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["a\0b", "\ud800", "x\udfffy"], ids=ascii)
async def test_every_text_field_refuses_what_is_no_text(memory_store: MemoryStore, text: str) -> None:
    checked = 0
    for entity, add in (
        (EpisodeFactory(embedding_model="m"), memory_store.add_episode),
        (EntityFactory(), memory_store.add_entity),
        (EntityFactory(), memory_store.update_entity),
        (RelationshipFactory(), memory_store.add_relationship),
        (RelationshipFactory(), memory_store.update_relationship),
    ):
        for name, value in list(entity.__dict__.items()):
            if isinstance(value, str) and name not in ("content_type", "source"):
                entity.__dict__[name] = text
                with pytest.raises(ValidationError) as refused:
                    await add(entity)
                assert refused.value.field == name
                assert text not in str(refused.value)
                entity.__dict__[name] = value
                checked += 1
    assert checked == 3 + 2 * 3 + 2 * 2


@pytest.mark.parametrize(
    "document",
    [{"a": math.nan}, {"a": [math.inf]}, {"a": {1}}, {"a": 10**5_000}, {"a\0": 1}, {"a": {2: 3}}],
    ids=["NaN", "infinity", "set", "huge", "NUL", "integer key"],
)
async def test_a_document_that_is_no_json_is_refused(
    memory_store: MemoryStore, tenant_id: UUID, document: dict[str, Any]
) -> None:
    episode, entity = EpisodeFactory(tenant_id=tenant_id), EntityFactory(tenant_id=tenant_id)
    relationship = RelationshipFactory(tenant_id=tenant_id)
    episode.__dict__["source_metadata"] = document
    entity.__dict__["attributes"] = relationship.__dict__["attributes"] = document
    for field, call in (
        ("source_metadata", memory_store.add_episode(episode)),
        ("source_metadata", memory_store.add_episodes([episode])),
        ("attributes", memory_store.add_entity(entity)),
        ("attributes", memory_store.update_entity(entity)),
        ("attributes", memory_store.add_relationship(relationship)),
        ("attributes", memory_store.update_relationship(relationship)),
    ):
        with pytest.raises(ValidationError) as refused:
            await call
        assert refused.value.field == field
    assert await memory_store.get_episodes(tenant_id, episode.group_id) == []


async def test_a_group_id_too_long_for_an_index_is_refused(
    memory_store: MemoryStore, tenant_id: UUID
) -> None:
    longest = "ä" * 1_000
    episode = EpisodeFactory(tenant_id=tenant_id, group_id=longest)
    await memory_store.add_episode(episode)
    assert await memory_store.get_episodes(tenant_id, longest) == [episode]
    for call in (
        memory_store.add_episode(EpisodeFactory(tenant_id=tenant_id, group_id=longest + "a")),
        memory_store.add_entity(EntityFactory(tenant_id=tenant_id, group_id="x" * 2_001)),
        memory_store.add_relationship(RelationshipFactory(tenant_id=tenant_id, group_id="x" * 10**7)),
    ):
        with pytest.raises(ValidationError) as refused:
            await call
        assert refused.value.field == "group_id"
    assert await memory_store.get_episodes(tenant_id, "x" * 10**6) == []


async def test_ten_megabytes_of_text_come_back_and_are_found(
    memory_store: MemoryStore, tenant_id: UUID
) -> None:
    content = "".join(chr(0x4E00 + number % 20_000) for number in range(3_300_000)) + " needle"
    entity = EntityFactory(tenant_id=tenant_id, name=content, attributes={"text": content})
    episode = EpisodeFactory(tenant_id=tenant_id, content=content, embedding_model=content)
    await memory_store.add_episode(episode)
    await memory_store.add_entity(entity)
    assert await memory_store.text_search_episodes("NEEDLE", tenant_id) == [episode]
    assert await memory_store.get_entity(tenant_id, entity.id) == entity


async def test_a_cursor_without_a_time_zone_is_refused(memory_store: MemoryStore, tenant_id: UUID) -> None:
    naive = Cursor(datetime(2026, 1, 1), uuid4())  # noqa: DTZ001 - that is the point.
    with pytest.raises(ValidationError) as refused:
        await memory_store.get_episodes(tenant_id, "g", before=naive)
    assert refused.value.field == "before"


@pytest.mark.parametrize("text", ["a\0b", "\ud800"], ids=ascii)
async def test_texts_that_are_looked_up_are_checked(
    memory_store: MemoryStore, tenant_id: UUID, text: str
) -> None:
    for call in (
        memory_store.get_episodes(tenant_id, text),
        memory_store.get_entities(tenant_id, text),
        memory_store.get_entities(tenant_id, "g", entity_type=text),
        memory_store.get_relationships(tenant_id, text),
        memory_store.get_relationships(tenant_id, "g", relation_type=text),
        memory_store.delete_by_group(tenant_id, text),
    ):
        with pytest.raises(ValidationError) as refused:
            await call
        assert refused.value.field in ("group_id", "entity_type", "relation_type")


@pytest.mark.parametrize(
    ("factory", "fields"),
    [
        (EpisodeFactory, {"importance": 1.1}),
        (EpisodeFactory, {"importance": math.nan}),
        (EpisodeFactory, {"content_type": "other"}),
        (EpisodeFactory, {"source": "nobody"}),
        (EpisodeFactory, {"occurred_at": datetime(2026, 1, 1)}),  # noqa: DTZ001 - that is the point.
        (EntityFactory, {"valid_to": datetime(2026, 1, 1)}),  # noqa: DTZ001 - as above.
        (RelationshipFactory, {"confidence": -0.1}),
    ],
)
def test_a_model_refuses_what_is_out_of_its_range(factory: Any, fields: dict[str, Any]) -> None:
    with pytest.raises(PydanticValidationError):
        factory(**fields)
    entity = factory()
    with pytest.raises(PydanticValidationError):
        setattr(entity, *next(iter(fields.items())))


def test_defaults_are_those_of_the_contract() -> None:
    episode = Episode(tenant_id=uuid4(), group_id="g", content="c", source="user")
    assert (episode.content_type, episode.importance, episode.source_metadata) == ("message", 0.5, {})
    assert (episode.entity_ids, episode.embedding, episode.deleted_at) == ([], None, None)
    relationship = RelationshipFactory()
    assert (relationship.confidence, relationship.attributes, relationship.valid_to) == (1.0, {}, None)
    assert not episode.is_deleted
