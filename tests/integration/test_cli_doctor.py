"""`soldier-data doctor`, as an operator runs it, and what it finds."""

from __future__ import annotations

import asyncio

from sqlalchemy import make_url
from typer.testing import CliRunner

from soldier_data import migrations
from soldier_data.cli.app import app
from soldier_data.cli.doctor import Finding, examine
from soldier_data.settings import Settings
from tests.backends.connections import CANARY, administrator, bound_role, forget_search_path, granted_role
from tests.conftest import DIMENSIONS, settings_for


async def examined(settings: Settings) -> dict[str, Finding]:
    """What the doctor finds, by name."""
    return {finding.name: finding for finding in await examine(settings)}


async def test_a_good_deployment_has_nothing_to_do(database_url: str, redis_url: str) -> None:
    findings = await examined(settings_for(database_url, redis_url=redis_url))
    assert {name for name, item in findings.items() if not item.ok} <= {"Redis persistence"}
    assert len(findings) == 10


async def test_the_doctor_says_what_to_do(empty_database_url: str, redis_url: str) -> None:
    settings = settings_for(empty_database_url, redis_url=redis_url, row_level_security=True)
    findings = await examined(settings)
    assert "soldier-data db upgrade" in findings["pgvector"].detail
    assert "soldier-data db upgrade" in findings["schema"].detail
    assert "soldier-data db grants" in findings["role"].detail
    await migrations.upgrade(settings)
    async with administrator(empty_database_url) as connection:
        await connection.execute("ALTER TABLE agents NO FORCE ROW LEVEL SECURITY")
    findings = await examined(settings.model_copy(update={"embedding_dimensions": 5}))
    assert findings["policies"].detail.startswith("missing on agents: ")
    assert findings["dimensions"].detail.startswith(f"{DIMENSIONS}: SOLDIER_EMBEDDING_DIMENSIONS is 5")
    assert findings["schema"].ok


async def test_the_doctor_sees_that_the_role_lacks_privileges(database_url: str) -> None:
    async with bound_role(database_url) as url, administrator(database_url) as owner:
        role = make_url(url).username
        settings = settings_for(url, row_level_security=True, session_backend="inmemory")
        assert (await examined(settings))["role"].ok is True
        await owner.execute(f"REVOKE INSERT ON steps FROM {role}")
        findings = await examined(settings)
        assert findings["role"].ok is False
        assert findings["role"].detail.startswith("lacks privileges on steps: ")


async def test_servers_that_do_not_answer_are_lines_of_the_report() -> None:
    servers = {
        "SOLDIER_DATABASE_URL": f"postgresql://u:{CANARY}@127.0.0.1:1/x",
        "SOLDIER_REDIS_URL": f"redis://:{CANARY}@127.0.0.1:1/0",
        "SOLDIER_EMBEDDING_DIMENSIONS": str(DIMENSIONS),
    }
    # In a thread, because the command runs an event loop of its own.
    result = await asyncio.to_thread(CliRunner().invoke, app, ["doctor"], env=servers)
    assert result.exit_code == 1
    assert "FAIL  PostgreSQL" in result.stdout
    assert "FAIL  Redis" in result.stdout
    assert CANARY not in result.output


async def test_a_good_deployment_in_a_schema_of_its_own_has_nothing_to_do(
    empty_database_url: str, redis_url: str
) -> None:
    schema = {"database_schema": "soldier", "redis_url": redis_url}
    await forget_search_path(empty_database_url)
    owner = settings_for(empty_database_url, **schema)
    await migrations.upgrade(owner)
    async with granted_role(owner) as url:
        findings = await examined(settings_for(url, row_level_security=True, **schema))
    assert {name for name, finding in findings.items() if not finding.ok} <= {"Redis persistence"}
    assert findings["dimensions"].detail == str(DIMENSIONS)
    assert findings["role"].detail == "is subject to the policies"


async def test_the_doctor_sees_that_the_extensions_are_in_another_schema(
    empty_database_url: str, redis_url: str
) -> None:
    settings = settings_for(empty_database_url, redis_url=redis_url, extensions_schema="order")
    await migrations.upgrade(settings)
    assert (await examined(settings))["pgvector"].ok
    elsewhere = settings.model_copy(update={"extensions_schema": "public"})
    assert "SOLDIER_EXTENSIONS_SCHEMA" in (await examined(elsewhere))["pgvector"].detail
