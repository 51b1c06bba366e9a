"""What both vector stores check, and when metadata contain a filter."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any
from uuid import UUID

from soldier_data.base.embeddings import check_embedding
from soldier_data.base.values import check_json, check_storable, check_text
from soldier_data.errors import ConflictError, ValidationError
from soldier_data.vectors.models import Embedding

ANY_SCORE = -2.0
"""Below every cosine similarity, which rounding may lead a hair's breadth below -1."""

MAX_SOURCE_BYTES = 1_000
"""A B-tree index of PostgreSQL takes rows of 2,700 bytes."""


def check_added(embedding: Embedding, dimensions: int) -> None:
    """Check that `embedding` can be stored, its vector having `dimensions` numbers.

    Raises:
        ValidationError: Names the field.
    """
    check_storable(embedding)
    check_source(embedding.source_type, "source_type")
    check_source(embedding.source_id, "source_id")
    check_embedding(embedding.embedding, dimensions, "embedding")


def check_source(value: str, field: str) -> None:
    """Check a text that embeddings are looked up by.

    Raises:
        ValidationError: It cannot be stored, or is too long for an index.
    """
    check_text(value, field)
    if len(value.encode()) > MAX_SOURCE_BYTES:
        raise ValidationError(
            f"{field} is longer than {MAX_SOURCE_BYTES} bytes, too long for an index: shorten it", field=field
        )


def check_all(embeddings: Sequence[Embedding], dimensions: int) -> None:
    """Check each embedding, that all are of one tenant, and that none is in the list twice.

    Raises:
        ValidationError: Names the embedding's place in the list and the field.
        ConflictError: An id is in the list twice.
    """
    for place, embedding in enumerate(embeddings):
        _check_listed(place, embedding, dimensions)
        if embedding.tenant_id != embeddings[0].tenant_id:
            raise ValidationError(
                f"embeddings[{place}].tenant_id differs from that of the first: add each tenant's in a call of "
                "its own",
                field="tenant_id",
            )
    if len({embedding.id for embedding in embeddings}) < len(embeddings):
        raise ConflictError("adding embeddings: an id is in the list twice: keep one of them")


def _check_listed(place: int, embedding: Embedding, dimensions: int) -> None:
    try:
        check_added(embedding, dimensions)
    except ValidationError as error:
        fault = error
    else:
        return
    raise ValidationError(f"embeddings[{place}]: {fault}", field=fault.field)


def check_filters(source_type: str | None, metadata_filter: dict[str, Any] | None) -> None:
    """Check what a search is filtered by.

    Raises:
        ValidationError: Names the argument.
    """
    if source_type is not None:
        check_source(source_type, "source_type")
    if metadata_filter is not None:
        check_json(metadata_filter, "metadata_filter")


def id_taken(doing: str) -> ConflictError:
    """What adding raises when an id exists."""
    return ConflictError(f"{doing}: an id exists: nothing was added, use a new id")


def adding(id_: UUID) -> str:
    """What a message says was being done."""
    return f"adding the embedding {id_}"


def contains(document: Any, wanted: Any) -> bool:
    """Whether a JSON value contains another one, by the rules of PostgreSQL's operator @> for JSONB."""
    if isinstance(wanted, dict):
        return isinstance(document, dict) and all(
            key in document and contains(document[key], value) for key, value in wanted.items()
        )
    if isinstance(wanted, list):
        return isinstance(document, list) and all(
            any(contains(element, value) for element in document) for value in wanted
        )
    if _is_number(wanted) and _is_number(document):
        # As the numbers are written: a float and an integer are equal if they are so in decimal.
        return Decimal(repr(document)) == Decimal(repr(wanted))
    return type(document) is type(wanted) and bool(document == wanted)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
