"""The audit store compared with handwritten asyncpg code, and with openai-agents' sessions."""

from __future__ import annotations

import json
from datetime import timedelta
from functools import partial
from itertools import cycle
from typing import Any
from uuid import UUID

from pydantic import TypeAdapter

from benchmarks import by_hand, samples, session_peers, trips
from benchmarks.harness import LIMIT, OURS, Bar, Bench, Case, Row, interleave
from soldier_data import DataLayer, TurnRecord
from soldier_data.audit import AuditEvent, ToolCall
from soldier_data.base.models import new_id, utcnow
from soldier_data.base.paging import Cursor

GET = Bar(1.5)
LIST = Bar(1.5)
SAVE = Bar(1.6)
SAME_AT_ANY_DEPTH = Bar(1.2)

GET_TURN = "get turn"
SAVE_TURN = "save turn"
SAVE_EVENT = "save audit event"
LIST_TURNS = "list the 20 turns of a session"
LIST_EVENTS = "list the 20 events of a session"

_TOOL_CALLS = TypeAdapter(list[ToolCall])
_TURN_COLUMNS = ["id", *(name for name in TurnRecord.model_fields if name != "turn_id")]
_TURNS_A_SESSION = 20
_PAGE = 100


class Sample:
    """Stored data for the measurements."""

    def __init__(self) -> None:
        self.tenant_id = new_id()
        self.sessions = [new_id() for _ in range(50)]
        self.turns = [turn(self.tenant_id, id_, n) for id_ in self.sessions for n in range(_TURNS_A_SESSION)]
        self.events = [event(self.tenant_id, id_) for id_ in self.sessions for _ in range(_TURNS_A_SESSION)]

    async def store(self, data: DataLayer) -> None:
        await data.audit.save_turns(self.turns)
        await data.audit.save_events(self.events)


def turn(tenant_id: UUID, session_id: UUID, number: int) -> TurnRecord:
    """Return a turn with a tool call."""
    call = ToolCall(
        tool_id="orders.lookup",
        tool_name="Look up an order",
        input={"order_id": "A-10042"},
        output={"status": "sent", "lines": [1, 2, 3]},
        success=True,
        latency_ms=41.5,
    )
    return TurnRecord(
        tenant_id=tenant_id,
        agent_id=new_id(),
        session_id=session_id,
        turn_number=number,
        user_message=samples.sentence(20),
        agent_response=samples.sentence(40),
        matched_rule_ids=[new_id(), new_id()],
        tool_calls=[call],
        latency_ms=812.0,
        tokens_used=640,
    )


def event(tenant_id: UUID, session_id: UUID) -> AuditEvent:
    """Return an event with some data."""
    data = {"rule": samples.sentence(3), "score": 0.87, "fired": True}
    return AuditEvent(tenant_id=tenant_id, event_type="rule_fired", event_data=data, session_id=session_id)


class NewRecords:
    """A turn and an event that have not been stored, for one way of saving."""

    def __init__(self, tenant_id: UUID) -> None:
        self._tenant_id, self._session_id = tenant_id, new_id()
        self._renew()

    async def make(self) -> None:
        """Replace both before each save."""
        self._renew()

    def _renew(self) -> None:
        self.turn = turn(self._tenant_id, self._session_id, 1)
        self.event = event(self._tenant_id, self._session_id)


async def measure(bench: Bench) -> None:
    """Fill the tables, then measure every operation."""
    sample = Sample()
    await sample.store(bench.data)
    connection = await by_hand.connect(bench.data.settings.database_url)
    await connection.execute("VACUUM ANALYZE turn_records, audit_events")
    async with trips.counting(bench.data.settings) as counted:
        bench.round_trips |= await counted.count(ours(counted.data, sample))
    limits = await limit(connection, sample)
    bars = {GET_TURN: GET, SAVE_TURN: SAVE, SAVE_EVENT: SAVE, LIST_TURNS: LIST, LIST_EVENTS: LIST}
    async with session_peers.as_turns(bench, LIST_TURNS, SAVE_TURN, turns=_TURNS_A_SESSION) as others:
        for operation, case in ours(bench.data, sample).items():
            await bench.compare(
                operation,
                {OURS: case, LIMIT: limits[operation]},
                bar=bars[operation],
                peers=others.get(operation),
                # The peer stores items instead of turns.
                same=operation in (GET_TURN, LIST_TURNS, LIST_EVENTS) and operation not in others,
            )
    await _save_turns(bench, sample, connection)
    await _pages(bench, connection)
    await connection.close()


def ours(data: DataLayer, sample: Sample) -> dict[str, Case]:
    """Return the operations with the store."""
    store, tenant_id = data.audit, sample.tenant_id
    turns, of_turns, of_events = cycle(sample.turns), cycle(sample.sessions), cycle(sample.sessions)
    new = NewRecords(tenant_id)
    return {
        GET_TURN: Case(lambda: store.get_turn(tenant_id, next(turns).turn_id)),
        SAVE_TURN: Case(lambda: store.save_turn(new.turn), new.make),
        SAVE_EVENT: Case(lambda: store.save_event(new.event), new.make),
        LIST_TURNS: Case(lambda: store.list_turns_by_session(tenant_id, next(of_turns))),
        LIST_EVENTS: Case(lambda: store.list_events_by_session(tenant_id, next(of_events))),
    }


