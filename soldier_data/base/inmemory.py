"""The building blocks of in-memory stores: tables that hold entities, and units of work on them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import copy
from typing import Any, ClassVar, Generic, Self, TypeVar
from uuid import UUID

from pydantic import BaseModel

from soldier_data.base.collected import MOST_COLLECTED, CollectedInMemory
from soldier_data.base.embedded_texts import EmbeddedTextStore, TextToEmbed, check_embeddings, page_of_texts
from soldier_data.base.items import id_taken
from soldier_data.base.models import utcnow
from soldier_data.base.paging import check_page
from soldier_data.base.similarity import cosine_similarity, to_float32
from soldier_data.base.values import check_text
from soldier_data.errors import ConflictError, StoreError

V = TypeVar("V", bound=BaseModel)
E = TypeVar("E", bound=BaseModel)

Key = tuple[Any, ...]
"""A primary key. Its first element is the tenant_id."""


class MemoryTable(Generic[V]):
    """Entities by primary key. It copies what it stores and what it returns, except where a method says otherwise.

    A table begun on another one keeps changes to itself until `commit()` passes them to the other one; without a
    commit they are lost.

    Args:
        parent: The table that this one is begun on.
        collected: The collected writes of the unit of work.
        store: Identifies the store that the table belongs to.
        embedding: The field that holds an embedding, which is rounded to float32 as PostgreSQL stores it.
    """

    def __init__(
        self,
        parent: MemoryTable[V] | None = None,
        *,
        embedding: str | None = None,
        collected: CollectedInMemory | None = None,
        store: object = None,
    ) -> None:
        self.embedding = embedding
        self._parent = parent
        self._collected = collected
        self._store = store
        self._rows: dict[Key, V | None] = {}
        # The parent's entity when a key was first written here.
        self._before: dict[Key, V | None] = {}
        self._ended = False

    def begin(self, collected: CollectedInMemory | None, store: object) -> MemoryTable[V]:
        """Return a table for one unit of work."""
        return MemoryTable(self, embedding=self.embedding, collected=collected, store=store)

    def collect(self, write: Callable[[Sequence[E]], object], entities: Sequence[E]) -> None:
        """Call `write(entities)`; in a unit of work later, with copies, before the store's next other call."""
        if self._collected is None or len(entities) > MOST_COLLECTED:
            write(entities)
            return
        if self._ended:
            raise _ended()
        kept = copies(entities)
        self._collected.add(self._store, lambda: write(kept))

    def changed(self) -> Iterator[V]:
        """The entities put by a unit of work, not copied.

        Raises:
            ConflictError: Since then, another caller has changed one of them, or one that was removed here.
        """
        assert self._parent is not None
        for key, entity in self._rows.items():
            # Stored entities are replaced and never changed, so the same object means the same revision.
            if self._parent.peek(key) is not self._before[key]:
                raise ConflictError(
                    "committing: another caller changed an entity that this unit of work changed as well: nothing was "
                    "saved, repeat the whole unit of work"
                )
            if entity is not None:
                yield entity

    def commit(self) -> None:
        """Pass all changes to the table that this one was begun on, and end it."""
        assert self._parent is not None
        for key, entity in self._rows.items():
            self._parent._write(key, entity)
        self.end()

    def end(self) -> None:
        """Drop uncommitted changes and refuse further calls."""
        self._rows = {}
        self._before = {}
        self._ended = True

    def get(self, key: Key) -> V | None:
        """Return the entity, or None."""
        entity = self.peek(key)
        return None if entity is None else entity.model_copy(deep=True)

    def get_all(self, tenant_id: UUID, ids: Iterable[UUID]) -> list[V]:
        """Return the entities with these ids, in the order of `ids`, leaving out those that do not exist."""
        found = (self.get((tenant_id, id_)) for id_ in ids)
        return [entity for entity in found if entity is not None]

    def peek(self, key: Key) -> V | None:
        """Return the stored entity itself, which must not be changed, or None."""
        self._check_open()
        if key in self._rows or self._parent is None:
            return self._rows.get(key)
        return self._parent.peek(key)

    def put(self, key: Key, entity: V) -> None:
        """Insert or replace an entity."""
        self._check_open()
        stored = entity.model_copy(deep=True)
        if self.embedding is not None and getattr(stored, self.embedding) is not None:
            setattr(stored, self.embedding, to_float32(getattr(stored, self.embedding)))
        self._write(key, stored)

    def add_all(self, entities: Sequence[Any], operation: str) -> None:
        """Insert entities under new ids, all or none; in a unit of work they are collected.

        Args:
            entities: Entities with a tenant_id and an id, which are their key.
            operation: The caller's operation, for the message of an error.

        Raises:
            ConflictError: One of the ids is taken.
        """
        self.collect(lambda added: self.insert_all(added, operation), entities)

    def insert_all(self, entities: Sequence[Any], operation: str) -> None:
        """Like `add_all`, at once."""
        if any(self.peek((entity.tenant_id, entity.id)) is not None for entity in entities):
            raise id_taken(operation)
        for entity in entities:
            self.put((entity.tenant_id, entity.id), entity)

    def remove(self, key: Key) -> bool:
        """Remove an entity; return whether it existed."""
        found = self.peek(key) is not None
        if found:
            self._write(key, None)
        return found

    def remove_all(self, tenant_id: UUID, ids: Iterable[UUID]) -> list[UUID]:
        """Remove the entities with these ids; return the ids of those that existed."""
        return [id_ for id_ in ids if self.remove((tenant_id, id_))]

    def of_tenant(self, tenant_id: UUID) -> Iterator[V]:
        """The stored entities of a tenant, which must not be changed."""
        return self.rows(tenant_id)

    def living(self, tenant_id: UUID) -> Iterator[V]:
        """The stored entities of a tenant that are not soft-deleted, which must not be changed."""
        entity: Any
        for entity in self.rows(tenant_id):
            if entity.deleted_at is None:
                yield entity

    def rows(self, tenant_id: UUID | None) -> Iterator[V]:
        """The stored entities of a tenant, or of all tenants, which must not be changed."""
        self._check_open()
        for key in self._keys():
            entity = self.peek(key) if tenant_id in (None, key[0]) else None
            if entity is not None:
                yield entity

    def _write(self, key: Key, entity: V | None) -> None:
        if self._parent is not None:
            self._before.setdefault(key, self._parent.peek(key))
        elif entity is None:
            self._rows.pop(key, None)
            return
        self._rows[key] = entity

    def _keys(self) -> list[Key]:
        if self._parent is None:
            return list(self._rows)
        return list(dict.fromkeys([*self._parent._keys(), *self._rows]))

    def _check_open(self) -> None:
        if self._ended:
            raise _ended()
        if self._collected is not None:
            self._collected.flush_for(self._store)


