"""Free-standing embeddings: texts of any source, searched by meaning."""

from soldier_data.vectors.inmemory import InMemoryVectorStore
from soldier_data.vectors.models import Embedding, EmbeddingHit
from soldier_data.vectors.postgres import PostgresVectorStore
from soldier_data.vectors.store import VectorStore

__all__ = ["Embedding", "EmbeddingHit", "InMemoryVectorStore", "PostgresVectorStore", "VectorStore"]
