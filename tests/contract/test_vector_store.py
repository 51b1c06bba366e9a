"""The contract of `VectorStore`, run against every backend."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from soldier_data.errors import ConflictError, ValidationError
from soldier_data.vectors import Embedding, VectorStore
from soldier_data.vectors.containment import contains
from tests.cases.values import TEXT
from tests.conftest import DIMENSIONS
from tests.factories.vectors import EmbeddingFactory


def towards(*numbers: float) -> list[float]:
    """A vector that begins with `numbers`."""
    return [*numbers] + [0.0] * (DIMENSIONS - len(numbers))


async def found(store: VectorStore, tenant_id: UUID, **filters: Any) -> list[Embedding]:
    return [embedding for embedding, _ in await store.search(towards(1), tenant_id, **filters)]


# -- adding ----------------------------------------------------------------------------------------------------


async def test_an_embedding_is_kept_in_float32_and_finds_itself(
    vector_store: VectorStore, tenant_id: UUID
) -> None:
    added = EmbeddingFactory(tenant_id=tenant_id, embedding=towards(1, 0.1))
    await vector_store.add_embedding(added)
    ((back, score),) = await vector_store.search(towards(1, 0.1), tenant_id)
    assert score == pytest.approx(1.0)
    assert back.embedding == pytest.approx(added.embedding)


async def test_an_id_that_exists_is_a_conflict_and_nothing_changes(
    vector_store: VectorStore, tenant_id: UUID
) -> None:
    added = EmbeddingFactory(tenant_id=tenant_id)
    await vector_store.add_embedding(added)
    again = EmbeddingFactory(tenant_id=tenant_id, id=added.id)
    with pytest.raises(ConflictError):
        await vector_store.add_embedding(again)
    with pytest.raises(ConflictError):
        await vector_store.add_embeddings([EmbeddingFactory(tenant_id=tenant_id), again])
    assert await found(vector_store, tenant_id) == [added]
    await vector_store.add_embedding(EmbeddingFactory(id=added.id))


async def test_many_are_added_at_once_or_none(vector_store: VectorStore, tenant_id: UUID) -> None:
    many = [EmbeddingFactory(tenant_id=tenant_id) for _ in range(20)]
    assert await vector_store.add_embeddings(iter(many)) == 20
    assert await found(vector_store, tenant_id, limit=30) == many
    assert await vector_store.add_embeddings([]) == 0

    good = EmbeddingFactory(tenant_id=tenant_id)
    with pytest.raises(ConflictError, match="twice"):
        await vector_store.add_embeddings([good, good])
    with pytest.raises(ValidationError, match=r"embeddings\[1\].tenant_id"):
        await vector_store.add_embeddings([good, EmbeddingFactory()])
    with pytest.raises(ValidationError, match=r"embeddings\[1\]: embedding has 1 dimensions"):
        await vector_store.add_embeddings([good, EmbeddingFactory(tenant_id=tenant_id, embedding=[1.0])])
    assert len(await found(vector_store, tenant_id, limit=30)) == 20


# -- searching -------------------------------------------------------------------------------------------------


async def test_the_nearest_come_first_with_their_cosine(vector_store: VectorStore, tenant_id: UUID) -> None:
    vectors = {"same": towards(5), "near": towards(4, 3), "across": towards(0, 1), "opposite": towards(-1)}
    for content, vector in vectors.items():
        await vector_store.add_embedding(
            EmbeddingFactory(tenant_id=tenant_id, content=content, embedding=vector)
        )
    results = await vector_store.search(towards(1), tenant_id)
    assert [each.content for each, _ in results] == ["same", "near", "across", "opposite"]
    assert [score for _, score in results] == pytest.approx([1.0, 0.8, 0.0, -1.0])
    assert len(await found(vector_store, tenant_id, limit=2)) == 2
    assert await found(vector_store, tenant_id, limit=0) == []
    for least, count in ((0.9, 1), (0.0, 3), (-1.0, 4), (1.01, 0), (None, 4)):
        assert len(await found(vector_store, tenant_id, min_score=least)) == count


async def test_five_are_found_unless_asked_and_ties_go_by_id(
    vector_store: VectorStore, tenant_id: UUID
) -> None:
    many = [EmbeddingFactory(tenant_id=tenant_id) for _ in range(7)]
    for each in reversed(many):
        await vector_store.add_embedding(each)
    assert await found(vector_store, tenant_id) == many[:5]


async def test_another_tenant_finds_nothing(vector_store: VectorStore, tenant_id: UUID) -> None:
    await vector_store.add_embedding(EmbeddingFactory(tenant_id=tenant_id, source_id="s"))
    assert await found(vector_store, uuid4()) == []
    assert await vector_store.delete_by_source(uuid4(), "s") == 0
    assert len(await found(vector_store, tenant_id)) == 1


async def test_a_search_is_filtered_by_source_type_and_metadata_together(
    vector_store: VectorStore, tenant_id: UUID
) -> None:
    for source_type in ("document", "message"):
        for language in ("de", "en"):
            await vector_store.add_embedding(
                EmbeddingFactory(
                    tenant_id=tenant_id,
                    content=f"{source_type} {language}",
                    source_type=source_type,
                    metadata={"language": language},
                )
            )
    german = await found(vector_store, tenant_id, metadata_filter={"language": "de"})
    assert [each.content for each in german] == ["document de", "message de"]
    both = await found(vector_store, tenant_id, source_type="message", metadata_filter={"language": "de"})
    assert [each.content for each in both] == ["message de"]
    assert len(await found(vector_store, tenant_id, source_type="message")) == 2
    assert await found(vector_store, tenant_id, source_type="mess") == []


@pytest.mark.parametrize(
    ("metadata", "wanted", "matches"),
    [
        ({"n": 10}, {"n": 10}, True),
        ({"n": 10}, {"n": "10"}, False),
        ({"n": "10"}, {"n": 10}, False),
        ({"n": 10}, {"n": 10.0}, True),
        ({"n": 1}, {"n": True}, False),
        ({"n": 0}, {"n": None}, False),
        ({"n": None}, {"n": None}, True),
        ({}, {"n": None}, False),
        ({"n": 1}, {}, True),
        ({"n": 10**23}, {"n": 1e23}, True),
        ({"n": 0.1}, {"n": 0.1}, True),
        ({"a": {"b": 1, "c": 2}}, {"a": {"b": 1}}, True),
        ({"a": {"b": 1}}, {"a": {"b": 1, "c": 2}}, False),
        ({"a": {"b": {"c": 1}}}, {"b": {"c": 1}}, False),
        ({"tags": ["x", "y", "z"]}, {"tags": ["z", "x"]}, True),
        ({"tags": ["x"]}, {"tags": ["x", "x"]}, True),
        ({"tags": ["x"]}, {"tags": "x"}, False),
        ({"tags": [["x", "y"]]}, {"tags": [["y"]]}, True),
        ({"tags": [{"a": 1, "b": 2}]}, {"tags": [{"b": 2}]}, True),
        ({"tags": ["x"]}, {"tags": []}, True),
        ({"tags": "x"}, {"tags": []}, False),
        ({TEXT: TEXT}, {TEXT: TEXT}, True),
        ({"a": "A"}, {"a": "a"}, False),
    ],
    ids=str,
)
async def test_metadata_match_by_containment_and_type(
    vector_store: VectorStore, tenant_id: UUID, metadata: Any, wanted: Any, matches: bool
) -> None:
    await vector_store.add_embedding(EmbeddingFactory(tenant_id=tenant_id, metadata=metadata))
    assert len(await found(vector_store, tenant_id, metadata_filter=wanted)) == matches


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=3),
    max_leaves=6,
)


@given(json_values)
@example({"a": [1e308, 5e-324, -0.0, 2**70]})
def test_every_document_contains_itself(document: Any) -> None:
    assert contains(document, document)


# -- deleting --------------------------------------------------------------------------------------------------


async def test_a_source_is_deleted_with_all_its_embeddings(
    vector_store: VectorStore, tenant_id: UUID
) -> None:
    source = uuid4()
    for source_id in (source, str(source), "other"):
        await vector_store.add_embedding(EmbeddingFactory(tenant_id=tenant_id, source_id=source_id))
    assert await vector_store.delete_by_source(tenant_id, source) == 2
    assert await vector_store.delete_by_source(tenant_id, str(source)) == 0
    assert [each.source_id for each in await found(vector_store, tenant_id)] == ["other"]


# -- what cannot be stored or asked ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"embedding": [1.0]}, "embedding"),
        ({"embedding": [0.0] * DIMENSIONS}, "embedding"),
        ({"embedding": towards(float("nan"))}, "embedding"),
        ({"embedding": towards(float("inf"))}, "embedding"),
        ({"content": "\x00"}, "content"),
        ({"metadata": {"a": {"\ud800": 1}}}, "metadata"),
        ({"metadata": {"a": float("nan")}}, "metadata"),
        ({"source_type": "x" * 1_001}, "source_type"),
        ({"source_id": "ä" * 501}, "source_id"),
        ({"created_at": datetime.min.replace(tzinfo=UTC)}, "created_at"),
    ],
    ids=str,
)
async def test_what_cannot_be_stored_is_refused_by_field(
    vector_store: VectorStore, tenant_id: UUID, changes: dict[str, Any], field: str
) -> None:
    wrong = EmbeddingFactory(tenant_id=tenant_id).model_copy(update=changes)
    with pytest.raises(ValidationError) as refused:
        await vector_store.add_embedding(wrong)
    assert refused.value.field == field
    with pytest.raises(ValidationError):
        await vector_store.add_embeddings([wrong])
    assert await found(vector_store, tenant_id) == []


async def test_arguments_that_make_no_sense_are_refused(vector_store: VectorStore, tenant_id: UUID) -> None:
    calls: dict[str, Callable[[], Any]] = {
        "query_embedding": lambda: vector_store.search([1.0], tenant_id),
        "limit": lambda: found(vector_store, tenant_id, limit=-1),
        "min_score": lambda: found(vector_store, tenant_id, min_score=float("nan")),
        "source_type": lambda: found(vector_store, tenant_id, source_type="\x00"),
        "metadata_filter": lambda: found(vector_store, tenant_id, metadata_filter={"a": float("nan")}),
        "source_id": lambda: vector_store.delete_by_source(tenant_id, "\x00"),
    }
    for field, call in calls.items():
        with pytest.raises(ValidationError) as refused:
            await call()
        assert refused.value.field == field
