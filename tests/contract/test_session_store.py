"""What every session store does."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError as PydanticValidationError
from redis.asyncio import RedisCluster

from soldier_data.base.models import utcnow
from soldier_data.errors import ConflictError, ValidationError
from soldier_data.sessions import (
    Channel,
    SessionStore,
    SessionTierConfig,
)
from soldier_data.sessions.durable import DurableSessionStore
from tests.factories.sessions import SessionFactory


class TestSaveAndGet:
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
            for _ in range(10):
                await increment()

        await asyncio.gather(*(writer() for _ in range(20)))
        found = await session_store.get(session.session_id)
        assert found is not None
        assert (found.turn_count, found.revision) == (200, 201)

    async def test_of_2000_racing_increments_each_counts_or_is_a_conflict(
        self, session_store: SessionStore
    ) -> None:
        session = SessionFactory()
        # 400 of them on a cluster and with PostgreSQL, where each takes several times as long.
        on_cluster = isinstance(getattr(session_store, "client", None), RedisCluster)
        writers = 40 if on_cluster or isinstance(session_store, DurableSessionStore) else 200
        await session_store.save(session)

        async def writer() -> int:
            counted = 0
            for _ in range(10):
                mine = await session_store.get(session.session_id)
                assert mine is not None
                mine.turn_count += 1
                try:
                    await session_store.save(mine, if_revision=mine.revision)
                except ConflictError:
                    continue
                counted += 1
            return counted

        counted = sum(await asyncio.gather(*(writer() for _ in range(writers))))
        found = await session_store.get(session.session_id)
        assert found is not None
        assert counted > 0
        assert (found.turn_count, found.revision) == (counted, counted + 1)


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
