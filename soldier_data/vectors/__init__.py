"""Embeddings that belong to no entity of another domain, searched by similarity and metadata."""

from soldier_data.vectors.inmemory import InMemoryVectorStore
from soldier_data.vectors.models import Embedding, EmbeddingHit
from soldier_data.vectors.postgres import PostgresVectorStore
from soldier_data.vectors.store import VectorStore

__all__ = ["Embedding", "EmbeddingHit", "InMemoryVectorStore", "PostgresVectorStore", "VectorStore"]
