"""Migrations as operators run them: many at once, beside live traffic, undone and done again."""

from __future__ import annotations

import asyncio
import json
from time import monotonic
from typing import Any
from uuid import UUID

import pytest

from soldier_data import migrations
from soldier_data.data_layer import DataLayer
from soldier_data.schema import metadata
from soldier_data.settings import Settings
from tests.backends.connections import administrator
from tests.cases.stores import DOMAINS
from tests.conftest import DIMENSIONS, settings_for
from tests.migrations.tools import alembic, alembic_here, dump_schema, fetch, revision, schema, until
from tests.reliability.conftest import Counts, Found

_SIZE = str(DIMENSIONS)
_MIGRATING = """
SELECT pid AS it FROM pg_locks JOIN pg_database d ON d.oid = database
WHERE locktype = 'advisory' AND granted AND datname = current_database()
"""


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Settings with which every table is used."""
    return settings.model_copy(update={"session_durability": "postgres"})


async def test_processes_upgrade_one_empty_database_at_once(
    empty_database_url: str, count: Counts, report: Found
) -> None:
    rounds, processes, finished = count(1, 5), count(4, 8), 0
    for _ in range(rounds):
        await asyncio.gather(
            *(
                alembic(empty_database_url, "upgrade head", SOLDIER_EMBEDDING_DIMENSIONS=_SIZE)
                for _ in range(processes)
            )
        )
        finished += processes
        assert await revision(empty_database_url) == [migrations.head_revision()]
        await fetch(empty_database_url, "DROP SCHEMA public CASCADE")
        await fetch(empty_database_url, "CREATE SCHEMA public")
    report(
        f"{processes} processes upgrading one empty database at once, {rounds} times",
        bar="40 of 40 succeed, one head",
        found=f"{finished} of {rounds * processes} succeeded, one head",
    )


async def test_an_empty_database_comes_to_head_quickly(
    empty_database_url: str, count: Counts, report: Found
) -> None:
    settings = settings_for(empty_database_url, embedding_dimensions=1536)
    seconds = []
    for _ in range(count(1, 10)):
        began = monotonic()
        await migrations.upgrade(settings)
        seconds.append(monotonic() - began)
        assert await revision(empty_database_url) == [migrations.head_revision()]
        await migrations.downgrade(settings, "base")
    if count.soak:
        assert max(seconds) <= 3
    report(
        f"migrations on an empty database, {len(seconds)} times",
        bar="<= 3 s",
        found=f"{min(seconds):.2f} to {max(seconds):.2f} s",
    )


async def test_readers_never_wait_long_behind_an_upgrade(
    data: DataLayer, database_url: str, tenant_id: UUID, count: Counts, report: Found
) -> None:
    await _fill(data, tenant_id)
    # The upgrade has to alter the table, so it asks for a lock that the transaction is in the way of.
    await fetch(database_url, "ALTER TABLE agents NO FORCE ROW LEVEL SECURITY")
    await alembic_here(database_url, "stamp", "base")
    stop = asyncio.Event()
    waits: list[float] = []

    async def read_all_the_time() -> None:
        async with administrator(database_url) as reader:
            # PostgreSQL itself refuses a read that waits for longer: shorter than the table is held, and so long
            # that a busy machine does not matter.
            await reader.execute("SET lock_timeout = '2s'")
            while not stop.is_set():
                for table in metadata.tables:
                    began = monotonic()
                    await reader.fetch(f"SELECT tenant_id FROM {table} LIMIT 1")  # noqa: S608 - our tables.
                    waits.append(monotonic() - began)
                await asyncio.sleep(0.002)

    async with administrator(database_url) as holder:
        transaction = holder.transaction()
        await transaction.start()
        await holder.fetch("SELECT tenant_id FROM agents LIMIT 1")
        readers = [asyncio.create_task(read_all_the_time()) for _ in range(2)]
        await asyncio.sleep(count(2, 20) / 10)
        quiet = max(waits)
        waits.clear()
        # In a process of its own, so that the readers wait for nothing but the database.
        upgrading = asyncio.create_task(
            alembic(database_url, "upgrade head", SOLDIER_EMBEDDING_DIMENSIONS=_SIZE)
        )
        await until(database_url, _MIGRATING)
        await asyncio.sleep(count(25, 40) / 10)
        assert not upgrading.done()
        await transaction.rollback()
        await upgrading
        stop.set()
        await asyncio.gather(*readers)
    assert await revision(database_url) == [migrations.head_revision()]
    assert await migrations.check(settings_for(database_url)) is None
    if count.soak:
        assert max(waits) < 0.25
    report(
        "upgrade while a 4 s transaction holds the table",
        bar="other readers wait < 250 ms",
        found=f"worst of {len(waits):,} reads {max(waits) * 1000:.0f} ms (before the upgrade {quiet * 1000:.0f} ms)",
    )


async def test_running_everything_again_on_a_full_database_is_not_noticed(
    data: DataLayer, database_url: str, tenant_id: UUID, count: Counts, report: Found
) -> None:
    await _fill(data, tenant_id)
    rows, first = await _rows(database_url), await schema(database_url)
    stop = asyncio.Event()
    waits: list[float] = []

    async def write_all_the_time() -> None:
        async with administrator(database_url) as writer:
            while not stop.is_set():
                for table in metadata.tables:
                    began = monotonic()
                    await writer.execute(f"UPDATE {table} SET tenant_id = tenant_id WHERE false")  # noqa: S608 - ours.
                    waits.append(monotonic() - began)

    writers = [asyncio.create_task(write_all_the_time()) for _ in range(2)]
    await asyncio.sleep(count(2, 20) / 10)
    quiet = max(waits)
    waits.clear()
    times = count(1, 20)
    again = ["stamp base", "upgrade head"] * times
    await alembic(database_url, *again, SOLDIER_EMBEDDING_DIMENSIONS=_SIZE)
    stop.set()
    await asyncio.gather(*writers)
    assert await _rows(database_url) == rows
    assert await schema(database_url) == first
    if count.soak:
        assert max(waits) < 0.25
    report(
        f"stamp base and upgrade to head on a full database under load, {times} times",
        bar="nothing changed, nothing lost; others wait < 250 ms",
        found=f"worst of {len(waits):,} writes {max(waits) * 1000:.0f} ms (before it {quiet * 1000:.0f} ms)",
    )


async def test_down_step_by_step_and_up_again_keeps_rows_and_comes_to_the_same_schema(
    data: DataLayer, database_url: str, tenant_id: UUID, report: Found
) -> None:
    await _fill(data, tenant_id)
    schemas = {migrations.head_revision(): await dump_schema(database_url)}
    rows = await _rows(database_url)
    compared = 0
    for step in reversed(migrations.history()[:-1]):
        await migrations.downgrade(data.settings, "-1")
        assert await revision(database_url) == [step.id]
        schemas[step.id] = await dump_schema(database_url)
        left = await _rows(database_url)
        compared += sum(_same(left[table], rows[table]) for table in left)
    for step in migrations.history()[1:]:
        await migrations.upgrade(data.settings, "+1")
        assert await dump_schema(database_url) == schemas[step.id]
    await migrations.downgrade(data.settings, "base")
    await migrations.upgrade(data.settings)
    assert await dump_schema(database_url) == schemas[migrations.head_revision()]
    report(
        "upgrade -> downgrade -> upgrade over real rows",
        bar="rows of untouched tables intact; schema identical",
        found=f"{len(rows)} tables filled, {compared} rows compared on the way down; pg_dump identical after each step",
    )


async def _fill(data: DataLayer, tenant_id: UUID) -> None:
    """Something of every kind in every table."""
    for domain in DOMAINS:
        await domain.seed(getattr(data, domain.store), tenant_id)


async def _rows(url: str) -> dict[str, list[dict[str, Any]]]:
    """The rows of every table that there is."""
    tables = await fetch(
        url,
        "SELECT c.relname FROM pg_class c WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace "
        "AND relname <> 'alembic_version' ORDER BY 1",
    )
    found = {}
    for (table,) in tables:
        rows = await fetch(url, f"SELECT to_jsonb(row)::text AS it FROM {table} AS row ORDER BY row::text")  # noqa: S608
        found[table] = [json.loads(row["it"]) for row in rows]
        assert found[table], f"nothing was stored in {table}"
    return found


def _same(left: list[dict[str, Any]], before: list[dict[str, Any]]) -> int:
    """See that rows are what they were, but for columns that an undone migration added; how many they are."""
    assert [{name: row[name] for name in left[0]} for row in before] == left
    return len(left)
