"""The vector store on PostgreSQL."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from uuid import UUID

from soldier_data.base.models import new_id
from soldier_data.base.subjects import DataSubject, SubjectRecords
from soldier_data.postgres.base_store import PostgresStore
from soldier_data.postgres.executor import Executor
from soldier_data.postgres.statements import Row, Values
from soldier_data.postgres.subjects import PostgresSearch, StoredRecords, erase_in_batches
from soldier_data.postgres.transaction import Transaction
from soldier_data.postgres.vector_search import IndexedSearch, search_values
from soldier_data.vectors import statements as sql
from soldier_data.vectors import subjects
from soldier_data.vectors.checks import ANY_SCORE, check_added, check_all, check_filters, check_source
from soldier_data.vectors.models import Embedding, EmbeddingHit
from soldier_data.vectors.store import VectorStore


class PostgresVectorStore(VectorStore, PostgresStore, SubjectRecords):
    """A `VectorStore` on a `Database`, or on the `Transaction` of a unit of work."""

    def __init__(self, database: Executor) -> None:
        self._db = database
        self._search = IndexedSearch.of(database.settings)

    @property
    def _dimensions(self) -> int:
        return self._db.settings.embedding_dimensions

    async def add_embedding(self, embedding: Embedding) -> UUID:
        check_added(embedding, self._dimensions)
        await sql.embeddings.add(self._db, _values(embedding, new_id()))
        return embedding.id

    async def add_embeddings(self, embeddings: Iterable[Embedding]) -> int:
        listed = list(embeddings)
        check_all(listed, self._dimensions)
        await sql.embeddings.add_many(self._db, listed, _values)
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
        values = search_values(self._db.settings, query_embedding, limit, least, embedding_model)
        statement = sql.search(
            self._search,
            source_type=source_type is not None,
            metadata_filter=bool(metadata_filter),
            embedding_model=values["embedding_model"] is not None,
        )
        values |= {
            "tenant_id": tenant_id,
            "source_type": source_type,
            "metadata_filter": _dumped(metadata_filter),
        }
        rows = await self._db.fetch_all(statement, values)
        return [EmbeddingHit(_embedding(row), 1.0 - row["distance"]) for row in rows]

    async def delete_by_source(self, tenant_id: UUID, source_id: str | UUID) -> int:
        source_id = str(source_id)
        check_source(source_id, "source_id")
        row = await self._db.fetch_one(sql.delete_by_source, {"tenant_id": tenant_id, "source_id": source_id})
        assert row is not None
        how_many: int = row["how_many"]
        return how_many

    async def find_subject(self, subject: DataSubject) -> dict[str, list[UUID]]:
        return await subjects.find(PostgresSearch(subject, self._db, "looking for the customer's embeddings"))

    async def read_found(
        self, tenant_id: UUID, table: str, ids: Sequence[UUID], *, with_embeddings: bool = True
    ) -> list[Any]:
        return await _RECORDS[table].read(self._db, tenant_id, ids, with_embeddings=with_embeddings)

    async def erase_found(
        self, tenant_id: UUID, found: Mapping[str, Sequence[UUID]]
    ) -> dict[str, list[UUID]]:
        return await erase_in_batches(self._db, tenant_id, found, _erase, "erasing the customer's embeddings")


async def _erase(
    transaction: Transaction, tenant_id: UUID, table: str, ids: Sequence[UUID]
) -> dict[str, list[UUID]]:
    locked = await _RECORDS[table].lock(transaction, tenant_id, ids)
    await _RECORDS[table].delete(transaction, tenant_id, ids)
    return {table: locked}


def _values(embedding: Embedding, write_id: UUID) -> Values:
    """The columns of the embedding's row: fields by column name, JSON documents as text."""
    metadata = _dumped(embedding.metadata)
    return {
        **embedding.__dict__,
        "metadata": metadata,
        "searched_metadata": metadata,
        "write_id": write_id,
    }


def _dumped(document: Any) -> str:
    return json.dumps(document, ensure_ascii=False)


def _embedding(row: Row) -> Embedding:
    return Embedding.model_validate({**row, "metadata": json.loads(row["metadata"])})


_RECORDS = {"embeddings": StoredRecords(sql.EMBEDDINGS, sql.COLUMNS, _embedding, "the customer's embeddings")}
