"""The contract of `MemoryStore`, run against every backend: relationships and traversal."""

from __future__ import annotations

import random
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from soldier_data.errors import NotFoundError, ValidationError
from soldier_data.memory import Entity, MemoryStore, Relationship
from tests.cases.values import NOON
from tests.conftest import DIMENSIONS
from tests.factories.memory import EntityFactory, RelationshipFactory

GROUP = "conversation"


class Graph:
    """Entities by letter, and the relationships between them."""

    def __init__(self, store: MemoryStore, tenant_id: UUID) -> None:
        self.store = store
        self.tenant_id = tenant_id
        self.entities: dict[str, Entity] = {}
        self.relationships: dict[str, Relationship] = {}

    async def add(self, *edges: str, **fields: Any) -> None:
        """Add edges written as "ab", with the entities that are not there yet."""
        for edge in edges:
            for name in edge:
                if name not in self.entities:
                    self.entities[name] = EntityFactory(tenant_id=self.tenant_id, name=name, id=uuid4())
                    await self.store.add_entity(self.entities[name])
            relationship = RelationshipFactory(
                tenant_id=self.tenant_id,
                from_entity_id=self.entities[edge[0]].id,
                to_entity_id=self.entities[edge[1]].id,
                **fields,
            )
            await self.store.add_relationship(relationship)
            self.relationships[edge] = relationship

    async def around(self, starts: str, depth: int = 2, **options: Any) -> list[str]:
        """What a traversal reaches, as one text a distance."""
        ids = [self.entities[name].id for name in starts]
        found = await self.store.traverse_from_entities(ids, self.tenant_id, GROUP, depth=depth, **options)
        return [entity.name for entity in found]

    def by_id(self, names: str) -> list[str]:
        return sorted(names, key=lambda name: self.entities[name].id)


@pytest.fixture
def graph(memory_store: MemoryStore, tenant_id: UUID) -> Graph:
    return Graph(memory_store, tenant_id)


# -- relationships ---------------------------------------------------------------------------------------------


async def test_a_relationship_comes_back_as_it_was_added(graph: Graph) -> None:
    await graph.add("ab", attributes={"since": [2019]}, confidence=0.25, valid_to=NOON)
    added = graph.relationships["ab"]
    assert await graph.store.get_relationship(graph.tenant_id, added.id) == added
    assert await graph.store.get_relationship(uuid4(), added.id) is None


async def test_both_entities_must_live(graph: Graph) -> None:
    store, tenant_id = graph.store, graph.tenant_id
    await graph.add("ab", "cd")
    await store.delete_entity(tenant_id, graph.entities["c"].id)
    a, c = graph.entities["a"].id, graph.entities["c"].id
    foreign = EntityFactory()
    await store.add_entity(foreign)
    for ends in ((a, uuid4()), (uuid4(), a), (a, c), (c, a), (c, c), (a, foreign.id)):
        lost = RelationshipFactory(tenant_id=tenant_id, from_entity_id=ends[0], to_entity_id=ends[1])
        with pytest.raises(NotFoundError, match="entity_id"):
            await store.add_relationship(lost)
        assert await store.get_relationship(tenant_id, lost.id) is None
    assert await store.get_relationships(tenant_id, GROUP) == [graph.relationships["ab"]]


async def test_an_entity_may_relate_to_itself_and_to_other_groups(graph: Graph) -> None:
    await graph.add("aa")
    other = EntityFactory(tenant_id=graph.tenant_id, group_id="other")
    await graph.store.add_entity(other)
    across = RelationshipFactory(
        tenant_id=graph.tenant_id, from_entity_id=graph.entities["a"].id, to_entity_id=other.id
    )
    await graph.store.add_relationship(across)
    found = await graph.store.get_relationships(graph.tenant_id, GROUP)
    assert found == [graph.relationships["aa"], across]
    assert await graph.around("a") == ["a"]


async def test_relationships_are_listed_by_recording_and_filtered(graph: Graph) -> None:
    store, tenant_id = graph.store, graph.tenant_id
    await graph.add("ab", recorded_at=NOON + timedelta(seconds=1))
    await graph.add("ac", "bc", recorded_at=NOON, relation_type="owns")
    await graph.add("ba", recorded_at=NOON, group_id="other")
    ab, ac, bc, ba = (graph.relationships[edge] for edge in ("ab", "ac", "bc", "ba"))
    early = sorted([ac, bc], key=lambda relationship: relationship.id)
    a, c = graph.entities["a"].id, graph.entities["c"].id
    assert await store.get_relationships(tenant_id, GROUP) == [*early, ab]
    assert await store.get_relationships(tenant_id, "other") == [ba]
    assert await store.get_relationships(tenant_id, GROUP, from_entity_id=a) == [ac, ab]
    assert await store.get_relationships(tenant_id, GROUP, to_entity_id=c) == early
    assert await store.get_relationships(tenant_id, GROUP, relation_type="owns") == early
    assert await store.get_relationships(tenant_id, GROUP, from_entity_id=a, to_entity_id=c) == [ac]
    assert await store.get_relationships(tenant_id, GROUP, from_entity_id=a, relation_type="knows") == [ab]
    assert await store.get_relationships(tenant_id, GROUP, relation_type="OWNS") == []
    assert await store.get_relationships(uuid4(), GROUP) == []


