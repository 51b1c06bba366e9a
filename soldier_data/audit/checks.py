"""Validation that both audit stores run, and the comparison of records."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from typing import TypeVar
from uuid import UUID

from soldier_data.audit.models import AuditEvent, TurnRecord
from soldier_data.base.items import check_items
from soldier_data.base.paging import Cursor, check_page
from soldier_data.base.values import check_moment, check_storable
from soldier_data.errors import ConflictError

R = TypeVar("R", TurnRecord, AuditEvent)


def check_list(records: Sequence[R]) -> dict[UUID, R]:
    """Check a list of records; return them by id, sorted by id.

    Raises:
        ValidationError: A record cannot be stored, or belongs to another tenant than the first. Names its place and
            the field.
        ConflictError: Two different records have the same id.
    """
    first: TurnRecord | AuditEvent | None = next(iter(records), None)
    name = "turns" if isinstance(first, TurnRecord) else "events"
    check_items(records, name, check_storable)
    by_id: dict[UUID, R] = {}
    for record in records:
        require_same(by_id.setdefault(record_id(record), record), record)
    # Concurrent calls that add the same records lock them in the same order, which prevents deadlocks.
    return dict(sorted(by_id.items()))


def require_same(stored: R | None, record: R) -> None:
    """Check that the record equals the one that is stored under its id.

    Raises:
        ConflictError: They differ.
    """
    if stored is record or (stored is not None and _canonical(stored) == _canonical(record)):
        return
    raise ConflictError(
        f"saving the {type(record).__name__} {record_id(record)}: a different one is stored under this id, and "
        "records are never changed: save the new record under a new id"
    )


def record_id(record: TurnRecord | AuditEvent) -> UUID:
    """The id under which the record is stored."""
    return record.turn_id if isinstance(record, TurnRecord) else record.id


def _canonical(record: TurnRecord | AuditEvent) -> str:
    # Python considers 1, 1.0 and True equal, which an audit must not.
    return json.dumps(record.model_dump(mode="json"), sort_keys=True)


def check_period(
    start_time: datetime | None, end_time: datetime | None, limit: int, before: Cursor | None
) -> None:
    """Check the arguments of `list_turns_by_tenant`.

    Raises:
        ValidationError: Names the argument.
    """
    check_page(limit)
    if start_time is not None:
        check_moment(start_time, "start_time")
    if end_time is not None:
        check_moment(end_time, "end_time")
    if before is not None:
        check_moment(before.at, "before")
