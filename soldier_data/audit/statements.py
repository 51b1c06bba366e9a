"""The SQL of the audit store: it inserts and selects, nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

from sqlalchemy import BigInteger, DateTime, Select, Table, Uuid, any_, select, tuple_
from sqlalchemy.dialects.postgresql import ARRAY, insert

from soldier_data.audit.orm import AuditEventRow, TurnRecordRow
from soldier_data.postgres.statements import Statement, column_param, param, table_of

TURNS = table_of(TurnRecordRow)
EVENTS = table_of(AuditEventRow)

LIMIT = param("limit", BigInteger())
OFFSET = param("offset", BigInteger())
MOMENT = DateTime(timezone=True)


@dataclass(frozen=True)
class RecordStatements:
    """What is done with the records of one table.

    Attributes:
        insert: Returns the id, or nothing if there is a row under it already.
        get: The row of the parameter `id`.
        get_listed: The rows of the parameter `ids`, a list.
    """

    insert: Statement
    get: Statement
    get_listed: Statement


def _of_tenant(table: Table) -> Select[Any]:
    return select(*table.columns).where(table.c.tenant_id == column_param(table.c.tenant_id))


def _record_statements(name: str, table: Table) -> RecordStatements:
    # DO UPDATE would need a privilege that the application's role does not have.
    inserting = (
        insert(table)
        .values({column.name: column_param(column) for column in table.columns})
        .on_conflict_do_nothing(index_elements=["tenant_id", "id"])
        .returning(table.c.id)
    )
    listed = table.c.id == any_(param("ids", ARRAY(Uuid())))
    return RecordStatements(
        insert=Statement(f"saving the {name}", inserting),
        get=Statement(f"reading the {name}", _of_tenant(table).where(table.c.id == column_param(table.c.id))),
        get_listed=Statement(f"reading {name}s", _of_tenant(table).where(listed)),
    )


turns = _record_statements("turn record", TURNS)
events = _record_statements("audit event", EVENTS)

list_turns_by_session = Statement(
    "listing the turns of the session",
    _of_tenant(TURNS)
    .where(TURNS.c.session_id == column_param(TURNS.c.session_id))
    .order_by(TURNS.c.timestamp, TURNS.c.turn_number, TURNS.c.id)
    .limit(LIMIT)
    .offset(OFFSET),
)


@cache
def list_turns_by_tenant(*, start: bool, end: bool, before: bool) -> Statement:
    """One page of the tenant's turns, optionally of a period or from a position on."""
    statement = _of_tenant(TURNS)
    if start:
        statement = statement.where(TURNS.c.timestamp >= param("start_time", MOMENT))
    if end:
        statement = statement.where(TURNS.c.timestamp < param("end_time", MOMENT))
    if before:
        position = tuple_(param("before_at", MOMENT), param("before_id", Uuid()))
        statement = statement.where(tuple_(TURNS.c.timestamp, TURNS.c.id) < position)
    return Statement(
        "listing the turns",
        statement.order_by(TURNS.c.timestamp.desc(), TURNS.c.id.desc()).limit(LIMIT),
    )


@cache
def list_events_by_session(*, event_type: bool) -> Statement:
    """The events of a session, optionally those of one type."""
    statement = _of_tenant(EVENTS).where(EVENTS.c.session_id == column_param(EVENTS.c.session_id))
    if event_type:
        statement = statement.where(EVENTS.c.event_type == column_param(EVENTS.c.event_type))
    return Statement(
        "listing the events of the session",
        statement.order_by(EVENTS.c.timestamp, EVENTS.c.id).limit(LIMIT),
    )
