"""Rows in memory, with transactions: what the in-memory stores are built on."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, Generic, Self, TypeVar
from uuid import UUID

from pydantic import BaseModel

from soldier_data.errors import StoreError

V = TypeVar("V", bound=BaseModel)

Key = tuple[Any, ...]
"""The primary key: the tenant_id first."""


class InMemoryStore(ABC):
    """A store in memory, which units of work can be begun on."""

    @abstractmethod
    def begin(self) -> Self:
        """A store for one unit of work: it sees this one's entities and keeps its changes until `commit()`."""

    @abstractmethod
    def commit(self) -> None:
        """Give the changes of a unit of work to the store that it was begun on, and end it."""

    @abstractmethod
    def end(self) -> None:
        """Forget the changes of a unit of work, and refuse every further call."""


class MemoryTable(Generic[V]):
    """Entities by key. What goes in and what comes out are copies.

    A table begun on another one keeps its changes to itself until `commit()`, which gives them to that other one;
    without a commit they are forgotten.
    """

    def __init__(self, parent: MemoryTable[V] | None = None) -> None:
        self._parent = parent
        self._rows: dict[Key, V | None] = {}
        self._ended = False

    def begin(self) -> MemoryTable[V]:
        """A table for one unit of work."""
        return MemoryTable(self)

    def commit(self) -> None:
        """Give all changes to the table that this one was begun on, and end."""
        assert self._parent is not None
        self._parent._rows.update(self._rows)
        self.end()

    def end(self) -> None:
        """Forget the changes that are not committed, and refuse every further call."""
        self._rows = {}
        self._ended = True

    def get(self, key: Key) -> V | None:
        """A copy of the entity, or None."""
        entity = self.peek(key)
        return None if entity is None else entity.model_copy(deep=True)

    def peek(self, key: Key) -> V | None:
        """The stored entity itself, for looking only."""
        self._check_open()
        if key in self._rows or self._parent is None:
            return self._rows.get(key)
        return self._parent.peek(key)

    def put(self, key: Key, entity: V) -> None:
        """Insert or replace by a copy of `entity`."""
        self._check_open()
        self._rows[key] = entity.model_copy(deep=True)

    def remove(self, key: Key) -> bool:
        """Remove the entity; True if there was one."""
        found = self.peek(key) is not None
        if self._parent is None:
            self._rows.pop(key, None)
        else:
            self._rows[key] = None
        return found

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

    def _keys(self) -> list[Key]:
        if self._parent is None:
            return list(self._rows)
        return list(dict.fromkeys([*self._parent._keys(), *self._rows]))

    def _check_open(self) -> None:
        if self._ended:
            raise StoreError("the unit of work has ended: begin another one")
