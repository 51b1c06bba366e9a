"""One call of a store with another tenant's ids."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar
from uuid import UUID

from soldier_data.errors import NotFoundError
from tests.cases.kind import Kind

S = TypeVar("S")
"""The store."""

W = TypeVar("W")
"""What the owner has stored in it."""


@dataclass(frozen=True)
class Case(Generic[S, W]):
    """One call.

    Attributes:
        method: The method that is called.
        call: Calls it with the ids in what the owner stored, on behalf of the intruder, whose tenant_id it takes.
        expected: What comes back, or the class of the error.
        reaches: Whether the call would show or change something of the owner's if no statement compared the
            tenant_id and no policy did. Not so for an insertion: the row is the intruder's own, and what it
            refers to is held to be of its own tenant by the foreign key.
    """

    method: str
    call: Callable[[S, W, UUID], Awaitable[object]]
    expected: object
    reaches: bool = True


@dataclass(frozen=True)
class Domain(Generic[S, W]):
    """The cases of one store.

    Attributes:
        store: The attribute of a data layer that holds the store.
        contract: The abstract class.
        backends: The classes of the stores, by name.
        seed: Stores something of every kind for a tenant.
        cases: At least one for each public method.
    """

    store: str
    contract: type[Any]
    backends: dict[str, type[Any]]
    seed: Callable[[S, UUID], Awaitable[W]]
    cases: list[Case[S, W]]


def public_methods(class_: type[Any]) -> set[str]:
    """The names of the methods that services call."""
    return {name for name, _ in inspect.getmembers(class_, inspect.isfunction) if not name.startswith("_")}


def stored(own: Any, kind: Kind) -> Any:
    """What the owner has stored of a kind."""
    return next(each for each in (own, *vars(own).values()) if type(each) is kind.model)


def reads(kinds: Iterable[Kind]) -> list[Case[Any, Any]]:
    """Reads of what the owner has stored, one of each kind: there is nothing."""

    def call(kind: Kind) -> Callable[[Any, Any, UUID], Awaitable[object]]:
        return lambda store, own, other: kind.get(store, stored(own, kind), other)

    return [Case(kind.method(kind.gets), call(kind), None) for kind in kinds]


def deletions(kinds: Iterable[Kind]) -> list[Case[Any, Any]]:
    """Deletions of what the owner has stored, one of each kind: there is nothing to delete."""

    def call(kind: Kind) -> Callable[[Any, Any, UUID], Awaitable[object]]:
        return lambda store, own, other: kind.delete(store, stored(own, kind), other)

    return [Case(kind.method(kind.deletes), call(kind), expected=False) for kind in kinds if kind.deletes]


def saves_below_owners(kinds: Iterable[Kind]) -> list[Case[Any, Any]]:
    """Saves of entities below one that is not the intruder's."""

    def call(kind: Kind) -> Callable[[Any, Any, UUID], Awaitable[object]]:
        return lambda store, own, other: kind.save(store, as_of(stored(own, kind), other))

    return [Case(kind.method(kind.adds), call(kind), NotFoundError, reaches=False) for kind in kinds]


def as_of(entity: Any, tenant_id: UUID, **values: object) -> Any:
    """The entity as the intruder would have it: under the same id in another tenant."""
    return entity.model_copy(update={"tenant_id": tenant_id, **values}, deep=True)
