"""Validation that both vector stores run before they write and search."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from soldier_data.base.embeddings import check_embedding
from soldier_data.base.items import check_new
from soldier_data.base.values import check_json, check_key, check_storable
from soldier_data.vectors.models import Embedding

ANY_SCORE = -2.0
"""Less than every cosine similarity, which rounding errors can make slightly less than -1."""

MAX_SOURCE_BYTES = 1_000
"""Maximum length of source_type and source_id, each of which is in an index."""


def check_added(embedding: Embedding, dimensions: int) -> None:
    """Check that the embedding can be stored and has `dimensions` numbers.

    Raises:
        ValidationError: Names the field.
    """
    check_storable(embedding)
    check_source(embedding.source_type, "source_type")
    check_source(embedding.source_id, "source_id")
    check_embedding(embedding.embedding, dimensions, "embedding")


def check_source(value: str, field: str) -> None:
    """Check a source_type or source_id.

    Raises:
        ValidationError: It cannot be stored, or is too long for an index.
    """
    check_key(value, field, most_bytes=MAX_SOURCE_BYTES)


def check_all(embeddings: Sequence[Embedding], dimensions: int) -> None:
    """Check a list of embeddings to add.

    Raises:
        ValidationError: An embedding cannot be stored, or belongs to another tenant than the first. Names its place
            and the field.
        ConflictError: An id is in the list twice.
    """
    check_new(embeddings, "embeddings", lambda embedding: check_added(embedding, dimensions))


def check_filters(source_type: str | None, metadata_filter: dict[str, Any] | None) -> None:
    """Check the filters of a search.

    Raises:
        ValidationError: Names the argument.
    """
    if source_type is not None:
        check_source(source_type, "source_type")
    if metadata_filter is not None:
        check_json(metadata_filter, "metadata_filter")
