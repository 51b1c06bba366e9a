"""What every session store does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from uuid import UUID, uuid4
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError as PydanticValidationError

from soldier_data.base.models import utcnow
from soldier_data.errors import ConflictError, ValidationError
from soldier_data.sessions import (
    Channel,
    InMemorySessionStore,
    PendingMigration,
    RedisSessionStore,
    ScopeFilter,
    Session,
    SessionStatus,
    SessionStore,
    SessionTierConfig,
    create_redis_client,
)
from soldier_data.settings import Settings
from tests.factories.sessions import SessionFactory, StepVisitFactory


@pytest.fixture(params=["inmemory", "redis"])
async def session_store(request: pytest.FixtureRequest) -> AsyncIterator[SessionStore]:
    if request.param == "inmemory":
        yield InMemorySessionStore()
        return
    client = create_redis_client(Settings(redis_url=request.getfixturevalue("redis_url")))
    yield RedisSessionStore(client, SessionTierConfig(key_prefix=f"t{uuid4().hex}"))
    await client.aclose()


async def save_all(store: SessionStore, sessions: Sequence[Session]) -> None:
    for session in sessions:
        await store.save(session)


def ids(sessions: Sequence[Session]) -> list[UUID]:
    return [session.session_id for session in sessions]


def full_session() -> Session:
    session: Session = SessionFactory(
        step_history=[
            StepVisitFactory(
                transition_reason="the customer asked",
                confidence=0.123456789012345678,
                is_checkpoint=True,
                checkpoint_description="paid",
                entered_at=datetime(2024, 2, 29, 23, 59, 59, 999999, tzinfo=timezone(timedelta(hours=-11))),
            )
        ],
        relocalization_count=3,
        rule_fires={"ein Schlüssel": 2, "": 0},
        rule_last_fire_turn={"a": 2**63 - 1},
        variables={
            "text": 'ä€😀"\\\u2028\x01',
            "float": 0.1 + 0.2,
            "big": 10**40,
            "none": None,
            "list": [[], {}],
        },
        variable_updated_at={"text": datetime(1890, 1, 1, tzinfo=ZoneInfo("Europe/Amsterdam"))},
        turn_count=7,
        status=SessionStatus.INTERRUPTED,
        pending_migration=PendingMigration(
            target_version=2, anchor_content_hash="abc", migration_plan_id=uuid4(), marked_at=utcnow()
        ),
        scenario_checksum="c" * 64,
    )
    return session


class TestSaveAndGet:
    async def test_every_field_comes_back_equal(self, session_store: SessionStore) -> None:
        session = full_session()
        assert await session_store.save(session) == session.session_id
        assert await session_store.get(session.session_id) == session

    async def test_save_sets_revision_and_last_activity(self, session_store: SessionStore) -> None:
        session = SessionFactory(last_activity_at=utcnow() - timedelta(days=1))
        before = utcnow()
        await session_store.save(session)
        assert session.revision == 1
        assert before <= session.last_activity_at <= utcnow()
        await session_store.save(session)
        assert session.revision == 2

    async def test_unknown_session_is_none(self, session_store: SessionStore) -> None:
        assert await session_store.get(uuid4()) is None

    async def test_what_is_read_is_a_copy(self, session_store: SessionStore) -> None:
        session = SessionFactory()
        await session_store.save(session)
        session.variables["order"]["id"] = "changed after saving"
        first = await session_store.get(session.session_id)
        assert first is not None
        first.variables["order"]["id"] = "changed after reading"
        first.step_history.clear()
        second = await session_store.get(session.session_id)
        assert second is not None
        assert second.variables["order"]["id"] == "A-1"
        assert len(second.step_history) == 2

    async def test_a_thousand_operations_at_once_all_succeed(self, session_store: SessionStore) -> None:
        sessions = [SessionFactory() for _ in range(250)]
        await asyncio.gather(*(session_store.save(session) for session in sessions))
        mixed = [
            operation
            for session in sessions
            for operation in (
                session_store.get(session.session_id),
                session_store.save(session),
                session_store.list_by_agent(session.tenant_id, session.agent_id),
                session_store.get_by_channel(session.tenant_id, session.channel, session.user_channel_id),
            )
        ]
        results = await asyncio.gather(*mixed)
        assert None not in results

    @settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(
        variables=st.dictionaries(
            st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00")),
            st.recursive(
                st.none()
                | st.booleans()
                | st.integers()
                | st.floats(allow_nan=False, allow_infinity=False)
                | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00")),
                lambda inner: (
                    st.lists(inner, max_size=4)
                    | st.dictionaries(
                        st.text(st.characters(codec="ascii", min_codepoint=32)), inner, max_size=4
                    )
                ),
                max_leaves=12,
            ),
            max_size=5,
        )
    )
    async def test_any_json_comes_back_equal_and_of_the_same_types(
        self, session_store: SessionStore, variables: dict[str, Any]
    ) -> None:
        session = SessionFactory(variables=variables)
        await session_store.save(session)
        found = await session_store.get(session.session_id)
        assert found is not None
        assert repr(found.variables) == repr(session.variables)


class TestRefusals:
    @pytest.mark.parametrize(
        ("changes", "field"),
        [
            ({"user_channel_id": "nul \x00"}, "user_channel_id"),
            ({"scenario_checksum": "half \ud800"}, "scenario_checksum"),
            ({"variables": {"x": float("nan")}}, "variables"),
            ({"variables": {"x": [float("-inf")]}}, "variables"),
            ({"variables": {"x": (1, 2)}}, "variables"),
            ({"variables": {"x": utcnow()}}, "variables"),
            ({"variables": {"x": "\udfff"}}, "variables"),
            ({"variables": {"nul \x00": 1}}, "variables"),
            ({"rule_fires": {"nul \x00": 1}}, "rule_fires"),
        ],
    )
    async def test_a_value_that_cannot_be_stored_is_refused_by_name(
        self, session_store: SessionStore, changes: dict[str, Any], field: str
    ) -> None:
        session = SessionFactory(**changes)
        with pytest.raises(ValidationError) as caught:
            await session_store.save(session)
        assert caught.value.field is not None
        assert caught.value.field.startswith(field)
        assert session.revision == 0
        assert await session_store.get(session.session_id) is None

    async def test_json_nested_too_deep_is_refused(self, session_store: SessionStore) -> None:
        deep: dict[str, Any] = {}
        for _ in range(5000):
            deep = {"x": deep}
        with pytest.raises(ValidationError, match="nested deeper"):
            await session_store.save(SessionFactory(variables=deep))

    async def test_a_number_too_long_to_be_read_again_is_refused(self, session_store: SessionStore) -> None:
        with pytest.raises(ValidationError):
            await session_store.save(SessionFactory(variables={"x": 10**5000}))

    async def test_a_wrong_type_put_into_a_list_or_dict_is_refused(self, session_store: SessionStore) -> None:
        session = SessionFactory()
        session.step_history.append({"step_id": 1})
        with pytest.raises(ValidationError, match="step_history") as caught:
            await session_store.save(session)
        assert caught.value.field == "step_history"
        session = SessionFactory()
        session.rule_fires["rule"] = "secret"
        with pytest.raises(ValidationError) as caught:
            await session_store.save(session)
        assert caught.value.field == "rule_fires"
        assert "secret" not in str(caught.value)

    async def test_a_session_past_its_age_is_refused(self, session_store: SessionStore) -> None:
        session = SessionFactory(created_at=utcnow() - timedelta(days=7))
        with pytest.raises(ValidationError, match="max_session_age") as caught:
            await session_store.save(session)
        assert caught.value.field == "created_at"

    async def test_text_that_cannot_be_stored_is_refused_in_look_ups(
        self, session_store: SessionStore
    ) -> None:
        with pytest.raises(ValidationError):
            await session_store.get_by_channel(uuid4(), Channel.API, "\ud800")
        with pytest.raises(ValidationError):
            await session_store.find_sessions_by_step_hash(uuid4(), uuid4(), 1, "\x00")
        with pytest.raises(ValidationError, match="limit"):
            await session_store.list_by_agent(uuid4(), uuid4(), limit=-1)

    def test_naive_datetimes_are_refused(self) -> None:
        with pytest.raises(PydanticValidationError):
            SessionFactory(created_at=datetime(2024, 1, 1))  # noqa: DTZ001 - that is the point.

    def test_a_hot_ttl_beyond_the_persistent_one_is_refused(self) -> None:
        with pytest.raises(PydanticValidationError, match="hot_ttl is longer than persist_ttl"):
            SessionTierConfig(hot_ttl=timedelta(hours=2), persist_ttl=timedelta(hours=1))
        with pytest.raises(PydanticValidationError, match="persist_ttl must be at least one millisecond"):
            SessionTierConfig(hot_ttl=timedelta(milliseconds=1), persist_ttl=timedelta(0))


class TestConditionalSave:
    async def test_the_stored_revision_is_accepted_and_a_stale_one_refused(
        self, session_store: SessionStore
    ) -> None:
        session = SessionFactory()
        await session_store.save(session, if_revision=0)
        stale = session.model_copy(deep=True)
        await session_store.save(session, if_revision=1)
        stale.turn_count = 99
        before = stale.last_activity_at
        with pytest.raises(ConflictError, match="revision 2, not 1"):
            await session_store.save(stale, if_revision=stale.revision)
        assert (stale.revision, stale.last_activity_at) == (1, before)
        assert await session_store.get(session.session_id) == session

    async def test_zero_means_that_no_session_may_be_there(self, session_store: SessionStore) -> None:
        session = SessionFactory()
        with pytest.raises(ConflictError, match="revision 0, not 3"):
            await session_store.save(session, if_revision=3)
        await session_store.save(session)
        with pytest.raises(ConflictError):
            await session_store.save(session, if_revision=0)

    async def test_without_a_condition_the_last_save_wins(self, session_store: SessionStore) -> None:
        first = SessionFactory()
        await session_store.save(first)
        second = first.model_copy(deep=True)
        await session_store.save(first)
        second.turn_count = 5
        await session_store.save(second)
        assert second.revision == 3
        assert await session_store.get(first.session_id) == second

    async def test_racing_increments_are_counted_exactly(self, session_store: SessionStore) -> None:
        session = SessionFactory()
        await session_store.save(session)

        async def increment() -> None:
            while True:
                mine = await session_store.get(session.session_id)
                assert mine is not None
                mine.turn_count += 1
                try:
                    await session_store.save(mine, if_revision=mine.revision)
                except ConflictError:
                    continue
                return

        async def writer() -> None:
            for _ in range(4):
                await increment()

        await asyncio.gather(*(writer() for _ in range(50)))
        found = await session_store.get(session.session_id)
        assert found is not None
        assert (found.turn_count, found.revision) == (200, 201)


class TestDelete:
    async def test_a_deleted_session_is_gone_from_everywhere(self, session_store: SessionStore) -> None:
        session = SessionFactory()
        await session_store.save(session)
        assert await session_store.delete(session.session_id) is True
        assert await session_store.delete(session.session_id) is False
        assert await session_store.get(session.session_id) is None
        assert await session_store.list_by_agent(session.tenant_id, session.agent_id) == []
        assert (
            await session_store.get_by_channel(session.tenant_id, session.channel, session.user_channel_id)
            is None
        )

    async def test_a_deleted_session_can_be_saved_anew(self, session_store: SessionStore) -> None:
        session = SessionFactory()
        await session_store.save(session)
        await session_store.delete(session.session_id)
        await session_store.save(session, if_revision=0)
        assert session.revision == 1


class TestTenants:
    async def test_another_tenant_sees_and_changes_nothing(self, session_store: SessionStore) -> None:
        session = SessionFactory()
        await session_store.save(session)
        other = uuid4()
        assert await session_store.get(session.session_id, tenant_id=other) is None
        assert await session_store.delete(session.session_id, tenant_id=other) is False
        assert await session_store.get_by_channel(other, session.channel, session.user_channel_id) is None
        assert await session_store.list_by_agent(other, session.agent_id) == []
        assert await session_store.list_by_customer(other, session.customer_profile_id) == []
        assert (
            await session_store.find_sessions_by_step_hash(
                other, session.active_scenario_id, 1, session.step_history[-1].step_content_hash
            )
            == []
        )
        assert await session_store.get(session.session_id, tenant_id=session.tenant_id) == session

    async def test_an_id_of_another_tenant_cannot_be_saved_over(self, session_store: SessionStore) -> None:
        session = SessionFactory()
        await session_store.save(session)
        intruder = SessionFactory(session_id=session.session_id)
        with pytest.raises(ConflictError) as caught:
            await session_store.save(intruder)
        assert "revision" not in str(caught.value)
        assert await session_store.get(session.session_id) == session

    async def test_delete_with_the_right_tenant_deletes(self, session_store: SessionStore) -> None:
        session = SessionFactory()
        await session_store.save(session)
        assert await session_store.delete(session.session_id, tenant_id=session.tenant_id) is True


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
