"""Checks of the lists of entities that stores save at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from soldier_data.errors import ValidationError

E = TypeVar("E")


def check_items(items: Sequence[E], name: str, check: Callable[[E], Any]) -> None:
    """Check each item with `check`, and that all are of one tenant.

    Args:
        items: Entities with a tenant_id.
        name: What the list is called in messages: "episodes".
        check: Raises a `ValidationError` for an item that cannot be stored.

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
                f"{name}[{place}].tenant_id differs from that of the first: pass each tenant's in a call of its own",
                field="tenant_id",
            )


def _tenant_id(item: Any) -> Any:
    return item.tenant_id
