"""Data subjects: the person whose data an export or an erasure is about, and what every store does for them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from uuid import UUID

from soldier_data.base.arguments import ChecksArguments, check_fields
from soldier_data.base.models import Model
from soldier_data.base.shared import Channel
from soldier_data.base.values import check_text

ERASED = "[erased]"
"""What stands in an audit record in place of a text that was erased."""


@dataclass(frozen=True)
class DataSubject:
    """A person, by everything that records of theirs are known by.

    A text, or a JSON document, mentions the person if it holds one of their ids, in either spelling of a UUID.

    Attributes:
        tenant_id: The tenant.
        profile_ids: Their profile, and all profiles that were merged with it.
        related_ids: The customer_ids of those profiles, and the ids of their assets.
        session_ids: Their conversations.
        record_ids: Other records that are theirs, which embeddings may have been made from.
        identities: Where they are reached: channel and channel_user_id.
        external_ids: Their ids in other systems.
    """

    tenant_id: UUID
    profile_ids: frozenset[UUID]
    related_ids: frozenset[UUID] = frozenset()
    session_ids: frozenset[UUID] = frozenset()
    record_ids: frozenset[UUID] = frozenset()
    identities: frozenset[tuple[Channel, str]] = frozenset()
    external_ids: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        check_fields(self)
        for external_id in self.external_ids:
            check_text(external_id, "external_ids")
        for _, address in self.identities:
            check_text(address, "identities")

    @cached_property
    def spellings(self) -> tuple[str, ...]:
        """The person's ids as texts spell them, in lower case."""
        return _spellings(self.profile_ids | self.related_ids | self.session_ids)

    @cached_property
    def sources(self) -> tuple[str, ...]:
        """What embeddings made from something of theirs have as their source_id."""
        return self.spellings + _spellings(self.record_ids)

    @cached_property
    def actors(self) -> tuple[str, ...]:
        """What runs that they asked for have as their actor, beside their ids."""
        return tuple(sorted(self.external_ids | {address for _, address in self.identities}))

    def is_mentioned_in(self, *texts: str | None) -> bool:
        """Whether one of the texts holds one of the person's ids."""
        return any(
            spelling in text.lower() for text in texts if text is not None for spelling in self.spellings
        )

    def parameters(self) -> dict[str, Any]:
        """The values that SQL compares with."""
        return {
            "tenant_id": self.tenant_id,
            "profile_ids": list(self.profile_ids),
            "session_ids": list(self.session_ids),
            "spellings": [f"%{spelling}%" for spelling in self.spellings],
            "sources": list(self.sources),
            "actors": list(self.actors),
        }


class SubjectStore(ChecksArguments, ABC):
    """What each store does for the rights of a data subject. Which records are a person's is said by the store.

    `DataLayer.export_customer` and `DataLayer.erase_customer` do it for all stores together.
    """

    @abstractmethod
    async def export_subject(self, subject: DataSubject) -> Mapping[str, list[Any]]:
        """Everything held about the person, softly deleted or not: the entities by table, in the order of ids."""

    @abstractmethod
    async def erase_subject(self, subject: DataSubject) -> Mapping[str, list[UUID]]:
        """Remove for good everything held about the person, all of it or nothing.

        Returns the ids of what went, by table. A repeated call finds what has come since, usually nothing.
        """


class ErasedIds:
    """The ids of what went, by table: in every attempt, as one that is repeated for a lost reply finds less."""

    def __init__(self) -> None:
        self._ids: dict[str, set[UUID]] = {}

    def add(self, ids: Mapping[str, Iterable[UUID]]) -> None:
        """Count these as well, each once."""
        for table, of_table in ids.items():
            self._ids.setdefault(table, set()).update(of_table)

    def by_table(self) -> dict[str, list[UUID]]:
        """All ids, in order."""
        return {table: sorted(ids) for table, ids in self._ids.items()}

    def counts(self) -> dict[str, int]:
        """How many there are of each table."""
        return {table: len(ids) for table, ids in self._ids.items()}


def json_text(part: Model, *names: str) -> str:
    """Fields of an entity as JSON text, to look for mentions in."""
    return part.model_dump_json(include=set(names))


def ids_of(entities: list[Any]) -> list[UUID]:
    """The ids of entities."""
    return [entity.id for entity in entities]


def _spellings(ids: frozenset[UUID]) -> tuple[str, ...]:
    return tuple(sorted(text for id_ in ids for text in (str(id_), id_.hex)))
