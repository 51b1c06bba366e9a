"""The in-memory memory store: the reference implementation, and a fake for the tests of services."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import timedelta
from typing import ClassVar, Unpack
from uuid import UUID

from soldier_data.base.embeddings import check_search
from soldier_data.base.inmemory import InMemoryEmbeddedTexts, InMemoryStore, copies, rank_by_similarity
from soldier_data.base.models import utcnow
from soldier_data.base.paging import Cursor, check_page
from soldier_data.base.subject_rules import InMemoryRecords, InMemorySearch
from soldier_data.base.subjects import DataSubject
from soldier_data.base.values import check_moment, check_text, moment_before
from soldier_data.memory import subjects
from soldier_data.memory.checks import (
    check_episodes,
    check_filters,
    check_memory_item,
    check_traversal,
    missing_end,
)
from soldier_data.memory.models import Entity, EntityHit, Episode, EpisodeFilter, EpisodeHit, Relationship
from soldier_data.memory.search import containing, fuse, passes, walk
from soldier_data.memory.store import MemoryStore
from soldier_data.memory.tables import Tables, ends, get_living, mark_deleted, peek_living
from soldier_data.settings import Settings


class InMemoryMemoryStore(InMemoryEmbeddedTexts, MemoryStore, InMemoryRecords, InMemoryStore):
    """A `MemoryStore` without a database.

    Args:
        embedding_dimensions: Length of embeddings; defaults to SOLDIER_EMBEDDING_DIMENSIONS.
        embedding_model: The model for searches that name none; by default they compare embeddings of all models.
    """

    _embedded_texts: ClassVar = {"episode": ("episodes", "content")}
    _tables: Tables

    def __init__(self, embedding_dimensions: int | None = None, embedding_model: str | None = None) -> None:
        self._dimensions = embedding_dimensions or Settings().embedding_dimensions
        self._model = embedding_model
        self._tables = Tables()

    async def add_episode(self, episode: Episode) -> UUID:
        check_memory_item(episode, self._dimensions)
        self._tables.episodes.add_all([episode], f"adding the episode {episode.id}")
        return episode.id

    async def add_episodes(self, episodes: Iterable[Episode]) -> int:
        listed = list(episodes)
        check_episodes(listed, self._dimensions)
        self._tables.episodes.add_all(listed, "adding episodes")
        return len(listed)

    async def get_episode(self, tenant_id: UUID, episode_id: UUID) -> Episode | None:
        return get_living(self._tables.episodes, tenant_id, episode_id)

    async def get_episodes(
        self, tenant_id: UUID, group_id: str, *, limit: int = 100, before: Cursor | None = None
    ) -> list[Episode]:
        check_text(group_id, "group_id")
        check_page(limit)
        if before is not None:
            check_moment(before.at, "before")
        found = [
            episode
            for episode in self._tables.episodes.living(tenant_id)
            if episode.group_id == group_id
            and (before is None or episode.position() < (before.at, before.id))
        ]
        found.sort(key=Episode.position, reverse=True)
        return copies(found[:limit])

    async def delete_episode(self, tenant_id: UUID, episode_id: UUID) -> bool:
        episode = peek_living(self._tables.episodes, tenant_id, episode_id)
        if episode is None:
            return False
        mark_deleted(self._tables.episodes, [episode], utcnow())
        return True

    async def vector_search_episodes(
        self,
        query_embedding: Sequence[float],
        tenant_id: UUID,
        *,
        limit: int = 10,
        min_score: float = 0.0,
        embedding_model: str | None = None,
        **filters: Unpack[EpisodeFilter],
    ) -> list[EpisodeHit]:
        model = check_search(
            query_embedding, limit, min_score, embedding_model, self._dimensions, self._model
        )
        episodes = self._filtered(tenant_id, filters)
        found = rank_by_similarity(episodes, query_embedding, model, min_score=min_score)[:limit]
        return [EpisodeHit(episode.model_copy(deep=True), score) for episode, score in found]

    async def text_search_episodes(
        self,
        query: str,
        tenant_id: UUID,
        *,
        limit: int = 10,
        **filters: Unpack[EpisodeFilter],
    ) -> list[Episode]:
        check_page(limit)
        found = containing(self._filtered(tenant_id, filters), query)
        return copies(found[:limit])

    async def hybrid_search_episodes(
        self,
        query: str,
        query_embedding: Sequence[float],
        tenant_id: UUID,
        *,
        limit: int = 10,
        embedding_model: str | None = None,
        **filters: Unpack[EpisodeFilter],
    ) -> list[EpisodeHit]:
        model = check_search(query_embedding, limit, 0.0, embedding_model, self._dimensions, self._model)
        filtered = self._filtered(tenant_id, filters)
        by_vector = [episode for episode, _ in rank_by_similarity(filtered, query_embedding, model)]
        best = fuse((containing(filtered, query), by_vector), limit)
        return [EpisodeHit(episode.model_copy(deep=True), score) for episode, score in best]

    async def add_entity(self, entity: Entity) -> UUID:
        check_memory_item(entity, self._dimensions)
        self._tables.entities.add_all([entity], f"adding the entity {entity.id}")
        return entity.id

    async def get_entity(self, tenant_id: UUID, entity_id: UUID) -> Entity | None:
        return get_living(self._tables.entities, tenant_id, entity_id)

    async def get_entities(
        self, tenant_id: UUID, group_id: str, *, entity_type: str | None = None, limit: int = 100
    ) -> list[Entity]:
        check_page(limit)
        found = sorted(self._entities(tenant_id, group_id, entity_type), key=Entity.position)
        return copies(found[:limit])

    async def update_entity(self, entity: Entity) -> bool:
        check_memory_item(entity, self._dimensions)
        if peek_living(self._tables.entities, entity.tenant_id, entity.id) is None:
            return False
        self._tables.entities.put((entity.tenant_id, entity.id), entity)
        return True

    async def delete_entity(self, tenant_id: UUID, entity_id: UUID) -> bool:
        entity = peek_living(self._tables.entities, tenant_id, entity_id)
        if entity is None:
            return False
        relationships = [
            found for found in self._tables.relationships.living(tenant_id) if entity_id in ends(found)
        ]
        now = utcnow()
        mark_deleted(self._tables.entities, [entity], now)
        mark_deleted(self._tables.relationships, relationships, now)
        return True

    async def vector_search_entities(
        self,
        query_embedding: Sequence[float],
        tenant_id: UUID,
        *,
        group_id: str | None = None,
        entity_type: str | None = None,
        limit: int = 10,
        min_score: float = 0.0,
        embedding_model: str | None = None,
    ) -> list[EntityHit]:
        model = check_search(
            query_embedding, limit, min_score, embedding_model, self._dimensions, self._model
        )
        entities = self._entities(tenant_id, group_id, entity_type)
        found = rank_by_similarity(entities, query_embedding, model, min_score=min_score)[:limit]
        return [EntityHit(entity.model_copy(deep=True), score) for entity, score in found]

    async def add_relationship(self, relationship: Relationship) -> UUID:
        check_memory_item(relationship, self._dimensions)
        self._tables.relationships.collect(self._add_relationship, [relationship])
        return relationship.id

    def _add_relationship(self, added: Sequence[Relationship]) -> None:
        [relationship] = added
        operation = f"adding the relationship {relationship.id}"
        if not self._tables.ends_live(relationship):
            raise missing_end(operation)
        self._tables.relationships.insert_all(added, operation)

    async def get_relationship(self, tenant_id: UUID, relationship_id: UUID) -> Relationship | None:
        found = get_living(self._tables.relationships, tenant_id, relationship_id)
        return found if found is not None and self._tables.ends_live(found) else None

    async def get_relationships(
        self,
        tenant_id: UUID,
        group_id: str,
        *,
        from_entity_id: UUID | None = None,
        to_entity_id: UUID | None = None,
        relation_type: str | None = None,
    ) -> list[Relationship]:
        check_filters(relation_type=relation_type)
        found = [
            relationship
            for relationship in self._relationships(tenant_id, group_id)
            if from_entity_id in (None, relationship.from_entity_id)
            and to_entity_id in (None, relationship.to_entity_id)
            and relation_type in (None, relationship.relation_type)
        ]
        return copies(sorted(found, key=Relationship.position))

    async def update_relationship(self, relationship: Relationship) -> bool:
        check_memory_item(relationship, self._dimensions)
        if await self.get_relationship(relationship.tenant_id, relationship.id) is None:
            return False
        if not self._tables.ends_live(relationship):
            raise missing_end(f"updating the relationship {relationship.id}")
        self._tables.relationships.put((relationship.tenant_id, relationship.id), relationship)
        return True

    async def delete_relationship(self, tenant_id: UUID, relationship_id: UUID) -> bool:
        relationship = await self.get_relationship(tenant_id, relationship_id)
        if relationship is None:
            return False
        mark_deleted(self._tables.relationships, [relationship], utcnow())
        return True

    async def traverse_from_entities(
        self,
        entity_ids: Iterable[UUID],
        tenant_id: UUID,
        group_id: str,
        *,
        depth: int = 2,
        relation_types: Iterable[str] | None = None,
        limit: int = 1_000,
        with_embeddings: bool = False,
    ) -> list[Entity]:
        types = check_traversal(group_id, depth, relation_types, limit)
        entities = {entity.id: entity for entity in self._entities(tenant_id, group_id)}
        edges = [
            ends(relationship)
            for relationship in self._relationships(tenant_id, group_id)
            if types is None or relationship.relation_type in types
        ]
        reached = copies(entities[id_] for id_ in walk(set(entity_ids), edges, set(entities), depth, limit))
        if not with_embeddings:
            for entity in reached:
                entity.embedding = None
        return reached

    async def delete_by_group(self, tenant_id: UUID, group_id: str) -> int:
        check_text(group_id, "group_id")
        tables = self._tables
        entities = list(self._entities(tenant_id, group_id))
        ids = {entity.id for entity in entities}
        episodes = [found for found in tables.episodes.living(tenant_id) if found.group_id == group_id]
        relationships = [
            found
            for found in tables.relationships.living(tenant_id)
            if found.group_id == group_id or not ids.isdisjoint(ends(found))
        ]
        now = utcnow()
        mark_deleted(tables.episodes, episodes, now)
        mark_deleted(tables.entities, entities, now)
        mark_deleted(tables.relationships, relationships, now)
        return len(episodes) + len(entities) + len(relationships)

    async def purge_deleted(self, tenant_id: UUID, older_than: timedelta) -> int:
        tables = self._tables
        before = moment_before(older_than)
        episodes, entities, relationships = (
            {
                found.id
                for found in table.of_tenant(tenant_id)
                if found.is_deleted and found.deleted_at < before
            }
            for table in tables.all()
        )
        for found in tables.relationships.of_tenant(tenant_id):
            if not entities.isdisjoint(ends(found)):
                relationships.add(found.id)
        gone = zip(tables.all(), (episodes, entities, relationships), strict=True)
        return sum(table.remove((tenant_id, id_)) for table, ids in gone for id_ in ids)

    async def list_subject_sessions(self, subject: DataSubject) -> list[UUID]:
        return await subjects.find_sessions(InMemorySearch(subject, self._tables))

    async def find_subject(self, subject: DataSubject) -> dict[str, list[UUID]]:
        return await subjects.find(InMemorySearch(subject, self._tables))

    def _filtered(self, tenant_id: UUID, filters: EpisodeFilter) -> list[Episode]:
        conditions = check_filters(**filters)
        return [episode for episode in self._tables.episodes.living(tenant_id) if passes(episode, conditions)]

    def _entities(
        self, tenant_id: UUID, group_id: str | None, entity_type: str | None = None
    ) -> Iterator[Entity]:
        check_filters(group_id=group_id, entity_type=entity_type)
        for entity in self._tables.entities.living(tenant_id):
            if group_id in (None, entity.group_id) and entity_type in (None, entity.entity_type):
                yield entity

    def _relationships(self, tenant_id: UUID, group_id: str) -> Iterator[Relationship]:
        check_text(group_id, "group_id")
        for relationship in self._tables.relationships.living(tenant_id):
            if relationship.group_id == group_id and self._tables.ends_live(relationship):
                yield relationship
