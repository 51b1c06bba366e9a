"""Embeddings: plain lists of floats, validated and compared the same way by every store."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Sequence, Sized
from dataclasses import dataclass, field
from uuid import UUID

from soldier_data.base.arguments import check_fields
from soldier_data.base.paging import check_page
from soldier_data.base.values import check_revision, check_text
from soldier_data.errors import ValidationError

SHORTEST, LONGEST = 1e-15, 1e15
"""Range of norms. pgvector sums squares in float32, whose range is that of the squares of 1e-19 to 1e19."""


@dataclass(frozen=True, slots=True)
class TextToEmbed:
    """A stored text that needs an embedding: it has none, or one made by a different model.

    Attributes:
        kind: "episode", "rule" or "scenario".
        tenant_id: The tenant of the entity.
        id: The id of the entity.
        text: The text to embed; never empty.
        revision: The entity's revision when the text was read; 0 for kinds without revisions.
    """

    kind: str
    tenant_id: UUID
    id: UUID
    text: str = field(repr=False)
    revision: int = 0

    def __post_init__(self) -> None:
        check_fields(self)

    def position(self) -> tuple[str, UUID, UUID]:
        """The sort key in lists of texts."""
        return self.kind, self.tenant_id, self.id


def page_of_texts(texts: Iterable[TextToEmbed], after: TextToEmbed | None, limit: int) -> list[TextToEmbed]:
    """The first `limit` of `texts` that sort after `after`, in order."""
    behind = [text for text in texts if after is None or text.position() > after.position()]
    return sorted(behind, key=TextToEmbed.position)[:limit]


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


def check_embeddings(
    embeddings: Sequence[tuple[TextToEmbed, Sequence[float]]], dimensions: int, kinds: Sequence[str]
) -> None:
    """Check the arguments of `set_embeddings`.

    Raises:
        ValidationError: An embedding cannot be stored, or a text is of a kind that is not in `kinds`.
    """
    for number, pair in enumerate(embeddings):
        # Callers without a type checker may pass anything.
        if [type(part) is TextToEmbed for part in pair] != [True, False]:
            raise ValidationError(
                f"embeddings[{number}] is not a pair of a TextToEmbed and its embedding", field="embeddings"
            )
        text, embedding = pair
        check_revision(text.revision, "revision")
        if text.kind not in kinds:
            raise ValidationError(
                f"embeddings[{number}] is not of a {' or '.join(kinds)}: pass it to the store that listed it",
                field="embeddings",
            )
        check_embedding(embedding, dimensions, f"embeddings[{number}]")


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


def to_float32(embedding: Sequence[float]) -> list[float]:
    """`embedding` as PostgreSQL returns it: each element rounded to float32."""
    return array("f", embedding).tolist()


def cosine_similarity(first: Sequence[float], second: Sequence[float]) -> float:
    """The cosine similarity of two vectors of equal length, computed in float64: -1 to 1.

    The similarity of a vector to itself is exactly 1, as in pgvector: all three sums are equal, and the square root of
    a square is exact.
    """
    dot = sum(a * b for a, b in zip(first, second, strict=True))
    squares = sum(a * a for a in first) * sum(b * b for b in second)
    # Rounding errors can exceed the range.
    return max(-1.0, min(1.0, dot / math.sqrt(squares)))
