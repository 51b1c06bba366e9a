"""The contract of `AuditStore`, run against every backend: lists and pages."""

from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from uuid import UUID, uuid4
from zoneinfo import ZoneInfo

import pytest

from soldier_data.audit import AuditEvent, AuditStore, Cursor, TurnRecord
from soldier_data.errors import ValidationError
from tests.cases import audit
from tests.cases.values import NOON, TEXT
from tests.contract.audit_kinds import unit_of_work
from tests.factories.audit import AuditEventFactory, TurnRecordFactory

# A store in a session's transaction can begin no unit of work of its own.
begins_units = pytest.mark.parametrize("audit_store", audit.DOMAIN.backends, indirect=True)

MINUTE = timedelta(minutes=1)


async def save_shuffled(store: AuditStore, turns: Sequence[TurnRecord]) -> None:
    await store.save_turns(random.sample(turns, len(turns)))


def turns_at(tenant_id: UUID, moments: Sequence[datetime], **fields: Any) -> list[TurnRecord]:
    turns = [TurnRecordFactory(tenant_id=tenant_id, timestamp=moment, **fields) for moment in moments]
    return sorted(turns, key=TurnRecord.position)


# -- turns of a session ----------------------------------------------------------------------------------------


async def test_a_sessions_turns_come_oldest_first(audit_store: AuditStore, tenant_id: UUID) -> None:
    session_id = uuid4()
    first, third, second, fourth, fifth = turns = [
        TurnRecordFactory(tenant_id=tenant_id, session_id=session_id, timestamp=moment, turn_number=number)
        for moment, number in [
            (NOON, 9),
            (NOON + MINUTE, 2),
            (NOON + MINUTE, 1),
            (NOON + MINUTE + timedelta(microseconds=1), 0),
            (NOON + 2 * MINUTE, 3),
        ]
    ]
    same_number = second.model_copy(update={"turn_id": UUID(int=second.turn_id.int + 1)})
    await save_shuffled(audit_store, [*turns, same_number])
    found = await audit_store.list_turns_by_session(tenant_id, session_id)
    assert found == [first, second, same_number, third, fourth, fifth]


async def test_a_sessions_turns_are_its_own_and_its_tenants(audit_store: AuditStore, tenant_id: UUID) -> None:
    session_id = uuid4()
    own = TurnRecordFactory(tenant_id=tenant_id, session_id=session_id)
    for turn in (
        own,
        TurnRecordFactory(tenant_id=tenant_id),
        TurnRecordFactory(session_id=session_id),
    ):
        await audit_store.save_turn(turn)
    assert await audit_store.list_turns_by_session(tenant_id, session_id) == [own]
    assert await audit_store.list_turns_by_session(tenant_id, uuid4()) == []
    assert await audit_store.list_turns_by_session(uuid4(), session_id) == []


async def test_limit_and_offset_cut_a_page_out_of_a_session(audit_store: AuditStore, tenant_id: UUID) -> None:
    session_id = uuid4()
    turns = turns_at(tenant_id, [NOON + number * MINUTE for number in range(5)], session_id=session_id)
    await save_shuffled(audit_store, turns)

    async def page(limit: int, offset: int) -> list[TurnRecord]:
        return await audit_store.list_turns_by_session(tenant_id, session_id, limit=limit, offset=offset)

    assert await page(2, 0) == turns[:2]
    assert await page(2, 3) == turns[3:]
    assert await page(100, 4) == turns[4:]
    assert await page(100, 5) == []
    assert await page(0, 0) == []


async def test_lists_hold_100_records_unless_told_otherwise(audit_store: AuditStore, tenant_id: UUID) -> None:
    session_id = uuid4()
    moments = [NOON + number * MINUTE for number in range(101)]
    turns = turns_at(tenant_id, moments, session_id=session_id, tool_calls=[])
    events = [
        AuditEventFactory(tenant_id=tenant_id, session_id=session_id, timestamp=moment) for moment in moments
    ]
    await audit_store.save_turns(turns)
    await audit_store.save_events(events)
    assert await audit_store.list_turns_by_session(tenant_id, session_id) == turns[:100]
    assert await audit_store.list_turns_by_tenant(tenant_id) == turns[:0:-1]
    assert await audit_store.list_events_by_session(tenant_id, session_id) == events[:100]


