"""A text with its embedding."""

from __future__ import annotations

from typing import Annotated, Any, NamedTuple
from uuid import UUID

from pydantic import BeforeValidator, Field

from soldier_data.base.models import Model, Moment, new_id, utcnow


def _as_text(value: Any) -> Any:
    return str(value) if isinstance(value, UUID) else value


class Embedding(Model):
    """A text with its embedding and its source.

    Attributes:
        embedding: The embedding of the content, of SOLDIER_EMBEDDING_DIMENSIONS numbers.
        embedding_model: The model that made the embedding.
        metadata: Any JSON document. Searches can filter by it.
        source_type: The type of the source, chosen by the service: "document", "message".
        source_id: The id of the source, which several embeddings may share. A UUID is converted to text.
    """

    id: UUID = Field(default_factory=new_id)
    tenant_id: UUID
    content: str
    embedding: list[float]
    embedding_model: str | None = None
    metadata: dict[str, Any] = Field(default_factory=dict)
    source_type: str
    source_id: Annotated[str, BeforeValidator(_as_text)]
    created_at: Moment = Field(default_factory=utcnow)


class EmbeddingHit(NamedTuple):
    """A search result, which unpacks as a pair.

    Attributes:
        embedding: The embedding.
        score: Its cosine similarity to the query, -1 to 1.
    """

    embedding: Embedding
    score: float
