"""Embedding stored texts that have no embedding, or one by a different model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol
from uuid import UUID

from soldier_data.errors import ValidationError
from soldier_data.providers.embeddings import EmbeddingProvider
from soldier_data.providers.errors import ContentFilterError, InvalidRequestError
from soldier_data.providers.retrying import Clock


class Text(Protocol):
    """A stored text that needs an embedding."""

    @property
    def text(self) -> str:
        """The text to embed; never empty."""


class EmbeddedStore(Protocol):
    """The methods of a store that `embed_missing` needs. `ConfigStore` and `MemoryStore` have them."""

    async def count_to_embed(self, embedding_model: str, *, tenant_id: UUID | None = None) -> int:
        """Count the texts that lack an embedding by the model."""

    async def list_to_embed(
        self,
        embedding_model: str,
        *,
        tenant_id: UUID | None = None,
        after: Any | None = None,
        limit: int = 100,
    ) -> Sequence[Text]:
        """Return a page of these texts, beginning after `after`."""

    async def set_embeddings(
        self, embeddings: Sequence[tuple[Any, Sequence[float]]], embedding_model: str
    ) -> int:
        """Save embeddings of listed texts, and return the number of texts that had not changed meanwhile."""


@dataclass(frozen=True, slots=True)
class EmbedReport:
    """Result of `embed_missing`.

    Attributes:
        embedded: Number of texts that were embedded.
        skipped: Number of texts that were not: changed or deleted meanwhile, or rejected by the provider as too long,
            for example.
    """

    embedded: int
    skipped: int


async def embed_missing(
    store: EmbeddedStore,
    provider: EmbeddingProvider,
    *,
    tenant_id: UUID | None = None,
    batch_size: int = 100,
    max_per_minute: float | None = None,
    on_progress: Callable[[int, int], None] | None = None,
    clock: Clock | None = None,
) -> EmbedReport:
    """Embed the texts of `store` that lack an embedding by the provider's model: rules and scenarios, or episodes.

    Each batch is saved before the next one begins. To resume an interrupted run, call it again.

    Args:
        store: A config store or a memory store.
        provider: Provider of the embeddings.
        tenant_id: Limits the call to one tenant; required with row-level security. By default all tenants.
        batch_size: Number of texts that are read, embedded and saved together.
        max_per_minute: Largest number of texts embedded in a minute; by default there is no limit.
        on_progress: Called after each batch with the number of processed texts, and the total at the start.
        clock: Clock to use in tests.

    Raises:
        ProviderError: The provider failed despite retries. The batches before the failure are saved.
        StoreError: The store failed, or an embedding has the wrong number of dimensions.
        ValidationError: `batch_size` or `max_per_minute` is not positive.
    """
    if batch_size < 1:
        raise ValidationError("batch_size must be at least 1", field="batch_size")
    if max_per_minute is not None and max_per_minute <= 0:
        raise ValidationError("max_per_minute must be positive, or None for no limit", field="max_per_minute")
    clock = clock or Clock()
    model = provider.model_id
    total = await store.count_to_embed(model, tenant_id=tenant_id)
    embedded = done = 0
    after: Text | None = None
    begin = clock.now()
    while texts := await store.list_to_embed(model, tenant_id=tenant_id, after=after, limit=batch_size):
        if clock.now() < begin:
            await clock.sleep(begin - clock.now())
        if max_per_minute is not None:
            begin = clock.now() + len(texts) * 60 / max_per_minute
        embedded += await store.set_embeddings(await _embed(texts, provider), model)
        done += len(texts)
        after = texts[-1]
        if on_progress is not None:
            on_progress(done, max(done, total))
    return EmbedReport(embedded=embedded, skipped=done - embedded)


async def _embed(texts: Sequence[Text], provider: EmbeddingProvider) -> list[tuple[Text, list[float]]]:
    try:
        vectors = await provider.embed_batch([text.text for text in texts])
    except (InvalidRequestError, ContentFilterError):
        if len(texts) == 1:
            return []
        halves = texts[: len(texts) // 2], texts[len(texts) // 2 :]
    else:
        return list(zip(texts, vectors, strict=True))
    # One rejected text fails its whole batch, so the batch is halved until that text is isolated.
    return [pair for half in halves for pair in await _embed(half, provider)]
