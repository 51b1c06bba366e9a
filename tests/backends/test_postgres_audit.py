"""What `PostgresAuditStore` does beyond the contract: grants, round trips, plans, races, lost replies."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest
from sqlalchemy import make_url

from soldier_data.audit import AuditStore, Cursor, PostgresAuditStore, TurnRecord
from soldier_data.audit import statements as sql
from soldier_data.base.subjects import DataSubject
from soldier_data.errors import ConflictError
from soldier_data.postgres.database import Database
from soldier_data.postgres.engine import driver_url, open_connection
from soldier_data.postgres.errors import TransientError
from soldier_data.postgres.statements import Statement
from soldier_data.postgres.transaction import Transaction
from soldier_data.schema import metadata
from tests.backends.round_trips import Proxy
from tests.cases.values import NOON
from tests.conftest import settings_for
from tests.contract.audit_kinds import Kind, every_kind
from tests.factories.audit import AuditEventFactory, TurnRecordFactory

MINUTE = timedelta(minutes=1)


@pytest.fixture
def store(database: Database) -> PostgresAuditStore:
    return PostgresAuditStore(database)


@pytest.fixture
def behind(behind: tuple[Proxy, Database]) -> tuple[Proxy, PostgresAuditStore]:
    """A store that reaches the server by way of a proxy."""
    passing, database = behind
    return passing, PostgresAuditStore(database)


def _calls(store: AuditStore, tenant_id: UUID) -> dict[str, Callable[[], Awaitable[Any]]]:
    """A call of every method of the store."""
    turn, event = TurnRecordFactory(tenant_id=tenant_id), AuditEventFactory(tenant_id=tenant_id)
    turns = [TurnRecordFactory(tenant_id=tenant_id) for _ in range(3)]
    somebody = DataSubject(tenant_id, frozenset([uuid4()]))
    events = [AuditEventFactory(tenant_id=tenant_id) for _ in range(3)]
    calls: dict[str, Callable[[], Awaitable[Any]]] = {
        "save_turn": lambda: store.save_turn(turn),
        "save_turns": lambda: store.save_turns(turns),
        "get_turn": lambda: store.get_turn(tenant_id, turn.turn_id),
        "list_turns_by_session": lambda: store.list_turns_by_session(tenant_id, turn.session_id),
        "list_turns_by_tenant": lambda: store.list_turns_by_tenant(tenant_id, before=Cursor.after(turn)),
        "save_event": lambda: store.save_event(event),
        "save_events": lambda: store.save_events(events),
        "get_event": lambda: store.get_event(tenant_id, event.id),
        "list_events_by_session": lambda: store.list_events_by_session(tenant_id, event.session_id),
        "export_subject": lambda: store.export_subject(somebody),
        # Where there is nothing to erase, no privilege to change records is needed.
        "erase_subject": lambda: store.erase_subject(somebody),
    }
    assert set(calls) == AuditStore.__abstractmethods__
    return calls


# -- grants ----------------------------------------------------------------------------------------------------

_APPEND_ONLY = sorted(name for name, table in metadata.tables.items() if table.info.get("append_only"))


@pytest.fixture
async def application_url(database_url: str) -> AsyncIterator[str]:
    """The database, by way of a role with the privileges that an application gets on append-only tables."""
    role, password = f"application_{uuid4().hex}", uuid4().hex
    owner = await asyncpg.connect(driver_url(database_url))
    try:
        await owner.execute(f"CREATE ROLE {role} LOGIN PASSWORD '{password}'")
        for table in _APPEND_ONLY:
            await owner.execute(f"GRANT SELECT, INSERT ON {table} TO {role}")
        url = make_url(database_url).set(username=role, password=password)
        yield url.render_as_string(hide_password=False)
    finally:
        await owner.execute(f"DROP OWNED BY {role}")
        await owner.execute(f"DROP ROLE {role}")
        await owner.close()


def test_the_audit_tables_are_the_ones_marked_as_append_only() -> None:
    assert _APPEND_ONLY == ["audit_events", "turn_records"]


async def test_a_role_that_may_only_select_and_insert_can_do_everything(
    application_url: str, tenant_id: UUID
) -> None:
    database = Database(settings_for(application_url, row_level_security=True))
    store = PostgresAuditStore(database)
    calls = _calls(store, tenant_id)
    try:
        # The second time every save meets its own record.
        for _ in range(2):
            for call in calls.values():
                await call()
        turn = (await store.list_turns_by_tenant(tenant_id))[0]
        for save in (store.save_turn, lambda different: store.save_turns([different])):
            with pytest.raises(ConflictError):
                await save(turn.model_copy(update={"turn_number": turn.turn_number + 1}))
        assert len(await store.list_turns_by_tenant(tenant_id)) == 4
        assert await store.get_turn(uuid4(), turn.turn_id) is None
    finally:
        await database.close()


@pytest.mark.parametrize("table", _APPEND_ONLY)
async def test_that_role_can_neither_change_nor_delete(
    application_url: str, database_url: str, tenant_id: UUID, table: str
) -> None:
    database = Database(settings_for(database_url))
    await PostgresAuditStore(database).save_turn(TurnRecordFactory(tenant_id=tenant_id))
    await PostgresAuditStore(database).save_event(AuditEventFactory(tenant_id=tenant_id))
    await database.close()
    connection = await asyncpg.connect(driver_url(application_url))
    try:
        await connection.execute(f"SET app.tenant_id = '{tenant_id}'")
        assert await connection.fetchval(f"SELECT count(*) FROM {table}") == 1  # noqa: S608
        for change in (
            f"UPDATE {table} SET session_id = gen_random_uuid()",  # noqa: S608
            f"DELETE FROM {table}",  # noqa: S608
            f"TRUNCATE {table}",
            f"SELECT 1 FROM {table} FOR UPDATE",  # noqa: S608
            f"DROP TABLE {table}",
        ):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(change)
        assert await connection.fetchval(f"SELECT count(*) FROM {table}") == 1  # noqa: S608
    finally:
        await connection.close()


# -- round trips -----------------------------------------------------------------------------------------------


async def test_each_call_takes_one_round_trip_and_a_list_three(
    behind: tuple[Proxy, PostgresAuditStore], tenant_id: UUID
) -> None:
    passing, store = behind
    # The first time statements are prepared.
    for call in _calls(store, tenant_id).values():
        await call()
    counted = {name: await passing.count(call) for name, call in _calls(store, tenant_id).items()}
    several = {"save_turns": 3, "save_events": 3, "export_subject": 2, "erase_subject": 2}
    assert counted == dict.fromkeys(counted, 1) | several


async def test_the_length_of_a_list_adds_no_round_trip(
    behind: tuple[Proxy, PostgresAuditStore], tenant_id: UUID
) -> None:
    passing, store = behind
    await store.save_turns([TurnRecordFactory(tenant_id=tenant_id)])
    turns = [TurnRecordFactory(tenant_id=tenant_id, user_message="x" * 2_000) for _ in range(1_000)]
    assert await passing.count(lambda: store.save_turns(turns)) == 3
    # Preparing the statement that compares is one, comparing another.
    assert await passing.count(lambda: store.save_turns(turns)) <= 5
    assert await passing.count(lambda: store.save_turns(turns)) == 4


# -- plans -----------------------------------------------------------------------------------------------------


def _statements() -> Iterator[tuple[Statement, str]]:
    """Every statement that reads, and the index that it is to use."""
    yield sql.turns.get, "pk_turn_records"
    yield sql.turns.get_listed, "pk_turn_records"
    yield sql.list_turns_by_session, "ix_turn_records_session"
    for start in (False, True):
        for end in (False, True):
            for before in (False, True):
                statement = sql.list_turns_by_tenant(start=start, end=end, before=before)
                yield statement, "ix_turn_records_page"
    yield sql.events.get, "pk_audit_events"
    yield sql.events.get_listed, "pk_audit_events"
    for event_type in (False, True):
        yield sql.list_events_by_session(event_type=event_type), "ix_audit_events_session"


async def _fill(store: PostgresAuditStore, tenant_id: UUID) -> list[TurnRecord]:
    """Give one tenant 4,000 turns and events in 20 sessions, and some to others. Returns the tenant's turns."""
    sessions = [uuid4() for _ in range(20)]
    turns: list[TurnRecord] = [
        TurnRecordFactory(
            tenant_id=tenant_id,
            session_id=sessions[number % 20],
            timestamp=NOON + number * MINUTE,
            user_message="Where is my order?",
            agent_response="On its way.",
        )
        for number in range(4_000)
    ]
    events = [
        AuditEventFactory(
            tenant_id=tenant_id, session_id=turn.session_id, event_type=str(turn.turn_number % 7)
        )
        for turn in turns
    ]
    await store.save_turns(turns)
    await store.save_events(events)
    for _ in range(5):
        other = uuid4()
        await store.save_turns([TurnRecordFactory(tenant_id=other) for _ in range(100)])
        await store.save_events([AuditEventFactory(tenant_id=other) for _ in range(100)])
    return turns


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", ()):
        yield from _nodes(child)