async def test_an_update_replaces_all_of_a_relationship(graph: Graph) -> None:
    await graph.add("ab", "cd", attributes={"a": 1})
    stored = graph.relationships["ab"]
    changed = RelationshipFactory(
        tenant_id=graph.tenant_id,
        id=stored.id,
        from_entity_id=graph.entities["c"].id,
        to_entity_id=graph.entities["a"].id,
        relation_type="owns",
        group_id="other",
        confidence=0.0,
        valid_to=NOON,
    )
    assert await graph.store.update_relationship(changed) is True
    assert await graph.store.get_relationship(graph.tenant_id, stored.id) == changed
    assert await graph.store.get_relationships(graph.tenant_id, "other") == [changed]


async def test_an_update_to_an_entity_that_does_not_live_is_refused(graph: Graph) -> None:
    await graph.add("ab", "cd")
    await graph.store.delete_entity(graph.tenant_id, graph.entities["d"].id)
    stored = graph.relationships["ab"]
    for end in (uuid4(), graph.entities["d"].id):
        for name in ("from_entity_id", "to_entity_id"):
            with pytest.raises(NotFoundError, match="entity_id"):
                await graph.store.update_relationship(stored.model_copy(update={name: end}))
    assert await graph.store.get_relationship(graph.tenant_id, stored.id) == stored
    unknown = stored.model_copy(update={"id": uuid4(), "to_entity_id": uuid4()})
    assert await graph.store.update_relationship(unknown) is False


async def test_deleting_an_entity_deletes_its_relationships(graph: Graph) -> None:
    await graph.add("ab", "ca", "aa", "bc")
    await graph.store.delete_entity(graph.tenant_id, graph.entities["a"].id)
    kept = graph.relationships.pop("bc")
    for relationship in graph.relationships.values():
        assert await graph.store.get_relationship(graph.tenant_id, relationship.id) is None
        assert await graph.store.delete_relationship(graph.tenant_id, relationship.id) is False
    assert await graph.store.get_relationships(graph.tenant_id, GROUP) == [kept]
    assert await graph.store.purge_deleted(graph.tenant_id, timedelta(0)) == 4


# -- traversal -------------------------------------------------------------------------------------------------


async def test_entities_are_reached_breadth_first_and_both_ways(graph: Graph) -> None:
    # A chain a - b - c - d with arrows in turn, and e, f hanging on b.
    await graph.add("ab", "cb", "cd", "eb", "bf")
    assert await graph.around("a", 1) == ["a", "b"]
    assert await graph.around("a") == ["a", "b", *graph.by_id("cef")]
    assert await graph.around("a", 3) == ["a", "b", *graph.by_id("cef"), "d"]
    assert await graph.around("d", 2) == ["d", "c", "b"]
    found = await graph.store.traverse_from_entities([graph.entities["a"].id], graph.tenant_id, GROUP)
    assert found[1] == graph.entities["b"]


async def test_several_starts_come_first_and_each_entity_once(graph: Graph) -> None:
    await graph.add("ab", "bc", "cd", "ad")
    assert await graph.around("ac", 1) == [*graph.by_id("ac"), *graph.by_id("bd")]
    assert await graph.around("aac", 5) == [*graph.by_id("ac"), *graph.by_id("bd")]
    assert await graph.around("abcd", 1) == graph.by_id("abcd")


async def test_cycles_and_parallel_relationships_do_no_harm(graph: Graph) -> None:
    await graph.add("ab", "ba", "bc", "ca", "aa", "cd", "dc")
    await graph.add("ab", relation_type="owns")
    assert await graph.around("a", 10**9) == ["a", *graph.by_id("bc"), "d"]
    assert await graph.around("a", 2**63 - 1) == ["a", *graph.by_id("bc"), "d"]


async def test_without_depth_or_starts_nothing_is_reached(graph: Graph) -> None:
    await graph.add("ab")
    assert await graph.around("a", 0) == []
    assert await graph.around("a", -5) == []
    assert await graph.around("", 2) == []
    unknown = await graph.store.traverse_from_entities([uuid4()], graph.tenant_id, GROUP)
    assert unknown == []


async def test_only_relationships_of_the_wanted_types_are_followed(graph: Graph) -> None:
    await graph.add("ab", "cd", relation_type="knows")
    await graph.add("bc", relation_type="owns")
    await graph.add("ae", relation_type="likes")
    assert await graph.around("a", 9, relation_types=["knows"]) == ["a", "b"]
    assert await graph.around("a", 9, relation_types={"knows", "owns"}) == ["a", "b", "c", "d"]
    assert await graph.around("a", 9, relation_types=[]) == ["a"]
    assert len(await graph.around("a", 9, relation_types=None)) == 5


