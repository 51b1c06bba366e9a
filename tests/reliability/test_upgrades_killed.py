"""Migrations that are killed at any moment can be run again to the end."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event
from sqlalchemy.engine import Engine

from soldier_data import migrations
from soldier_data.errors import StoreError
from tests.backends.connections import administrator
from tests.conftest import DIMENSIONS, settings_for
from tests.migrations.tools import (
    CHECKOUT,
    alembic,
    copy_checkout,
    environment,
    fetch,
    revision,
    schema,
    until,
)
from tests.reliability.conftest import Counts, Found

_SIZE = str(DIMENSIONS)

# Upgrades the database, and kills itself before the given statement.
_KILLED_BEFORE = """
import asyncio, os, signal, sys
from sqlalchemy import event
from sqlalchemy.engine import Engine
from soldier_data.migrations import upgrade
from soldier_data.settings import Settings

left = int(sys.argv[1])

@event.listens_for(Engine, "before_cursor_execute")
def kill(*_):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(upgrade(Settings()))
"""

# A migration that builds an index beside live traffic.
_MIGRATION = """
from soldier_data.migrations import create_index_concurrently
from alembic import op

revision = "killed"
down_revision = "{head}"

def upgrade():
    create_index_concurrently("ix_agents_killed", "agents", ["tenant_id", "updated_at"])

def downgrade():
    op.drop_index("ix_agents_killed", table_name="agents", if_exists=True)
"""


@pytest.mark.parametrize("way", ["upgrade", "downgrade"])
async def test_migrating_can_be_done_again_whatever_statement_its_connection_was_killed_at(
    empty_database_url: str, database_url: str, count: Counts, report: Found, way: str
) -> None:
    settings = settings_for(empty_database_url)
    left = 0

    def kill(connection: object, cursor: Any, *_: object) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            cursor.execute("SELECT pg_terminate_backend(pg_backend_pid())")

    async def migrate() -> None:
        if way == "upgrade":
            await migrations.upgrade(settings)
        else:
            await migrations.downgrade(settings, "base")

    async def killed(position: int) -> bool:
        nonlocal left
        left = position
        try:
            await migrate()
        except StoreError:
            return left <= 0
        return False

    if way == "downgrade":
        await migrations.upgrade(settings)
    event.listen(Engine, "before_cursor_execute", kill)
    try:
        kills = await _kill_everywhere(
            empty_database_url, killed, None if count.soak else (3, 8, 15, 20, 25, 30)
        )
    finally:
        event.remove(Engine, "before_cursor_execute", kill)
    assert kills >= 6
    await migrate()
    reached = await revision(empty_database_url)
    assert reached == ([migrations.head_revision()] if way == "upgrade" else [])
    await migrations.upgrade(settings)
    assert await schema(empty_database_url) == await schema(database_url)
    report(
        f"{way} whose connection is killed before a statement, then run again",
        bar="runs to the end after every statement; schema identical",
        found=f"{kills} kills, schema identical",
    )


async def test_an_upgrade_can_be_run_again_whatever_statement_its_process_was_killed_at(
    empty_database_url: str, database_url: str, count: Counts, report: Found
) -> None:
    async def killed(position: int) -> bool:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", _KILLED_BEFORE, str(position)),
            cwd=CHECKOUT,
            env=environment(CHECKOUT, DATABASE_URL=empty_database_url, SOLDIER_EMBEDDING_DIMENSIONS=_SIZE),
        )
        code = await process.wait()
        assert code in {0, -signal.SIGKILL}
        return code != 0

    kills = await _kill_everywhere(empty_database_url, killed, None if count.soak else (9, 40, 60))
    assert kills >= 3
    await migrations.upgrade(settings_for(empty_database_url))
    assert await schema(empty_database_url) == await schema(database_url)
    report(
        "an upgrade whose process is killed (SIGKILL) before a statement, then run again",
        bar="runs to the end; schema identical",
        found=f"{kills} kills, schema identical",
    )


@pytest.mark.parametrize("backend_dies", [True, False], ids=["with its backend", "alone"])
async def test_an_index_whose_building_process_was_killed_is_built_by_the_next_upgrade(
    database_url: str, tmp_path: Path, report: Found, backend_dies: bool
) -> None:
    checkout = copy_checkout(tmp_path)
    migration = _MIGRATION.format(head=migrations.head_revision())
    (checkout / "alembic" / "versions" / "killed.py").write_text(migration)

    async def upgrading() -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "alembic", "upgrade", "head"),
            cwd=checkout,
            env=environment(checkout, DATABASE_URL=database_url, SOLDIER_EMBEDDING_DIMENSIONS=_SIZE),
            stderr=asyncio.subprocess.PIPE,
        )

    valid = "SELECT indisvalid AS it FROM pg_index WHERE indexrelid = 'ix_agents_killed'::regclass"
    async with administrator(database_url) as writer:
        transaction = writer.transaction()
        await transaction.start()
        # The build waits for it.
        await writer.execute("LOCK TABLE agents IN ROW EXCLUSIVE MODE")
        first = await upgrading()
        building = "SELECT pid AS it FROM pg_stat_progress_create_index WHERE datname = current_database()"
        builder = await until(database_url, building)
        first.kill()
        await first.wait()
        if backend_dies:
            await fetch(database_url, f"SELECT pg_terminate_backend({builder})")
            assert await until(database_url, f"{valid} AND NOT indisvalid") is False
        # It waits for the lock that a backend which goes on still holds.
        second = await upgrading()
        await transaction.rollback()
        _, said = await second.communicate()
        assert second.returncode == 0, said.decode()
    assert [row["it"] for row in await fetch(database_url, valid)] == [True]
    await alembic(database_url, "downgrade -1", folder=checkout, SOLDIER_EMBEDDING_DIMENSIONS=_SIZE)
    report(
        "a process killed while it builds an index concurrently"
        + (", and its backend terminated: an invalid index is left" if backend_dies else ""),
        bar="the next upgrade leaves a valid index",
        found="valid",
    )


async def _kill_everywhere(
    url: str, killed: Callable[[int], Awaitable[bool]], sample: Sequence[int] | None
) -> int:
    """Migrate again and again, killed each time, and without a sample not the last time.

    Args:
        url: The database.
        killed: Migrates, and is killed before the n-th statement; whether it was.
        sample: The statements, one after another; None is every statement of every migration.

    Returns:
        How often it was killed.
    """
    kills, position, reached = 0, 1, None
    for position in sample or ():
        kills += await killed(position)
    while sample is None and await killed(position):
        kills += 1
        now = (await migrations.current(settings_for(url))).revision
        # What is done is not done again, so the next migration begins with the first statements.
        position, reached = position + 1 if now == reached else 1, now
    return kills
