"""A text with its embedding."""

from __future__ import annotations

from typing import Annotated, Any, NamedTuple
from uuid import UUID

from pydantic import BeforeValidator, Field

from soldier_data.base.models import Model, Moment, new_id, utcnow


def _as_text(value: Any) -> Any:
    return str(value) if isinstance(value, UUID) else value


class Embedding(Model):
    """A piece of text, its vector, and where it comes from.

    Attributes:
        embedding: Of the content; as long as SOLDIER_EMBEDDING_DIMENSIONS.
        embedding_model: Which model made the embedding.
        metadata: Anything about it, as JSON. Searches filter by it.
        source_type: What kind of thing it comes from, in the service's own words: "document", "message".
        source_id: Which one; several embeddings may share it. A UUID is taken too, and kept as text.
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
    """An embedding that a search found. Unpacks as a pair.

    Attributes:
        score: The cosine similarity to the query, -1 to 1.
    """

    embedding: Embedding
    score: float
