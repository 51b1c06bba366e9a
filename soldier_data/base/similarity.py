"""Similarity of embeddings, computed as PostgreSQL computes it."""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence


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
