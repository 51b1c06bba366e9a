"""The memory store on PostgreSQL."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from operator import itemgetter
from typing import Any, ClassVar, Unpack
from uuid import UUID

from sqlalchemy import Table

from soldier_data.base.items import id_taken
from soldier_data.base.models import new_id, utcnow
from soldier_data.base.paging import Cursor, check_page
from soldier_data.base.subjects import DataSubject, SubjectRecords
from soldier_data.base.values import check_moment, check_text, moment_before
from soldier_data.memory import graph, subjects
from soldier_data.memory import statements as sql
from soldier_data.memory.checks import (
    check_episodes,
    check_filters,
    check_memory_item,
    check_traversal,
    missing_end,
)
from soldier_data.memory.models import Entity, EntityHit, Episode, EpisodeFilter, EpisodeHit, Relationship
from soldier_data.memory.search import candidates, fold, patterns_of, words_of
from soldier_data.memory.store import MemoryStore
from soldier_data.postgres.base_store import PostgresStore
from soldier_data.postgres.collecting import CollectedWrite
from soldier_data.postgres.executor import Executor
from soldier_data.postgres.missing_embeddings import PostgresEmbeddedTexts
from soldier_data.postgres.queries import cursor_values
from soldier_data.postgres.revisioned import delete_row
from soldier_data.postgres.statements import Row, Statement, Values
from soldier_data.postgres.subjects import PostgresSearch, StoredRecords, erase_in_batches
from soldier_data.postgres.transaction import Transaction
from soldier_data.postgres.vector_search import IndexedSearch, search_values


class PostgresMemoryStore(PostgresEmbeddedTexts, MemoryStore, PostgresStore, SubjectRecords):
    """A `MemoryStore` on a `Database`, or on the `Transaction` of a unit of work."""

    _embedded_texts: ClassVar = sql.embedded_texts

    def __init__(self, database: Executor) -> None:
        self._db = database
        self._search = IndexedSearch.of(database.settings)

    @property
    def _dimensions(self) -> int:
        return self._db.settings.embedding_dimensions

    async def add_episode(self, episode: Episode) -> UUID:
        check_memory_item(episode, self._dimensions)
        await sql.episodes.add(self._db, _values(episode, new_id()))
        return episode.id

    async def add_episodes(self, episodes: Iterable[Episode]) -> int:
        listed = list(episodes)
        check_episodes(listed, self._dimensions)
        await sql.episodes.add_many(self._db, listed, _values)
        return len(listed)

    async def get_episode(self, tenant_id: UUID, episode_id: UUID) -> Episode | None:
        row = await self._db.fetch_one(sql.get_episode, {"tenant_id": tenant_id, "id": episode_id})
        return _episode(row) if row else None

    async def get_episodes(
        self, tenant_id: UUID, group_id: str, *, limit: int = 100, before: Cursor | None = None
    ) -> list[Episode]:
        check_text(group_id, "group_id")
        check_page(limit)
        if before is not None:
            check_moment(before.at, "before")
        values = {"tenant_id": tenant_id, "group_id": group_id, "limit": limit, **cursor_values(before)}
        rows = await self._db.fetch_all(sql.get_episodes(before=before is not None), values)
        return [_episode(row) for row in rows]

    async def delete_episode(self, tenant_id: UUID, episode_id: UUID) -> bool:
        return await delete_row(self._db, sql.delete_episode, {"tenant_id": tenant_id, "id": episode_id})

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
        conditions = check_filters(**filters)
        values = search_values(self._db.settings, query_embedding, limit, min_score, embedding_model)
        rows = await self._vector_search(sql.EPISODES, tenant_id, conditions, values)
        return [EpisodeHit(_episode(row), 1.0 - row["distance"]) for row in rows]

    async def text_search_episodes(
        self,
        query: str,
        tenant_id: UUID,
        *,
        limit: int = 10,
        **filters: Unpack[EpisodeFilter],
    ) -> list[Episode]:
        conditions = check_filters(**filters)
        check_page(limit)
        words = words_of(query)
        if not words:
            return []
        values = {**conditions, **patterns_of(words), "tenant_id": tenant_id, "limit": limit}
        statement = sql.text_search_episodes(frozenset(conditions), indexed="pattern" in values)
        return [_episode(row) for row in await self._db.fetch_all(statement, values)]

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
        conditions = check_filters(**filters)
        check_page(limit)
        words = words_of(query)
        fused = candidates(limit)
        values = search_values(self._db.settings, query_embedding, fused, 0.0, embedding_model)
        # Without words the condition would hold for every episode, but the contract says that it holds for none.
        values |= {"tenant_id": tenant_id, "text_limit": fused if words else 0, "fused_limit": limit}
        values |= conditions | patterns_of(words)
        statement = sql.hybrid_search_episodes(
            frozenset(conditions),
            self._search,
            embedding_model=values["embedding_model"] is not None,
            indexed="pattern" in values,
        )
        return [
            EpisodeHit(_episode(row), row["score"]) for row in await self._db.fetch_all(statement, values)
        ]

    async def add_entity(self, entity: Entity) -> UUID:
        check_memory_item(entity, self._dimensions)
        await sql.entities.add(self._db, _values(entity, new_id()))
        return entity.id

    async def get_entity(self, tenant_id: UUID, entity_id: UUID) -> Entity | None:
        row = await self._db.fetch_one(sql.get_entity, {"tenant_id": tenant_id, "id": entity_id})
        return _entity(row) if row else None

    async def get_entities(
        self, tenant_id: UUID, group_id: str, *, entity_type: str | None = None, limit: int = 100
    ) -> list[Entity]:
        filters = check_filters(group_id=group_id, entity_type=entity_type)
        check_page(limit)
        statement = sql.get_entities(frozenset(filters))
        rows = await self._db.fetch_all(statement, {**filters, "tenant_id": tenant_id, "limit": limit})
        return [_entity(row) for row in rows]

    async def update_entity(self, entity: Entity) -> bool:
        check_memory_item(entity, self._dimensions)
        return await self._db.fetch_one(sql.update_entity, _values(entity, new_id())) is not None

    async def delete_entity(self, tenant_id: UUID, entity_id: UUID) -> bool:
        return await delete_row(self._db, graph.delete_entity, {"tenant_id": tenant_id, "id": entity_id})

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
        filters = check_filters(group_id=group_id, entity_type=entity_type)
        values = search_values(self._db.settings, query_embedding, limit, min_score, embedding_model)
        rows = await self._vector_search(sql.ENTITIES, tenant_id, filters, values)
        return [EntityHit(_entity(row), 1.0 - row["distance"]) for row in rows]

    async def add_relationship(self, relationship: Relationship) -> UUID:
        check_memory_item(relationship, self._dimensions)
        values = _values(relationship, new_id())
        await self._db.collect(CollectedWrite(graph.insertion, [values], _add_relationship))
        return relationship.id

    async def get_relationship(self, tenant_id: UUID, relationship_id: UUID) -> Relationship | None:
        row = await self._db.fetch_one(sql.get_relationship, {"tenant_id": tenant_id, "id": relationship_id})
        return _relationship(row) if row else None

    async def get_relationships(
        self,
        tenant_id: UUID,
        group_id: str,
        *,
        from_entity_id: UUID | None = None,
        to_entity_id: UUID | None = None,
        relation_type: str | None = None,
    ) -> list[Relationship]:
        filters = check_filters(
            group_id=group_id,
            from_entity_id=from_entity_id,
            to_entity_id=to_entity_id,
            relation_type=relation_type,
        )
        statement = sql.get_relationships(frozenset(filters))
        rows = await self._db.fetch_all(statement, {**filters, "tenant_id": tenant_id})
        return [_relationship(row) for row in rows]

    async def update_relationship(self, relationship: Relationship) -> bool:
        check_memory_item(relationship, self._dimensions)
        row = await self._db.fetch_one(graph.update_relationship, _values(relationship, new_id()))
        assert row is not None
        if row["stored"] and not row["ends_live"]:
            raise missing_end(f"updating the relationship {relationship.id}")
        written: bool = row["written"]
        return written

    async def delete_relationship(self, tenant_id: UUID, relationship_id: UUID) -> bool:
        key = {"tenant_id": tenant_id, "id": relationship_id}
        return await delete_row(self._db, sql.delete_relationship, key)

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
        starts = list(entity_ids)
        if depth < 1 or not starts:
            return []
        values = {
            "tenant_id": tenant_id,
            "group_id": group_id,
            "ids": starts,
            "depth": depth,
            "relation_types": types,
            "limit": limit,
        }
        statement = graph.traverse(relation_types=types is not None, embeddings=with_embeddings)
        rows = await self._db.fetch_all(statement, values)
        return [_entity(row) for row in sorted(rows, key=itemgetter("distance", "id"))]

    async def delete_by_group(self, tenant_id: UUID, group_id: str) -> int:
        check_text(group_id, "group_id")
        values = {"tenant_id": tenant_id, "group_id": group_id}
        return await self._in_batches(graph.delete_by_group, values)

    async def purge_deleted(self, tenant_id: UUID, older_than: timedelta) -> int:
        values = {"tenant_id": tenant_id, "before": moment_before(older_than)}
        return await self._in_batches(graph.purge_deleted, values)

    async def list_subject_sessions(self, subject: DataSubject) -> list[UUID]:
        return await subjects.find_sessions(self._search_of(subject))

    async def find_subject(self, subject: DataSubject) -> dict[str, list[UUID]]:
        return await subjects.find(self._search_of(subject))

    async def read_found(
        self, tenant_id: UUID, table: str, ids: Sequence[UUID], *, with_embeddings: bool = True
    ) -> list[Any]:
        return await _RECORDS[table].read(self._db, tenant_id, ids, with_embeddings=with_embeddings)

    async def erase_found(
        self, tenant_id: UUID, found: Mapping[str, Sequence[UUID]]
    ) -> dict[str, list[UUID]]:
        # Relationships first, because they refer to entities; episodes last, because the others are found by them.
        ordered = {table: found[table] for table in ("relationships", "entities", "episodes")}
        return await erase_in_batches(
            self._db, tenant_id, ordered, _erase, "erasing what is remembered of the customer"
        )

    def _search_of(self, subject: DataSubject) -> PostgresSearch:
        operation = "looking for what is remembered of the customer"
        return PostgresSearch(subject, self._db, operation)

    async def _vector_search(
        self, table: Table, tenant_id: UUID, filters: dict[str, Any], values: dict[str, Any]
    ) -> list[Row]:
        statement = sql.vector_search(
            table, frozenset(filters), self._search, embedding_model=values["embedding_model"] is not None
        )
        return await self._db.fetch_all(statement, values | filters | {"tenant_id": tenant_id})

    async def _in_batches(self, statement: Statement, values: Values) -> int:
        how_many, more = 0, True
        while more:
            row = await self._db.fetch_one(statement, {**values, "now": utcnow(), "write_id": new_id()})
            assert row is not None
            how_many, more = how_many + row["how_many"], row["more"]
        return how_many


async def _add_relationship(db: Executor, rows: Sequence[Values]) -> None:
    [values] = rows
    row = await db.fetch_one(graph.add_relationship, values)
    assert row is not None
    if not row["ends_live"]:
        raise missing_end(f"adding the relationship {values['id']}")
    if not row["written"]:
        raise id_taken(f"adding the relationship {values['id']}")


def _values(entity: Episode | Entity | Relationship, write_id: UUID) -> Values:
    """The columns of the item's row: fields by column name, JSON documents as text."""
    values = dict(entity.__dict__, write_id=write_id)
    if isinstance(entity, Episode):
        values["source_metadata"] = json.dumps(entity.source_metadata)
        values["content_folded"] = fold(entity.content)
    else:
        values["attributes"] = json.dumps(entity.attributes)
    return values


