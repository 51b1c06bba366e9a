"""The one kind of entity that the vector store keeps."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from soldier_data.vectors import Embedding
from tests.cases.kind import Kind
from tests.cases.values import DOCUMENT, HALVES, LEAP_DAY, TEXT
from tests.factories.vectors import EmbeddingFactory


def _full_embedding() -> dict[str, Any]:
    return {
        "content": TEXT,
        "embedding": HALVES,
        "embedding_model": TEXT,
        "metadata": DOCUMENT,
        "source_type": TEXT,
        "source_id": TEXT,
        "created_at": LEAP_DAY,
    }


async def _found(store: Any, entity: Embedding, tenant_id: UUID) -> Embedding | None:
    """Read by a search: there is no other way."""
    hits = await store.search(
        entity.embedding, tenant_id, limit=1_000, source_type=entity.source_type, min_score=0.99
    )
    return next((found for found, _ in hits if found.id == entity.id), None)


EMBEDDING = Kind(
    name="embedding",
    store="vectors",
    model=Embedding,
    make=EmbeddingFactory,
    full=_full_embedding,
    adds="add_{name}",
    adds_many="add_embeddings",
    updates=None,
    gets=_found,
    deletes=None,
)

KINDS = (EMBEDDING,)
