"""Giving an embedding to what has none, or one of another model."""

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
        """What to embed; never empty."""


class EmbeddedStore(Protocol):
    """What `embed_missing` needs of a store: `ConfigStore` and `MemoryStore` have it."""

    async def count_to_embed(self, embedding_model: str, *, tenant_id: UUID | None = None) -> int:
        """How many texts need an embedding by that model."""

    async def list_to_embed(
        self,
        embedding_model: str,
        *,
        tenant_id: UUID | None = None,
        after: Any | None = None,
        limit: int = 100,
    ) -> Sequence[Text]:
        """One page of them, from behind `after` on."""

    async def set_embeddings(
        self, embeddings: Sequence[tuple[Any, Sequence[float]]], embedding_model: str
    ) -> int:
        """Keep embeddings of listed texts; returns how many still fitted."""


@dataclass(frozen=True, slots=True)
class EmbedReport:
    """What came of a run.

    Attributes:
        embedded: Texts that have an embedding now.
        skipped: Texts that have none: changed or deleted meanwhile, or refused by the provider (too long, say).
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
    """Embed what `store` holds without an embedding of `provider`'s model: rules and scenarios, or episodes.

    Each batch is kept before the next one begins. A run that was interrupted is resumed by running it again.

    Args:
        store: A config store or a memory store.
        provider: Where the embeddings come from.
        tenant_id: One tenant; by default all of them. Needed where row-level security is on.
        batch_size: How many texts are read, embedded and kept at a time.
        max_per_minute: The most texts to embed in a minute; without, as fast as the provider does.
        on_progress: Called after each batch with how many texts are done and how many there were at the start.
        clock: Another time than the machine's, for tests.

    Raises:
        ProviderError: The provider fails, still after its retries. What was embedded until then is kept.
        StoreError: The store fails, or an embedding has another length than it keeps.
        ValidationError: `batch_size` or `max_per_minute` is not positive.
    """
    if batch_size < 1:
        raise ValidationError(
            "batch_size is below 1: pass how many texts to embed at a time", field="batch_size"
        )
    if max_per_minute is not None and max_per_minute <= 0:
        raise ValidationError(
            "max_per_minute is not positive: leave it out for no limit", field="max_per_minute"
        )
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
    # One text that the provider refuses takes its batch with it, so it is looked for by halving.
    return [pair for half in halves for pair in await _embed(half, provider)]
