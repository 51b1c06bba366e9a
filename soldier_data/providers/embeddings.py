"""The contract of embedding providers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence


class EmbeddingProvider(ABC):
    """Turns texts into vectors whose cosine similarity tells how alike the texts are.

    Raises (every method):
        ValidationError: A text cannot be embedded: it is empty, or no text at all. Names which.
        ProviderError: As of `LLMProvider`, where the vectors come over the network. Its `usage` tells what tokens were
            spent all the same.
    """

    @property
    @abstractmethod
    def dimensions(self) -> int:
        """Length of every vector."""

    @property
    @abstractmethod
    def model_id(self) -> str:
        """Which model makes the vectors; vectors of different models must not be compared."""

    @abstractmethod
    async def embed(self, text: str) -> list[float]:
        """The vector of one text, normalised to length 1."""

    @abstractmethod
    async def embed_batch(self, texts: Sequence[str]) -> list[list[float]]:
        """The vectors of several texts, in their order.

        Any number of them: a provider over the network splits them into requests that its API takes, and has
        several under way.
        """

    async def close(self) -> None:  # noqa: B027 - Not every provider has something to close.
        """Close the connections, if there are any."""
