"""What every session store finds and marks."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from soldier_data.base.models import utcnow
from soldier_data.errors import ConflictError, ValidationError
from soldier_data.sessions import (
    Channel,
    InMemorySessionStore,
    PendingMigration,
    ScopeFilter,
    Session,
    SessionStatus,
    SessionStore,
    SessionTierConfig,
)
from tests.factories.sessions import SessionFactory, StepVisitFactory


async def save_all(store: SessionStore, sessions: Sequence[Session]) -> None:
    for session in sessions:
        await store.save(session)


def ids(sessions: Sequence[Session]) -> list[UUID]:
    return [session.session_id for session in sessions]


class TestLookups:
    async def test_the_most_recently_saved_session_of_a_channel_is_found(
        self, session_store: SessionStore
    ) -> None:
        first = SessionFactory()
        second = SessionFactory(tenant_id=first.tenant_id, user_channel_id=first.user_channel_id)
        other = SessionFactory(
            tenant_id=first.tenant_id, user_channel_id=first.user_channel_id, channel="slack"
        )
        await save_all(session_store, [first, second, other])
        where = (first.tenant_id, Channel.WEBCHAT, first.user_channel_id)
        assert await session_store.get_by_channel(*where) == second
        await session_store.save(first)
        assert await session_store.get_by_channel(*where) == first
        await session_store.delete(first.session_id)
        assert await session_store.get_by_channel(*where) == second
        second.user_channel_id = "moved"
        await session_store.save(second)
        assert await session_store.get_by_channel(*where) is None

    async def test_lists_come_with_the_last_activity_first(self, session_store: SessionStore) -> None:
        tenant_id, agent_id, customer = uuid4(), uuid4(), uuid4()
        sessions = [
            SessionFactory(tenant_id=tenant_id, agent_id=agent_id, customer_profile_id=customer)
            for _ in range(5)
        ]
        await save_all(session_store, sessions)
        await session_store.save(sessions[2])
        expected = [sessions[index] for index in (2, 4, 3, 1, 0)]
        assert await session_store.list_by_agent(tenant_id, agent_id) == expected
        assert await session_store.list_by_customer(tenant_id, customer) == expected
        assert await session_store.list_by_agent(tenant_id, agent_id, limit=2) == expected[:2]
        assert await session_store.list_by_customer(tenant_id, customer, limit=0) == []

    async def test_a_status_is_listed_to_the_limit(self, session_store: SessionStore) -> None:
        tenant_id, agent_id = uuid4(), uuid4()
        sessions = [
            SessionFactory(
                tenant_id=tenant_id,
                agent_id=agent_id,
                status=SessionStatus.CLOSED if number < 3 else SessionStatus.ACTIVE,
            )
            for number in range(12)
        ]
        await save_all(session_store, sessions)
        closed = await session_store.list_by_agent(tenant_id, agent_id, status=SessionStatus.CLOSED, limit=3)
        assert ids(closed) == ids(sessions[2::-1])
        # Nine stale entries now lie above the three right ones.
        for session in sessions[3:]:
            session.status = SessionStatus.IDLE
        await save_all(session_store, sessions[3:])
        for session in sessions[:3]:
            session.status = SessionStatus.ACTIVE
        await save_all(session_store, sessions[:3])
        for session in sessions[3:]:
            session.status = SessionStatus.ACTIVE
            await session_store.save(session)
            session.status = SessionStatus.IDLE
            await session_store.save(session)
        active = await session_store.list_by_agent(tenant_id, agent_id, status=SessionStatus.ACTIVE, limit=3)
        assert ids(active) == ids(sessions[2::-1])

    async def test_a_session_moves_between_indexes(self, session_store: SessionStore) -> None:
        session = SessionFactory()
        before = session.model_copy(deep=True)
        await session_store.save(session)
        session.agent_id, session.customer_profile_id = uuid4(), None
        await session_store.save(session)
        tenant_id = session.tenant_id
        assert await session_store.list_by_agent(tenant_id, before.agent_id) == []
        assert await session_store.list_by_customer(tenant_id, before.customer_profile_id) == []
        assert await session_store.list_by_agent(tenant_id, session.agent_id) == [session]


class TestReadersSideBySide:
    async def test_none_steps_over_a_session_while_another_removes_a_stale_entry(
        self, session_store: SessionStore
    ) -> None:
        for _ in range(40):
            first, second = SessionFactory(), SessionFactory()
            second = first.model_copy(update={"session_id": second.session_id})
            await save_all(session_store, [first, second])
            await session_store.delete(second.session_id)
            where = (first.tenant_id, first.channel, first.user_channel_id)
            calls = [session_store.get_by_channel(*where) for _ in range(4)]
            assert await asyncio.gather(*calls) == [first] * 4

    async def test_lists_are_never_short(self, session_store: SessionStore) -> None:
        for _ in range(20):
            tenant_id, agent_id, customer = uuid4(), uuid4(), uuid4()
            sessions = [
                SessionFactory(tenant_id=tenant_id, agent_id=agent_id, customer_profile_id=customer)
                for _ in range(12)
            ]
            await save_all(session_store, sessions)
            gone = sessions[1::2]
            for session in gone:
                await session_store.delete(session.session_id)
            expected = ids(sessions[-2::-2])
            by_agent = [session_store.list_by_agent(tenant_id, agent_id, limit=n) for n in (1, 2, 3, 4, 5)]
            by_customer = [
                session_store.list_by_customer(tenant_id, customer, limit=n) for n in (1, 2, 3, 4, 5)
            ]
            for number, found in enumerate(await asyncio.gather(*by_agent, *by_customer)):
                assert ids(found) == expected[: number % 5 + 1]


class TestFindByStep:
    async def test_active_sessions_whose_last_visit_has_the_hash_are_found(
        self, session_store: SessionStore
    ) -> None:
        at_step = SessionFactory()
        same: dict[str, Any] = {
            "tenant_id": at_step.tenant_id,
            "active_scenario_id": at_step.active_scenario_id,
            "step_history": at_step.step_history,
        }
        moved_on = SessionFactory(**{**same, "step_history": [*at_step.step_history, StepVisitFactory()]})
        other_version = SessionFactory(**same, active_scenario_version=2)
        idle = SessionFactory(**same, status=SessionStatus.IDLE)
        second = SessionFactory(**same)
        await save_all(session_store, [at_step, moved_on, other_version, idle, second])
        place = (
            at_step.tenant_id,
            at_step.active_scenario_id,
            1,
            at_step.step_history[-1].step_content_hash,
        )
        assert await session_store.find_sessions_by_step_hash(*place) == [second, at_step]
        second.step_history.append(StepVisitFactory())
        await session_store.save(second)
        assert await session_store.find_sessions_by_step_hash(*place) == [at_step]

    @pytest.mark.parametrize(
        ("scope", "expected"),
        [
            (ScopeFilter(), "abc"),
            (ScopeFilter(include_channels=[Channel.SLACK]), "b"),
            (ScopeFilter(exclude_channels=[Channel.SLACK]), "ac"),
            (ScopeFilter(include_current_nodes=["pay", "ship"]), "ab"),
            (ScopeFilter(exclude_current_nodes=["pay"]), "bc"),
            (ScopeFilter(max_session_age_days=2), "ab"),
            (ScopeFilter(min_session_age_days=1), "bc"),
            (ScopeFilter(min_session_age_days=1, max_session_age_days=2), "b"),
            (ScopeFilter(max_session_age_days=10**12), "abc"),
            (ScopeFilter(min_session_age_days=10**12), ""),
            (ScopeFilter(include_channels=[Channel.SLACK], exclude_channels=[Channel.SLACK]), ""),
        ],
    )
    async def test_the_scope_narrows_what_is_found(
        self, session_store: SessionStore, scope: ScopeFilter, expected: str
    ) -> None:
        now = datetime.now(UTC)
        common = {"tenant_id": uuid4(), "active_scenario_id": uuid4()}
        sessions = {
            name: SessionFactory(
                **common,
                channel=channel,
                created_at=now - timedelta(days=days),
                step_history=[StepVisitFactory(step_name=step, step_content_hash="hash")],
            )
            for name, channel, days, step in (
                ("a", "webchat", 0, "pay"),
                ("b", "slack", 1.5, "ship"),
                ("c", "webchat", 5, None),
            )
        }
        await save_all(session_store, list(sessions.values()))
        found = await session_store.find_sessions_by_step_hash(
            common["tenant_id"], common["active_scenario_id"], 1, "hash", scope
        )
        assert set(ids(found)) == {sessions[name].session_id for name in expected}


async def test_a_store_that_answers_is_healthy(session_store: SessionStore) -> None:
    assert await session_store.health_check() is True


class TestInMemoryClock:
    async def test_a_session_is_gone_after_persist_ttl_and_after_max_age(self) -> None:
        now = utcnow()
        store = InMemorySessionStore(
            SessionTierConfig(persist_ttl=timedelta(days=2), max_session_age=timedelta(days=3)),
            now=lambda: now,
        )
        session = SessionFactory(created_at=now)
        await store.save(session)
        now += timedelta(days=2) - timedelta(milliseconds=1)
        assert await store.get(session.session_id) == session
        await store.save(session)
        now += timedelta(days=1, milliseconds=1)
        assert await store.get(session.session_id) is None
        assert await store.list_by_agent(session.tenant_id, session.agent_id) == []


def pending(**fields: Any) -> PendingMigration:
    return PendingMigration(
        **{"target_version": 2, "anchor_content_hash": "abc", "migration_plan_id": uuid4(), **fields}
    )


class TestMarking:
    async def test_what_was_found_is_marked_and_nothing_else_changes(
        self, session_store: SessionStore
    ) -> None:
        tenant_id = uuid4()
        sessions = [SessionFactory(tenant_id=tenant_id) for _ in range(5)]
        await save_all(session_store, sessions)
        mark = pending()
        assert await session_store.mark_pending_migration(tenant_id, ids(sessions[:4]), mark) == 4
        for session in sessions[:4]:
            session.pending_migration = mark
            session.revision = 2
        for session in sessions:
            assert await session_store.get(session.session_id) == session
            assert await session_store.list_by_agent(tenant_id, session.agent_id) == [session]

    async def test_another_mark_replaces_the_first(self, session_store: SessionStore) -> None:
        session = SessionFactory()
        await session_store.save(session)
        for mark in (pending(), pending(target_version=3)):
            assert (
                await session_store.mark_pending_migration(session.tenant_id, ids([session, session]), mark)
                == 1
            )
            found = await session_store.get(session.session_id)
            assert found is not None
            assert found.pending_migration == mark

    async def test_unknown_sessions_and_those_of_other_tenants_are_skipped(
        self, session_store: SessionStore
    ) -> None:
        session = SessionFactory()
        await session_store.save(session)
        assert await session_store.mark_pending_migration(uuid4(), ids([session]), pending()) == 0
        assert await session_store.mark_pending_migration(session.tenant_id, [uuid4()], pending()) == 0
        assert await session_store.mark_pending_migration(session.tenant_id, [], pending()) == 0
        assert await session_store.get(session.session_id) == session

    async def test_a_save_based_on_the_state_before_the_mark_is_a_conflict(
        self, session_store: SessionStore
    ) -> None:
        session = SessionFactory()
        await session_store.save(session)
        await session_store.mark_pending_migration(session.tenant_id, ids([session]), pending())
        with pytest.raises(ConflictError):
            await session_store.save(session, if_revision=1)

    async def test_a_mark_that_cannot_be_stored_is_refused(self, session_store: SessionStore) -> None:
        with pytest.raises(ValidationError) as caught:
            await session_store.mark_pending_migration(
                uuid4(), [uuid4()], pending(anchor_content_hash="nul \x00")
            )
        assert caught.value.field == "anchor_content_hash"

    async def test_what_is_saved_at_the_same_time_is_kept(self, session_store: SessionStore) -> None:
        tenant_id = uuid4()
        sessions = [SessionFactory(tenant_id=tenant_id) for _ in range(30)]
        await save_all(session_store, sessions)
        mark = pending()

        async def count(session: Session) -> None:
            for _ in range(5):
                while True:
                    mine = await session_store.get(session.session_id)
                    assert mine is not None
                    mine.turn_count += 1
                    try:
                        await session_store.save(mine, if_revision=mine.revision)
                    except ConflictError:
                        continue
                    break

        marking = session_store.mark_pending_migration(tenant_id, ids(sessions), mark)
        _, marked = await asyncio.gather(asyncio.gather(*map(count, sessions)), marking)
        assert marked == 30
        for session in sessions:
            found = await session_store.get(session.session_id)
            assert found is not None
            assert (found.turn_count, found.pending_migration, found.revision) == (5, mark, 7)
