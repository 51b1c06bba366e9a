"""The one kind of entity that the session store keeps."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID, uuid4
from zoneinfo import ZoneInfo

from soldier_data.base.models import utcnow
from soldier_data.sessions import Channel, PendingMigration, Session, SessionStatus, StepVisit
from tests.cases.kind import Kind
from tests.cases.values import DOCUMENT, LEAP_DAY, NOON, TEXT
from tests.factories.sessions import SessionFactory


def _full_session() -> dict[str, Any]:
    visit = StepVisit(
        step_id=uuid4(),
        step_name=TEXT,
        entered_at=LEAP_DAY,
        turn_number=3,
        transition_reason=TEXT,
        confidence=0.123456789012345678,
        is_checkpoint=True,
        checkpoint_description=TEXT,
        step_content_hash=TEXT,
    )
    pending = PendingMigration(
        target_version=2, anchor_content_hash=TEXT, migration_plan_id=uuid4(), marked_at=NOON
    )
    return {
        "channel": Channel.EMAIL,
        "user_channel_id": TEXT,
        "customer_profile_id": uuid4(),
        "config_version": 2**63 - 1,
        "active_scenario_id": uuid4(),
        "active_step_id": uuid4(),
        "active_scenario_version": 4,
        "step_history": [visit],
        "relocalization_count": 3,
        "rule_fires": {TEXT: 2, "": 0},
        "rule_last_fire_turn": {"a": 2**63 - 1},
        "variables": {**DOCUMENT, "big": 10**40, "line": "\u2028"},
        # The offset is no whole number of minutes.
        "variable_updated_at": {TEXT: datetime(1890, 1, 1, tzinfo=ZoneInfo("Europe/Amsterdam"))},
        "turn_count": 7,
        "status": SessionStatus.INTERRUPTED,
        "pending_migration": pending,
        "scenario_checksum": "c" * 64,
        # Old ones are gone.
        "created_at": utcnow(),
    }


async def _get(store: Any, session: Session, tenant_id: UUID) -> Session | None:
    found: Session | None = await store.get(session.session_id, tenant_id=tenant_id)
    return found


async def _delete(store: Any, session: Session, tenant_id: UUID) -> bool:
    deleted: bool = await store.delete(session.session_id, tenant_id=tenant_id)
    return deleted


SESSION = Kind(
    name="session",
    store="sessions",
    tables=("sessions",),
    model=Session,
    make=SessionFactory,
    full=_full_session,
    changed=("scenario_checksum", "changed"),
    counter=("turn_count", 0),
    id_field="session_id",
    adds="save",
    updates="save",
    gets=_get,
    deletes=_delete,
)

KINDS = (SESSION,)
