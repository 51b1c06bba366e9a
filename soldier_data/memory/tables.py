"""What the memory store in memory keeps."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, TypeVar
from uuid import UUID

from soldier_data.base.embeddings import TextToEmbed, to_float32
from soldier_data.base.inmemory import MemoryTable
from soldier_data.base.items import id_taken
from soldier_data.memory.models import Entity, Episode, Relationship

Remembered = TypeVar("Remembered", Episode, Entity, Relationship)


class Tables:
    """The tables of the store, or of one unit of work on them."""

    def __init__(self, parent: Tables | None = None) -> None:
        self.episodes: MemoryTable[Episode] = MemoryTable(parent.episodes if parent else None)
        self.entities: MemoryTable[Entity] = MemoryTable(parent.entities if parent else None)
        self.relationships: MemoryTable[Relationship] = MemoryTable(parent.relationships if parent else None)

    def all(self) -> tuple[MemoryTable[Any], ...]:
        """Every table."""
        return (self.episodes, self.entities, self.relationships)

    def to_embed(self, embedding_model: str, tenant_id: UUID | None) -> list[TextToEmbed]:
        """What `MemoryStore.list_to_embed` lists, in no order."""
        return [
            TextToEmbed("episode", episode.tenant_id, episode.id, episode.content)
            for episode in self.episodes.rows(tenant_id)
            if not episode.is_deleted
            and episode.content
            and (episode.embedding is None or episode.embedding_model != embedding_model)
        ]


def copy(entity: Any) -> Any:
    """A copy of all of it."""
    return entity.model_copy(deep=True)


def living(table: MemoryTable[Remembered], tenant_id: UUID, id_: UUID) -> Remembered | None:
    """The stored entity itself, for looking only, unless it is deleted."""
    found = table.peek((tenant_id, id_))
    return None if found is None or found.is_deleted else found


def add(table: MemoryTable[Remembered], entities: Sequence[Remembered], operation: str) -> None:
    """Put all of them under new ids.

    Raises:
        ConflictError: One of the ids exists; then none is put.
    """
    for entity in entities:
        if table.peek((entity.tenant_id, entity.id)) is not None:
            raise id_taken(operation)
    for entity in entities:
        put(table, entity)


def put(table: MemoryTable[Any], entity: Episode | Entity | Relationship) -> None:
    """Insert or replace by a copy, as PostgreSQL would keep it."""
    kept = copy(entity)
    if not isinstance(kept, Relationship) and kept.embedding is not None:
        kept.embedding = to_float32(kept.embedding)
    table.put((kept.tenant_id, kept.id), kept)


def mark_deleted(table: MemoryTable[Remembered], entities: Iterable[Remembered], now: datetime) -> None:
    """Delete them softly."""
    for entity in entities:
        table.put((entity.tenant_id, entity.id), entity.model_copy(update={"deleted_at": now}))


def ends(relationship: Relationship) -> tuple[UUID, UUID]:
    """The ids of both of its entities."""
    return relationship.from_entity_id, relationship.to_entity_id
