"""Where embeddings come from."""

from soldier_data.providers.embeddings import EmbeddingProvider
from soldier_data.providers.hashing import HashingEmbeddingProvider

__all__ = ["EmbeddingProvider", "HashingEmbeddingProvider"]
