"""What a newer version of this package stored is read by this one, without the fields that it does not know."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from soldier_data.data_layer import DataLayer
from soldier_data.postgres.engine import driver_url
from soldier_data.sessions import RedisSessionStore
from soldier_data.settings import Settings
from tests.backends.redis_helpers import keys
from tests.factories.audit import ToolCallFactory, TurnRecordFactory
from tests.factories.config import (
    AgentFactory,
    MigrationPlanFactory,
    ScenarioFactory,
    ScenarioStepFactory,
    StepTransitionFactory,
)
from tests.factories.profiles import FullProfileFactory
from tests.factories.sessions import SessionFactory, StepVisitFactory


@pytest.fixture
async def connection(settings: Settings) -> AsyncIterator[asyncpg.Connection]:
    """The newer version."""
    opened = await asyncpg.connect(driver_url(settings.database_url))
    yield opened
    await opened.close()


def _newer(document: Any) -> Any:
    """The document with a field more in each object of it, at every depth."""
    if isinstance(document, list):
        return [_newer(item) for item in document]
    if isinstance(document, dict):
        return {**{name: _newer(item) for name, item in document.items()}, "of_a_newer_version": 1}
    return document


async def _rewrite(connection: asyncpg.Connection, table: str, column: str) -> None:
    text = await connection.fetchval(f"SELECT {column}::text FROM {table}")  # noqa: S608 - Names of our own.
    newer = json.dumps(_newer(json.loads(text)))
    await connection.execute(f"UPDATE {table} SET {column} = $1", newer)  # noqa: S608 - As above.


async def test_config(data: DataLayer, connection: asyncpg.Connection, tenant_id: UUID) -> None:
    agent = AgentFactory(tenant_id=tenant_id)
    step = ScenarioStepFactory(transitions=[StepTransitionFactory()])
    scenario = ScenarioFactory(tenant_id=tenant_id, agent_id=agent.id, steps=[step])
    plan = MigrationPlanFactory(tenant_id=tenant_id)
    await data.config.save_many([agent, scenario, plan])
    await data.config.archive_scenario_version(tenant_id, scenario)
    for table, column in [("agents", "settings"), ("scenarios", "steps"), ("scenario_archives", "scenario")]:
        await connection.execute(f"ALTER TABLE {table} ADD COLUMN of_a_newer_version int DEFAULT 1")
        await _rewrite(connection, table, column)
    # Its dict of policies takes any name, so the field goes into the parts that have fields.
    text = await connection.fetchval("SELECT plan::text FROM migration_plans")
    document = {**json.loads(text), "of_a_newer_version": 1, "summary": {"of_a_newer_version": 1}}
    await connection.execute("UPDATE migration_plans SET plan = $1", json.dumps(document))

    assert await data.config.get_agent(tenant_id, agent.id) == agent
    assert await data.config.get_scenario(tenant_id, scenario.id) == scenario
    assert await data.config.get_archived_scenario(tenant_id, scenario.id, scenario.version) == scenario
    assert await data.config.get_migration_plan(tenant_id, plan.id) == plan


async def test_turns(data: DataLayer, connection: asyncpg.Connection, tenant_id: UUID) -> None:
    call = ToolCallFactory(input={}, output=None)
    turn = TurnRecordFactory(tenant_id=tenant_id, tool_calls=[call])
    await data.audit.save_turn(turn)
    document = [{**call.model_dump(mode="json"), "of_a_newer_version": 1}]
    await connection.execute("UPDATE turn_records SET tool_calls = $1", json.dumps(document))
    assert await data.audit.get_turn(tenant_id, turn.turn_id) == turn


async def test_profiles(data: DataLayer, connection: asyncpg.Connection, tenant_id: UUID) -> None:
    profile = FullProfileFactory(tenant_id=tenant_id)
    await data.profiles.save(profile)
    for table in (
        "customer_profiles",
        "channel_identities",
        "profile_fields",
        "profile_assets",
        "profile_consents",
    ):
        await connection.execute(f"ALTER TABLE {table} ADD COLUMN of_a_newer_version int DEFAULT 1")
    assert await data.profiles.get_by_id(tenant_id, profile.id) == profile


async def test_sessions(data: DataLayer, tenant_id: UUID) -> None:
    assert isinstance(data.sessions, RedisSessionStore)
    session = SessionFactory(tenant_id=tenant_id, step_history=[StepVisitFactory()])
    await data.sessions.save(session)
    hot, _ = keys(data.sessions, session)
    value = await data.sessions.client.get(hot)
    assert isinstance(value, bytes)
    for start in (b'"step_history":[{', b'"channel"'):
        assert start in value
    value = value.replace(b'"step_history":[{', b'"step_history":[{"of_a_newer_version":1,')
    value = value.replace(b'"channel"', b'"of_a_newer_version":1,"channel"')
    await data.sessions.client.set(hot, value, keepttl=True)
    assert await data.sessions.get(session.session_id) == session
