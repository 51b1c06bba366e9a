"""Validation of lists of entities that are added or saved together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from soldier_data.errors import ConflictError, ValidationError

E = TypeVar("E")


def check_items(items: Sequence[E], name: str, check: Callable[[E], Any]) -> None:
    """Check each item with `check`, and that all belong to one tenant.

    Args:
        items: Entities with a tenant_id.
        name: The name of the list in messages: "episodes".
        check: Raises `ValidationError` for an item that cannot be stored.

    Raises:
        ValidationError: Names the item's place in the list and the field.
    """
    for place, item in enumerate(items):
        try:
            check(item)
        except ValidationError as error:
            raise ValidationError(f"{name}[{place}]: {error}", field=error.field) from None
        if _tenant_id(item) != _tenant_id(items[0]):
            raise ValidationError(
                f"{name}[{place}].tenant_id differs from that of the first: use a separate call for each tenant",
                field="tenant_id",
            )


def check_new(items: Sequence[E], name: str, check: Callable[[E], Any]) -> None:
    """Check a list of entities to add: as `check_items`, and that no two have the same id.

    Raises:
        ValidationError: Names the item's place in the list and the field.
        ConflictError: An id is in the list twice.
    """
    check_items(items, name, check)
    if len({_id(item) for item in items}) < len(items):
        raise ConflictError(f"adding {name}: an id is in the list twice: pass each entity once")


def id_taken(operation: str) -> ConflictError:
    """The error for adding an entity under an id that exists."""
    return ConflictError(f"{operation}: an id is already taken: nothing was added; use a new id")


def _id(item: Any) -> Any:
    return item.id


def _tenant_id(item: Any) -> Any:
    return item.tenant_id
