"""OpenAI's embeddings: lengths, batches and order."""

from __future__ import annotations

import math
from collections.abc import MutableMapping
from typing import Any

import pytest

from soldier_data.errors import ConfigurationError, ValidationError
from soldier_data.providers import HashingEmbeddingProvider, OpenAIEmbeddingProvider, ProviderError
from soldier_data.settings import Settings
from tests.integration.providers.conftest import CANARY_KEY, base_url
from tests.integration.providers.wire import Fault, Reply, VendorServer


def _cosine(first: list[float], second: list[float]) -> float:
    return sum(a * b for a, b in zip(first, second, strict=True))


async def test_an_embedding_has_the_length_that_was_asked_for_and_norm_1(
    embeddings: OpenAIEmbeddingProvider,
) -> None:
    vector = await embeddings.embed("Where is my parcel?")

    assert embeddings.dimensions == len(vector) == 256
    assert math.hypot(*vector) == pytest.approx(1.0, abs=1e-3)


async def test_a_batch_comes_back_in_the_order_of_its_texts(embeddings: OpenAIEmbeddingProvider) -> None:
    texts = ["Where is my parcel?", "I want my money back", "Grüße aus Köln", "你好"]
    batch = await embeddings.embed_batch(texts)
    alone = [await embeddings.embed(text) for text in texts]

    for number, vector in enumerate(batch):
        best = max(range(4), key=lambda other: _cosine(vector, alone[other]))
        assert best == number
        assert _cosine(vector, alone[number]) == pytest.approx(1.0, abs=1e-3)


async def test_no_texts_are_no_request(embeddings: OpenAIEmbeddingProvider, server: VendorServer) -> None:
    assert await embeddings.embed_batch([]) == []
    assert server.requests == []


async def test_an_empty_text_is_refused_by_its_place_before_anything_is_sent(
    embeddings: OpenAIEmbeddingProvider, server: VendorServer
) -> None:
    with pytest.raises(ValidationError, match=r"texts\[1\]"):
        await embeddings.embed_batch(["Hello", ""])
    assert server.requests == []


@pytest.mark.parametrize("make", [HashingEmbeddingProvider, None], ids=["hashing", "openai"])
async def test_what_is_no_text_is_refused_by_name(
    embeddings: OpenAIEmbeddingProvider, server: VendorServer, make: type[HashingEmbeddingProvider] | None
) -> None:
    provider: Any = embeddings if make is None else make(8)
    for wrong in (5, None, b"bytes", ["text"]):
        with pytest.raises(ValidationError, match=r"^text is of the type") as refused:
            await provider.embed(wrong)
        assert refused.value.field == "text"
    with pytest.raises(ValidationError, match=r"^texts is a single string: pass a list"):
        await provider.embed_batch("abc")
    with pytest.raises(ValidationError, match=r"^texts is of the type int"):
        await provider.embed_batch(5)
    with pytest.raises(ValidationError, match=r"^texts\[1\] is of the type int"):
        await provider.embed_batch(["a", 5])
    assert server.requests == []


async def test_texts_may_come_from_an_iterator(embeddings: OpenAIEmbeddingProvider) -> None:
    texts: Any = (text for text in ("red", "green"))
    assert len(await embeddings.embed_batch(texts)) == 2


async def test_a_server_that_counts_no_tokens_is_used_all_the_same(
    server: VendorServer, log_lines: list[MutableMapping[str, Any]]
) -> None:
    provider = OpenAIEmbeddingProvider(CANARY_KEY, base_url=base_url(server, "openai"), dimensions=8)
    server.script = [Reply(uncounted=True)]
    assert len(await provider.embed("Hello")) == 8
    assert log_lines[-1]["prompt_tokens"] == 0
    await provider.close()


async def test_what_other_requests_of_a_failed_batch_cost_is_told(server: VendorServer) -> None:
    provider = OpenAIEmbeddingProvider(
        CANARY_KEY, base_url=base_url(server, "openai"), dimensions=8, concurrency=1
    )
    server.script = [Reply(), Fault(401)]
    with pytest.raises(ProviderError) as refused:
        await provider.embed_batch(["x"] * 2048 * 3)
    assert refused.value.usage.prompt_tokens == 2048
    assert len(server.requests) == 2
    await provider.close()


