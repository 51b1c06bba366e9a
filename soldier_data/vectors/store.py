"""The contract of the vector store."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any
from uuid import UUID

from soldier_data.base.subjects import SubjectStore
from soldier_data.vectors.models import Embedding, EmbeddingHit


class VectorStore(SubjectStore):
    """Embeddings of any texts. They can be added, searched, and removed permanently by their source.

    The records of a data subject (see `SubjectStore`) are the embeddings whose source_id is the id of one of the
    person's records, in either spelling of a UUID, and those that mention the person in their metadata.

    Calls are repeated after a lost connection and take effect once.

    Raises (every method):
        StoreConnectionError: The server cannot be reached or does not respond in time.
        ValidationError: An argument, or an item of a list, has the wrong type; an embedding has the wrong number of
            dimensions, is not finite or is (nearly) the zero vector; a text contains NUL or an unpaired surrogate;
            metadata is not valid JSON; a datetime is outside the years 1 to 9999 in UTC; a source_type or source_id is
            longer than 1,000 bytes; a limit is negative; min_score is not finite. Names the field.
    """

    @abstractmethod
    async def add_embedding(self, embedding: Embedding) -> UUID:
        """Add an embedding; return its id.

        Raises:
            ConflictError: The id is taken.
        """

    @abstractmethod
    async def add_embeddings(self, embeddings: Iterable[Embedding]) -> int:
        """Add any number of embeddings of one tenant, all or none; return their number.

        Raises:
            ConflictError: An id is taken, or is in the list twice.
            ValidationError: An embedding cannot be stored, or belongs to another tenant than the first. Names its
                place.
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
        """Return the embeddings most similar to the query, best first, ties by id.

        Args:
            query_embedding: The query, of SOLDIER_EMBEDDING_DIMENSIONS numbers.
            tenant_id: The tenant.
            source_type: Only embeddings of exactly this type; None for all.
            metadata_filter: Only embeddings whose metadata contain this document: each of its keys, with a value that
                equals or in turn contains the value in the filter. A list contains a list if it contains all its
                elements, in any order. Types matter: 10 equals 10.0, but neither "10" nor true.
            limit: Maximum number of embeddings.
            min_score: Minimum cosine similarity, -1 to 1; None for no minimum.
            embedding_model: Only embeddings that this model made. Defaults to SOLDIER_EMBEDDING_MODEL; if that is not
                set, embeddings of all models are compared.

        Returns:
            Pairs of an embedding and its score, the cosine similarity.
        """

    @abstractmethod
    async def delete_by_source(self, tenant_id: UUID, source_id: str | UUID) -> int:
        """Permanently remove the embeddings of a source; return their number.

        Returns 0 if the call was repeated because its reply was lost.
        """
