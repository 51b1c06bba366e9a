"""The audit store with another tenant's ids."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID, uuid4

from soldier_data.audit import AuditEvent, AuditStore, InMemoryAuditStore, PostgresAuditStore, TurnRecord
from soldier_data.base.paging import Cursor
from soldier_data.base.subjects import DataSubject
from tests.cases.case import Case, Domain, as_of, reads
from tests.cases.kinds.audit import KINDS
from tests.factories.audit import AuditEventFactory, TurnRecordFactory


@dataclass(frozen=True)
class Stored:
    """What the owner has stored."""

    turn: TurnRecord
    later_turn: TurnRecord
    event: AuditEvent


async def seed(store: AuditStore, tenant_id: UUID) -> Stored:
    turn = TurnRecordFactory(tenant_id=tenant_id)
    later_turn = TurnRecordFactory(tenant_id=tenant_id, session_id=turn.session_id)
    event = AuditEventFactory(tenant_id=tenant_id, session_id=turn.session_id)
    await store.save_turns([turn, later_turn])
    await store.save_event(event)
    return Stored(turn, later_turn, event)


async def save_turn(store: AuditStore, own: Stored, other: UUID) -> object:
    turn = as_of(own.turn, other, agent_response="Not what was said.")
    await store.save_turn(turn)
    return await store.get_turn(other, own.turn.turn_id) == turn


async def save_event(store: AuditStore, own: Stored, other: UUID) -> object:
    event = as_of(own.event, other, event_type="forged")
    await store.save_event(event)
    return await store.get_event(other, own.event.id) == event


async def list_turns_of_a_period(store: AuditStore, own: Stored, other: UUID) -> object:
    return await store.list_turns_by_tenant(
        other, start_time=own.turn.timestamp, before=Cursor.after(own.later_turn)
    )


def subject(own: Stored, other: UUID) -> DataSubject:
    return DataSubject(other, frozenset([uuid4()]), session_ids=frozenset([own.turn.session_id]))


NOTHING: dict[str, list[object]] = {"turn_records": [], "audit_events": []}


DOMAIN: Domain[AuditStore, Stored] = Domain(
    store="audit",
    contract=AuditStore,
    backends={"inmemory": InMemoryAuditStore, "postgres": PostgresAuditStore},
    seed=seed,
    cases=[
        *reads(KINDS),
        Case("save_turn", save_turn, expected=True, reaches=False),
        Case("save_event", save_event, expected=True, reaches=False),
        Case(
            "save_turns",
            lambda store, own, other: store.save_turns([as_of(own.turn, other, tokens_used=0)]),
            1,
            reaches=False,
        ),
        Case(
            "save_events",
            lambda store, own, other: store.save_events([as_of(own.event, other, event_data={})]),
            1,
            reaches=False,
        ),
        Case(
            "list_turns_by_session",
            lambda store, own, other: store.list_turns_by_session(other, own.turn.session_id),
            [],
        ),
        Case("list_turns_by_tenant", lambda store, _own, other: store.list_turns_by_tenant(other), []),
        Case("list_turns_by_tenant", list_turns_of_a_period, []),
        Case(
            "list_events_by_session",
            lambda store, own, other: store.list_events_by_session(other, own.turn.session_id),
            [],
        ),
        Case(
            "list_events_by_session",
            lambda store, own, other: store.list_events_by_session(
                other, own.turn.session_id, event_type=own.event.event_type
            ),
            [],
        ),
        Case("export_subject", lambda store, own, other: store.export_subject(subject(own, other)), NOTHING),
        Case("erase_subject", lambda store, own, other: store.erase_subject(subject(own, other)), NOTHING),
    ],
)
