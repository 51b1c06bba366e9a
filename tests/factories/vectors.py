"""Entities of the vectors domain."""

from __future__ import annotations

from uuid import UUID, uuid4

import factory

from soldier_data.vectors import Embedding
from tests.conftest import DIMENSIONS


class EmbeddingFactory(factory.Factory[Embedding]):  # factory-boy ships no types.
    class Meta:
        model = Embedding

    tenant_id: UUID = factory.LazyFunction(uuid4)
    content: str = factory.Faker("sentence")
    embedding: list[float] = factory.LazyFunction(lambda: [1.0] + [0.0] * (DIMENSIONS - 1))
    source_type: str = "document"
    source_id: str = factory.Sequence(lambda number: f"document-{number}")
