"""Data subjects: the person whose data an export or an erasure is about, and what every store does for them."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any, NamedTuple, TypeVar
from uuid import UUID

from soldier_data.base.arguments import ChecksArguments, check_fields
from soldier_data.base.channels import Channel
from soldier_data.base.values import check_text

T = TypeVar("T")

ERASED = "[erased]"
"""What stands in an audit record in place of a text that was erased."""

BATCH = 500
"""How many records an export reads at once, and an erasure removes in one transaction."""

EXTERNAL_ID = "external_id"
"""The kind of an external id, as of `Tenure.kind`."""

# The ways in which a text may hold an id: without hyphens, and with them.
SPELLED_LENGTHS = (32, 36)
_RUN = re.compile(rf"[0-9a-f-]{{{SPELLED_LENGTHS[0]},}}")


class Tenure(NamedTuple):
    """A time in which an identity or an external id was the person's.

    Attributes:
        kind: The channel of the identity, or `EXTERNAL_ID`.
        value: The channel_user_id, or the external id.
        after: The moment after which it was theirs; None if nobody is known to have had it before them.
        until: The last moment at which it was theirs; None if nobody has got it since.
    """

    kind: str
    value: str
    after: datetime | None = None
    until: datetime | None = None

    def covers(self, moment: datetime) -> bool:
        """Whether it was theirs then."""
        return (self.after is None or moment > self.after) and (self.until is None or moment <= self.until)


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
        identities: Where they are, or were, reached: channel and channel_user_id.
        external_ids: Their ids in other systems, former ones too.
        tenures: When identities and external ids were theirs, of those that other customers have had too.
    """

    tenant_id: UUID
    profile_ids: frozenset[UUID]
    related_ids: frozenset[UUID] = frozenset()
    session_ids: frozenset[UUID] = frozenset()
    record_ids: frozenset[UUID] = frozenset()
    identities: frozenset[tuple[Channel, str]] = frozenset()
    external_ids: frozenset[str] = frozenset()
    tenures: frozenset[Tenure] = frozenset()

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
    def held(self) -> tuple[Tenure, ...]:
        """Every identity and external id, with the times in which it was theirs."""
        limited = {(tenure.kind, tenure.value) for tenure in self.tenures}
        names = {(str(channel), address) for channel, address in self.identities}
        names |= {(EXTERNAL_ID, external_id) for external_id in self.external_ids}
        return (*self.tenures, *(Tenure(*name) for name in sorted(names - limited)))

    def is_reached_at(self, channel: Channel, address: str, moment: datetime) -> bool:
        """Whether the identity was the person's at that moment."""
        return any(
            (each.kind, each.value) == (channel, address) and each.covers(moment) for each in self.held
        )

    def is_actor(self, actor: str, moment: datetime) -> bool:
        """Whether a run of that moment with this actor is one that they asked for, as far as its actor tells."""
        return any(each.value == actor and each.covers(moment) for each in self.held)

    def is_mentioned_in(self, *texts: str | None) -> bool:
        """Whether one of the texts holds one of the person's ids."""
        return any(
            window in self._spelled for text in texts if text is not None for window in _windows(text.lower())
        )

    @cached_property
    def _spelled(self) -> frozenset[str]:
        return frozenset(self.spellings)


class SubjectStore(ChecksArguments, ABC):
    """What each store does for the rights of a data subject. Which records are a person's is said by the store.

    `DataLayer.export_customer` and `DataLayer.erase_customer` do it for all stores together.
    """

    @abstractmethod
    async def export_subject(self, subject: DataSubject) -> Mapping[str, list[Any]]:
        """Everything held about the person, softly deleted or not: the entities by table, in the order of ids."""

    @abstractmethod
    async def erase_subject(self, subject: DataSubject) -> Mapping[str, list[UUID]]:
        """Remove for good everything held about the person.

        It goes in batches, each in a transaction of its own unless the store is that of a unit of work. What
        others are found by goes after them, so that after a failure a repeated call finds what is left.

        Returns the ids of what went, by table. A repeated call finds what has come since, usually nothing.
        """


class SubjectRecords(SubjectStore):
    """A store that finds what is a person's first, and then reads or removes it in batches."""

    @abstractmethod
    async def find_subject(self, subject: DataSubject) -> dict[str, list[UUID]]:
        """The ids of everything held about the person, softly deleted or not, by table, each list in order."""

    @abstractmethod
    async def read_found(
        self, tenant_id: UUID, table: str, ids: Sequence[UUID], *, with_embeddings: bool = True
    ) -> list[Any]:
        """What is still there of what `find_subject` found in a table, in the order of ids.

        Without embeddings, `embedding` is None, or empty where it cannot be.
        """

    @abstractmethod
    async def erase_found(
        self, tenant_id: UUID, found: Mapping[str, Sequence[UUID]]
    ) -> dict[str, list[UUID]]:
        """Remove what `find_subject` found, as `erase_subject` does."""

    async def export_subject(self, subject: DataSubject) -> dict[str, list[Any]]:
        """As `SubjectStore` says."""
        found = await self.find_subject(subject)
        return {
            table: [
                entity
                for batch in batches(ids)
                for entity in await self.read_found(subject.tenant_id, table, batch)
            ]
            for table, ids in found.items()
        }

    async def erase_subject(self, subject: DataSubject) -> dict[str, list[UUID]]:
        """As `SubjectStore` says."""
        found = await self.find_subject(subject)
        return await self.erase_found(subject.tenant_id, found)


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


def batches(listed: Sequence[T], size: int = BATCH) -> Iterator[Sequence[T]]:
    """The list in parts of a size that one statement takes."""
    return (listed[start : start + size] for start in range(0, len(listed), size))


def _windows(text: str) -> Iterator[str]:
    """Every part of a text that could be the spelling of an id."""
    for run in _RUN.findall(text):
        for length in SPELLED_LENGTHS:
            for start in range(len(run) - length + 1):
                yield run[start : start + length]


def _spellings(ids: frozenset[UUID]) -> tuple[str, ...]:
    return tuple(sorted(text for id_ in ids for text in (str(id_), id_.hex)))
