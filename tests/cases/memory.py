"""The memory store with another tenant's ids."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

from soldier_data.base.embedded_texts import TextToEmbed
from soldier_data.base.paging import Cursor
from soldier_data.base.subjects import DataSubject
from soldier_data.errors import NotFoundError
from soldier_data.memory import (
    Entity,
    Episode,
    InMemoryMemoryStore,
    MemoryStore,
    PostgresMemoryStore,
    Relationship,
)
from tests.cases.case import Case, Domain, as_of, deletions, reads, saves_below_owners
from tests.cases.kinds.memory import KINDS, RELATIONSHIP
from tests.conftest import DIMENSIONS
from tests.factories.memory import EntityFactory, EpisodeFactory, RelationshipFactory

MODEL = "another model"
VECTOR = [1.0] * DIMENSIONS


@dataclass(frozen=True)
class Stored:
    """What the owner has stored: two episodes, two related entities, and a deleted episode."""

    episode: Episode
    later_episode: Episode
    entity: Entity
    neighbour: Entity
    relationship: Relationship

    @property
    def filters(self) -> dict[str, Any]:
        """Every filter of a search, with the values of the owner's episodes."""
        names = ("group_id", "agent_id", "customer_profile_id", "session_id", "content_type")
        return {name: getattr(self.episode, name) for name in names} | {
            "occurred_after": self.episode.occurred_at,
            "occurred_before": self.later_episode.occurred_at + timedelta(hours=1),
        }


async def seed(store: MemoryStore, tenant_id: UUID) -> Stored:
    of_customer = {
        "tenant_id": tenant_id,
        # Unlike any other test's, so that no statement without a tenant would find those rows too.
        "group_id": f"group {tenant_id}",
        "agent_id": uuid4(),
        "customer_profile_id": uuid4(),
        "session_id": uuid4(),
        "content": f"The parcel {tenant_id} is late.",
        "embedding": VECTOR,
    }
    episode = EpisodeFactory(**of_customer)
    later_episode = EpisodeFactory(**of_customer)
    deleted = EpisodeFactory(**of_customer)
    in_group = {"tenant_id": tenant_id, "group_id": episode.group_id}
    entity, neighbour = (EntityFactory(**in_group, embedding=VECTOR) for _ in range(2))
    relationship = RelationshipFactory(
        **in_group, from_entity_id=entity.id, to_entity_id=neighbour.id, attributes={"since": 2020}
    )
    await store.add_episodes([episode, later_episode, deleted])
    await store.delete_episode(tenant_id, deleted.id)
    await store.add_entity(entity)
    await store.add_entity(neighbour)
    await store.add_relationship(relationship)
    return Stored(episode, later_episode, entity, neighbour, relationship)


async def related(store: MemoryStore, own: Stored, other: UUID) -> Relationship:
    """A relationship between two entities of the intruder's own."""
    in_group = {"tenant_id": other, "group_id": own.entity.group_id}
    ends = [EntityFactory(**in_group) for _ in range(2)]
    for end in ends:
        await store.add_entity(end)
    relationship: Relationship = RelationshipFactory(
        **in_group, from_entity_id=ends[0].id, to_entity_id=ends[1].id
    )
    await store.add_relationship(relationship)
    return relationship


async def add_episode(store: MemoryStore, own: Stored, other: UUID) -> object:
    episode = as_of(own.episode, other, content="Something else.")
    await store.add_episode(episode)
    return await store.get_episode(other, episode.id) == episode


async def add_entity(store: MemoryStore, own: Stored, other: UUID) -> object:
    entity = as_of(own.entity, other, name="Somebody else")
    await store.add_entity(entity)
    return await store.get_entity(other, entity.id) == entity


async def relate_to_owner(store: MemoryStore, own: Stored, other: UUID) -> object:
    relationship = await related(store, own, other)
    return await store.add_relationship(
        relationship.model_copy(update={"id": uuid4(), "to_entity_id": own.entity.id})
    )


async def move_to_owner(store: MemoryStore, own: Stored, other: UUID) -> object:
    relationship = await related(store, own, other)
    relationship.from_entity_id = own.entity.id
    return await store.update_relationship(relationship)


async def traverse_beside_owner(store: MemoryStore, own: Stored, other: UUID) -> object:
    """The graph of the intruder lies in a group of the same name."""
    relationship = await related(store, own, other)
    found = await store.traverse_from_entities(
        [relationship.from_entity_id, own.entity.id], other, own.entity.group_id, depth=5
    )
    return {entity.id for entity in found} == {relationship.from_entity_id, relationship.to_entity_id}


