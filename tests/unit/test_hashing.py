"""Hashed embeddings: the same everywhere, and alike for alike texts."""

from __future__ import annotations

import ast
import math
import os
import subprocess
import sys

import pytest

from soldier_data.errors import ValidationError
from soldier_data.providers import HashingEmbeddingProvider

TEXT = "Where is my parcel?"

# Whatever changes these numbers changes what services have stored: model_id has to change with them.
KNOWN = [0.37796447, -0.28347335, 0.0, -0.70868339, 0.04724556, -0.51970115, 0.0, 0.04724556]


def _cosine(first: list[float], second: list[float]) -> float:
    return sum(a * b for a, b in zip(first, second, strict=True))


async def test_the_vectors_of_this_model_id_never_change() -> None:
    provider = HashingEmbeddingProvider(8)
    assert provider.model_id == "hashing-1-8"
    assert await provider.embed(TEXT) == pytest.approx(KNOWN, abs=1e-7)


@pytest.mark.parametrize("seed", ["0", "1234"])
def test_another_process_makes_the_same_vectors(seed: str) -> None:
    program = (
        "import asyncio; from soldier_data.providers import HashingEmbeddingProvider as P;"
        f"print(asyncio.run(P(8).embed({TEXT!r})))"
    )
    environment = {**os.environ, "PYTHONHASHSEED": seed}
    output = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, env=environment)
    assert ast.literal_eval(output.stdout.decode()) == pytest.approx(KNOWN, abs=1e-7)


@pytest.mark.parametrize("text", ["", " ", "?!", "a", TEXT, "你好", "\ud800", "x" * 100_000, "\0"])
async def test_every_text_has_a_vector_of_length_1(text: str) -> None:
    vector = await HashingEmbeddingProvider(64).embed(text)
    assert len(vector) == 64
    assert math.hypot(*vector) == pytest.approx(1.0)


async def test_a_batch_is_the_vectors_of_its_texts_in_order() -> None:
    provider = HashingEmbeddingProvider(64)
    texts = [TEXT, "", "refund"]
    assert await provider.embed_batch(texts) == [await provider.embed(text) for text in texts]
    assert await provider.embed_batch([]) == []


@pytest.mark.parametrize(
    ("text", "alike", "other"),
    [
        ("return my order", "returning orders", "change my password"),
        ("Where is my parcel?", "where is the parcel", "Where is my money?"),
        ("cancel the appointment", "cancelled appointments", "book a table"),
    ],
)
async def test_texts_of_alike_words_are_closer_than_others(text: str, alike: str, other: str) -> None:
    vector, near, far = await HashingEmbeddingProvider(1536).embed_batch([text, alike, other])
    assert _cosine(vector, near) > _cosine(vector, far) + 0.1


@pytest.mark.parametrize("same", ["WHERE IS MY PARCEL", "where  is\nmy parcel!", "\uff37here is my parcel"])
async def test_case_punctuation_and_width_make_no_difference(same: str) -> None:
    first, second = await HashingEmbeddingProvider(64).embed_batch([TEXT, same])
    assert first == pytest.approx(second)


@pytest.mark.parametrize("dimensions", [0, -1])
def test_a_length_below_1_is_refused(dimensions: int) -> None:
    with pytest.raises(ValidationError, match="dimensions"):
        HashingEmbeddingProvider(dimensions)


def test_the_providers_load_no_vendors_sdk() -> None:
    program = (
        "import sys, soldier_data.providers;"
        "print([name for name in ('anthropic', 'openai', 'httpx2', 'sqlalchemy') if name in sys.modules])"
    )
    output = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert output.stdout.decode().strip() == "[]"
