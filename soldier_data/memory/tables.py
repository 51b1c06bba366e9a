"""The tables of the in-memory memory store."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import TypeVar
from uuid import UUID

from soldier_data.base.inmemory import MemoryTable, TableSet
from soldier_data.memory.models import Entity, Episode, MemoryModel, Relationship

M = TypeVar("M", bound=MemoryModel)


class Tables(TableSet):
    """Episodes, and the graph."""

    def __init__(self) -> None:
        self.episodes = MemoryTable[Episode](embedding="embedding")
        self.entities = MemoryTable[Entity](embedding="embedding")
        self.relationships = MemoryTable[Relationship]()

    def ends_live(self, relationship: Relationship) -> bool:
        """Return True if neither entity of the relationship is deleted."""
        tenant_id = relationship.tenant_id
        return all(peek_living(self.entities, tenant_id, end) is not None for end in ends(relationship))


def peek_living(table: MemoryTable[M], tenant_id: UUID, id_: UUID) -> M | None:
    """Return the stored item itself, which must not be changed; None if there is none or it is deleted."""
    found = table.peek((tenant_id, id_))
    return None if found is None or found.is_deleted else found


def get_living(table: MemoryTable[M], tenant_id: UUID, id_: UUID) -> M | None:
    """Return a copy of the stored item; None if there is none or it is deleted."""
    found = peek_living(table, tenant_id, id_)
    return None if found is None else found.model_copy(deep=True)


def mark_deleted(table: MemoryTable[M], items: Iterable[M], now: datetime) -> None:
    """Soft-delete stored items."""
    for item in items:
        table.put((item.tenant_id, item.id), item.model_copy(update={"deleted_at": now}))


def ends(relationship: Relationship) -> tuple[UUID, UUID]:
    """The ids of both entities of a relationship."""
    return relationship.from_entity_id, relationship.to_entity_id
