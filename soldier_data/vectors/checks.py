"""What both vector stores check before they write and search."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from soldier_data.base.embeddings import check_embedding
from soldier_data.base.items import check_new
from soldier_data.base.values import check_json, check_key, check_storable
from soldier_data.vectors.models import Embedding

ANY_SCORE = -2.0
"""Below every cosine similarity, which rounding may lead a hair's breadth below -1."""

MAX_SOURCE_BYTES = 1_000
"""Longest source_type and source_id, which share an index."""


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
    check_key(value, field, most_bytes=MAX_SOURCE_BYTES)


def check_all(embeddings: Sequence[Embedding], dimensions: int) -> None:
    """Check each embedding, that all are of one tenant, and that none is in the list twice.

    Raises:
        ValidationError: Names the embedding's place in the list and the field.
        ConflictError: An id is in the list twice.
    """
    check_new(embeddings, "embeddings", lambda embedding: check_added(embedding, dimensions))


def check_filters(source_type: str | None, metadata_filter: dict[str, Any] | None) -> None:
    """Check what a search is filtered by.

    Raises:
        ValidationError: Names the argument.
    """
    if source_type is not None:
        check_source(source_type, "source_type")
    if metadata_filter is not None:
        check_json(metadata_filter, "metadata_filter")
