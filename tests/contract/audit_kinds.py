"""The two kinds of audit records, so that one test can state what is true of both."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest

from soldier_data.audit import AuditStore, InMemoryAuditStore, PostgresAuditStore
from soldier_data.postgres.database import Database
from tests.cases import kind
from tests.cases.kinds import audit
from tests.cases.values import NOON
from tests.factories.audit import AuditEventFactory, ToolCallFactory, TurnRecordFactory


@dataclass(frozen=True, kw_only=True)
class Kind(kind.Kind):
    """One kind of record.

    Attributes:
        changes: Another value for every field but the key.
        nested: Makes a record that holds a JSON value somewhere.
    """

    changes: dict[str, Any]
    nested: Callable[..., Any]


TURN = Kind(
    **vars(audit.TURN),
    changes={
        "agent_id": uuid4(),
        "session_id": uuid4(),
        "turn_number": 2**40,
        "user_message": "changed",
        "agent_response": "changed",
        "matched_rule_ids": [uuid4()],
        "scenario_id": uuid4(),
        "step_id": uuid4(),
        "tool_calls": [],
        "latency_ms": 0.5,
        "tokens_used": 1,
        "timestamp": NOON + timedelta(microseconds=1),
    },
    nested=lambda value, **fields: TurnRecordFactory(tool_calls=[ToolCallFactory(output=value)], **fields),
)
EVENT = Kind(
    **vars(audit.EVENT),
    changes={
        "event_type": "changed",
        "event_data": {},
        "session_id": uuid4(),
        "turn_id": uuid4(),
        "timestamp": NOON + timedelta(microseconds=1),
    },
    nested=lambda value, **fields: AuditEventFactory(event_data={"value": value}, **fields),
)
KINDS = (TURN, EVENT)

every_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)


@asynccontextmanager
async def unit_of_work(store: AuditStore) -> AsyncIterator[AuditStore]:
    """A store whose records are kept together when the block is left, or given up on an exception."""
    if isinstance(store, InMemoryAuditStore):
        unit = store.begin()
        try:
            yield unit
            unit.commit()
        finally:
            unit.end()
    else:
        assert isinstance(store, PostgresAuditStore)
        assert isinstance(store._db, Database)
        async with store._db.transaction() as transaction:
            yield PostgresAuditStore(transaction)