async def _explain(connection: Any, statement: Statement, values: dict[str, Any]) -> list[dict[str, Any]]:
    explained = await connection.fetchval(
        f"EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) {statement.sql}", *statement.arguments(values)
    )
    return list(_nodes(json.loads(explained)[0]["Plan"]))


async def test_a_large_tenant_is_read_through_indexes_and_a_deep_page_reads_no_more_than_itself(
    database_url: str, tenant_id: UUID
) -> None:
    database = Database(settings_for(database_url))
    turns = await _fill(PostgresAuditStore(database), tenant_id)
    await database.close()
    values = {
        "tenant_id": tenant_id,
        "id": turns[7].turn_id,
        "ids": [turn.turn_id for turn in turns[:3]],
        "session_id": turns[7].session_id,
        "event_type": "3",
        "start_time": NOON,
        "end_time": NOON + 3_900 * MINUTE,
        "before_at": NOON + 2_000 * MINUTE,
        "before_id": turns[2_000].turn_id,
        "limit": 20,
        "offset": 0,
    }
    connection = await open_connection(settings_for(database_url))
    try:
        await connection.execute("ANALYZE")
        # A prepared statement is planned for its values at first, and once for all of them later.
        for mode in ("force_custom_plan", "force_generic_plan"):
            await connection.execute(f"SET plan_cache_mode = {mode}")
            for statement, index in _statements():
                nodes = await _explain(connection, statement, values)
                kinds = {node["Node Type"] for node in nodes}
                assert "Seq Scan" not in kinds, (mode, statement.sql)
                assert [node["Index Name"] for node in nodes if "Index Name" in node] == [index]
                # The events of one type in a session may be sorted: there is no index for these alone.
                assert "Sort" not in kinds or statement is sql.list_events_by_session(event_type=True)
            page = sql.list_turns_by_tenant(start=True, end=True, before=True)
            for depth in (10, 3_800):
                last = turns[-1 - depth]
                position = {"before_at": last.timestamp, "before_id": last.turn_id}
                *_, scan = await _explain(connection, page, values | position)
                assert scan["Actual Rows"] == 20
                assert "Rows Removed by Filter" not in scan
    finally:
        await connection.close()


