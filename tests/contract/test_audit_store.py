"""The contract of `AuditStore`, run against every backend: saving and reading one record."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import uuid4
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError as PydanticValidationError

from soldier_data.audit import AuditEvent, AuditStore, ToolCall, TurnRecord
from soldier_data.errors import ConflictError, StoreError
from tests.cases import audit
from tests.cases.kind import exactly
from tests.cases.values import NOON
from tests.contract.audit_kinds import EVENT, KINDS, TURN, Kind, every_kind, unit_of_work
from tests.factories.audit import TurnRecordFactory

# A store in a session's transaction can begin no unit of work of its own.
begins_units = pytest.mark.parametrize("audit_store", audit.DOMAIN.backends, indirect=True)

# -- saving and reading ----------------------------------------------------------------------------------------


_TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"))
_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**2000) + 1, 2**2000 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from([1e308, -0.0, 5e-324, 1e22, 2**53 + 1, 1.0])
    | _TEXTS,
    lambda values: st.lists(values, max_size=4) | st.dictionaries(_TEXTS, values, max_size=4),
    max_leaves=15,
)
_OBJECTS = st.dictionaries(_TEXTS, _JSON, max_size=4)
_COUNTS = st.integers(0, 2**63 - 1)
_DURATIONS = st.floats(0, allow_nan=False, allow_infinity=False)
_MOMENTS = st.datetimes(datetime(1, 1, 3), datetime(9999, 12, 28), timezones=st.timezones())  # noqa: DTZ001
_IDS = st.uuids()
_MAYBE_IDS = st.none() | _IDS
_CALLS = st.builds(
    ToolCall,
    tool_id=_TEXTS,
    tool_name=_TEXTS,
    input=_OBJECTS,
    output=_JSON,
    success=st.booleans(),
    error=st.none() | _TEXTS,
    latency_ms=_DURATIONS,
)
_TURNS = st.builds(
    TurnRecord,
    turn_id=_IDS,
    tenant_id=_IDS,
    agent_id=_IDS,
    session_id=_IDS,
    turn_number=_COUNTS,
    user_message=_TEXTS,
    agent_response=_TEXTS,
    matched_rule_ids=st.lists(_IDS, max_size=3),
    scenario_id=_MAYBE_IDS,
    step_id=_MAYBE_IDS,
    tool_calls=st.lists(_CALLS, max_size=3),
    latency_ms=_DURATIONS,
    tokens_used=_COUNTS,
    timestamp=_MOMENTS,
)
_EVENTS = st.builds(
    AuditEvent,
    id=_IDS,
    tenant_id=_IDS,
    event_type=_TEXTS,
    event_data=_OBJECTS,
    session_id=_MAYBE_IDS,
    turn_id=_MAYBE_IDS,
    timestamp=_MOMENTS,
)
_quickly = settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@_quickly
@given(turn=_TURNS)
async def test_any_turn_comes_back_and_may_be_saved_again(audit_store: AuditStore, turn: TurnRecord) -> None:
    await _comes_back(audit_store, TURN, turn)


@_quickly
@given(event=_EVENTS)
async def test_any_event_comes_back_and_may_be_saved_again(
    audit_store: AuditStore, event: AuditEvent
) -> None:
    await _comes_back(audit_store, EVENT, event)


async def _comes_back(store: AuditStore, kind: Kind, record: Any) -> None:
    # Hypothesis tries the same ids more than once.
    record = record.model_copy(update={"tenant_id": uuid4()})
    for _ in range(2):
        assert await kind.save(store, record) == kind.id(record)
        found = await kind.get(store, record)
        assert found == record
        assert exactly(found) == exactly(record)


@every_kind
async def test_what_does_not_exist_is_none(audit_store: AuditStore, kind: Kind) -> None:
    assert await kind.get(audit_store, kind.make()) is None


@every_kind
async def test_another_tenants_record_is_none(audit_store: AuditStore, kind: Kind) -> None:
    record = kind.make()
    await kind.save(audit_store, record)
    assert await kind.get(audit_store, record, uuid4()) is None


@every_kind
async def test_tenants_use_the_same_id_without_meeting(audit_store: AuditStore, kind: Kind) -> None:
    first = kind.make(**kind.full())
    second = first.model_copy(update={"tenant_id": uuid4(), "session_id": uuid4()})
    await kind.save(audit_store, first)
    await kind.save(audit_store, second)
    assert await kind.get(audit_store, first) == first
    assert await kind.get(audit_store, second) == second


@every_kind
async def test_what_is_stored_is_a_copy_and_so_is_what_is_returned(
    audit_store: AuditStore, kind: Kind
) -> None:
    record = kind.nested(["stored"])
    await kind.save(audit_store, record)
    before = exactly(record)
    for own in (record, await kind.get(audit_store, record)):
        _json_in(own).append("changed")
        assert exactly(own) != before
        assert exactly(await kind.get(audit_store, record)) == before


def _json_in(record: TurnRecord | AuditEvent) -> Any:
    return record.tool_calls[0].output if isinstance(record, TurnRecord) else record.event_data["value"]


# -- append-only -----------------------------------------------------------------------------------------------


def test_the_store_has_no_method_that_changes_or_deletes_but_the_erasure_of_a_person() -> None:
    public = {name for name in dir(AuditStore) if not name.startswith("_")}
    assert public == {
        "save_turn",
        "save_turns",
        "get_turn",
        "list_turns_by_session",
        "list_turns_by_tenant",
        "save_event",
        "save_events",
        "get_event",
        "list_events_by_session",
        "export_subject",
        "erase_subject",
    }


@every_kind
async def test_saving_the_same_again_does_nothing_and_returns_the_id(
    audit_store: AuditStore, kind: Kind
) -> None:
    record = kind.make(**kind.full())
    await kind.save(audit_store, record)
    assert await kind.save(audit_store, record.model_copy(deep=True)) == kind.id(record)
    assert await kind.get(audit_store, record) == record


@every_kind
async def test_the_order_of_keys_makes_no_difference(audit_store: AuditStore, kind: Kind) -> None:
    record = kind.nested({"a": 1, "b": 2})
    again = record.model_copy(deep=True)
    _json_in(again)["a"] = _json_in(again).pop("a")
    assert exactly(again) != exactly(record)
    await kind.save(audit_store, record)
    assert await kind.save(audit_store, again) == kind.id(record)


@every_kind
async def test_the_zone_in_which_a_moment_is_given_makes_no_difference(
    audit_store: AuditStore, kind: Kind
) -> None:
    # In this hour the clocks of Berlin show every time twice.
    berlin = datetime(2025, 10, 26, 2, 30, fold=1, tzinfo=ZoneInfo("Europe/Berlin"))
    fields = kind.full() | {"tenant_id": uuid4(), "timestamp": berlin}
    record = (
        kind.make(**fields) if kind is EVENT else kind.make(agent_id=uuid4(), session_id=uuid4(), **fields)
    )
    again = type(record).model_validate(
        record.model_dump() | {"timestamp": datetime(2025, 10, 26, 1, 30, tzinfo=UTC)}
    )
    await kind.save(audit_store, record)
    assert await kind.save(audit_store, again) == kind.id(record)
    assert await kind.get(audit_store, record) == again


@every_kind
def test_every_field_but_the_key_has_a_case_of_conflict(kind: Kind) -> None:
    assert set(kind.changes) == set(kind.model.model_fields) - {"tenant_id", kind.id_field}


@pytest.mark.parametrize(
    ("kind", "field"),
    [pytest.param(kind, field, id=f"{kind.name}-{field}") for kind in KINDS for field in kind.changes],
)
async def test_a_record_that_differs_in_one_field_is_refused(
    audit_store: AuditStore, kind: Kind, field: str
) -> None:
    record = kind.make(timestamp=NOON)
    await kind.save(audit_store, record)
    with pytest.raises(ConflictError, match=str(kind.id(record))):
        await kind.save(audit_store, record.model_copy(update={field: kind.changes[field]}))
    assert await kind.get(audit_store, record) == record


@every_kind
@pytest.mark.parametrize("other", [1.0, True, "1", [1], None], ids=repr)
async def test_json_values_that_python_takes_for_equal_differ(
    audit_store: AuditStore, kind: Kind, other: Any
) -> None:
    record = kind.nested({"count": 1})
    await kind.save(audit_store, record)
    again = record.model_copy(deep=True)
    _json_in(again)["count"] = other
    with pytest.raises(ConflictError):
        await kind.save(audit_store, again)


@every_kind
def test_a_record_cannot_be_changed(kind: Kind) -> None:
    record = kind.make()
    with pytest.raises(PydanticValidationError, match="frozen"):
        record.session_id = uuid4()


# -- units of work ---------------------------------------------------------------------------------------------


@begins_units
@every_kind
async def test_a_unit_of_work_sees_its_records_and_gives_them_up_on_an_exception(
    audit_store: AuditStore, kind: Kind
) -> None:
    record, other = kind.make(), kind.make()

    async def work() -> None:
        async with unit_of_work(audit_store) as unit:
            await kind.save(unit, record)
            await kind.save_all(unit, [other])
            assert await kind.get(unit, record) == record
            assert await kind.get(audit_store, record) is None
            raise LookupError

    with pytest.raises(LookupError):
        await work()
    assert await kind.get(audit_store, record) is None
    assert await kind.get(audit_store, other) is None


@begins_units
@every_kind
async def test_a_refused_save_leaves_a_unit_of_work_usable(audit_store: AuditStore, kind: Kind) -> None:
    tenant_id = uuid4()
    stored, before, after = (kind.make(tenant_id=tenant_id) for _ in range(3))
    await kind.save(audit_store, stored)
    different = stored.model_copy(update={"session_id": uuid4()})
    async with unit_of_work(audit_store) as unit:
        await kind.save(unit, before)
        with pytest.raises(ConflictError):
            await kind.save(unit, different)
        with pytest.raises(ConflictError):
            await kind.save_all(unit, [after, different])
        assert await kind.get(unit, after) is None
        assert await kind.save(unit, stored) == kind.id(stored)
        await kind.save(unit, after)
    assert await kind.get(audit_store, stored) == stored
    assert await kind.get(audit_store, before) == before
    assert await kind.get(audit_store, after) == after


@begins_units
async def test_an_ended_unit_of_work_refuses_calls(audit_store: AuditStore) -> None:
    async with unit_of_work(audit_store) as unit:
        pass
    with pytest.raises(StoreError, match="ended"):
        await unit.save_turn(TurnRecordFactory())
    with pytest.raises(StoreError, match="ended"):
        await unit.get_event(uuid4(), uuid4())
