"""The SQL of the audit store. Apart from erasures, it only inserts and selects."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

from sqlalchemy import DateTime, Select, Table, select, update
from sqlalchemy.dialects.postgresql import Insert

from soldier_data.audit.orm import AuditEventRow, TurnRecordRow
from soldier_data.postgres.collecting import Insertion
from soldier_data.postgres.queries import (
    LIMIT,
    OFFSET,
    equals,
    equals_any,
    has_key,
    insert_row,
    insert_rows,
    newest_first,
    of_tenant,
)
from soldier_data.postgres.statements import Statement, column_param, param, table_of

TURNS = table_of(TurnRecordRow)
EVENTS = table_of(AuditEventRow)

_MOMENT = DateTime(timezone=True)


@dataclass(frozen=True)
class RecordStatements:
    """The statements for the records of one table.

    Attributes:
        insert: Returns the id, or no row if the id is taken.
        insertion: The same in a collected statement.
        get: Returns the row of the parameter `id`.
        get_listed: Returns the rows of the parameter `ids`, a list.
    """

    insert: Statement
    insertion: Insertion
    get: Statement
    get_listed: Statement


def _records(table: Table) -> Select[Any]:
    return select(*table.columns).where(of_tenant(table))


def _record_statements(name: str, table: Table) -> RecordStatements:
    def unless_taken(inserting: Insert) -> Any:
        # DO UPDATE would require a privilege that the application's role does not have.
        return inserting.on_conflict_do_nothing(index_elements=["tenant_id", "id"]).returning(table.c.id)

    return RecordStatements(
        insert=Statement(f"saving the {name}", lambda: unless_taken(insert_row(table))),
        insertion=Insertion(table, lambda rows, _: unless_taken(insert_rows(table, rows))),
        get=Statement(f"reading the {name}", lambda: _records(table).where(equals(table.c.id))),
        get_listed=Statement(
            f"reading {name}s", lambda: _records(table).where(equals_any(table.c.id, "ids"))
        ),
    )


turns = _record_statements("turn record", TURNS)
events = _record_statements("audit event", EVENTS)

list_turns_by_session = Statement(
    "listing the turns of the session",
    lambda: (
        _records(TURNS)
        .where(equals(TURNS.c.session_id))
        .order_by(TURNS.c.timestamp, TURNS.c.turn_number, TURNS.c.id)
        .limit(LIMIT)
        .offset(OFFSET)
    ),
)


@cache
def list_turns_by_tenant(*, start: bool, end: bool, before: bool) -> Statement:
    """One page of the tenant's turns, optionally of a period or after a cursor."""
    statement = _records(TURNS)
    if start:
        statement = statement.where(TURNS.c.timestamp >= param("start_time", _MOMENT))
    if end:
        statement = statement.where(TURNS.c.timestamp < param("end_time", _MOMENT))
    page = newest_first(statement, TURNS.c.timestamp, before=before).limit(LIMIT)
    return Statement("listing the turns", page)


@cache
def list_events_by_session(*, event_type: bool) -> Statement:
    """The events of a session, optionally of one type."""
    statement = _records(EVENTS).where(equals(EVENTS.c.session_id))
    if event_type:
        statement = statement.where(equals(EVENTS.c.event_type))
    return Statement(
        "listing the events of the session",
        statement.order_by(EVENTS.c.timestamp, EVENTS.c.id).limit(LIMIT),
    )


def _erase(table: Table) -> Statement:
    content = {name: column_param(table.c[name]) for name in table.info["erasable"]}
    erased = update(table).values(content).where(has_key(table))
    return Statement("erasing the text of the customer's audit records", erased)


erase = {"turn_records": _erase(TURNS), "audit_events": _erase(EVENTS)}
"""The one exception from append-only."""
