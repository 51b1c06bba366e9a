"""The contract of embedding providers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence


class EmbeddingProvider(ABC):
    """Turns texts into vectors whose cosine similarity measures the similarity of the texts.

    Raises (every method):
        ValidationError: A text is empty or not a string; the error names the argument.
        ProviderError: As for `LLMProvider`, if the provider uses an API. `usage` holds the tokens that were consumed.
    """

    @property
    @abstractmethod
    def dimensions(self) -> int:
        """Number of dimensions of the vectors."""

    @property
    @abstractmethod
    def model_id(self) -> str:
        """Name of the model. Vectors by different models cannot be compared."""

    @abstractmethod
    async def embed(self, text: str) -> list[float]:
        """Return the vector of a text, normalised to length 1."""

    @abstractmethod
    async def embed_batch(self, texts: Sequence[str]) -> list[list[float]]:
        """Return the vectors of any number of texts, in their order.

        A provider that uses an API splits them into requests of a permitted size, and sends several concurrently.
        """

    async def close(self) -> None:  # noqa: B027 - Not every provider has connections.
        """Close the provider's connections, if any."""
