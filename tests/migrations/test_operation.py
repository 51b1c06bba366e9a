"""Upgrading as operators do it: beside live traffic, interrupted, by many processes, on what cannot be upgraded."""

from __future__ import annotations

import asyncio
import shutil
import tomllib
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest
from sqlalchemy import make_url

from soldier_data import migrations
from soldier_data.data_layer import DataLayer
from soldier_data.errors import ConfigurationError, StoreConnectionError
from soldier_data.migrations import connection as migrating
from soldier_data.migrations import head_revision
from soldier_data.postgres.statements import Schemas
from soldier_data.schema import metadata
from tests.backends.connections import administrator
from tests.conftest import DIMENSIONS, settings_for
from tests.factories.audit import TurnRecordFactory
from tests.factories.config import AgentFactory
from tests.migrations.tools import (
    CHECKOUT,
    alembic_here,
    fetch,
    python,
    revision,
    run_by_hand,
    schema,
    statements,
)

_SIZE = str(DIMENSIONS)


async def _needs_a_lock_on_agents(url: str) -> None:
    """Have the next upgrade alter the table."""
    await fetch(url, "ALTER TABLE agents NO FORCE ROW LEVEL SECURITY")
    await alembic_here(url, "stamp", "base")


async def test_an_upgrade_over_what_is_there_already_waits_for_no_lock(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await alembic_here(database_url, "stamp", "base")
    monkeypatch.setattr(migrating, "_LOCK_TIMEOUT", timedelta(0))
    async with administrator(database_url) as writer, writer.transaction():
        tables = ", ".join(metadata.tables)
        await writer.execute(f"LOCK TABLE {tables} IN ROW EXCLUSIVE MODE")
        await migrations.upgrade(settings_for(database_url))
    assert await revision(database_url) == [head_revision()]


async def test_a_table_that_stays_locked_is_told_at_last(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await _needs_a_lock_on_agents(database_url)
    monkeypatch.setattr(migrating, "_LOCK_TIMEOUT", timedelta(seconds=0.3))
    async with administrator(database_url) as holder, holder.transaction():
        await holder.fetch("SELECT id FROM agents LIMIT 1")
        with pytest.raises(StoreConnectionError, match="pg_stat_activity"):
            await migrations.upgrade(settings_for(database_url))
    await migrations.upgrade(settings_for(database_url))
    assert await revision(database_url) == [head_revision()]


async def test_each_step_down_and_up_again_keeps_the_rows_of_other_tables(
    data: DataLayer, database_url: str
) -> None:
    agent = AgentFactory()
    await data.config.save_agent(agent)
    first = await schema(database_url)
    for step in reversed(migrations.history()):
        if step.id <= "0002":
            break
        await migrations.downgrade(data.settings, "-1")
        assert await data.config.get_agent(agent.tenant_id, agent.id) == agent
    assert await revision(database_url) == ["0002"]
    while (await migrations.current(data.settings)).pending:
        await migrations.upgrade(data.settings, "+1")
    assert await schema(database_url) == first
    assert await data.config.get_agent(agent.tenant_id, agent.id) == agent


async def test_the_state_of_a_database_says_what_is_pending(empty_database_url: str) -> None:
    settings = settings_for(empty_database_url)
    state = await migrations.current(settings)
    assert (state.revision, state.pending) == (None, migrations.history())
    await migrations.upgrade(settings, "0002")
    state = await migrations.current(settings)
    assert (state.revision, state.pending) == ("0002", migrations.history()[2:])
    await migrations.upgrade(settings)
    assert await migrations.current(settings) == migrations.SchemaState(head_revision(), [])


async def test_the_installed_package_upgrades_without_a_checkout(
    empty_database_url: str, tmp_path: Path
) -> None:
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(CHECKOUT / "soldier_data", tmp_path / "soldier_data", ignore=ignored)
    # What the wheel holds beyond the package.
    build = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]
    for source, target in build["targets"]["wheel"]["force-include"].items():
        shutil.copytree(CHECKOUT / source, tmp_path / target, ignore=ignored)
    program = "from soldier_data.cli import main; main()"
    said = await python(tmp_path, "-c", program, "db", "upgrade", DATABASE_URL=empty_database_url)
    assert said == f"The database is at revision {head_revision()}.\n"


async def test_an_upgrade_waits_for_another_one_and_looking_does_not(database_url: str) -> None:
    settings = settings_for(database_url)
    async with administrator(database_url) as other:
        await other.execute(f"SELECT pg_advisory_lock({migrating._LOCK})")
        upgrading = asyncio.create_task(migrations.upgrade(settings))
        assert (await migrations.current(settings)).revision == head_revision()
        await asyncio.sleep(0.2)
        assert not upgrading.done()
        waiting = (
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND xact_start < now()"
        )
        assert await other.fetchval(waiting) == 0
    await upgrading


async def test_sql_written_offline_makes_the_same_schema(empty_database_url: str, database_url: str) -> None:
    settings = settings_for(empty_database_url)
    script = await migrations.sql(settings)
    async with administrator(empty_database_url) as connection:
        await run_by_hand(connection, script)
    assert await schema(empty_database_url) == await schema(database_url)
    assert (await migrations.current(settings)).pending == []
    assert await migrations.check(settings) is None
    async with administrator(empty_database_url) as connection:
        await run_by_hand(connection, await migrations.sql(settings, f"{head_revision()}:base", down=True))
    rows = await fetch(empty_database_url, "SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    assert {row["tablename"] for row in rows} <= {"alembic_version"}


@pytest.mark.parametrize(
    ("begin", "revisions", "down"),
    [("none", "base:0003", False), ("0006", "0006:head", False), ("0004", "0004:0001", True)],
)
async def test_sql_written_offline_refuses_a_database_at_another_revision(
    database_url: str, begin: str, revisions: str, down: bool
) -> None:
    settings = settings_for(database_url)
    await migrations.downgrade(settings, "0005")
    before = await schema(database_url)
    script = await migrations.sql(settings, revisions, down=down)
    async with administrator(database_url) as connection:
        with pytest.raises(asyncpg.RaiseError, match=f"0005 instead of {begin}"):
            await run_by_hand(connection, script)
    async with administrator(database_url) as connection:
        # A program that goes on after errors.
        for statement in statements(script):
            with suppress(asyncpg.PostgresError):
                await connection.execute(statement)
    assert await revision(database_url) == ["0005"]
    assert await schema(database_url) == before


async def test_sql_written_offline_begins_again_where_all_was_undone(
    empty_database_url: str, database_url: str
) -> None:
    settings = settings_for(empty_database_url)
    await migrations.upgrade(settings)
    await migrations.downgrade(settings, "base")
    async with administrator(empty_database_url) as connection:
        await run_by_hand(connection, await migrations.sql(settings))
    assert await schema(empty_database_url) == await schema(database_url)


# -- what goes wrong -------------------------------------------------------------------------------------------


async def test_an_unknown_revision_is_told(database_url: str) -> None:
    settings = settings_for(database_url)
    with pytest.raises(ConfigurationError, match="db history") as failed:
        await migrations.upgrade(settings, "nonsense")
    assert failed.value.__context__ is None
    with pytest.raises(ConfigurationError, match="db history"):
        await migrations.downgrade(settings, "nonsense")
    with pytest.raises(ConfigurationError, match="db history"):
        await migrations.sql(settings, "base:nonsense")
    with pytest.raises(ConfigurationError, match="fewer revisions"):
        await migrations.upgrade(settings, "+1")
    with pytest.raises(ConfigurationError, match="fewer revisions"):
        await migrations.downgrade(settings, "-99")


async def test_a_database_that_is_newer_than_the_package_is_told(database_url: str) -> None:
    await fetch(database_url, "UPDATE alembic_version SET version_num = '9999'")
    settings = settings_for(database_url)
    for attempt in (
        migrations.upgrade(settings),
        migrations.downgrade(settings, "base"),
        migrations.check(settings),
    ):
        with pytest.raises(ConfigurationError, match="newer soldier-data"):
            await attempt
    with pytest.raises(ConfigurationError, match="newer soldier-data"):
        await migrations.current(settings)


async def test_migrating_through_pgbouncer_is_refused(database_url: str) -> None:
    settings = settings_for(database_url, pgbouncer=True)
    for attempt in (migrations.upgrade(settings), migrations.current(settings)):
        with pytest.raises(ConfigurationError, match="instead of PgBouncer"):
            await attempt


async def test_comparing_needs_the_newest_revision(empty_database_url: str) -> None:
    with pytest.raises(ConfigurationError, match="db upgrade"):
        await migrations.check(settings_for(empty_database_url))


async def test_an_old_pgvector_is_told(database_url: str) -> None:
    # What the catalogue says is what counts, and saying so is easier than an old installation.
    await fetch(database_url, "UPDATE pg_extension SET extversion = '0.7.4' WHERE extname = 'vector'")
    with pytest.raises(ConfigurationError, match=r"0\.7\.4 is too old.*ALTER EXTENSION vector UPDATE"):
        await migrations.upgrade(settings_for(database_url))


async def test_a_server_without_pgvector_is_told(empty_database_url: str) -> None:
    # A view in place of PostgreSQL's own hides what is installed.
    async with administrator(empty_database_url) as connection:
        await connection.execute(
            "SET allow_system_table_mods = on; "
            "ALTER VIEW pg_catalog.pg_available_extensions RENAME TO every_extension; "
            "CREATE VIEW pg_catalog.pg_available_extensions AS "
            "SELECT * FROM pg_catalog.every_extension WHERE name <> 'vector'"
        )
    with pytest.raises(ConfigurationError, match="extension vector is not installed"):
        await migrations.upgrade(settings_for(empty_database_url))


# -- the application's role ------------------------------------------------------------------------------------


async def test_the_granted_role_works_and_may_not_change_the_audit(database_url: str) -> None:
    role = f"services_{uuid4().hex}"
    settings = settings_for(database_url)
    async with administrator(database_url) as owner:
        await owner.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'x'")
        try:
            await migrations.run_grants(settings, role)
            await migrations.run_grants(settings, role)
            other = make_url(database_url).set(username=role, password="x")  # noqa: S106 - of a test role.
            url = other.render_as_string(hide_password=False)
            async with DataLayer.open(settings_for(url, row_level_security=True)) as data:
                agent = AgentFactory()
                await data.config.save_agent(agent)
                assert await data.config.delete_agent(agent.tenant_id, agent.id) is True
                turn = TurnRecordFactory()
                await data.audit.save_turn(turn)
                assert await data.audit.get_turn(turn.tenant_id, turn.turn_id) == turn
            async with administrator(url) as services:
                for statement in (
                    "UPDATE turn_records SET latency_ms = 0",
                    "DELETE FROM audit_events",
                    "TRUNCATE agents",
                    "UPDATE alembic_version SET version_num = ''",
                    "DROP TABLE agents",
                ):
                    with pytest.raises(Exception, match=r"permission denied|must be owner"):
                        await services.execute(statement)
        finally:
            await owner.execute(f"DROP OWNED BY {role}")
            await owner.execute(f"DROP ROLE {role}")


async def test_a_role_that_the_policies_do_not_bind_is_refused(database_url: str) -> None:
    settings = settings_for(database_url)
    with pytest.raises(ConfigurationError, match="no such role"):
        await migrations.run_grants(settings, f"nobody_{uuid4().hex}")
    async with administrator(database_url) as owner:
        with pytest.raises(ConfigurationError, match="do not apply to a superuser"):
            await migrations.run_grants(settings, await owner.fetchval("SELECT current_user"))


def test_names_of_roles_are_quoted() -> None:
    assert all(
        '"Robert""; --"' in statement for statement in migrations.grant_statements('Robert"; --', Schemas())
    )
