"""Data subjects: the persons whose data are exported and erased, and the methods by which stores do it."""

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
"""The replacement for an erased text in an audit record."""

BATCH = 500
"""The number of records that an export reads in one statement, and an erasure removes in one transaction."""

EXTERNAL_ID = "external_id"
"""The `Tenure.kind` of an external id."""

# The lengths of a UUID in a text, without and with hyphens.
SPELLED_LENGTHS = (32, 36)
_RUN = re.compile(rf"[0-9a-f-]{{{SPELLED_LENGTHS[0]},}}")


class Tenure(NamedTuple):
    """A period in which an identity or an external id was the person's.

    Attributes:
        kind: The channel of the identity, or `EXTERNAL_ID`.
        value: The channel_user_id, or the external id.
        after: The end of the previous holder's period; None if no previous holder is known.
        until: The last moment of the period; None if there is no later holder.
    """

    kind: str
    value: str
    after: datetime | None = None
    until: datetime | None = None

    def covers(self, moment: datetime) -> bool:
        """Return whether `moment` is in the period."""
        return (self.after is None or moment > self.after) and (self.until is None or moment <= self.until)


@dataclass(frozen=True)
class DataSubject:
    """A person, described by the ids that their records are found by.

    A text or JSON document mentions the person if it contains one of their profile_ids, related_ids or session_ids,
    with or without hyphens, in upper or lower case.

    Attributes:
        tenant_id: The tenant.
        profile_ids: The ids of their profile and of all profiles that were merged with it.
        related_ids: The customer_ids of those profiles, and the ids of their assets.
        session_ids: The ids of their sessions.
        record_ids: The ids of their other records, which embeddings may have been made from.
        identities: Their present and former channel identities, as channel and channel_user_id.
        external_ids: Their present and former ids in other systems.
        tenures: The periods in which identities and external ids were theirs that other customers have had, too.
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
        """The ids that mention the person, with and without hyphens, in lower case."""
        return _spellings(self.profile_ids | self.related_ids | self.session_ids)

    @cached_property
    def sources(self) -> tuple[str, ...]:
        """The source_ids of embeddings that were made from the person's records."""
        return self.spellings + _spellings(self.record_ids)

    @cached_property
    def all_tenures(self) -> tuple[Tenure, ...]:
        """The tenures of all identities and external ids, without limits for those that nobody else has had."""
        limited = {(tenure.kind, tenure.value) for tenure in self.tenures}
        names = {(str(channel), address) for channel, address in self.identities}
        names |= {(EXTERNAL_ID, external_id) for external_id in self.external_ids}
        return (*self.tenures, *(Tenure(*name) for name in sorted(names - limited)))

    def held(self, value: str, moment: datetime, *, kind: str | None = None) -> bool:
        """Return whether a channel_user_id or external id, optionally of one kind, was the person's at a time."""
        return any(
            tenure.value == value and kind in (None, tenure.kind) and tenure.covers(moment)
            for tenure in self.all_tenures
        )

    def is_mentioned_in(self, *texts: str | None) -> bool:
        """Return whether one of the texts mentions the person."""
        return any(
            window in self._spelled for text in texts if text is not None for window in _windows(text.lower())
        )

    @cached_property
    def _spelled(self) -> frozenset[str]:
        return frozenset(self.spellings)


class SubjectStore(ChecksArguments, ABC):
    """Base class of the stores that hold records of persons.

    The docstring of each store's contract says which of its records are a person's. `DataLayer.export_customer` and
    `DataLayer.erase_customer` cover all stores.
    """

    @abstractmethod
    async def export_subject(self, subject: DataSubject) -> Mapping[str, list[Any]]:
        """Read everything held about the person, including what is softly deleted.

        Returns:
            The entities by table, in the order of ids.
        """

    @abstractmethod
    async def erase_subject(self, subject: DataSubject) -> Mapping[str, list[UUID]]:
        """Remove for good everything held about the person.

        Records are removed in batches, each in a transaction of its own unless the store belongs to a unit of work.
        Records by which others are found are removed after them, so that a repeated call after a failure finds the
        rest.

        Returns:
            The ids of the removed records by table. A repeated call finds only what was added since, usually nothing.
        """


class SubjectRecords(SubjectStore):
    """Base class of the stores that first find a person's records, and then read or remove them in batches."""

    @abstractmethod
    async def find_subject(self, subject: DataSubject) -> dict[str, list[UUID]]:
        """Find everything held about the person, including what is softly deleted.

        Returns:
            The ids of the records by table, each list in order.
        """

    @abstractmethod
    async def read_found(
        self, tenant_id: UUID, table: str, ids: Sequence[UUID], *, with_embeddings: bool = True
    ) -> list[Any]:
        """Read records that `find_subject` found.

        Args:
            tenant_id: The tenant.
            table: The name of a table, a key of what `find_subject` returned.
            ids: Ids that `find_subject` returned for the table.
            with_embeddings: Whether to read embeddings. If not, `embedding` is None, or empty where it cannot be None.

        Returns:
            The entities that still exist, in the order of ids.
        """

    @abstractmethod
    async def erase_found(
        self, tenant_id: UUID, found: Mapping[str, Sequence[UUID]]
    ) -> dict[str, list[UUID]]:
        """Remove what `find_subject` found, as `erase_subject` does."""

    async def export_subject(self, subject: DataSubject) -> dict[str, list[Any]]:
        """Implement the method of `SubjectStore`."""
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
        """Implement the method of `SubjectStore`."""
        found = await self.find_subject(subject)
        return await self.erase_found(subject.tenant_id, found)


class ErasedIds:
    """The ids of erased records by table, in all attempts: one that is repeated after a lost reply finds fewer."""

    def __init__(self) -> None:
        self._ids: dict[str, set[UUID]] = {}

    def add(self, ids: Mapping[str, Iterable[UUID]]) -> None:
        """Add ids by table."""
        for table, of_table in ids.items():
            self._ids.setdefault(table, set()).update(of_table)

    def by_table(self) -> dict[str, list[UUID]]:
        """The ids by table, in order."""
        return {table: sorted(ids) for table, ids in self._ids.items()}

    def counts(self) -> dict[str, int]:
        """The number of ids by table."""
        return {table: len(ids) for table, ids in self._ids.items()}


def batches(listed: Sequence[T], size: int = BATCH) -> Iterator[Sequence[T]]:
    """Split a list into parts of at most `size` items."""
    return (listed[start : start + size] for start in range(0, len(listed), size))


def _windows(text: str) -> Iterator[str]:
    """Every part of a text, in lower case, that may be an id."""
    for run in _RUN.findall(text):
        for length in SPELLED_LENGTHS:
            for start in range(len(run) - length + 1):
                yield run[start : start + length]


def _spellings(ids: frozenset[UUID]) -> tuple[str, ...]:
    return tuple(sorted(text for id_ in ids for text in (str(id_), id_.hex)))