async def test_traversal_keeps_to_the_group_and_the_tenant(graph: Graph) -> None:
    store, tenant_id = graph.store, graph.tenant_id
    await graph.add("ab")
    await graph.add("bc", group_id="other")
    outside = EntityFactory(tenant_id=tenant_id, group_id="other")
    await store.add_entity(outside)
    a = graph.entities["a"].id
    for ends in ((a, outside.id), (outside.id, graph.entities["c"].id)):
        await store.add_relationship(
            RelationshipFactory(tenant_id=tenant_id, from_entity_id=ends[0], to_entity_id=ends[1])
        )
    assert await graph.around("a", 9) == ["a", "b"]
    assert await store.traverse_from_entities([a, outside.id], tenant_id, GROUP, depth=1) == [
        graph.entities["a"],
        graph.entities["b"],
    ]
    assert await store.traverse_from_entities([outside.id], tenant_id, "other") == [outside]
    assert await store.traverse_from_entities([a], uuid4(), GROUP) == []


async def test_traversal_goes_through_living_rows_alone(graph: Graph) -> None:
    await graph.add("ab", "bc", "ad", "de")
    await graph.store.delete_entity(graph.tenant_id, graph.entities["b"].id)
    await graph.store.delete_relationship(graph.tenant_id, graph.relationships["de"].id)
    assert await graph.around("a", 9) == ["a", "d"]
    assert await graph.around("b", 9) == []
    assert await graph.around("ba", 9) == ["a", "d"]


async def test_a_random_graph_is_reached_as_by_a_plain_breadth_first_search(graph: Graph) -> None:
    chance = random.Random(4)  # noqa: S311 - not for secrets.
    names = [chr(ord("A") + number) for number in range(40)]
    edges = {"".join(chance.sample(names, 2)) for _ in range(45)}
    await graph.add(*sorted(edges))
    near: dict[str, set[str]] = {name: set() for name in names}
    for edge in edges:
        near[edge[0]].add(edge[1])
        near[edge[1]].add(edge[0])
    reached: list[str] = []
    for depth in (1, 3, 40):
        reached, frontier = ["A"], {"A"}
        for _ in range(depth):
            frontier = {to for name in frontier for to in near[name]} - set(reached)
            reached += graph.by_id("".join(frontier))
        assert await graph.around("A", depth) == reached
    assert 20 < len(reached) < 40


async def test_no_more_entities_than_the_limit_are_reached_the_nearest_first(graph: Graph) -> None:
    await graph.add("ab", "ac", "ad", "be", "ef", "fg")
    everything = ["a", *graph.by_id("bcd"), "e", "f", "g"]
    for limit in range(9):
        assert await graph.around("a", 9, limit=limit) == everything[:limit]
    assert await graph.around("bcd", 1, limit=2) == graph.by_id("bcd")[:2]
    assert await graph.around("a", 2**63 - 1, limit=2**63 - 1) == everything


async def test_a_thousand_entities_are_reached_unless_another_limit_is_given(
    memory_store: MemoryStore, tenant_id: UUID
) -> None:
    hub, *around = EntityFactory.build_batch(1_101, tenant_id=tenant_id)
    for entity in (hub, *around):
        await memory_store.add_entity(entity)
    for entity in around:
        edge = RelationshipFactory(tenant_id=tenant_id, from_entity_id=entity.id, to_entity_id=hub.id)
        await memory_store.add_relationship(edge)
    nearest = [hub, *sorted(around, key=lambda entity: entity.id)]
    assert await memory_store.traverse_from_entities([hub.id], tenant_id, GROUP) == nearest[:1_000]
    found = await memory_store.traverse_from_entities([hub.id], tenant_id, GROUP, limit=2_000)
    assert found == nearest


async def test_embeddings_are_left_out_unless_asked_for(memory_store: MemoryStore, tenant_id: UUID) -> None:
    entity = EntityFactory(tenant_id=tenant_id, embedding=[1.0] * DIMENSIONS, embedding_model="model")
    await memory_store.add_entity(entity)
    without = entity.model_copy(update={"embedding": None})
    assert await memory_store.traverse_from_entities([entity.id], tenant_id, GROUP) == [without]
    found = await memory_store.traverse_from_entities([entity.id], tenant_id, GROUP, with_embeddings=True)
    assert found == [entity]
    assert await memory_store.get_entity(tenant_id, entity.id) == entity


async def test_what_a_traversal_is_asked_for_is_checked(graph: Graph) -> None:
    await graph.add("ab")
    a = [graph.entities["a"].id]
    for options, name in (
        ({"relation_types": ["knows", "a\0"]}, "relation_types"),
        ({"depth": 2**63}, "depth"),
        ({"limit": -1}, "limit"),
        ({"limit": 2**63}, "limit"),
    ):
        with pytest.raises(ValidationError) as refused:
            await graph.store.traverse_from_entities(a, graph.tenant_id, GROUP, **options)
        assert refused.value.field == name
    with pytest.raises(ValidationError) as refused:
        await graph.store.traverse_from_entities(a, graph.tenant_id, "\ud800")
    assert refused.value.field == "group_id"
