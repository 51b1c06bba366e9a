"""The vector store with another tenant's ids."""

from __future__ import annotations

from uuid import UUID

from soldier_data.base.subjects import DataSubject
from soldier_data.vectors import Embedding, InMemoryVectorStore, PostgresVectorStore, VectorStore
from tests.cases.case import Case, Domain, as_of
from tests.factories.vectors import EmbeddingFactory


async def seed(store: VectorStore, tenant_id: UUID) -> Embedding:
    # Unlike any other test's, so that no statement without a tenant would find those rows too.
    embedding: Embedding = EmbeddingFactory(
        tenant_id=tenant_id, source_id=str(tenant_id), metadata={"page": 1}
    )
    await store.add_embedding(embedding)
    return embedding


async def add_embedding(store: VectorStore, own: Embedding, other: UUID) -> object:
    return await store.add_embedding(as_of(own, other)) == own.id


def subject(own: Embedding, other: UUID) -> DataSubject:
    return DataSubject(other, frozenset([UUID(own.source_id)]))


DOMAIN: Domain[VectorStore, Embedding] = Domain(
    store="vectors",
    contract=VectorStore,
    backends={"inmemory": InMemoryVectorStore, "postgres": PostgresVectorStore},
    seed=seed,
    cases=[
        Case("add_embedding", add_embedding, expected=True, reaches=False),
        Case(
            "add_embeddings",
            lambda store, own, other: store.add_embeddings([as_of(own, other, content="Another text.")]),
            1,
            reaches=False,
        ),
        Case("search", lambda store, own, other: store.search(own.embedding, other), []),
        Case(
            "search",
            lambda store, own, other: store.search(
                own.embedding,
                other,
                source_type=own.source_type,
                metadata_filter=own.metadata,
                min_score=-1.0,
            ),
            [],
        ),
        Case(
            "export_subject",
            lambda store, own, other: store.export_subject(subject(own, other)),
            {"embeddings": []},
        ),
        Case(
            "erase_subject",
            lambda store, own, other: store.erase_subject(subject(own, other)),
            {"embeddings": []},
        ),
        Case("delete_by_source", lambda store, own, other: store.delete_by_source(other, own.source_id), 0),
    ],
)