async def limit(connection: Any, sample: Sample) -> dict[str, Case]:
    """The same operations with one prepared statement each, and plain validation."""
    tenant_id, new = sample.tenant_id, NewRecords(sample.tenant_id)
    turns, of_turns, of_events = cycle(sample.turns), cycle(sample.sessions), cycle(sample.sessions)
    turn_columns = ", ".join(_TURN_COLUMNS)
    event_columns = ", ".join(AuditEvent.model_fields)
    get_turn = await connection.prepare(
        f"SELECT {turn_columns} FROM turn_records WHERE tenant_id = $1 AND id = $2"  # noqa: S608 - constants.
    )
    list_turns = await connection.prepare(
        f"SELECT {turn_columns} FROM turn_records WHERE tenant_id = $1 AND session_id = $2 "  # noqa: S608 - constants.
        "ORDER BY timestamp, turn_number, id LIMIT 100"
    )
    list_events = await connection.prepare(
        f"SELECT {event_columns} FROM audit_events WHERE tenant_id = $1 AND session_id = $2 "  # noqa: S608 - constants.
        "ORDER BY timestamp, id LIMIT 100"
    )
    save_turn = await connection.prepare(by_hand.insert("turn_records", _TURN_COLUMNS))
    save_event = await connection.prepare(by_hand.insert("audit_events", list(AuditEvent.model_fields)))

    async def one_turn() -> TurnRecord:
        return to_turn(await get_turn.fetchrow(tenant_id, next(turns).turn_id))

    async def turns_of_session() -> list[TurnRecord]:
        return [to_turn(row) for row in await list_turns.fetch(tenant_id, next(of_turns))]

    async def events_of_session() -> list[AuditEvent]:
        rows = await list_events.fetch(tenant_id, next(of_events))
        return [
            AuditEvent.model_validate({**row, "event_data": json.loads(row["event_data"])}) for row in rows
        ]

    return {
        GET_TURN: Case(one_turn),
        SAVE_TURN: Case(lambda: save_turn.fetchval(*turn_arguments(new.turn)), new.make),
        SAVE_EVENT: Case(lambda: save_event.fetchval(*event_arguments(new.event)), new.make),
        LIST_TURNS: Case(turns_of_session),
        LIST_EVENTS: Case(events_of_session),
    }


async def _save_turns(bench: Bench, sample: Sample, connection: Any) -> None:
    count = 200 if bench.quick else 1_000
    statement = by_hand.insert("turn_records", _TURN_COLUMNS)
    turns: list[TurnRecord] = []

    async def make_turns() -> None:
        session_id = new_id()
        turns[:] = [turn(sample.tenant_id, session_id, number) for number in range(count)]

    async def executemany() -> None:
        async with connection.transaction():
            await connection.executemany(statement, [turn_arguments(one) for one in turns])

    await bench.compare(
        f"save_turns of {count:,}, a turn",
        {
            OURS: Case(lambda: bench.data.audit.save_turns(turns), make_turns, operations=count),
            LIMIT: Case(executemany, make_turns, operations=count),
        },
    )


async def _pages(bench: Bench, connection: Any) -> None:
    """Page through the tenant's turns by cursor: the cost of a page must not depend on its position."""
    near, far = 10, 10_000 if bench.quick else 100_000
    tenant_id, session_id, start = new_id(), new_id(), utcnow()
    some = [turn(tenant_id, session_id, number) for number in range(100)]
    rows = []
    cursors = {}
    for number in range(far + _PAGE):
        at = start - timedelta(seconds=number)
        one = some[number % len(some)].model_copy(update={"turn_id": new_id(), "timestamp": at})
        rows.append(turn_arguments(one))
        if number + 1 in (near, far):
            cursors[number + 1] = Cursor.after(one)
    await connection.copy_records_to_table("turn_records", columns=_TURN_COLUMNS, records=rows)
    await connection.execute("VACUUM ANALYZE turn_records")
    pages = {depth: await _page(bench.data, tenant_id, cursors[depth]) for depth in cursors}
    assert all(len(page) == _PAGE for page in pages.values())
    spreads = await interleave(
        {
            str(depth): Case(partial(_page, bench.data, tenant_id, cursor))
            for depth, cursor in cursors.items()
        },
        bench.seconds,
    )
    bench.add(
        Row(
            f"a page of {_PAGE} turns at depth {far:,}",
            spreads[str(far)],
            f"at depth {near}",
            spreads[str(near)],
            SAME_AT_ANY_DEPTH,
        )
    )


async def _page(data: DataLayer, tenant_id: UUID, before: Cursor) -> list[TurnRecord]:
    return await data.audit.list_turns_by_tenant(tenant_id, limit=_PAGE, before=before)


def to_turn(row: Any) -> TurnRecord:
    """Return the entity of a row, by plain validation."""
    return TurnRecord.model_validate(
        {**row, "turn_id": row["id"], "tool_calls": json.loads(row["tool_calls"])}
    )


def turn_arguments(record: TurnRecord) -> tuple[Any, ...]:
    """Return the values of a turn, in the order of its columns."""
    tool_calls = _TOOL_CALLS.dump_json(record.tool_calls).decode()
    return tuple({**record.__dict__, "tool_calls": tool_calls}.values())


def event_arguments(record: AuditEvent) -> tuple[Any, ...]:
    """Return the values of an event, in the order of its columns."""
    return tuple({**record.__dict__, "event_data": json.dumps(record.event_data)}.values())
