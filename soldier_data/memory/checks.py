"""Validation that both memory stores run before they write and search."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from soldier_data.base.embeddings import check_embedding
from soldier_data.base.items import check_new
from soldier_data.base.paging import check_page
from soldier_data.base.values import check_integer, check_key, check_moment, check_storable, check_text
from soldier_data.errors import NotFoundError
from soldier_data.memory.models import Entity, Episode, Relationship


def check_memory_item(entity: Episode | Entity | Relationship, dimensions: int) -> None:
    """Check that the item can be stored, with an embedding of `dimensions` numbers.

    Raises:
        ValidationError: Names the field.
    """
    check_storable(entity)
    check_key(entity.group_id, "group_id")
    if not isinstance(entity, Relationship) and entity.embedding is not None:
        check_embedding(entity.embedding, dimensions, "embedding")


def check_episodes(episodes: Sequence[Episode], dimensions: int) -> None:
    """Check a list of episodes to add.

    Raises:
        ValidationError: An episode cannot be stored, or belongs to another tenant than the first. Names its place and
            the field.
        ConflictError: An id is in the list twice.
    """
    check_new(episodes, "episodes", lambda episode: check_memory_item(episode, dimensions))


def check_filters(**given: str | UUID | datetime | None) -> dict[str, Any]:
    """Return the filters that are not None, after checking texts and datetimes.

    Raises:
        ValidationError: Names the filter.
    """
    filters = {name: value for name, value in given.items() if value is not None}
    for name, value in filters.items():
        if isinstance(value, str):
            check_text(value, name)
        elif isinstance(value, datetime):
            check_moment(value, name)
    return filters


def check_traversal(
    group_id: str, depth: int, relation_types: Iterable[str] | None, limit: int
) -> list[str] | None:
    """Check the arguments of a traversal; return the relation types as a list.

    Raises:
        ValidationError: Names the argument.
    """
    check_text(group_id, "group_id")
    check_integer(depth, "depth")
    check_page(limit)
    if relation_types is None:
        return None
    types = list(relation_types)
    for type_ in types:
        check_text(type_, "relation_types")
    return types


def missing_end(operation: str) -> NotFoundError:
    """The error for writing a relationship to an entity that does not exist."""
    return NotFoundError(
        f"{operation}: its from_entity_id or to_entity_id is not an entity of the tenant: add the entity first"
    )