# -- turns of a tenant -----------------------------------------------------------------------------------------


async def test_a_tenants_turns_come_newest_first(audit_store: AuditStore, tenant_id: UUID) -> None:
    turns = turns_at(tenant_id, [NOON, NOON, NOON, NOON + MINUTE, NOON - MINUTE])
    await save_shuffled(audit_store, turns)
    await audit_store.save_turn(TurnRecordFactory(timestamp=NOON))
    assert await audit_store.list_turns_by_tenant(tenant_id) == turns[::-1]
    assert await audit_store.list_turns_by_tenant(tenant_id, limit=2) == turns[:2:-1]
    assert await audit_store.list_turns_by_tenant(tenant_id, limit=0) == []
    assert await audit_store.list_turns_by_tenant(uuid4()) == []


async def test_a_period_includes_its_start_and_excludes_its_end(
    audit_store: AuditStore, tenant_id: UUID
) -> None:
    instant = timedelta(microseconds=1)
    moments = [NOON - instant, NOON, NOON + MINUTE - instant, NOON + MINUTE, NOON + 2 * MINUTE]
    turns = turns_at(tenant_id, moments)
    await save_shuffled(audit_store, turns)

    async def period(start: datetime | None, end: datetime | None) -> list[TurnRecord]:
        found = await audit_store.list_turns_by_tenant(tenant_id, start_time=start, end_time=end)
        return found[::-1]

    assert await period(NOON, NOON + MINUTE) == turns[1:3]
    assert await period(NOON + MINUTE, None) == turns[3:]
    assert await period(None, NOON) == turns[:1]
    assert await period(NOON, NOON) == []
    assert await period(NOON + MINUTE, NOON) == []
    tokyo = timezone(timedelta(hours=9))
    assert await period(NOON.astimezone(tokyo), (NOON + MINUTE).astimezone(tokyo)) == turns[1:3]


@pytest.mark.parametrize("size", [1, 3, 4, 12, 13])
async def test_pages_by_cursor_hold_every_turn_once_under_equal_timestamps(
    audit_store: AuditStore, tenant_id: UUID, size: int
) -> None:
    turns = turns_at(tenant_id, [NOON] * 7 + [NOON + MINUTE] * 5)
    await save_shuffled(audit_store, turns)
    found: list[TurnRecord] = []
    before: Cursor | None = None
    while page := await audit_store.list_turns_by_tenant(tenant_id, limit=size, before=before):
        assert len(page) <= size
        found += page
        before = Cursor.after(page[-1])
    assert found == turns[::-1]


async def test_a_page_by_cursor_keeps_to_the_period(audit_store: AuditStore, tenant_id: UUID) -> None:
    turns = turns_at(tenant_id, [NOON + number * MINUTE for number in range(10)])
    await save_shuffled(audit_store, turns)
    found = await audit_store.list_turns_by_tenant(
        tenant_id,
        start_time=NOON + 2 * MINUTE,
        end_time=NOON + 8 * MINUTE,
        before=Cursor.after(turns[5]),
    )
    assert found == turns[4:1:-1]
    # A cursor behind the end does not lengthen the period.
    found = await audit_store.list_turns_by_tenant(
        tenant_id, end_time=NOON + 2 * MINUTE, before=Cursor.after(turns[9])
    )
    assert found == turns[1::-1]


async def test_pages_stay_right_while_turns_are_added(audit_store: AuditStore, tenant_id: UUID) -> None:
    turns = turns_at(tenant_id, [NOON + number * MINUTE for number in range(6)])
    await save_shuffled(audit_store, turns)
    first = await audit_store.list_turns_by_tenant(tenant_id, limit=3)
    for moment in (NOON + timedelta(hours=1), NOON + 4 * MINUTE):
        await audit_store.save_turn(TurnRecordFactory(tenant_id=tenant_id, timestamp=moment))
    second = await audit_store.list_turns_by_tenant(tenant_id, limit=3, before=Cursor.after(first[-1]))
    assert first + second == turns[::-1]


