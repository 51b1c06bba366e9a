"""The contract of stores that keep an embedding beside each text: the texts that lack one, and giving them one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from uuid import UUID

from soldier_data.base.arguments import ChecksArguments, check_fields
from soldier_data.base.embeddings import check_embedding
from soldier_data.base.values import check_revision
from soldier_data.errors import ValidationError


@dataclass(frozen=True, slots=True)
class TextToEmbed:
    """A stored text that needs an embedding: it has none, or one made by a different model.

    Attributes:
        kind: "episode", "rule" or "scenario".
        tenant_id: The tenant of the entity.
        id: The id of the entity.
        text: The text to embed; never empty.
        revision: The entity's revision when the text was read; 0 for kinds without revisions.
    """

    kind: str
    tenant_id: UUID
    id: UUID
    text: str = field(repr=False)
    revision: int = 0

    def __post_init__(self) -> None:
        check_fields(self)

    def position(self) -> tuple[str, UUID, UUID]:
        """The sort key in lists of texts."""
        return self.kind, self.tenant_id, self.id


class EmbeddedTextStore(ChecksArguments, ABC):
    """A store that embeds texts. Its own docstring says which texts.

    A text needs an embedding if it has none, or one that another model made. Empty texts need none.
    `providers.embed_missing` calls these methods.
    """

    @abstractmethod
    async def count_to_embed(self, embedding_model: str, *, tenant_id: UUID | None = None) -> int:
        """Return the number of texts that `list_to_embed` would list on all its pages.

        Args:
            embedding_model: The model that every embedding should come from.
            tenant_id: One tenant; None for all tenants, which is meant for operators.

        Raises:
            ValidationError: `tenant_id` is None although row-level security is on, which shows one tenant at a time.
        """

    @abstractmethod
    async def list_to_embed(
        self,
        embedding_model: str,
        *,
        tenant_id: UUID | None = None,
        after: TextToEmbed | None = None,
        limit: int = 100,
    ) -> list[TextToEmbed]:
        """Return one page of the texts that need an embedding, in a fixed order.

        Every page costs the same. Passing the last text of a page as `after` visits each text once, even if some of
        them never get an embedding, and resumes an interrupted run.

        Args:
            embedding_model: The model that every embedding should come from.
            tenant_id: One tenant; None for all tenants, which is meant for operators.
            after: The last text of the previous page; None for the first page.
            limit: Maximum number of texts.

        Raises:
            ValidationError: `tenant_id` is None although row-level security is on, which shows one tenant at a time.
        """

    @abstractmethod
    async def set_embeddings(
        self, embeddings: Sequence[tuple[TextToEmbed, Sequence[float]]], embedding_model: str
    ) -> int:
        """Store embeddings of texts that `list_to_embed` returned, all in one transaction; return how many it stored.

        Entities that were deleted since they were listed are left out, and so are entities with a revision that were
        saved since, because their text may have changed. The revision of an entity that has one increases by one.

        Args:
            embeddings: Pairs of a text and its embedding, of SOLDIER_EMBEDDING_DIMENSIONS numbers.
            embedding_model: The model that made the embeddings.

        Raises:
            ValidationError: A text is of a kind that this store does not hold, or an embedding cannot be stored.
        """


def page_of_texts(texts: Iterable[TextToEmbed], after: TextToEmbed | None, limit: int) -> list[TextToEmbed]:
    """The first `limit` of `texts` that sort after `after`, in order."""
    behind = [text for text in texts if after is None or text.position() > after.position()]
    return sorted(behind, key=TextToEmbed.position)[:limit]


def check_embeddings(
    embeddings: Sequence[tuple[TextToEmbed, Sequence[float]]], dimensions: int, kinds: Sequence[str]
) -> None:
    """Check the arguments of `set_embeddings`.

    Raises:
        ValidationError: An embedding cannot be stored, or a text is of a kind that is not in `kinds`.
    """
    for number, pair in enumerate(embeddings):
        # Callers without a type checker may pass anything.
        if [type(part) is TextToEmbed for part in pair] != [True, False]:
            raise ValidationError(
                f"embeddings[{number}] is not a pair of a TextToEmbed and its embedding", field="embeddings"
            )
        text, embedding = pair
        check_revision(text.revision, "revision")
        if text.kind not in kinds:
            raise ValidationError(
                f"embeddings[{number}] is not of a {' or '.join(kinds)}: pass it to the store that listed it",
                field="embeddings",
            )
        check_embedding(embedding, dimensions, f"embeddings[{number}]")
