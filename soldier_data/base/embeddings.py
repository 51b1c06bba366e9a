"""Embeddings: plain lists of floats, validated and compared the same way by every store."""

from __future__ import annotations

import math
from collections.abc import Sequence, Sized

from soldier_data.base.paging import check_page
from soldier_data.base.values import check_text
from soldier_data.errors import ValidationError

SHORTEST, LONGEST = 1e-15, 1e15
"""Range of norms. pgvector sums squares in float32, whose range is that of the squares of 1e-19 to 1e19."""


def check_embedding(embedding: Sequence[float], dimensions: int, field: str) -> None:
    """Check that `embedding` can be stored and compared by cosine similarity.

    Raises:
        ValidationError: The number of elements is not `dimensions`, an element is NaN or infinite, or the norm is
            zero (cosine similarity is undefined) or outside of `SHORTEST` to `LONGEST`.
    """
    if not isinstance(embedding, Sized):
        raise ValidationError(f"{field} is not a list: pass a list of floats", field=field)
    if len(embedding) != dimensions:
        raise ValidationError(
            f"{field} has {len(embedding)} dimensions, but {dimensions} are stored: use a model of that size, "
            "or set SOLDIER_EMBEDDING_DIMENSIONS and migrate",
            field=field,
        )
    norm = _norm(embedding, field)
    if not math.isfinite(norm):
        raise ValidationError(f"{field} contains NaN or infinity: embed the text again", field=field)
    if norm == 0.0:
        raise ValidationError(
            f"{field} is the zero vector, which has no direction to compare: use None instead",
            field=field,
        )
    if not SHORTEST <= norm <= LONGEST:
        raise ValidationError(
            f"{field} has a norm outside of {SHORTEST:g} to {LONGEST:g}, which float32 cannot compare: normalise it",
            field=field,
        )


def _norm(embedding: Sequence[float], field: str) -> float:
    try:
        return math.hypot(*embedding)
    except OverflowError:
        return math.inf
    except (TypeError, ValueError):
        message = f"{field} contains a value that is not a number: pass a list of floats"
    raise ValidationError(message, field=field)


def check_query(embedding: Sequence[float], dimensions: int, min_score: float) -> None:
    """Check the query embedding and the minimum score of a search.

    Raises:
        ValidationError: As `check_embedding`, or `min_score` is NaN or infinite.
    """
    check_embedding(embedding, dimensions, "query_embedding")
    try:
        finite = math.isfinite(min_score)
    except OverflowError:
        # An integer beyond the range of floats.
        finite = False
    if not finite:
        raise ValidationError("min_score is not finite: pass a cosine similarity, -1 to 1", field="min_score")


def check_search(
    query_embedding: Sequence[float],
    limit: int,
    min_score: float,
    embedding_model: str | None,
    dimensions: int,
    configured_model: str | None,
) -> str | None:
    """Check the arguments of a vector search.

    Returns:
        The model whose embeddings to search: `embedding_model`, else the configured model, else None for all.

    Raises:
        ValidationError: As `check_page` and `check_query`, or the model's name cannot be stored.
    """
    check_page(limit)
    check_query(query_embedding, dimensions, min_score)
    if embedding_model is None:
        return configured_model
    check_text(embedding_model, "embedding_model")
    return embedding_model