def subject(own: Stored, other: UUID) -> DataSubject:
    assert own.episode.customer_profile_id is not None
    return DataSubject(other, frozenset([own.episode.customer_profile_id]))


NOTHING: dict[str, list[object]] = {"episodes": [], "entities": [], "relationships": []}


DOMAIN: Domain[MemoryStore, Stored] = Domain(
    store="memory",
    contract=MemoryStore,
    backends={"inmemory": InMemoryMemoryStore, "postgres": PostgresMemoryStore},
    seed=seed,
    cases=[
        *reads(KINDS),
        *saves_below_owners([RELATIONSHIP]),
        *deletions(KINDS),
        Case("add_episode", add_episode, expected=True, reaches=False),
        Case(
            "add_episodes",
            lambda store, own, other: store.add_episodes([as_of(own.episode, other)]),
            1,
            reaches=False,
        ),
        Case("get_episodes", lambda store, own, other: store.get_episodes(other, own.episode.group_id), []),
        Case(
            "get_episodes",
            lambda store, own, other: store.get_episodes(
                other, own.episode.group_id, before=Cursor.after(own.later_episode)
            ),
            [],
        ),
        Case(
            "vector_search_episodes",
            lambda store, _own, other: store.vector_search_episodes(VECTOR, other),
            [],
        ),
        Case(
            "vector_search_episodes",
            lambda store, own, other: store.vector_search_episodes(VECTOR, other, **own.filters),
            [],
        ),
        Case(
            "text_search_episodes",
            lambda store, _own, other: store.text_search_episodes("parcel", other),
            [],
        ),
        Case(
            "text_search_episodes",
            # Words that the trigram index does not find are looked for by another statement.
            lambda store, own, other: store.text_search_episodes("is", other, **own.filters),
            [],
        ),
        Case(
            "hybrid_search_episodes",
            lambda store, _own, other: store.hybrid_search_episodes("parcel", VECTOR, other),
            [],
        ),
        Case(
            "hybrid_search_episodes",
            lambda store, own, other: store.hybrid_search_episodes("is", VECTOR, other, **own.filters),
            [],
        ),
        Case("add_entity", add_entity, expected=True, reaches=False),
        Case("get_entities", lambda store, own, other: store.get_entities(other, own.entity.group_id), []),
        Case("update_entity", lambda store, own, other: store.update_entity(as_of(own.entity, other)), False),
        Case(
            "vector_search_entities",
            lambda store, _own, other: store.vector_search_entities(VECTOR, other),
            [],
        ),
        Case(
            "vector_search_entities",
            lambda store, own, other: store.vector_search_entities(
                VECTOR, other, group_id=own.entity.group_id, entity_type=own.entity.entity_type
            ),
            [],
        ),
        Case("add_relationship", relate_to_owner, NotFoundError, reaches=False),
        Case(
            "get_relationships",
            lambda store, own, other: store.get_relationships(other, own.relationship.group_id),
            [],
        ),
        Case(
            "get_relationships",
            lambda store, own, other: store.get_relationships(
                other, own.relationship.group_id, from_entity_id=own.entity.id, to_entity_id=own.neighbour.id
            ),
            [],
        ),
        Case(
            "update_relationship",
            lambda store, own, other: store.update_relationship(as_of(own.relationship, other)),
            False,
        ),
        Case("update_relationship", move_to_owner, NotFoundError, reaches=False),
        Case(
            "traverse_from_entities",
            lambda store, own, other: store.traverse_from_entities(
                [own.entity.id], other, own.entity.group_id
            ),
            [],
        ),
        Case("traverse_from_entities", traverse_beside_owner, expected=True),
        Case(
            "delete_by_group", lambda store, own, other: store.delete_by_group(other, own.episode.group_id), 0
        ),
        Case("count_to_embed", lambda store, _own, other: store.count_to_embed(MODEL, tenant_id=other), 0),
        Case("list_to_embed", lambda store, _own, other: store.list_to_embed(MODEL, tenant_id=other), []),
        Case(
            "set_embeddings",
            lambda store, own, other: store.set_embeddings(
                [(TextToEmbed("episode", other, own.episode.id, "x"), VECTOR)], MODEL
            ),
            0,
        ),
        Case(
            "list_subject_sessions",
            lambda store, own, other: store.list_subject_sessions(subject(own, other)),
            [],
        ),
        Case("export_subject", lambda store, own, other: store.export_subject(subject(own, other)), NOTHING),
        Case("erase_subject", lambda store, own, other: store.erase_subject(subject(own, other)), NOTHING),
        Case("purge_deleted", lambda store, _own, other: store.purge_deleted(other, timedelta(0)), 0),
    ],
)
