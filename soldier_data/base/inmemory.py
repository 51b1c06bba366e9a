"""Rows in memory, with transactions: what the in-memory stores are built on."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from typing import Any, Generic, Self, TypeVar
from uuid import UUID

from pydantic import BaseModel

from soldier_data.errors import ConflictError, StoreError

V = TypeVar("V", bound=BaseModel)

Key = tuple[Any, ...]
"""The primary key: the tenant_id first."""


class InMemoryStore(ABC):
    """A store in memory, which units of work can be begun on."""

    @abstractmethod
    def begin(self) -> Self:
        """A store for one unit of work: it sees this one's entities and keeps its changes until `commit()`."""

    @abstractmethod
    def tables(self) -> Iterable[MemoryTable[Any]]:
        """Every table of the store."""

    def check(self) -> None:
        """Check that the changes of a unit of work still fit to what others committed since they were made.

        Raises:
            ConflictError: Another caller changed one of the same entities, or took a unique value.
        """
        for table in self.tables():
            for entity in table.changed():
                self.check_unique(entity)

    def check_unique(self, entity: Any) -> None:  # noqa: B027 - not every store has unique values.
        """Check what is unique about `entity`, before it is put and again before the unit of work is committed.

        Raises:
            ConflictError: Another entity has it.
        """

    def commit(self) -> None:
        """Give the changes of a unit of work to the store that it was begun on, and end it."""
        for table in self.tables():
            table.commit()

    def end(self) -> None:
        """Forget the changes of a unit of work, and refuse every further call."""
        for table in self.tables():
            table.end()


class MemoryTable(Generic[V]):
    """Entities by key. What goes in and what comes out are copies.

    A table begun on another one keeps its changes to itself until `commit()`, which gives them to that other one;
    without a commit they are forgotten.
    """

    def __init__(self, parent: MemoryTable[V] | None = None) -> None:
        self._parent = parent
        self._rows: dict[Key, V | None] = {}
        # What the parent had when a key was first written here.
        self._before: dict[Key, V | None] = {}
        self._ended = False

    def begin(self) -> MemoryTable[V]:
        """A table for one unit of work."""
        return MemoryTable(self)

    def changed(self) -> Iterator[V]:
        """What a unit of work has put, for looking only.

        Raises:
            ConflictError: Another caller has changed one of these, or one that was removed here, since.
        """
        assert self._parent is not None
        for key, entity in self._rows.items():
            # What is stored is replaced, never changed, so that the same object means the same revision.
            if self._parent.peek(key) is not self._before[key]:
                raise ConflictError(
                    "committing: something that was changed in this unit of work was changed by another caller "
                    "meanwhile: nothing was saved, repeat the whole"
                )
            if entity is not None:
                yield entity

    def commit(self) -> None:
        """Give all changes to the table that this one was begun on, and end."""
        assert self._parent is not None
        for key, entity in self._rows.items():
            self._parent._write(key, entity)
        self.end()

    def end(self) -> None:
        """Forget the changes that are not committed, and refuse every further call."""
        self._rows = {}
        self._before = {}
        self._ended = True

    def get(self, key: Key) -> V | None:
        """A copy of the entity, or None."""
        entity = self.peek(key)
        return None if entity is None else entity.model_copy(deep=True)

    def get_all(self, tenant_id: UUID, ids: Iterable[UUID]) -> list[V]:
        """Copies of the entities with these ids, of those that there are."""
        found = (self.get((tenant_id, id_)) for id_ in ids)
        return [entity for entity in found if entity is not None]

    def peek(self, key: Key) -> V | None:
        """The stored entity itself, for looking only."""
        self._check_open()
        if key in self._rows or self._parent is None:
            return self._rows.get(key)
        return self._parent.peek(key)

    def put(self, key: Key, entity: V) -> None:
        """Insert or replace by a copy of `entity`."""
        self._check_open()
        self._write(key, entity.model_copy(deep=True))

    def remove(self, key: Key) -> bool:
        """Remove the entity; True if there was one."""
        found = self.peek(key) is not None
        if found:
            self._write(key, None)
        return found

    def remove_all(self, tenant_id: UUID, ids: Iterable[UUID]) -> list[UUID]:
        """Remove the entities with these ids; returns the ids of those that there were."""
        return [id_ for id_ in ids if self.remove((tenant_id, id_))]

    def of_tenant(self, tenant_id: UUID) -> Iterator[V]:
        """The stored entities of a tenant, for looking only."""
        return self.rows(tenant_id)

    def rows(self, tenant_id: UUID | None) -> Iterator[V]:
        """The stored entities of a tenant, or of all of them, for looking only."""
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
            raise StoreError("the unit of work has ended: begin another one")
