"""The contract of `MemoryStore`, run against every backend: adding, reading, lists, deleting, units of work."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from soldier_data.base.models import utcnow
from soldier_data.base.paging import Cursor
from soldier_data.errors import ConflictError, NotFoundError, StoreError, ValidationError
from soldier_data.memory import (
    Entity,
    Episode,
    InMemoryMemoryStore,
    MemoryStore,
    PostgresMemoryStore,
    Relationship,
)
from soldier_data.postgres.database import Database
from tests.cases import memory
from tests.cases.values import NOON
from tests.conftest import DIMENSIONS
from tests.factories.memory import EntityFactory, EpisodeFactory, RelationshipFactory

# A store in a session's transaction can begin no unit of work of its own.
begins_units = pytest.mark.parametrize("memory_store", memory.DOMAIN.backends, indirect=True)

AT_ONCE = timedelta(0)
VECTOR = [1.0] * DIMENSIONS


def ids(found: list[Any]) -> list[UUID]:
    return [entity.id for entity in found]


async def add_pair(store: MemoryStore, tenant_id: UUID, **fields: Any) -> tuple[Entity, Entity, Relationship]:
    """Two entities and a relationship from the first to the second."""
    first, second = EntityFactory.build_batch(2, tenant_id=tenant_id, **fields)
    await store.add_entity(first)
    await store.add_entity(second)
    relationship = RelationshipFactory(
        tenant_id=tenant_id, from_entity_id=first.id, to_entity_id=second.id, **fields
    )
    await store.add_relationship(relationship)
    return first, second, relationship


@asynccontextmanager
async def unit_of_work(store: MemoryStore) -> AsyncIterator[MemoryStore]:
    """The store inside a unit of work."""
    if isinstance(store, InMemoryMemoryStore):
        begun = store.begin()
        try:
            yield begun
            begun.commit()
        finally:
            begun.end()
        return
    assert isinstance(store, PostgresMemoryStore)
    assert isinstance(store._db, Database)
    async with store._db.transaction() as transaction:
        yield PostgresMemoryStore(transaction)


# -- episodes --------------------------------------------------------------------------------------------------


async def test_an_episode_comes_back_as_it_was_added(memory_store: MemoryStore, tenant_id: UUID) -> None:
    episode: Episode = EpisodeFactory(
        tenant_id=tenant_id,
        agent_id=uuid4(),
        customer_profile_id=uuid4(),
        session_id=uuid4(),
        content_type="document",
        source="external",
        source_metadata={"page": 3, "parts": [1.5, None, {"x": True}]},
        importance=0.1,
        occurred_at=NOON,
        embedding=VECTOR,
        embedding_model="some-model",
        entity_ids=[uuid4(), uuid4()],
    )
    assert await memory_store.add_episode(episode) == episode.id
    assert await memory_store.get_episode(tenant_id, episode.id) == episode


async def test_what_is_unknown_is_none(memory_store: MemoryStore, tenant_id: UUID) -> None:
    assert await memory_store.get_episode(tenant_id, uuid4()) is None
    assert await memory_store.get_entity(tenant_id, uuid4()) is None
    assert await memory_store.get_relationship(tenant_id, uuid4()) is None
    assert await memory_store.get_episodes(tenant_id, "nothing") == []
    assert await memory_store.get_entities(tenant_id, "nothing") == []
    assert await memory_store.get_relationships(tenant_id, "nothing") == []


async def test_what_is_returned_is_the_callers_copy(memory_store: MemoryStore, tenant_id: UUID) -> None:
    episode: Episode = EpisodeFactory(tenant_id=tenant_id, source_metadata={"a": [1]})
    await memory_store.add_episode(episode)
    episode.source_metadata["a"].append(2)
    read = await memory_store.get_episode(tenant_id, episode.id)
    assert read is not None
    read.source_metadata["a"].append(3)
    (listed,) = await memory_store.get_episodes(tenant_id, episode.group_id)
    listed.source_metadata["a"].append(4)
    found = await memory_store.get_episode(tenant_id, episode.id)
    assert found is not None
    assert found.source_metadata == {"a": [1]}


async def test_an_id_can_be_added_once(memory_store: MemoryStore, tenant_id: UUID) -> None:
    first, _, relationship = await add_pair(memory_store, tenant_id)
    episode = EpisodeFactory(tenant_id=tenant_id)
    await memory_store.add_episode(episode)
    adding: list[tuple[Any, Any, dict[str, str]]] = [
        (memory_store.add_episode, episode, {"content": "other"}),
        (memory_store.add_entity, first, {"name": "other"}),
        (memory_store.add_relationship, relationship, {"relation_type": "other"}),
    ]
    for add, stored, changed in adding:
        with pytest.raises(ConflictError, match=str(stored.id)):
            await add(stored.model_copy(update=changed))
    assert await memory_store.get_episode(tenant_id, episode.id) == episode
    assert await memory_store.get_entity(tenant_id, first.id) == first
    assert await memory_store.get_relationship(tenant_id, relationship.id) == relationship


async def test_the_id_of_something_deleted_is_taken_until_it_is_purged(
    memory_store: MemoryStore, tenant_id: UUID
) -> None:
    episode, entity = EpisodeFactory(tenant_id=tenant_id), EntityFactory(tenant_id=tenant_id)
    await memory_store.add_episode(episode)
    await memory_store.add_entity(entity)
    await memory_store.delete_episode(tenant_id, episode.id)
    await memory_store.delete_entity(tenant_id, entity.id)
    with pytest.raises(ConflictError):
        await memory_store.add_episode(episode)
    with pytest.raises(ConflictError):
        await memory_store.add_episodes([episode])
    with pytest.raises(ConflictError):
        await memory_store.add_entity(entity)
    assert await memory_store.purge_deleted(tenant_id, AT_ONCE) == 2
    await memory_store.add_episode(episode)
    await memory_store.add_entity(entity)


async def test_one_id_serves_an_episode_an_entity_and_another_tenant(
    memory_store: MemoryStore, tenant_id: UUID
) -> None:
    id_ = uuid4()
    episode, entity = EpisodeFactory(tenant_id=tenant_id, id=id_), EntityFactory(tenant_id=tenant_id, id=id_)
    foreign = EpisodeFactory(id=id_)
    await memory_store.add_episode(episode)
    await memory_store.add_entity(entity)
    await memory_store.add_episode(foreign)
    assert await memory_store.get_episode(tenant_id, id_) == episode
    assert await memory_store.get_entity(tenant_id, id_) == entity
    assert await memory_store.get_episode(foreign.tenant_id, id_) == foreign


async def test_a_list_of_episodes_is_added_as_it_is(memory_store: MemoryStore, tenant_id: UUID) -> None:
    episodes = [
        EpisodeFactory(tenant_id=tenant_id, content=f"part {number}", source_metadata={"number": number})
        for number in range(20)
    ]
    episodes[3].embedding = VECTOR
    assert await memory_store.add_episodes(iter(episodes)) == 20
    assert [await memory_store.get_episode(tenant_id, episode.id) for episode in episodes] == episodes
    assert await memory_store.add_episodes([]) == 0


@pytest.mark.parametrize("place", [0, 7, 19])
async def test_of_a_list_with_a_taken_id_nothing_is_added(
    memory_store: MemoryStore, tenant_id: UUID, place: int
) -> None:
    stored, *fresh = EpisodeFactory.build_batch(20, tenant_id=tenant_id)
    await memory_store.add_episode(stored)
    with pytest.raises(ConflictError):
        await memory_store.add_episodes([*fresh[:place], stored, *fresh[place:]])
    assert await memory_store.get_episodes(tenant_id, stored.group_id) == [stored]
    assert await memory_store.add_episodes(fresh) == 19


async def test_of_a_list_with_an_id_twice_nothing_is_added(
    memory_store: MemoryStore, tenant_id: UUID
) -> None:
    first, second = EpisodeFactory.build_batch(2, tenant_id=tenant_id)
    with pytest.raises(ConflictError, match="twice"):
        await memory_store.add_episodes([first, second, first.model_copy(update={"content": "other"})])
    assert await memory_store.get_episodes(tenant_id, first.group_id) == []


async def test_of_a_list_with_an_unstorable_episode_nothing_is_added(
    memory_store: MemoryStore, tenant_id: UUID
) -> None:
    good, bad = EpisodeFactory.build_batch(2, tenant_id=tenant_id)
    bad.embedding = [1.0]
    with pytest.raises(ValidationError, match=r"episodes\[1\]: embedding") as refused:
        await memory_store.add_episodes([good, bad])
    assert refused.value.field == "embedding"
    with pytest.raises(ValidationError, match=r"episodes\[1\]\.tenant_id"):
        await memory_store.add_episodes([good, EpisodeFactory()])
    assert await memory_store.get_episodes(tenant_id, good.group_id) == []


# -- lists -----------------------------------------------------------------------------------------------------


async def test_episodes_are_listed_newest_first_and_ties_by_id(
    memory_store: MemoryStore, tenant_id: UUID
) -> None:
    moments = [NOON, NOON + timedelta(microseconds=1), NOON, NOON - timedelta(days=1), NOON]
    episodes = [EpisodeFactory(tenant_id=tenant_id, occurred_at=moment) for moment in moments]
    await memory_store.add_episodes(episodes)
    found = await memory_store.get_episodes(tenant_id, "conversation")
    assert found == sorted(episodes, key=lambda episode: (episode.occurred_at, episode.id), reverse=True)
    assert await memory_store.get_episodes(tenant_id, "conversation", limit=2) == found[:2]
    assert await memory_store.get_episodes(tenant_id, "conversation", limit=0) == []


async def test_pages_hold_every_episode_once_while_others_are_added(
    memory_store: MemoryStore, tenant_id: UUID
) -> None:
    # Many at the same moment, so that the id decides where a page ends.
    episodes = [
        EpisodeFactory(tenant_id=tenant_id, occurred_at=NOON + timedelta(seconds=number // 6))
        for number in range(20)
    ]
    await memory_store.add_episodes(episodes)
    paged: list[Episode] = []
    before: Cursor | None = None
    while page := await memory_store.get_episodes(tenant_id, "conversation", limit=3, before=before):
        paged += page
        before = Cursor.parse(str(Cursor.after(page[-1])))
        await memory_store.add_episode(
            EpisodeFactory(tenant_id=tenant_id, occurred_at=NOON + timedelta(days=1))
        )
    assert paged == sorted(episodes, key=Episode.position, reverse=True)


async def test_a_group_holds_its_own_alone(memory_store: MemoryStore, tenant_id: UUID) -> None:
    mine = EpisodeFactory(tenant_id=tenant_id, group_id="mine")
    await memory_store.add_episodes([mine, EpisodeFactory(tenant_id=tenant_id, group_id="Mine")])
    await memory_store.add_episode(EpisodeFactory(group_id="mine"))
    assert await memory_store.get_episodes(tenant_id, "mine") == [mine]


async def test_entities_are_listed_by_recording_and_ties_by_id(
    memory_store: MemoryStore, tenant_id: UUID
) -> None:
    entities = [
        EntityFactory(tenant_id=tenant_id, entity_type=kind, recorded_at=NOON + timedelta(seconds=seconds))
        for kind, seconds in (("person", 5), ("place", 1), ("person", 1), ("place", 1), ("person", 0))
    ]
    for entity in entities:
        await memory_store.add_entity(entity)
    await memory_store.add_entity(EntityFactory(tenant_id=tenant_id, group_id="other"))
    expected = sorted(entities, key=lambda entity: (entity.recorded_at, entity.id))
    assert await memory_store.get_entities(tenant_id, "conversation") == expected
    assert await memory_store.get_entities(tenant_id, "conversation", limit=3) == expected[:3]
    persons = [entity for entity in expected if entity.entity_type == "person"]
    assert await memory_store.get_entities(tenant_id, "conversation", entity_type="person") == persons
    assert await memory_store.get_entities(tenant_id, "conversation", entity_type="Person") == []


@pytest.mark.parametrize("limit", [-1, 2**63])
async def test_a_limit_that_is_none_is_refused(
    memory_store: MemoryStore, tenant_id: UUID, limit: int
) -> None:
    for call in (
        memory_store.get_episodes(tenant_id, "g", limit=limit),
        memory_store.get_entities(tenant_id, "g", limit=limit),
        memory_store.text_search_episodes("", tenant_id, limit=limit),
        memory_store.vector_search_episodes(VECTOR, tenant_id, limit=limit),
        memory_store.hybrid_search_episodes("", VECTOR, tenant_id, limit=limit),
        memory_store.vector_search_entities(VECTOR, tenant_id, limit=limit),
    ):
        with pytest.raises(ValidationError) as refused:
            await call
        assert refused.value.field == "limit"


# -- changing and deleting -------------------------------------------------------------------------------------


async def test_an_update_replaces_all_of_an_entity(memory_store: MemoryStore, tenant_id: UUID) -> None:
    entity: Entity = EntityFactory(tenant_id=tenant_id, attributes={"a": 1}, embedding=VECTOR)
    await memory_store.add_entity(entity)
    changed: Entity = EntityFactory(
        tenant_id=tenant_id, id=entity.id, group_id="elsewhere", entity_type="place", valid_to=NOON
    )
    assert await memory_store.update_entity(changed) is True
    assert await memory_store.get_entity(tenant_id, entity.id) == changed
    assert await memory_store.get_entities(tenant_id, "conversation") == []
    assert await memory_store.get_entities(tenant_id, "elsewhere") == [changed]


async def test_what_is_unknown_or_deleted_is_not_updated(memory_store: MemoryStore, tenant_id: UUID) -> None:
    first, second, relationship = await add_pair(memory_store, tenant_id)
    assert await memory_store.update_entity(EntityFactory(tenant_id=tenant_id)) is False
    unknown = relationship.model_copy(update={"id": uuid4()})
    assert await memory_store.update_relationship(unknown) is False
    await memory_store.delete_relationship(tenant_id, relationship.id)
    assert await memory_store.update_relationship(relationship) is False
    await memory_store.delete_entity(tenant_id, second.id)
    assert await memory_store.update_entity(second) is False
    assert await memory_store.get_entity(tenant_id, second.id) is None
    assert await memory_store.get_entity(tenant_id, first.id) == first


async def test_an_update_keeps_to_its_tenant(memory_store: MemoryStore, tenant_id: UUID) -> None:
    first, _, relationship = await add_pair(memory_store, tenant_id)
    foreign = {"tenant_id": uuid4()}
    assert await memory_store.update_entity(first.model_copy(update=foreign)) is False
    assert await memory_store.update_relationship(relationship.model_copy(update=foreign)) is False
    assert await memory_store.get_entity(tenant_id, first.id) == first


async def test_an_update_that_cannot_be_stored_changes_nothing(
    memory_store: MemoryStore, tenant_id: UUID
) -> None:
    entity, _, relationship = await add_pair(memory_store, tenant_id)
    with pytest.raises(ValidationError):
        await memory_store.update_entity(entity.model_copy(update={"name": "a\0b"}))
    with pytest.raises(ValidationError):
        await memory_store.update_relationship(relationship.model_copy(update={"attributes": {"a": {1}}}))
    assert await memory_store.get_entity(tenant_id, entity.id) == entity
    assert await memory_store.get_relationship(tenant_id, relationship.id) == relationship


async def test_a_deletion_is_true_once_and_hides_from_every_read(
    memory_store: MemoryStore, tenant_id: UUID
) -> None:
    first, second, relationship = await add_pair(memory_store, tenant_id, group_id="conversation")
    episode = EpisodeFactory(tenant_id=tenant_id, content="hello", embedding=VECTOR)
    await memory_store.add_episode(episode)
    await memory_store.update_entity(first.model_copy(update={"embedding": VECTOR}))
    for delete, id_ in (
        (memory_store.delete_episode, episode.id),
        (memory_store.delete_relationship, relationship.id),
        (memory_store.delete_entity, first.id),
    ):
        assert await delete(uuid4(), id_) is False
        assert await delete(tenant_id, id_) is True
        assert await delete(tenant_id, id_) is False
        assert await delete(tenant_id, uuid4()) is False
    assert await memory_store.get_episode(tenant_id, episode.id) is None
    assert await memory_store.get_episodes(tenant_id, "conversation") == []
    assert await memory_store.text_search_episodes("hello", tenant_id) == []
    assert await memory_store.vector_search_episodes(VECTOR, tenant_id) == []
    assert await memory_store.hybrid_search_episodes("hello", VECTOR, tenant_id) == []
    assert await memory_store.get_relationship(tenant_id, relationship.id) is None
    assert await memory_store.get_relationships(tenant_id, "conversation") == []
    assert await memory_store.get_entity(tenant_id, first.id) is None
    assert await memory_store.vector_search_entities(VECTOR, tenant_id) == []
    assert await memory_store.get_entities(tenant_id, "conversation") == [second]


async def test_what_is_added_or_updated_as_deleted_is_hidden(
    memory_store: MemoryStore, tenant_id: UUID
) -> None:
    first, second, relationship = await add_pair(memory_store, tenant_id)
    episode = EpisodeFactory(tenant_id=tenant_id, deleted_at=NOON)
    await memory_store.add_episode(episode)
    assert episode.is_deleted
    assert await memory_store.get_episode(tenant_id, episode.id) is None
    assert await memory_store.update_entity(first.model_copy(update={"deleted_at": NOON})) is True
    assert await memory_store.update_entity(first) is False
    assert await memory_store.get_entities(tenant_id, "conversation") == [second]
    assert await memory_store.get_relationship(tenant_id, relationship.id) is None
    assert await memory_store.get_relationships(tenant_id, "conversation") == []
    assert await memory_store.delete_relationship(tenant_id, relationship.id) is False
    assert await memory_store.update_relationship(relationship) is False
    # With the entity goes the relationship that it hides.
    assert await memory_store.purge_deleted(tenant_id, AT_ONCE) == 3


async def test_deleting_a_group_counts_what_lived_in_it(memory_store: MemoryStore, tenant_id: UUID) -> None:
    await add_pair(memory_store, tenant_id, group_id="gone")
    *_, dead = await add_pair(memory_store, tenant_id, group_id="gone")
    await memory_store.delete_relationship(tenant_id, dead.id)
    episodes = EpisodeFactory.build_batch(3, tenant_id=tenant_id, group_id="gone")
    await memory_store.add_episodes(episodes)
    await memory_store.delete_episode(tenant_id, episodes[0].id)
    kept = EpisodeFactory(tenant_id=tenant_id, group_id="kept")
    foreign = EpisodeFactory(group_id="gone")
    await memory_store.add_episode(kept)
    await memory_store.add_episode(foreign)
    assert await memory_store.delete_by_group(uuid4(), "gone") == 0
    # Four entities, one relationship, two episodes.
    assert await memory_store.delete_by_group(tenant_id, "gone") == 7
    assert await memory_store.delete_by_group(tenant_id, "gone") == 0
    assert await memory_store.get_episodes(tenant_id, "gone") == []
    assert await memory_store.get_entities(tenant_id, "gone") == []
    assert await memory_store.get_relationships(tenant_id, "gone") == []
    assert await memory_store.get_episodes(tenant_id, "kept") == [kept]
    assert await memory_store.get_episodes(foreign.tenant_id, "gone") == [foreign]


async def test_deleting_a_group_deletes_the_relationships_of_its_entities_in_other_groups(
    memory_store: MemoryStore, tenant_id: UUID
) -> None:
    here, there = EntityFactory(tenant_id=tenant_id), EntityFactory(tenant_id=tenant_id, group_id="other")
    await memory_store.add_entity(here)
    await memory_store.add_entity(there)
    across = [
        RelationshipFactory(tenant_id=tenant_id, group_id="other", from_entity_id=one, to_entity_id=two)
        for one, two in ((here.id, there.id), (there.id, here.id), (there.id, there.id))
    ]
    for relationship in across:
        await memory_store.add_relationship(relationship)
    assert await memory_store.delete_by_group(tenant_id, "conversation") == 3
    assert await memory_store.get_relationships(tenant_id, "other") == across[2:]


async def test_a_purge_removes_what_was_deleted_long_enough_ago(
    memory_store: MemoryStore, tenant_id: UUID
) -> None:
    first, second, _ = await add_pair(memory_store, tenant_id)
    episodes = EpisodeFactory.build_batch(3, tenant_id=tenant_id)
    await memory_store.add_episodes(episodes)
    old = EpisodeFactory(tenant_id=tenant_id, deleted_at=utcnow() - timedelta(days=2))
    await memory_store.add_episode(old)
    await memory_store.delete_entity(tenant_id, first.id)
    await memory_store.delete_episode(tenant_id, episodes[0].id)
    assert await memory_store.purge_deleted(uuid4(), AT_ONCE) == 0
    assert await memory_store.purge_deleted(tenant_id, timedelta(days=1)) == 1
    # An entity, its relationship, an episode.
    assert await memory_store.purge_deleted(tenant_id, AT_ONCE) == 3
    assert await memory_store.purge_deleted(tenant_id, AT_ONCE) == 0
    assert ids(await memory_store.get_episodes(tenant_id, "conversation")) == ids(episodes)[:0:-1]
    assert await memory_store.get_entities(tenant_id, "conversation") == [second]
    with pytest.raises(ValidationError):
        await memory_store.purge_deleted(tenant_id, timedelta.max)


# -- units of work ---------------------------------------------------------------------------------------------


@begins_units
async def test_a_unit_of_work_is_seen_by_others_once_it_commits(
    memory_store: MemoryStore, tenant_id: UUID
) -> None:
    episode, *more = EpisodeFactory.build_batch(4, tenant_id=tenant_id)
    async with unit_of_work(memory_store) as unit:
        await unit.add_episode(episode)
        await unit.add_episodes(more)
        await unit.delete_episode(tenant_id, more[2].id)
        pair = await add_pair(unit, tenant_id)
        assert await unit.get_episode(tenant_id, episode.id) == episode
        assert await memory_store.get_episodes(tenant_id, "conversation") == []
    assert ids(await memory_store.get_episodes(tenant_id, "conversation")) == [
        more[1].id,
        more[0].id,
        episode.id,
    ]
    assert await memory_store.get_relationship(tenant_id, pair[2].id) == pair[2]
    with pytest.raises(StoreError, match="ended"):
        await unit.get_episode(tenant_id, episode.id)


@begins_units
async def test_a_unit_of_work_that_fails_leaves_nothing(memory_store: MemoryStore, tenant_id: UUID) -> None:
    first, second, relationship = await add_pair(memory_store, tenant_id)

    async def fail() -> None:
        async with unit_of_work(memory_store) as unit:
            await unit.add_episodes(EpisodeFactory.build_batch(3, tenant_id=tenant_id))
            await unit.delete_entity(tenant_id, first.id)
            await unit.update_entity(second.model_copy(update={"name": "other"}))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        await fail()
    assert await memory_store.get_episodes(tenant_id, "conversation") == []
    assert await memory_store.get_entity(tenant_id, second.id) == second
    assert await memory_store.get_relationship(tenant_id, relationship.id) == relationship


@begins_units
async def test_a_refused_write_leaves_the_unit_of_work_usable(
    memory_store: MemoryStore, tenant_id: UUID
) -> None:
    first, second, relationship = await add_pair(memory_store, tenant_id)
    episode, other = EpisodeFactory.build_batch(2, tenant_id=tenant_id)
    await memory_store.add_episode(episode)
    async with unit_of_work(memory_store) as unit:
        for refused in (
            lambda: unit.add_episode(episode),
            lambda: unit.add_episodes([other, episode]),
            lambda: unit.add_entity(first),
            lambda: unit.add_relationship(relationship),
        ):
            with pytest.raises(ConflictError):
                await refused()
        lost = relationship.model_copy(update={"to_entity_id": uuid4()})
        with pytest.raises(NotFoundError):
            await unit.add_relationship(lost.model_copy(update={"id": uuid4()}))
        with pytest.raises(NotFoundError):
            await unit.update_relationship(lost)
        assert await unit.update_entity(second.model_copy(update={"name": "renamed"})) is True
    found = await memory_store.get_entity(tenant_id, second.id)
    assert found is not None
    assert found.name == "renamed"
    assert await memory_store.get_episodes(tenant_id, "conversation") == [episode]
