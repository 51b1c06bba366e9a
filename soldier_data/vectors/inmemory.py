"""The vector store in memory: the reference for the contract, and a fake for services' own tests."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from typing import Any, Self
from uuid import UUID

from soldier_data.base.embeddings import check_search, cosine_similarity, to_float32
from soldier_data.base.inmemory import InMemoryStore, MemoryTable
from soldier_data.base.items import id_taken
from soldier_data.base.subjects import DataSubject, SubjectRecords, json_text
from soldier_data.settings import Settings
from soldier_data.vectors.checks import ANY_SCORE, check_added, check_all, check_filters, check_source
from soldier_data.vectors.containment import contains
from soldier_data.vectors.models import Embedding, EmbeddingHit
from soldier_data.vectors.store import VectorStore


class InMemoryVectorStore(VectorStore, SubjectRecords, InMemoryStore):
    """`VectorStore` without a database.

    Args:
        embedding_dimensions: Length of embeddings; by default what SOLDIER_EMBEDDING_DIMENSIONS says.
        embedding_model: The model of searches that name none.
    """

    def __init__(self, embedding_dimensions: int | None = None, embedding_model: str | None = None) -> None:
        self._dimensions = embedding_dimensions or Settings().embedding_dimensions
        self._model = embedding_model
        self._embeddings: MemoryTable[Embedding] = MemoryTable()

    def begin(self) -> Self:
        store = copy(self)
        store._embeddings = self._embeddings.begin()
        return store

    def tables(self) -> Iterable[MemoryTable[Any]]:
        return (self._embeddings,)

    async def add_embedding(self, embedding: Embedding) -> UUID:
        check_added(embedding, self._dimensions)
        self._add([embedding], f"adding the embedding {embedding.id}")
        return embedding.id

    async def add_embeddings(self, embeddings: Iterable[Embedding]) -> int:
        listed = list(embeddings)
        check_all(listed, self._dimensions)
        self._add(listed, "adding embeddings")
        return len(listed)

    async def search(
        self,
        query_embedding: Sequence[float],
        tenant_id: UUID,
        *,
        source_type: str | None = None,
        metadata_filter: dict[str, Any] | None = None,
        limit: int = 5,
        min_score: float | None = None,
        embedding_model: str | None = None,
    ) -> list[EmbeddingHit]:
        check_filters(source_type, metadata_filter)
        least = ANY_SCORE if min_score is None else min_score
        model = check_search(query_embedding, limit, least, embedding_model, self._dimensions, self._model)
        query = to_float32(query_embedding)
        scored = [
            (found, cosine_similarity(query, found.embedding))
            for found in self._embeddings.of_tenant(tenant_id)
            if source_type in (None, found.source_type)
            and model in (None, found.embedding_model)
            and contains(found.metadata, metadata_filter or {})
        ]
        scored.sort(key=lambda item: (-item[1], item[0].id))
        return [
            EmbeddingHit(found.model_copy(deep=True), score)
            for found, score in scored[:limit]
            if score >= least
        ]

    async def delete_by_source(self, tenant_id: UUID, source_id: str | UUID) -> int:
        source_id = str(source_id)
        check_source(source_id, "source_id")
        found = [each.id for each in self._embeddings.of_tenant(tenant_id) if each.source_id == source_id]
        for id_ in found:
            self._embeddings.remove((tenant_id, id_))
        return len(found)

    async def find_subject(self, subject: DataSubject) -> dict[str, list[UUID]]:
        sources = set(subject.sources)
        return {
            "embeddings": sorted(
                each.id
                for each in self._embeddings.of_tenant(subject.tenant_id)
                if each.source_id in sources or subject.is_mentioned_in(json_text(each, "metadata"))
            )
        }

    async def read_found(
        self,
        tenant_id: UUID,
        table: str,  # noqa: ARG002 - there is one.
        ids: Sequence[UUID],
        *,
        with_embeddings: bool = True,
    ) -> list[Any]:
        found = self._embeddings.get_all(tenant_id, ids)
        if with_embeddings:
            return list(found)
        return [each.model_copy(update={"embedding": []}) for each in found]

    async def erase_found(
        self, tenant_id: UUID, found: Mapping[str, Sequence[UUID]]
    ) -> dict[str, list[UUID]]:
        return {"embeddings": self._embeddings.remove_all(tenant_id, found["embeddings"])}

    def _add(self, embeddings: Sequence[Embedding], operation: str) -> None:
        if any(self._embeddings.peek((each.tenant_id, each.id)) is not None for each in embeddings):
            raise id_taken(operation)
        for each in embeddings:
            rounded = each.model_copy(update={"embedding": to_float32(each.embedding)})
            self._embeddings.put((each.tenant_id, each.id), rounded)
