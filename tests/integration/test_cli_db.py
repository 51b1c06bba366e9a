"""`soldier-data db` and `soldier-data doctor`, as an operator runs them."""

from __future__ import annotations

import asyncio
from pathlib import Path

from sqlalchemy import make_url
from typer.testing import CliRunner, Result

from soldier_data import migrations
from soldier_data.cli.app import app
from soldier_data.cli.doctor import examine
from soldier_data.migrations.document import schema_page
from tests.backends.connections import CANARY, administrator, bound_role
from tests.conftest import DIMENSIONS, settings_for

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
    assert (same.exit_code, same.stdout) == (0, "The database is as the models say.\n")

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


async def test_a_good_deployment_has_nothing_to_do(database_url: str, redis_url: str) -> None:
    findings = {item.name: item for item in await examine(settings_for(database_url, redis_url=redis_url))}
    assert {name for name, item in findings.items() if not item.ok} <= {"Redis persistence"}
    assert len(findings) == 10


async def test_the_doctor_says_what_to_do(empty_database_url: str, redis_url: str) -> None:
    settings = settings_for(empty_database_url, redis_url=redis_url, row_level_security=True)
    findings = {item.name: item for item in await examine(settings)}
    assert "soldier-data db upgrade" in findings["pgvector"].detail
    assert "soldier-data db upgrade" in findings["schema"].detail
    assert "soldier-data db grants" in findings["role"].detail
    await migrations.upgrade(settings)
    async with administrator(empty_database_url) as connection:
        await connection.execute("ALTER TABLE agents NO FORCE ROW LEVEL SECURITY")
    findings = {
        item.name: item for item in await examine(settings.model_copy(update={"embedding_dimensions": 5}))
    }
    assert findings["policies"].detail.startswith("missing on agents: ")
    assert findings["dimensions"].detail.startswith(f"{DIMENSIONS}: SOLDIER_EMBEDDING_DIMENSIONS is 5")
    assert findings["schema"].ok


async def test_the_doctor_sees_that_the_role_lacks_privileges(database_url: str) -> None:
    async with bound_role(database_url) as url, administrator(database_url) as owner:
        role = make_url(url).username
        settings = settings_for(url, row_level_security=True, session_backend="inmemory")
        assert {item.name: item.ok for item in await examine(settings)}["role"] is True
        await owner.execute(f"REVOKE INSERT ON steps FROM {role}")
        findings = {item.name: item for item in await examine(settings)}
        assert findings["role"].ok is False
        assert findings["role"].detail.startswith("may not use steps: ")


async def test_servers_that_do_not_answer_are_lines_of_the_report() -> None:
    result = await run(
        f"postgresql://u:{CANARY}@127.0.0.1:1/x",
        "doctor",
        SOLDIER_REDIS_URL=f"redis://:{CANARY}@127.0.0.1:1/0",
    )
    assert result.exit_code == 1
    assert "FAIL  PostgreSQL" in result.stdout
    assert "FAIL  Redis" in result.stdout
    assert CANARY not in result.output