# -- races -----------------------------------------------------------------------------------------------------


@every_kind
async def test_the_same_record_saved_many_times_at_once_is_stored_once(
    store: PostgresAuditStore, kind: Kind
) -> None:
    record = kind.make(**kind.full())
    saves = [kind.save(store, record.model_copy(deep=True)) for _ in range(20)]
    assert await asyncio.gather(*saves) == [kind.id(record)] * 20
    assert await kind.get(store, record) == record


@every_kind
async def test_of_different_records_saved_at_once_under_one_id_one_wins(
    store: PostgresAuditStore, kind: Kind
) -> None:
    record = kind.make()
    different = [record.model_copy(update={"session_id": uuid4()}) for _ in range(10)]
    results = await asyncio.gather(*(kind.save(store, each) for each in different), return_exceptions=True)
    assert sum(isinstance(result, UUID) for result in results) == 1
    assert sum(isinstance(result, ConflictError) for result in results) == 9
    assert await kind.get(store, record) == different[[type(result) for result in results].index(UUID)]


@every_kind
async def test_lists_saved_at_once_in_opposite_orders_do_not_block_each_other(
    shared_database_url: str, tenant_id: UUID, kind: Kind
) -> None:
    # Without a second try a deadlock would show.
    database = Database(settings_for(shared_database_url, retry_budget=0))
    store = PostgresAuditStore(database)
    for _ in range(3):
        records = [kind.make(tenant_id=tenant_id) for _ in range(100)]
        lists = [records[:: (-1) ** place] for place in range(6)]
        assert await asyncio.gather(*(kind.save_all(store, each) for each in lists)) == [100] * 6
    await database.close()


