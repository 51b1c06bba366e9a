"""Removing and deleting many rows on PostgreSQL: part by part, what is done stays done."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, NamedTuple
from uuid import UUID

import pytest

from soldier_data.data_layer import DataLayer
from soldier_data.errors import StoreConnectionError
from soldier_data.postgres.engine import open_connection
from soldier_data.postgres.purging import ROWS_AT_A_TIME
from tests.conftest import settings_for
from tests.factories.config import AgentFactory, RuleFactory, ScenarioFactory
from tests.factories.memory import EntityFactory, EpisodeFactory, RelationshipFactory
from tests.factories.profiles import CustomerProfileFactory

GROUP = "conversation"
MANY = 2 * ROWS_AT_A_TIME + 500
_IDS = "md5('{table}' || n)::uuid"


@asynccontextmanager
async def _connected(data: DataLayer) -> AsyncIterator[Any]:
    connection = await open_connection(data.settings)
    yield connection
    await connection.close()


async def _multiply(connection: Any, table: str, **changed: str) -> None:
    """Store the only row of a table `MANY` times more; `n` counts them. Of deleted ones the last went last."""
    columns = [
        row["attname"]
        for row in await connection.fetch(
            "SELECT attname FROM pg_attribute WHERE attrelid = $1::regclass AND attnum > 0 AND NOT attisdropped",
            table,
        )
    ]
    changed = {"id": _IDS.format(table=table), "deleted_at": "deleted_at + n * interval '1 ms'", **changed}
    values = ", ".join(changed.get(name, name) for name in columns)
    await connection.execute(
        f"INSERT INTO {table} ({', '.join(columns)}) SELECT {values} FROM {table}, generate_series(1, {MANY}) n"  # noqa: S608
    )


async def _fill_memory(data: DataLayer, tenant_id: UUID) -> None:
    first, second = EntityFactory.build_batch(2, tenant_id=tenant_id)
    for entity in (first, second):
        await data.memory.add_entity(entity)
    await data.memory.add_episode(EpisodeFactory(tenant_id=tenant_id))
    await data.memory.add_relationship(
        RelationshipFactory(tenant_id=tenant_id, from_entity_id=first.id, to_entity_id=second.id)
    )
    async with _connected(data) as connection:
        await _multiply(connection, "episodes")
        # All from one entity, so that it has more relationships than go at once.
        await _multiply(connection, "relationships", group_id="'other'")


async def _fill_deleted_memory(data: DataLayer, tenant_id: UUID) -> None:
    await _fill_memory(data, tenant_id)
    async with _connected(data) as connection:
        # The relationships are to go with their entities.
        for table in ("episodes", "entities"):
            await connection.execute(f"UPDATE {table} SET deleted_at = now() - interval '1 hour'")  # noqa: S608


async def _fill_config(data: DataLayer, tenant_id: UUID) -> None:
    agent = AgentFactory(tenant_id=tenant_id)
    await data.config.save_agent(agent)
    await data.config.save_rule(RuleFactory(tenant_id=tenant_id, agent_id=agent.id))
    scenario = ScenarioFactory(tenant_id=tenant_id, agent_id=agent.id)
    await data.config.save_scenario(scenario)
    await data.config.archive_scenario_version(tenant_id, scenario)
    agent.soft_delete()
    await data.config.save_agent(agent)
    async with _connected(data) as connection:
        # They go with their agent; half of the rules are deleted themselves.
        await _multiply(connection, "rules", deleted_at="CASE WHEN n % 2 = 0 THEN now() END")
        await _multiply(connection, "agents", name="name || n")


async def _fill_profiles(data: DataLayer, tenant_id: UUID) -> None:
    profile = CustomerProfileFactory(tenant_id=tenant_id)
    await data.profiles.save(profile)
    await data.profiles.delete(tenant_id, profile.id)
    async with _connected(data) as connection:
        await _multiply(
            connection, "customer_profiles", customer_id="gen_random_uuid()", external_id="n::text"
        )


class Many(NamedTuple):
    """Something that changes many rows.

    Attributes:
        fill: Stores the rows.
        rows: How many rows it changes.
        last: A row that is among the last to be changed.
        call: What changes them.
    """

    fill: Callable[[DataLayer, UUID], Awaitable[None]]
    rows: int
    last: str
    call: Callable[[Any, UUID], Awaitable[int]]


AGE = timedelta(seconds=-60)
CASES = {
    "purge of memory": Many(
        _fill_deleted_memory,
        2 * MANY + 4,
        "entities",
        lambda stores, tenant_id: stores.memory.purge_deleted(tenant_id, AGE),
    ),
    "deletion of a group": Many(
        _fill_memory,
        2 * MANY + 4,
        "entities",
        lambda stores, tenant_id: stores.memory.delete_by_group(tenant_id, GROUP),
    ),
    "purge of the configuration": Many(
        _fill_config,
        2 * MANY + 3,
        f"agents WHERE id = md5('agents' || {MANY})::uuid",
        lambda stores, tenant_id: stores.config.purge_deleted(tenant_id, AGE),
    ),
    "purge of profiles": Many(
        _fill_profiles,
        MANY + 1,
        f"customer_profiles WHERE id = md5('customer_profiles' || {MANY})::uuid",
        lambda stores, tenant_id: stores.profiles.purge_deleted(tenant_id, AGE),
    ),
}

every_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())


@every_case
async def test_many_rows_go_and_are_counted_once(case: Many, data: DataLayer, tenant_id: UUID) -> None:
    await case.fill(data, tenant_id)
    assert await case.call(data, tenant_id) == case.rows
    assert await case.call(data, tenant_id) == 0


_WAITING = (
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
)


@every_case
async def test_what_went_before_an_interruption_stays_gone(
    case: Many, database_url: str, tenant_id: UUID
) -> None:
    async with DataLayer.open(settings_for(database_url, command_timeout=3)) as data:
        await case.fill(data, tenant_id)
        async with _connected(data) as other, other.transaction():
            await other.execute(f"SELECT FROM {case.last} FOR UPDATE")
            with pytest.raises(StoreConnectionError):
                await case.call(data, tenant_id)
            # The server hears a moment later that the statement is given up: it must not get its lock before.
            async with asyncio.timeout(10):
                while await other.fetchval(_WAITING):  # noqa: ASYNC110 - no event tells.
                    await asyncio.sleep(0.02)
        rest = await case.call(data, tenant_id)
        assert 0 < rest <= case.rows - ROWS_AT_A_TIME
        assert await case.call(data, tenant_id) == 0


@every_case
async def test_a_unit_of_work_has_all_of_it_or_nothing(case: Many, data: DataLayer, tenant_id: UUID) -> None:
    await case.fill(data, tenant_id)
    async with data.unit_of_work() as uow:
        assert await case.call(uow, tenant_id) == case.rows
        await uow.rollback()
    async with data.unit_of_work() as uow:
        assert await case.call(uow, tenant_id) == case.rows
    assert await case.call(data, tenant_id) == 0
