"""The search for a person's records in PostgreSQL, and the SQL that reads and removes them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from functools import cache, cached_property
from time import monotonic
from typing import Any, TypeAlias
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    DateTime,
    LargeBinary,
    Table,
    Text,
    Uuid,
    all_,
    and_,
    any_,
    cast,
    delete,
    exists,
    func,
    literal_column,
    or_,
    select,
)
from sqlalchemy.dialects.postgresql import ARRAY

from soldier_data.base.subject_rules import (
    Both,
    Either,
    Fields,
    HeldAt,
    In,
    IsNone,
    Lists,
    Mentions,
    NotIn,
    Overlaps,
    Rule,
    SubjectSearch,
)
from soldier_data.base.subjects import BATCH, SPELLED_LENGTHS, DataSubject, ErasedIds, batches
from soldier_data.logging import get_logger
from soldier_data.postgres.executor import Executor
from soldier_data.postgres.orm import Base
from soldier_data.postgres.queries import equals_any, force_custom_plan, of_tenant
from soldier_data.postgres.statements import Row, Statement, param
from soldier_data.postgres.transaction import Transaction

EraseBatch: TypeAlias = Callable[
    [Transaction, UUID, str, Sequence[UUID]], Awaitable[Mapping[str, Sequence[UUID]]]
]
"""Erases the records of a tenant in a table that have these ids; returns the ids of what was erased, by table."""

# A page takes about a second: long enough that round trips do not count, and far from the command timeout.
_FIRST_PAGE, _LARGEST_PAGE = 250, 10_000
_SHORT, _LONG = 0.5, 2.0

_LARGEST_ID = UUID(int=2**128 - 1)
_ONE: ColumnElement[int] = literal_column("1")

_log = get_logger(__name__)


# -- rules in SQL ----------------------------------------------------------------------------------------------


def condition(rule: Rule, table: Table) -> ColumnElement[bool]:
    """A rule as a condition on the rows of a table, the lists that it names being parameters."""
    match rule:
        case Either(one, other):
            return or_(condition(one, table), condition(other, table))
        case Both(one, other):
            return and_(condition(one, table), condition(other, table))
        case In(field, name):
            return equals_any(table.c[field], name)
        case NotIn(field, name):
            return table.c[field] != all_(param(name, ARRAY(table.c[field].type)))
        case Overlaps(field, name):
            value = func.unnest(table.c[field], type_=Uuid()).column_valued("value")
            return exists(select(_ONE).where(equals_any(value, name)))
        case IsNone(field):
            return table.c[field].is_(None)
        case Mentions(fields):
            return _mentions_subject(*(table.c[field] for field in fields))
        case HeldAt(field, moment):
            return _is_held_at(table.c[field], table.c[moment])
    raise TypeError(f"no rule: {type(rule).__name__}")


def _mentions_subject(*columns: ColumnElement[Any]) -> ColumnElement[bool]:
    """One of the columns, texts or JSON documents, holds an id of the parameter `spellings`.

    Every part of the text that may be the spelling of an id is looked up among the person's ids. That costs the same
    however many ids they have, whereas comparing the text with each id costs as much again for each. The statement
    must use `force_custom_plan`, because PostgreSQL hashes only values that it knows when it plans.
    """
    text = func.concat_ws(literal_column("' '"), *(cast(column, Text) for column in columns))
    # The shortest part of a spelling between hyphens that is no common word or date. Matching 32 characters at once
    # is three times as slow: the automaton of the expression is built anew for each text.
    pattern: ColumnElement[str] = literal_column("'[0-9A-Fa-f-]{8,}'")
    every: ColumnElement[str] = literal_column("'g'")
    found = func.regexp_matches(text, pattern, every, type_=ARRAY(Text())).column_valued("found")
    run = func.array_to_string(found, literal_column("''"))
    shortest: ColumnElement[int] = literal_column(str(SPELLED_LENGTHS[0]))
    # As bytes, whose parts are reached directly: a text in UTF-8 is counted through from its beginning.
    # OFFSET keeps PostgreSQL from converting the text to bytes again for each part.
    runs = (
        select(cast(func.lower(run), LargeBinary).label("run"))
        .where(func.length(run) >= shortest)
        .offset(literal_column("0"))
        .subquery("runs")
    )
    place = func.generate_series(_ONE, func.length(runs.c.run) - shortest + _ONE).column_valued("place")
    spellings = any_(param("spellings", ARRAY(LargeBinary())))
    parts = (func.substr(runs.c.run, place, literal_column(str(length))) for length in SPELLED_LENGTHS)
    return exists(select(_ONE).select_from(runs).where(or_(*(part == spellings for part in parts))))


def _is_held_at(identifier: ColumnElement[str], moment: ColumnElement[Any]) -> ColumnElement[bool]:
    held = (
        func.unnest(
            param("held", ARRAY(Text())),
            param("held_after", ARRAY(DateTime(timezone=True))),
            param("held_until", ARRAY(DateTime(timezone=True))),
        )
        .table_valued("value", "after", "until", name="held")
        .render_derived()
    )
    return exists(
        select(_ONE)
        .select_from(held)
        .where(
            held.c.value == identifier,
            or_(held.c.after.is_(None), moment > held.c.after),
            or_(held.c.until.is_(None), moment <= held.c.until),
        )
    )


# -- searching ---------------------------------------------------------------------------------------------------


class PostgresSearch(SubjectSearch):
    """`SubjectSearch` in the tables of PostgreSQL.

    Args:
        subject: The person.
        db: The database, or a transaction.
        operation: The `operation` of the statements.
    """

    def __init__(self, subject: DataSubject, db: Executor, operation: str) -> None:
        super().__init__(subject)
        self._db = db
        self._operation = operation
        self._values: dict[str, Any] = {
            "tenant_id": subject.tenant_id,
            "profile_ids": subject.profile_ids,
            "session_ids": subject.session_ids,
            "spellings": [spelling.encode() for spelling in subject.spellings],
            "held": [each.value for each in subject.all_tenures],
            "held_after": [each.after for each in subject.all_tenures],
            "held_until": [each.until for each in subject.all_tenures],
            "force_custom_plan": True,
        }

    async def look_up(
        self, table: str, field: str, values: Collection[Any], *, at_once: int = BATCH
    ) -> list[UUID]:
        """As `SubjectSearch.look_up`."""
        statement = _look_up(self._operation, Base.metadata.tables[table], field)
        found: list[UUID] = []
        for batch in batches(list(values), at_once):
            row_values = {"tenant_id": self.subject.tenant_id, "values": batch}
            found += [row["id"] for row in await self._db.fetch_all(statement, row_values)]
        return sorted(found)

    async def pages(
        self, table: str, rule: Rule, lists: Lists | None = None, fields: Sequence[str] = ("id",)
    ) -> AsyncIterator[list[Fields]]:
        """As `SubjectSearch.pages`; each page takes about a second."""
        page_end, rows_of = _scan(self._operation, Base.metadata.tables[table], rule, tuple(fields))
        begins, size, read = UUID(int=0), _FIRST_PAGE, 0
        while True:
            page = {"page_begins": begins, "page_size": size - 1}
            last = await self._db.fetch_one(page_end, self._values | page)
            page["page_ends"] = ends = _LARGEST_ID if last is None else last["id"]
            started = monotonic()
            rows = await self._db.fetch_all(rows_of, {**self._values, **(lists or {}), **page})
            took = monotonic() - started
            yield rows
            if ends == _LARGEST_ID:
                return
            read += size
            _log.debug("subject_scan", table=table, read=read)
            if took < _SHORT:
                size = min(2 * size, _LARGEST_PAGE)
            elif took > _LONG:
                size = max(size // 2, 1)
            begins = UUID(int=ends.int + 1)


@cache
def _look_up(operation: str, table: Table, field: str) -> Statement:
    wanted = equals_any(table.c[field], "values")
    return Statement(operation, select(table.c.id).where(of_tenant(table), wanted))


@cache
def _scan(operation: str, table: Table, rule: Rule, fields: tuple[str, ...]) -> tuple[Statement, Statement]:
    """Statements that find the last id of a page, and the rows of the page that match the rule."""
    begins = table.c.id >= param("page_begins", Uuid())
    ends = table.c.id <= param("page_ends", Uuid())
    page_end = (
        select(table.c.id)
        .where(of_tenant(table), begins)
        .order_by(table.c.id)
        .offset(param("page_size", BigInteger()))
        .limit(_ONE)
    )
    rows = (
        select(*(table.c[field] for field in fields))
        .where(of_tenant(table), begins, ends, condition(rule, table), force_custom_plan())
        .order_by(table.c.id)
    )
    return Statement(operation, page_end), Statement(operation, rows)


# -- reading and removing --------------------------------------------------------------------------------------


class StoredRecords:
    """Reads and removes rows of one table by their ids.

    Args:
        table: The table.
        columns: The columns that an entity is made from.
        to_entity: Makes an entity from a row.
        called: The name of the records in messages: "the customer's runs".
    """

    def __init__(
        self, table: Table, columns: Sequence[Column[Any]], to_entity: Callable[[Row], Any], called: str
    ) -> None:
        self.table = table
        self._columns = columns
        self._to_entity = to_entity
        self._called = called
        # The value in place of an embedding that is not read.
        self._no_embedding: dict[str, Any] = {
            c.name: None if c.nullable else [] for c in columns if c.name == "embedding"
        }
        self._listed = and_(of_tenant(table), equals_any(table.c.id, "ids"))

    @cached_property
    def _read(self) -> Statement:
        return self._reading(*self._columns)

    @cached_property
    def _read_without_embedding(self) -> Statement:
        return self._reading(*(c for c in self._columns if c.name not in self._no_embedding))

    def _reading(self, *columns: Column[Any]) -> Statement:
        rows = select(*columns).where(self._listed).order_by(self.table.c.id)
        return Statement(f"reading {self._called}", rows)

    @cached_property
    def _lock(self) -> Statement:
        # In the order of ids, so that two erasures cannot deadlock.
        rows = select(self.table.c.id).where(self._listed).order_by(self.table.c.id)
        return Statement(f"erasing {self._called}", rows.with_for_update())

    @cached_property
    def _delete(self) -> Statement:
        return Statement(f"erasing {self._called}", delete(self.table).where(self._listed))

    async def read(
        self, db: Executor, tenant_id: UUID, ids: Sequence[UUID], *, with_embeddings: bool = True
    ) -> list[Any]:
        """Return the entities in the order of ids; without embeddings, that field is None or empty."""
        values = {"tenant_id": tenant_id, "ids": ids}
        if with_embeddings:
            return [self._to_entity(row) for row in await db.fetch_all(self._read, values)]
        rows = await db.fetch_all(self._read_without_embedding, values)
        return [self._to_entity({**row, **self._no_embedding}) for row in rows]

    async def lock(self, transaction: Transaction, tenant_id: UUID, ids: Sequence[UUID]) -> list[UUID]:
        """Lock the rows; return the ids of those that exist, in order."""
        rows = await transaction.fetch_all(self._lock, {"tenant_id": tenant_id, "ids": ids})
        return [row["id"] for row in rows]

    async def delete(self, transaction: Transaction, tenant_id: UUID, ids: Sequence[UUID]) -> None:
        """Delete the rows."""
        await transaction.fetch_all(self._delete, {"tenant_id": tenant_id, "ids": ids})


async def erase_in_batches(
    db: Executor, tenant_id: UUID, found: Mapping[str, Sequence[UUID]], erase: EraseBatch, operation: str
) -> dict[str, list[UUID]]:
    """Erase records table by table, each batch of `BATCH` in a transaction of its own; return the ids, by table.

    What an attempt erased counts although the reply to its COMMIT was lost and the repeated one finds nothing.
    """
    erased = ErasedIds()
    for table, ids in found.items():
        erased.add({table: ()})
        for batch in batches(ids):

            async def work(transaction: Transaction, table: str = table, ids: Sequence[UUID] = batch) -> None:
                erased.add(await erase(transaction, tenant_id, table, ids))

            await db.atomically(work, operation)
    return erased.by_table()
