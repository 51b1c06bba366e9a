"""The contract of the vector store."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any
from uuid import UUID

from soldier_data.base.subjects import SubjectStore
from soldier_data.vectors.models import Embedding, EmbeddingHit


class VectorStore(SubjectStore):
    """Embeddings. They are added, searched, and deleted for good by their source.

    Of a person (`SubjectStore`) are those whose source_id is the id of something of theirs, in either spelling of a
    UUID, and those that mention the person in their metadata.

    A call whose reply is lost with the connection is repeated, and has one effect.

    Raises (every method):
        StoreConnectionError: The server is unreachable or does not answer in time.
        ValidationError: An argument, or something in a list, is of a wrong type; an embedding has a wrong length,
            holds NaN or infinity, or is (nearly) the zero vector; a text holds NUL or half of a surrogate pair,
            metadata is no JSON, a datetime lies at the very end of the calendar; a source_type or source_id is
            longer than 1,000 bytes; a limit is negative, min_score is not finite. Names the field.
    """

    @abstractmethod
    async def add_embedding(self, embedding: Embedding) -> UUID:
        """Add the embedding; returns its id.

        Raises:
            ConflictError: The id exists.
        """

    @abstractmethod
    async def add_embeddings(self, embeddings: Iterable[Embedding]) -> int:
        """Add any number of embeddings of one tenant, all or nothing; returns how many.

        Raises:
            ConflictError: An id exists, or is in the list twice.
            ValidationError: They are of several tenants.
        """

    @abstractmethod
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
        """The embeddings nearest to `query_embedding` with their scores, best first, ties by id.

        Args:
            query_embedding: As long as SOLDIER_EMBEDDING_DIMENSIONS.
            tenant_id: The tenant.
            source_type: Only embeddings of this type; compared exactly.
            metadata_filter: Only embeddings whose metadata contain this document: every key of it, with a value
                that is equal or contains the filter's in turn. Of a list the filter gives some elements, in any
                order. Types count: 10 is not "10" and not true, though it is 10.0.
            limit: How many at most.
            min_score: The least cosine similarity, -1 to 1; None for no limit.
            embedding_model: Only embeddings by this model, as the query is; by default by the one in
                SOLDIER_EMBEDDING_MODEL, and where that is not set either, by any.
        """

    @abstractmethod
    async def delete_by_source(self, tenant_id: UUID, source_id: str | UUID) -> int:
        """Remove the embeddings of a source for good; returns how many there were.

        A removal leaves nothing to know it by: repeated because its reply was lost, it returns 0.
        """
