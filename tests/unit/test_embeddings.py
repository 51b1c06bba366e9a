"""Embeddings: what is refused, how they are compared, and how they travel."""

from __future__ import annotations

import math
import struct
from array import array
from random import Random
from typing import Any

import numpy as np
import pgvector
import pytest

from soldier_data.base.embeddings import check_embedding, check_query
from soldier_data.base.similarity import cosine_similarity, to_float32
from soldier_data.errors import ValidationError
from soldier_data.postgres.vector_codec import decode_vector, encode_vector


@pytest.mark.parametrize(
    ("embedding", "what"),
    [
        ([], "0 dimensions, but 3"),
        ([1.0, 2.0], "2 dimensions, but 3"),
        ([1.0] * 4, "SOLDIER_EMBEDDING_DIMENSIONS"),
        ([1.0, math.nan, 1.0], "NaN or infinity"),
        ([-math.inf, 1.0, 1.0], "NaN or infinity"),
        ([1e308] * 3, "norm outside"),
        ([0.0, -0.0, 0.0], "zero vector"),
        ([1e-16, 0.0, 0.0], "norm outside"),
        ([1e16, 0.0, 0.0], "norm outside"),
        (["1", "2", "3"], "not a number"),
        ([None] * 3, "not a number"),
        ([10**400] * 3, "NaN or infinity"),
    ],
)
def test_what_cannot_be_compared_is_refused(embedding: Any, what: str) -> None:
    with pytest.raises(ValidationError, match=what) as refused:
        check_embedding(embedding, 3, "the_field")
    assert refused.value.field == "the_field"
    assert refused.value.__context__ is None


@pytest.mark.parametrize(
    "embedding",
    [[1.0, 0.0, 0.0], [1e-15, 0.0, 0.0], [1e15, 0.0, 0.0], (1, 2, 3), array("f", [1, 2, 3]), np.ones(3)],
)
def test_any_sequence_of_numbers_is_accepted(embedding: Any) -> None:
    check_embedding(embedding, 3, "embedding")
    check_query(embedding, 3, -1.0)


@pytest.mark.parametrize("min_score", [math.nan, math.inf, -math.inf])
def test_a_least_score_is_finite(min_score: float) -> None:
    with pytest.raises(ValidationError) as refused:
        check_query([1.0], 1, min_score)
    assert refused.value.field == "min_score"


def test_similarity_is_the_cosine_and_within_its_range() -> None:
    assert cosine_similarity([1.0, 0.0], [0.0, 2.0]) == 0.0
    assert cosine_similarity([3.0, 4.0], [4.0, 3.0]) == pytest.approx(24 / 25)
    chance = Random(7)  # noqa: S311 - not for secrets.
    for _ in range(500):
        vector = [chance.gauss(0, 1) for _ in range(7)]
        assert cosine_similarity(vector, vector) <= 1.0
        assert cosine_similarity(vector, [-number for number in vector]) >= -1.0


def test_numbers_are_rounded_to_float32() -> None:
    numbers = [0.1, 1 / 3, 1e-40, 123456789.0]
    assert to_float32(numbers) == [float(np.float32(number)) for number in numbers]


def test_the_wire_form_is_that_of_pgvector() -> None:
    numbers = [0.5, -1.25, 3.0]
    encoded = encode_vector(numbers)
    assert encoded == pgvector.Vector(numbers).to_binary()
    assert decode_vector(encoded) == numbers
    with pytest.raises((struct.error, ValueError)):
        decode_vector(encoded[:-1])