def _ended() -> StoreError:
    return StoreError("the unit of work has ended: begin another one")


class TableSet:
    """The tables of an in-memory store, or of one unit of work on it.

    The attributes of a subclass are its tables, named as those in PostgreSQL.
    """

    def begin(self, collected: CollectedInMemory | None = None) -> Self:
        """Return the tables of a unit of work on these."""
        begun = copy(self)
        for name, table in vars(self).items():
            setattr(begun, name, table.begin(collected, begun))
        return begun

    def all(self) -> tuple[MemoryTable[Any], ...]:
        """Every table."""
        return tuple(vars(self).values())

    def __getitem__(self, name: str) -> MemoryTable[Any]:
        table: MemoryTable[Any] = vars(self)[name]
        return table


class InMemoryStore:
    """An in-memory store, on which units of work can be begun."""

    _tables: TableSet

    def begin(self, collected: CollectedInMemory | None = None) -> Self:
        """Return a store for one unit of work, which sees this store's entities and keeps changes until `commit()`."""
        store = copy(self)
        store._tables = self._tables.begin(collected)
        return store

    def tables(self) -> Iterable[MemoryTable[Any]]:
        """Every table of the store."""
        return self._tables.all()

    def check(self) -> None:
        """Check that the changes of a unit of work do not conflict with what others have committed since.

        Raises:
            ConflictError: Another caller changed one of the same entities, or took a unique value.
        """
        for table in self.tables():
            for entity in table.changed():
                self.check_unique(entity)

    def check_unique(self, entity: Any) -> None:
        """Check the unique values of `entity`: before it is put, and again before the unit of work commits.

        Raises:
            ConflictError: Another entity has one of them.
        """

    def commit(self) -> None:
        """Pass the changes of a unit of work to the store that it was begun on, and end it."""
        for table in self.tables():
            table.commit()

    def end(self) -> None:
        """Drop the uncommitted changes of a unit of work and refuse further calls."""
        for table in self.tables():
            table.end()


