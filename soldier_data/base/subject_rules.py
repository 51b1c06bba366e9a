"""Rules that say which records are a person's, and the search for these records in memory.

Each domain states its rules once, in its module `subjects`, and names fields as the columns are named. `matches`
applies a rule to an entity; `soldier_data.postgres.subjects.condition` translates it into SQL.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias
from uuid import UUID

from pydantic_core import to_json

from soldier_data.base.inmemory import TableSet
from soldier_data.base.subjects import BATCH, DataSubject, SubjectRecords

Lists: TypeAlias = Mapping[str, Collection[Any]]
"""The values that rules compare with, by the name that the rules call them."""

Fields: TypeAlias = Mapping[str, Any]
"""Some fields of a record, by name."""


class Rule:
    """A condition on a record. Rules combine by `|` and `&`."""

    def __or__(self, other: Rule) -> Rule:
        return Either(self, other)

    def __and__(self, other: Rule) -> Rule:
        return Both(self, other)


@dataclass(frozen=True)
class Either(Rule):
    """One of two rules holds."""

    one: Rule
    other: Rule


@dataclass(frozen=True)
class Both(Rule):
    """Two rules hold."""

    one: Rule
    other: Rule


@dataclass(frozen=True)
class In(Rule):
    """The value of `field` is in the list `name`."""

    field: str
    name: str


@dataclass(frozen=True)
class NotIn(Rule):
    """The value of `field`, which is never None, is not in the list `name`."""

    field: str
    name: str


@dataclass(frozen=True)
class Overlaps(Rule):
    """One of the values in `field`, a list of UUIDs, is in the list `name`."""

    field: str
    name: str


@dataclass(frozen=True)
class IsNone(Rule):
    """`field` is None."""

    field: str


@dataclass(frozen=True, init=False)
class Mentions(Rule):
    """One of the fields, texts or JSON documents, mentions the person (see `DataSubject`)."""

    fields: tuple[str, ...]

    def __init__(self, *fields: str) -> None:
        object.__setattr__(self, "fields", fields)


@dataclass(frozen=True)
class HeldAt(Rule):
    """`field` is an identity or external id that was the person's at the time in the field `moment`."""

    field: str
    moment: str


def matches(rule: Rule, record: Any, subject: DataSubject, lists: Lists) -> bool:
    """Return whether a rule holds for an entity."""
    match rule:
        case Either(one, other):
            return matches(one, record, subject, lists) or matches(other, record, subject, lists)
        case Both(one, other):
            return matches(one, record, subject, lists) and matches(other, record, subject, lists)
        case In(field, name):
            return getattr(record, field) in lists[name]
        case NotIn(field, name):
            return getattr(record, field) not in lists[name]
        case Overlaps(field, name):
            return any(value in lists[name] for value in getattr(record, field))
        case IsNone(field):
            return getattr(record, field) is None
        case Mentions(fields):
            return subject.is_mentioned_in(*(_text(getattr(record, field)) for field in fields))
        case HeldAt(field, moment):
            return subject.held(getattr(record, field), getattr(record, moment))
    raise TypeError(f"no rule: {type(rule).__name__}")


def _text(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else to_json(value).decode()


class SubjectSearch(ABC):
    """Searches the tables of one store for records of a person, softly deleted ones included.

    Args:
        subject: The person. Rules may use the lists "profile_ids" and "session_ids".
    """

    def __init__(self, subject: DataSubject) -> None:
        self.subject = subject

    @abstractmethod
    async def look_up(
        self, table: str, field: str, values: Collection[Any], *, at_once: int = BATCH
    ) -> list[UUID]:
        """Find records by an index; return their ids in order.

        Args:
            table: The table.
            field: An indexed field.
            values: Values of the field.
            at_once: The number of values that one statement looks up.
        """

    @abstractmethod
    def pages(
        self, table: str, rule: Rule, lists: Lists | None = None, fields: Sequence[str] = ("id",)
    ) -> AsyncIterator[list[Fields]]:
        """Find records by testing every record of the tenant.

        Args:
            table: The table.
            rule: The rule to test.
            lists: The lists that the rule uses. The caller may change them between pages.
            fields: The fields to return.

        Yields:
            The fields of the matching records of one page.
        """

    async def rows(
        self, table: str, rule: Rule, lists: Lists | None = None, fields: Sequence[str] = ("id",)
    ) -> list[Fields]:
        """As `pages`, with the records of all pages in one list."""
        return [row async for page in self.pages(table, rule, lists, fields) for row in page]

    async def ids(self, table: str, rule: Rule, **lists: Collection[Any]) -> list[UUID]:
        """Find records by testing every record of the tenant; return their ids in order."""
        return sorted(row["id"] for row in await self.rows(table, rule, lists))


class InMemorySearch(SubjectSearch):
    """`SubjectSearch` in the tables of an in-memory store.

    Args:
        subject: The person.
        tables: The tables.
        id_fields: The names of id fields other than "id", by table.
    """

    def __init__(
        self, subject: DataSubject, tables: TableSet, id_fields: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(subject)
        self._tables = tables
        self._id_fields = id_fields or {}
        self._lists: Lists = {"profile_ids": subject.profile_ids, "session_ids": subject.session_ids}

    async def look_up(
        self,
        table: str,
        field: str,
        values: Collection[Any],
        *,
        at_once: int = BATCH,  # noqa: ARG002 - one look at the table finds all.
    ) -> list[UUID]:
        """As `SubjectSearch.look_up`."""
        return await self.ids(table, In(field, "values"), values=frozenset(values))

    async def pages(
        self, table: str, rule: Rule, lists: Lists | None = None, fields: Sequence[str] = ("id",)
    ) -> AsyncIterator[list[Fields]]:
        """As `SubjectSearch.pages`; all records are one page."""
        lists = {**self._lists, **(lists or {})}
        names = {field: self._id_fields.get(table, field) if field == "id" else field for field in fields}
        yield [
            {field: getattr(record, name) for field, name in names.items()}
            for record in self._tables[table].of_tenant(self.subject.tenant_id)
            if matches(rule, record, self.subject, lists)
        ]


class InMemoryRecords(SubjectRecords):
    """Reads and removes the records of a person in an in-memory store."""

    _tables: TableSet

    async def read_found(
        self, tenant_id: UUID, table: str, ids: Sequence[UUID], *, with_embeddings: bool = True
    ) -> list[Any]:
        """As `SubjectRecords.read_found`."""
        found = self._tables[table].get_all(tenant_id, ids)
        name = self._tables[table].embedding
        if name is None or with_embeddings:
            return found
        return [
            each.model_copy(update={name: [] if type(each).model_fields[name].is_required() else None})
            for each in found
        ]

    async def erase_found(
        self, tenant_id: UUID, found: Mapping[str, Sequence[UUID]]
    ) -> dict[str, list[UUID]]:
        """As `SubjectRecords.erase_found`."""
        return {table: self._tables[table].remove_all(tenant_id, ids) for table, ids in found.items()}