async def test_a_cursor_may_come_from_a_url_and_from_another_zone(
    audit_store: AuditStore, tenant_id: UUID
) -> None:
    # In this hour the clocks of Berlin show every time twice.
    turns = turns_at(tenant_id, [datetime(2025, 10, 26, 1, 30, tzinfo=UTC)] * 3)
    await save_shuffled(audit_store, turns)
    cursor = Cursor.after(turns[1])
    elsewhere = Cursor(cursor.at.astimezone(ZoneInfo("Europe/Berlin")), cursor.id)
    for before in (cursor, Cursor.parse(str(cursor)), elsewhere):
        assert await audit_store.list_turns_by_tenant(tenant_id, before=before) == turns[:1]


async def test_a_cursor_at_the_place_of_no_turn_is_a_position_all_the_same(
    audit_store: AuditStore, tenant_id: UUID
) -> None:
    turns = turns_at(tenant_id, [NOON, NOON + MINUTE])
    await save_shuffled(audit_store, turns)
    between = Cursor(NOON + MINUTE / 2, uuid4())
    assert await audit_store.list_turns_by_tenant(tenant_id, before=between) == turns[:1]


# -- events of a session ---------------------------------------------------------------------------------------


async def test_a_sessions_events_come_oldest_first(audit_store: AuditStore, tenant_id: UUID) -> None:
    session_id = uuid4()
    events = [
        AuditEventFactory(tenant_id=tenant_id, session_id=session_id, timestamp=moment)
        for moment in (NOON, NOON, NOON, NOON + MINUTE, NOON - MINUTE)
    ]
    others = [AuditEventFactory(tenant_id=tenant_id), AuditEventFactory(tenant_id=tenant_id, session_id=None)]
    await audit_store.save_events([*random.sample(events, len(events)), *others])
    await audit_store.save_event(AuditEventFactory(session_id=session_id))
    events.sort(key=AuditEvent.position)
    assert await audit_store.list_events_by_session(tenant_id, session_id) == events
    assert await audit_store.list_events_by_session(tenant_id, session_id, limit=2) == events[:2]
    assert await audit_store.list_events_by_session(tenant_id, session_id, limit=0) == []
    assert await audit_store.list_events_by_session(uuid4(), session_id) == []
    assert await audit_store.list_events_by_session(tenant_id, uuid4()) == []


async def test_events_are_found_by_their_exact_type(audit_store: AuditStore, tenant_id: UUID) -> None:
    session_id = uuid4()
    types = ["tool", "Tool", "tool ", "", "to%", TEXT]
    events = {
        event_type: AuditEventFactory(tenant_id=tenant_id, session_id=session_id, event_type=event_type)
        for event_type in types
    }
    await audit_store.save_events(events.values())
    for event_type, event in events.items():
        found = await audit_store.list_events_by_session(tenant_id, session_id, event_type=event_type)
        assert found == [event]
    assert await audit_store.list_events_by_session(tenant_id, session_id, event_type="none") == []


async def test_the_limit_counts_events_of_the_type(audit_store: AuditStore, tenant_id: UUID) -> None:
    session_id = uuid4()
    events = [
        AuditEventFactory(
            tenant_id=tenant_id,
            session_id=session_id,
            event_type=event_type,
            timestamp=NOON + number * MINUTE,
        )
        for number, event_type in enumerate("abababab")
    ]
    await audit_store.save_events(events)
    found = await audit_store.list_events_by_session(tenant_id, session_id, event_type="b", limit=3)
    assert found == [events[1], events[3], events[5]]


# -- in units of work, and what is refused ---------------------------------------------------------------------