class InMemoryEmbeddedTexts(EmbeddedTextStore):
    """Implementation of `EmbeddedTextStore` for in-memory stores whose tables have an `embedding` field.

    Attributes:
        _embedded_texts: The table and the field of the texts of each kind, by kind.
    """

    _dimensions: int
    _tables: TableSet
    _embedded_texts: ClassVar[Mapping[str, tuple[str, str]]]

    async def count_to_embed(self, embedding_model: str, *, tenant_id: UUID | None = None) -> int:
        check_text(embedding_model, "embedding_model")
        return sum(1 for _ in self._to_embed(embedding_model, tenant_id))

    async def list_to_embed(
        self,
        embedding_model: str,
        *,
        tenant_id: UUID | None = None,
        after: TextToEmbed | None = None,
        limit: int = 100,
    ) -> list[TextToEmbed]:
        check_text(embedding_model, "embedding_model")
        check_page(limit)
        return page_of_texts(self._to_embed(embedding_model, tenant_id), after, limit)

    async def set_embeddings(
        self, embeddings: Sequence[tuple[TextToEmbed, Sequence[float]]], embedding_model: str
    ) -> int:
        check_text(embedding_model, "embedding_model")
        check_embeddings(embeddings, self._dimensions, list(self._embedded_texts))
        stored = 0
        for text, embedding in embeddings:
            table = self._tables[self._embedded_texts[text.kind][0]]
            key = (text.tenant_id, text.id)
            entity = table.peek(key)
            if entity is None or entity.deleted_at is not None:
                continue
            changed: dict[str, Any] = {
                f"{table.embedding}": list(embedding),
                f"{table.embedding}_model": embedding_model,
            }
            if hasattr(entity, "revision"):
                if entity.revision != text.revision:
                    continue
                changed |= {"revision": entity.revision + 1, "updated_at": utcnow()}
            table.put(key, entity.model_copy(update=changed))
            stored += 1
        return stored

    def _to_embed(self, embedding_model: str, tenant_id: UUID | None) -> Iterator[TextToEmbed]:
        for kind, (name, text) in self._embedded_texts.items():
            table = self._tables[name]
            for entity in table.rows(tenant_id):
                lacks = getattr(entity, f"{table.embedding}") is None
                of_other_model = getattr(entity, f"{table.embedding}_model") != embedding_model
                if getattr(entity, text) and (lacks or of_other_model) and self._is_readable(entity):
                    revision = getattr(entity, "revision", 0)
                    yield TextToEmbed(kind, entity.tenant_id, entity.id, getattr(entity, text), revision)

    def _is_readable(self, entity: Any) -> bool:
        """Return True if reads return the stored entity."""
        return entity.deleted_at is None


def copies(entities: Iterable[E]) -> list[E]:
    """Return deep copies of stored entities."""
    return [entity.model_copy(deep=True) for entity in entities]


def rank_by_similarity(
    entities: Iterable[V],
    query_embedding: Sequence[float],
    embedding_model: str | None,
    *,
    field: str = "embedding",
    min_score: float = -2.0,
) -> list[tuple[V, float]]:
    """Return entities with their cosine similarity to a query, highest first, ties by id.

    Args:
        entities: Entities with an id, not copied. Those without an embedding are left out.
        query_embedding: The embedding to compare with.
        embedding_model: Leave out embeddings made by other models; None to compare all.
        field: The field that holds the embedding. The model is in the field of that name followed by "_model".
        min_score: Leave out entities with a lower similarity; by default none.
    """
    query = to_float32(query_embedding)
    scored = [
        (entity, cosine_similarity(query, embedding))
        for entity in entities
        if (embedding := getattr(entity, field)) is not None
        and embedding_model in (None, getattr(entity, f"{field}_model"))
    ]
    found = [(entity, score) for entity, score in scored if score >= min_score]
    return sorted(found, key=lambda item: (-item[1], item[0].id))  # type: ignore[attr-defined]
