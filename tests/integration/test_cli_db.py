"""`soldier-data db`, as an operator runs it."""

from __future__ import annotations

import asyncio
from pathlib import Path

from typer.testing import CliRunner, Result

from soldier_data import migrations
from soldier_data.cli.app import app
from soldier_data.migrations.document import schema_page
from tests.backends.connections import CANARY, administrator
from tests.conftest import DIMENSIONS

ROOT = Path(__file__).parents[2]


async def run(url: str, *arguments: str, **variables: str) -> Result:
    """Run a command on the database of `url`, in a thread because it runs an event loop of its own."""
    environment = {"SOLDIER_DATABASE_URL": url, "SOLDIER_EMBEDDING_DIMENSIONS": str(DIMENSIONS), **variables}
    return await asyncio.to_thread(lambda: CliRunner().invoke(app, list(arguments), env=environment))


async def test_a_database_is_brought_up_looked_at_and_brought_down(empty_database_url: str) -> None:
    first, *_, last = migrations.history()
    before = await run(empty_database_url, "db", "current")
    assert "at revision none" in before.stdout
    assert f"pending: {first.id}  {first.title}" in before.stdout

    assert (await run(empty_database_url, "db", "upgrade", first.id)).exit_code == 0
    assert f"at revision {first.id}." in (await run(empty_database_url, "db", "current")).stdout

    up = await run(empty_database_url, "db", "upgrade")
    assert up.stdout == f"The database is at revision {last.id}.\n"
    same = await run(empty_database_url, "db", "check")
    assert (same.exit_code, same.stdout) == (0, "The database matches the models.\n")

    refused = await run(empty_database_url, "db", "downgrade", "-1")
    assert refused.exit_code == 1
    assert f"at revision {last.id}." in (await run(empty_database_url, "db", "current")).stdout
    down = await run(empty_database_url, "db", "downgrade", "base", "--yes")
    assert "at revision none" in down.stdout


async def test_a_difference_is_shown_and_ends_in_exit_code_1(database_url: str) -> None:
    async with administrator(database_url) as connection:
        await connection.execute("ALTER TABLE agents DROP COLUMN description")
    shown = await run(database_url, "db", "check")
    assert shown.exit_code == 1
    assert "op.add_column('agents', sa.Column('description'" in shown.stdout


async def test_a_failure_is_one_line_without_secrets() -> None:
    failed = await run(f"postgresql://u:{CANARY}@127.0.0.1:1/nowhere", "db", "upgrade")
    assert failed.exit_code == 1
    assert failed.stderr.startswith("Error: migrating the database: the server could not be reached")
    assert failed.stderr.count("\n") == 1
    assert CANARY not in failed.output
    wrong = await run("nonsense://", "db", "current")
    assert wrong.exit_code == 1
    assert wrong.stderr.startswith("Error: SOLDIER_DATABASE_URL")


async def test_history_sql_and_grants_need_no_database() -> None:
    nowhere = "postgresql://u@127.0.0.1:1/nowhere"
    listed = await run(nowhere, "db", "history")
    assert [line.split("  ")[0] for line in listed.stdout.splitlines()] == [
        item.id for item in migrations.history()
    ]
    written = await run(nowhere, "db", "sql")
    assert "CREATE TABLE IF NOT EXISTS agents" in written.stdout
    assert f"VECTOR({DIMENSIONS})" in written.stdout
    undone = await run(nowhere, "db", "sql", "0002:base", "--down")
    assert "DROP TABLE IF EXISTS agents" in undone.stdout
    granted = await run(nowhere, "db", "grants", "services")
    assert "GRANT SELECT, INSERT ON public.audit_events, public.turn_records TO services;" in granted.stdout


def test_the_page_of_the_schema_is_current() -> None:
    page = (ROOT / "docs" / "schema.md").read_text(encoding="utf-8")
    assert page == schema_page(), "run `soldier-data db document > docs/schema.md`"