@begins_units
async def test_lists_in_a_unit_of_work_hold_its_own_records_too(
    audit_store: AuditStore, tenant_id: UUID
) -> None:
    session_id = uuid4()
    before, within = turns_at(tenant_id, [NOON, NOON + MINUTE], session_id=session_id)
    event = AuditEventFactory(tenant_id=tenant_id, session_id=session_id)
    await audit_store.save_turn(before)
    async with unit_of_work(audit_store) as unit:
        await unit.save_turn(within)
        await unit.save_event(event)
        assert await unit.list_turns_by_session(tenant_id, session_id) == [before, within]
        assert await unit.list_turns_by_tenant(tenant_id) == [within, before]
        assert await unit.list_events_by_session(tenant_id, session_id) == [event]
        assert await audit_store.list_turns_by_session(tenant_id, session_id) == [before]
        assert await audit_store.list_events_by_session(tenant_id, session_id) == []


async def test_what_lists_return_are_copies(audit_store: AuditStore, tenant_id: UUID) -> None:
    turn = TurnRecordFactory(tenant_id=tenant_id)
    event = AuditEventFactory(tenant_id=tenant_id)
    await audit_store.save_turn(turn)
    await audit_store.save_event(event)
    for _ in range(2):
        by_session = await audit_store.list_turns_by_session(tenant_id, turn.session_id)
        by_tenant = await audit_store.list_turns_by_tenant(tenant_id)
        events = await audit_store.list_events_by_session(tenant_id, event.session_id)
        assert by_session == by_tenant == [turn]
        assert events == [event]
        by_session[0].tool_calls.clear()
        by_tenant[0].tool_calls[0].input["changed"] = True
        events[0].event_data.clear()


_NAIVE = datetime(2026, 1, 1)  # noqa: DTZ001 - a naive datetime is what is refused.
_LAST = datetime.max.replace(tzinfo=UTC)
_FIRST_EAST = datetime.min.replace(tzinfo=timezone(timedelta(hours=14)))


@pytest.mark.parametrize(
    ("method", "arguments", "field"),
    [
        ("list_turns_by_session", {"limit": -1}, "limit"),
        ("list_turns_by_session", {"limit": 2**63}, "limit"),
        ("list_turns_by_session", {"offset": -1}, "offset"),
        ("list_turns_by_session", {"offset": 2**63}, "offset"),
        ("list_events_by_session", {"limit": -1}, "limit"),
        ("list_events_by_session", {"event_type": "\x00"}, "event_type"),
        ("list_events_by_session", {"event_type": "\ud800"}, "event_type"),
        ("list_turns_by_tenant", {"limit": -1}, "limit"),
        ("list_turns_by_tenant", {"start_time": _NAIVE}, "start_time"),
        ("list_turns_by_tenant", {"start_time": _FIRST_EAST}, "start_time"),
        ("list_turns_by_tenant", {"end_time": _NAIVE}, "end_time"),
        ("list_turns_by_tenant", {"end_time": _LAST}, "end_time"),
        ("list_turns_by_tenant", {"before": Cursor(_NAIVE, uuid4())}, "before"),
        ("list_turns_by_tenant", {"before": Cursor(_LAST, uuid4())}, "before"),
    ],
    ids=lambda value: str(next(iter(value))) if isinstance(value, dict) else str(value),
)
async def test_impossible_arguments_are_refused_by_name(
    audit_store: AuditStore, method: str, arguments: dict[str, Any], field: str
) -> None:
    key = [uuid4()] if method == "list_turns_by_tenant" else [uuid4(), uuid4()]
    with pytest.raises(ValidationError, match=field) as caught:
        await getattr(audit_store, method)(*key, **arguments)
    assert caught.value.field == field


async def test_the_largest_limits_and_offsets_are_fine(audit_store: AuditStore, tenant_id: UUID) -> None:
    largest = 2**63 - 1
    turn, event = TurnRecordFactory(tenant_id=tenant_id), AuditEventFactory(tenant_id=tenant_id)
    await audit_store.save_turn(turn)
    await audit_store.save_event(event)
    assert await audit_store.list_turns_by_session(tenant_id, turn.session_id, limit=largest) == [turn]
    assert await audit_store.list_turns_by_session(tenant_id, turn.session_id, offset=largest) == []
    assert await audit_store.list_turns_by_tenant(tenant_id, limit=largest) == [turn]
    assert await audit_store.list_events_by_session(tenant_id, event.session_id, limit=largest) == [event]
