"""The SQL that finds the audit records of a person, and takes their texts out.

That is the one exception from "append-only".
"""

from __future__ import annotations

from sqlalchemy import and_, exists, literal_column, not_, or_, select, update

from soldier_data.audit.statements import EVENTS, TURNS
from soldier_data.postgres.statements import Statement, column_param, equals_any, has_key
from soldier_data.postgres.subject_scan import Scan, mentions_subject

_TENANT = TURNS.c.tenant_id == column_param(TURNS.c.tenant_id)

find_turns = Statement(
    "looking for the customer's turn records",
    select(TURNS.c.id).where(_TENANT, equals_any(TURNS.c.session_id, "session_ids")),
)

_of_their_turn = exists(
    select(literal_column("1"))
    .select_from(TURNS)
    .where(_TENANT, TURNS.c.id == EVENTS.c.turn_id, equals_any(TURNS.c.session_id, "session_ids"))
)

find_events = Scan(
    "looking for the customer's audit events",
    EVENTS,
    and_(
        not_(equals_any(EVENTS.c.event_type, "erasure_events")),
        or_(
            equals_any(EVENTS.c.session_id, "session_ids"),
            _of_their_turn,
            mentions_subject(EVENTS.c.event_data),
        ),
    ),
    EVENTS.c.id,
)

_erase_turn = update(TURNS).values({name: column_param(TURNS.c[name]) for name in TURNS.info["erasable"]})
_erase_event = update(EVENTS).values({name: column_param(EVENTS.c[name]) for name in EVENTS.info["erasable"]})

erase = {
    "turn_records": Statement("erasing the text of the turn record", _erase_turn.where(has_key(TURNS))),
    "audit_events": Statement("erasing the data of the audit event", _erase_event.where(has_key(EVENTS))),
}
