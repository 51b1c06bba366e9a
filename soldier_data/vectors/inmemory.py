"""The in-memory vector store: the reference implementation, and a fake for the tests of services."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any
from uuid import UUID

from soldier_data.base.embeddings import check_search
from soldier_data.base.inmemory import InMemoryStore, MemoryTable, TableSet, rank_by_similarity
from soldier_data.base.subject_rules import InMemoryRecords, InMemorySearch
from soldier_data.base.subjects import DataSubject
from soldier_data.settings import Settings
from soldier_data.vectors import subjects
from soldier_data.vectors.checks import ANY_SCORE, check_added, check_all, check_filters, check_source
from soldier_data.vectors.containment import contains
from soldier_data.vectors.models import Embedding, EmbeddingHit
from soldier_data.vectors.store import VectorStore


class _Tables(TableSet):
    def __init__(self) -> None:
        self.embeddings = MemoryTable[Embedding](embedding="embedding")


class InMemoryVectorStore(VectorStore, InMemoryRecords, InMemoryStore):
    """A `VectorStore` without a database.

    Args:
        embedding_dimensions: Length of embeddings; defaults to SOLDIER_EMBEDDING_DIMENSIONS.
        embedding_model: The model for searches that name none; by default they compare embeddings of all models.
    """

    _tables: _Tables

    def __init__(self, embedding_dimensions: int | None = None, embedding_model: str | None = None) -> None:
        self._dimensions = embedding_dimensions or Settings().embedding_dimensions
        self._model = embedding_model
        self._tables = _Tables()

    async def add_embedding(self, embedding: Embedding) -> UUID:
        check_added(embedding, self._dimensions)
        self._tables.embeddings.add_all([embedding], f"adding the embedding {embedding.id}")
        return embedding.id

    async def add_embeddings(self, embeddings: Iterable[Embedding]) -> int:
        listed = list(embeddings)
        check_all(listed, self._dimensions)
        self._tables.embeddings.add_all(listed, "adding embeddings")
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
        candidates = (
            found
            for found in self._tables.embeddings.of_tenant(tenant_id)
            if source_type in (None, found.source_type) and contains(found.metadata, metadata_filter or {})
        )
        ranked = rank_by_similarity(candidates, query_embedding, model, min_score=least)[:limit]
        return [EmbeddingHit(found.model_copy(deep=True), score) for found, score in ranked]

    async def delete_by_source(self, tenant_id: UUID, source_id: str | UUID) -> int:
        source_id = str(source_id)
        check_source(source_id, "source_id")
        table = self._tables.embeddings
        found = [each.id for each in table.of_tenant(tenant_id) if each.source_id == source_id]
        return len(table.remove_all(tenant_id, found))

    async def find_subject(self, subject: DataSubject) -> dict[str, list[UUID]]:
        return await subjects.find(InMemorySearch(subject, self._tables))