async def test_a_long_batch_is_split_by_items_and_sent_several_at_a_time(server: VendorServer) -> None:
    provider = OpenAIEmbeddingProvider(
        CANARY_KEY, base_url=base_url(server, "openai"), dimensions=8, concurrency=2
    )
    texts = [f"text {number}" for number in range(2048 * 3 + 5)]

    batch = await provider.embed_batch(texts)

    assert sorted(len(request.body["input"]) for request in server.requests) == [5, 2048, 2048, 2048]
    assert server.most_at_once == 2
    for number in (0, 2047, 2048, 6148):
        assert batch[number] == await provider.embed(texts[number])
    await provider.close()


async def test_a_batch_of_long_texts_is_split_by_tokens(server: VendorServer) -> None:
    provider = OpenAIEmbeddingProvider(CANARY_KEY, base_url=base_url(server, "openai"), dimensions=8)
    # In UTF-8 each is 150,000 bytes, so 150,000 tokens at most.
    texts = [letter * 75_000 for letter in "äöü"] + ["short"]

    await provider.embed_batch(texts)

    assert sorted(len(request.body["input"]) for request in server.requests) == [2, 2]
    await provider.close()


async def test_after_a_failure_the_rest_of_the_batch_is_not_sent(server: VendorServer) -> None:
    provider = OpenAIEmbeddingProvider(
        CANARY_KEY, base_url=base_url(server, "openai"), dimensions=8, concurrency=1
    )
    server.script = [Fault(401)]

    with pytest.raises(ProviderError):
        await provider.embed_batch(["x"] * 2048 * 4)

    assert len(server.requests) == 1
    await provider.close()


@pytest.mark.parametrize(
    ("model", "dimensions", "sent"),
    [
        ("text-embedding-3-small", None, None),
        ("text-embedding-3-small", 1536, None),
        ("text-embedding-3-large", 3072, None),
        ("text-embedding-3-large", 1536, 1536),
        ("text-embedding-ada-002", None, None),
        ("another-servers-model", 1536, None),
    ],
)
async def test_dimensions_are_sent_where_the_model_is_to_shorten(
    server: VendorServer, model: str, dimensions: int | None, sent: int | None
) -> None:
    provider = OpenAIEmbeddingProvider(CANARY_KEY, model, base_url(server, "openai"), dimensions=dimensions)
    vector = await provider.embed("Hello")

    assert server.requests[0].body.get("dimensions") == sent
    assert len(vector) == provider.dimensions == (dimensions or 1536)
    assert provider.model_id == model
    await provider.close()


@pytest.mark.parametrize(
    ("model", "dimensions"),
    [
        ("text-embedding-3-large", None),
        ("text-embedding-3-small", 3072),
        ("text-embedding-3-small", 0),
        ("text-embedding-ada-002", 512),
        ("another-servers-model", None),
    ],
)
def test_a_length_that_the_model_does_not_make_or_the_store_does_not_take_is_refused(
    model: str, dimensions: int | None
) -> None:
    with pytest.raises(ConfigurationError, match="dimensions"):
        OpenAIEmbeddingProvider(CANARY_KEY, model, dimensions=dimensions)


def test_a_model_whose_vectors_do_not_fit_the_setting_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOLDIER_EMBEDDING_DIMENSIONS", "384")
    with pytest.raises(ConfigurationError, match=r"1536 dimensions, but SOLDIER_EMBEDDING_DIMENSIONS is 384"):
        OpenAIEmbeddingProvider(CANARY_KEY, "text-embedding-3-small")
    assert OpenAIEmbeddingProvider(CANARY_KEY, "text-embedding-3-small", dimensions=384).dimensions == 384


async def test_vectors_of_another_length_than_promised_are_refused(server: VendorServer) -> None:
    provider = OpenAIEmbeddingProvider(
        CANARY_KEY, "another-servers-model", base_url(server, "openai"), dimensions=768
    )
    with pytest.raises(ProviderError, match="768") as refused:
        await provider.embed("Hello")
    assert refused.value.usage.prompt_tokens == 1
    await provider.close()


def test_the_default_model_fits_the_default_length() -> None:
    fields = Settings.model_fields
    provider = OpenAIEmbeddingProvider(CANARY_KEY, fields["openai_embedding_model"].default)
    assert provider.dimensions == fields["embedding_dimensions"].default
