"""The SQL by which every store looks for what is a person's (see `base.subjects`)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from time import monotonic
from typing import Any
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    DateTime,
    LargeBinary,
    Table,
    Text,
    Uuid,
    any_,
    cast,
    exists,
    func,
    literal_column,
    or_,
    select,
)
from sqlalchemy.dialects.postgresql import ARRAY

from soldier_data.base.subjects import SPELLED_LENGTHS
from soldier_data.logging import get_logger
from soldier_data.postgres.database import Executor
from soldier_data.postgres.statements import Statement, column_param, force_custom_plan, param
from soldier_data.postgres.transaction import Row

# A page takes about a second: long enough that round trips do not count, and far from the command time-out.
_FIRST_PAGE, _LARGEST_PAGE = 250, 10_000
_SHORT, _LONG = 0.5, 2.0

_LARGEST_ID = UUID(int=2**128 - 1)

_log = get_logger(__name__)


def mentions_subject(*columns: ColumnElement[Any]) -> ColumnElement[bool]:
    """One of the columns, texts or JSON documents, mentions the person (see `base.subjects.DataSubject`).

    What could be the spelling of an id is taken out of the text, and looked up among the person's ids: that costs
    the same however many ids they have, where comparing the text with each id costs as much for each. It takes a
    statement that is `force_custom_plan`, because only the values of such a one are hashed.
    """
    text = func.concat_ws(literal_column("' '"), *(cast(column, Text) for column in columns))
    # The shortest part of a spelling between hyphens that no common word or date is. Asking for 32 at once is
    # three times as slow: the automaton of the expression is built anew for each text.
    pattern: ColumnElement[str] = literal_column("'[0-9A-Fa-f-]{8,}'")
    every: ColumnElement[str] = literal_column("'g'")
    found = func.regexp_matches(text, pattern, every, type_=ARRAY(Text())).column_valued("found")
    run = func.array_to_string(found, literal_column("''"))
    shortest: ColumnElement[int] = literal_column(str(SPELLED_LENGTHS[0]))
    # As bytes, of which any part is at hand at once: a text in UTF-8 is counted through from its beginning.
    # OFFSET keeps PostgreSQL from making the bytes anew for each part.
    runs = (
        select(cast(func.lower(run), LargeBinary).label("run"))
        .where(func.length(run) >= shortest)
        .offset(literal_column("0"))
        .subquery("runs")
    )
    one: ColumnElement[int] = literal_column("1")
    place = func.generate_series(one, func.length(runs.c.run) - shortest + one).column_valued("place")
    spellings = any_(param("spellings", ARRAY(LargeBinary())))
    return exists(
        select(one)
        .select_from(runs)
        .where(
            or_(
                *(
                    func.substr(runs.c.run, place, literal_column(str(length))) == spellings
                    for length in SPELLED_LENGTHS
                )
            )
        )
    )


def is_actor(actor: ColumnElement[str], moment: ColumnElement[Any]) -> ColumnElement[bool]:
    """The actor is an identity or an external id that was the person's at the moment."""
    held = (
        func.unnest(
            param("actors", ARRAY(Text())),
            param("actors_after", ARRAY(DateTime(timezone=True))),
            param("actors_until", ARRAY(DateTime(timezone=True))),
        )
        .table_valued("value", "after", "until", name="held")
        .render_derived()
    )
    return exists(
        select(literal_column("1"))
        .select_from(held)
        .where(
            held.c.value == actor,
            or_(held.c.after.is_(None), moment > held.c.after),
            or_(held.c.until.is_(None), moment <= held.c.until),
        )
    )


class Scan:
    """Looks through a table of the tenant, page by page, in the order of ids.

    Args:
        operation: As of a statement.
        table: The table.
        wanted: What makes a row one to return.
        columns: What to return of it.
    """

    def __init__(
        self, operation: str, table: Table, wanted: ColumnElement[bool], *columns: ColumnElement[Any]
    ) -> None:
        of_tenant = table.c.tenant_id == column_param(table.c.tenant_id)
        begins = table.c.id >= param("page_begins", Uuid())
        self._table = str(table.name)
        self._page_end = Statement(
            operation,
            select(table.c.id)
            .where(of_tenant, begins)
            .order_by(table.c.id)
            .offset(param("page_size", BigInteger()))
            .limit(literal_column("1")),
        )
        self._rows = Statement(
            operation,
            select(*columns)
            .where(of_tenant, begins, table.c.id <= param("page_ends", Uuid()), wanted, force_custom_plan())
            .order_by(table.c.id),
        )

    async def pages(self, db: Executor, values: Mapping[str, Any]) -> AsyncIterator[list[Row]]:
        """The rows that are wanted of one page after the other.

        A caller who has learned something from a page may change `values` before the next one.
        """
        begins, size, looked_at = UUID(int=0), _FIRST_PAGE, 0
        while True:
            page = {"tenant_id": values["tenant_id"], "page_begins": begins, "page_size": size - 1}
            last = await db.fetch_one(self._page_end, page)
            ends = _LARGEST_ID if last is None else last["id"]
            started = monotonic()
            rows = await db.fetch_all(
                self._rows, {**values, **page, "page_ends": ends, "force_custom_plan": True}
            )
            took = monotonic() - started
            yield rows
            if ends == _LARGEST_ID:
                return
            looked_at += size
            _log.debug("subject_scan", table=self._table, looked_at=looked_at)
            if took < _SHORT:
                size = min(2 * size, _LARGEST_PAGE)
            elif took > _LONG:
                size = max(size // 2, 1)
            begins = UUID(int=ends.int + 1)

    async def rows(self, db: Executor, values: Mapping[str, Any]) -> list[Row]:
        """All rows that are wanted."""
        return [row async for page in self.pages(db, values) for row in page]