def _episode(row: Row) -> Episode:
    return Episode.model_validate({**row, "source_metadata": json.loads(row["source_metadata"])})


def _entity(row: Row) -> Entity:
    return Entity.model_validate({**row, "attributes": json.loads(row["attributes"])})


def _relationship(row: Row) -> Relationship:
    return Relationship.model_validate({**row, "attributes": json.loads(row["attributes"])})


async def _erase(
    transaction: Transaction, tenant_id: UUID, table: str, ids: Sequence[UUID]
) -> dict[str, list[UUID]]:
    erased = {table: await _RECORDS[table].lock(transaction, tenant_id, ids)}
    if table == "entities":
        # Those added since the search. No further ones can be added while the entities are locked.
        values = {"tenant_id": tenant_id, "entity_ids": ids}
        rows = await transaction.fetch_all(graph.erase_relationships, values)
        erased["relationships"] = [row["id"] for row in rows]
    await _RECORDS[table].delete(transaction, tenant_id, ids)
    return erased


_RECORDS = {
    str(table.name): StoredRecords(
        table, sql.columns_of(table), to_entity, "what is remembered of the customer"
    )
    for table, to_entity in (
        (sql.EPISODES, _episode),
        (sql.ENTITIES, _entity),
        (sql.RELATIONSHIPS, _relationship),
    )
}