@every_kind
@pytest.mark.parametrize("committed", [True, False])
async def test_a_save_waits_for_the_unit_of_work_that_has_the_id(
    database: Database, store: PostgresAuditStore, kind: Kind, committed: bool
) -> None:
    record = kind.make()
    different = record.model_copy(update={"session_id": uuid4()})
    async with database.transaction() as transaction:
        await kind.save(PostgresAuditStore(transaction), record)
        waiting = asyncio.create_task(kind.save(store, different))
        await asyncio.sleep(0.1)
        assert not waiting.done()
        if not committed:
            await transaction.rollback()
    if committed:
        with pytest.raises(ConflictError):
            await waiting
        assert await kind.get(store, record) == record
    else:
        assert await waiting == kind.id(record)
        assert await kind.get(store, record) == different


# -- lost replies ----------------------------------------------------------------------------------------------


@every_kind
async def test_a_save_whose_reply_is_lost_takes_effect_once(
    behind: tuple[Proxy, PostgresAuditStore], kind: Kind
) -> None:
    passing, store = behind
    record = kind.make(**kind.full())
    # The statement is prepared first, so that it is the reply to the insert which gets lost.
    await kind.save(store, kind.make())
    passing.lose_next_reply()
    assert await kind.save(store, record) == kind.id(record)
    assert passing.lost == 1
    assert await kind.get(store, record) == record


@every_kind
async def test_a_list_whose_reply_is_lost_takes_effect_once(
    behind: tuple[Proxy, PostgresAuditStore], tenant_id: UUID, kind: Kind
) -> None:
    passing, store = behind
    first, *records = (kind.make(tenant_id=tenant_id) for _ in range(6))
    await kind.save_all(store, [first])
    passing.lose_next_reply()
    assert await kind.save_all(store, records) == 5
    assert passing.lost == 1
    for record in records:
        assert await kind.get(store, record) == record


@every_kind
async def test_a_list_that_was_committed_without_an_answer_takes_effect_once(
    store: PostgresAuditStore, tenant_id: UUID, kind: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = Transaction.commit
    committed = 0

    async def commit_and_lose_the_first_answer(transaction: Transaction) -> None:
        nonlocal committed
        await commit(transaction)
        committed += 1
        if committed == 1:
            raise TransientError("the connection was lost")

    monkeypatch.setattr(Transaction, "commit", commit_and_lose_the_first_answer)
    records = [kind.make(tenant_id=tenant_id) for _ in range(5)]
    assert await kind.save_all(store, records) == 5
    assert committed == 2
    for record in records:
        assert await kind.get(store, record) == record
