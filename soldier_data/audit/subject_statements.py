"""The SQL of the one exception from "append-only": taking the texts of a person out of audit records."""

from __future__ import annotations

from sqlalchemy import not_, or_, select, update

from soldier_data.audit.statements import EVENTS, TURNS
from soldier_data.base.statements import Statement, column_param, has_key, is_one_of, mentions

_TENANT = TURNS.c.tenant_id == column_param(TURNS.c.tenant_id)

read_turns = Statement(
    "looking for the customer's turn records",
    select(*TURNS.columns).where(_TENANT, is_one_of(TURNS.c.session_id, "session_ids")).order_by(TURNS.c.id),
)

read_events = Statement(
    "looking for the customer's audit events",
    select(*EVENTS.columns)
    .where(
        EVENTS.c.tenant_id == column_param(EVENTS.c.tenant_id),
        or_(
            is_one_of(EVENTS.c.session_id, "session_ids"),
            is_one_of(EVENTS.c.turn_id, "turn_ids"),
            mentions(EVENTS.c.event_data),
        ),
        not_(is_one_of(EVENTS.c.event_type, "erasure_events")),
    )
    .order_by(EVENTS.c.id),
)

_erase_turn = update(TURNS).values({name: column_param(TURNS.c[name]) for name in TURNS.info["erasable"]})
_erase_event = update(EVENTS).values({name: column_param(EVENTS.c[name]) for name in EVENTS.info["erasable"]})

erase = {
    "turn_records": Statement("erasing the text of the turn record", _erase_turn.where(has_key(TURNS))),
    "audit_events": Statement("erasing the data of the audit event", _erase_event.where(has_key(EVENTS))),
}
