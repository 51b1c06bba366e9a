"""Beside another application's own Alembic environment, in the same database: each leaves the other's tables alone."""

from __future__ import annotations

import asyncio
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import Column, ForeignKey, Index, Integer, MetaData, Table, make_url

from soldier_data import migrations
from soldier_data.cli.doctor import examine
from soldier_data.data_layer import DataLayer
from soldier_data.errors import ConfigurationError
from soldier_data.migrations import head_revision, include_object
from soldier_data.postgres.statements import Schemas
from soldier_data.schema import metadata
from tests.backends.connections import administrator
from tests.conftest import settings_for
from tests.migrations.tools import CHECKOUT, fetch, run_by_hand, schema

_OURS = "soldier_data_version"

_ENVIRONMENT = """
import asyncio

from alembic import context
from sqlalchemy import CheckConstraint, Enum, ForeignKeyConstraint, Text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from uuid import UUID

from soldier_data.orm import AgentRow
from soldier_data.migrations import include_object


class Base(DeclarativeBase):
    pass


class Ticket(Base):
    __tablename__ = "tickets"
    __table_args__ = (
        ForeignKeyConstraint(["tenant_id", "agent_id"], [AgentRow.tenant_id, AgentRow.id], ondelete="CASCADE"),
        CheckConstraint("priority BETWEEN 0 AND 9", name="ck_tickets_priority"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    tenant_id: Mapped[UUID]
    agent_id: Mapped[UUID] = mapped_column(index=True)
    title: Mapped[str] = mapped_column(Text)
    priority: Mapped[int]
    status: Mapped[str] = mapped_column(Enum("open", "closed", name="ticket_status"))


def include(item, name, *rest):
    return name != "scratch" and include_object(item, name, *rest)


def run(connection):
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        include_object=include,
        compare_server_default=True,
        **context.config.attributes["options"],
    )
    with context.begin_transaction():
        context.run_migrations()


async def connect():
    engine = create_async_engine(context.config.get_main_option("sqlalchemy.url"))
    async with engine.connect() as connection:
        await connection.run_sync(run)
        await connection.commit()
    await engine.dispose()


asyncio.run(connect())
"""


class Application:
    """Another application, with a table `tickets` and migrations of its own."""

    def __init__(self, folder: Path, url: str, **options: Any) -> None:
        (folder / "versions").mkdir(parents=True)
        (folder / "env.py").write_text(_ENVIRONMENT)
        (folder / "script.py.mako").write_text((CHECKOUT / "alembic" / "script.py.mako").read_text())
        self.config = Config(stdout=StringIO())
        self.config.set_main_option("script_location", str(folder))
        by_asyncpg = make_url(url).set(drivername="postgresql+asyncpg").render_as_string(hide_password=False)
        self.config.set_main_option("sqlalchemy.url", by_asyncpg.replace("%", "%%"))
        self.config.attributes["options"] = options

    async def alembic(self, name: str, *arguments: str, **options: Any) -> None:
        """Run an Alembic command. In a thread, because the environment runs an event loop."""
        await asyncio.to_thread(getattr(command, name), self.config, *arguments, **options)

    async def generated(self) -> list[tuple[str, str]]:
        """Write a migration by autogenerate; returns its operations."""
        found: list[tuple[str, str]] = []

        def see(_context: Any, _revision: Any, directives: list[Any]) -> None:
            found.extend((diff[0], diff[1].name) for diff in directives[0].upgrade_ops.as_diffs())

        await self.alembic("revision", "Tickets", autogenerate=True, process_revision_directives=see)
        return found


_TICKETS = [("add_table", "tickets"), ("add_index", "ix_tickets_agent_id")]


async def test_each_leaves_the_tables_of_the_other_alone(database_url: str, tmp_path: Path) -> None:
    settings = settings_for(database_url)
    first = await schema(database_url)
    # Registers this package's comparisons, in the process that then compares the other application's tables.
    assert await migrations.check(settings) is None
    application = Application(tmp_path, database_url, version_table="tickets_version")
    assert await application.generated() == _TICKETS
    await application.alembic("upgrade", "head")
    for statement in (
        # What this package compares in its own tables, and Alembic does not.
        "ALTER TABLE tickets ALTER COLUMN title SET STORAGE EXTERNAL",
        "ALTER TABLE tickets ENABLE ROW LEVEL SECURITY",
        "CREATE POLICY mine ON tickets USING (true)",
        "ALTER TABLE tickets ADD CONSTRAINT ck_tickets_title CHECK (length(title) > 0)",
        "ALTER TYPE ticket_status ADD VALUE 'lost'",
        "GRANT SELECT ON tickets TO PUBLIC",
        # Their env.py filters this one itself.
        "CREATE TABLE scratch (id int)",
    ):
        await fetch(database_url, statement)
    assert await migrations.check(settings) is None
    await application.alembic("check")

    beside = await schema(database_url)
    with pytest.raises(ConfigurationError, match=r"drop them first \(.* on table tickets depends on"):
        await migrations.downgrade(settings, "base")
    assert (await migrations.current(settings)).revision == "0002"
    await migrations.upgrade(settings)
    assert await schema(database_url) == beside
    await application.alembic("downgrade", "base")
    await fetch(database_url, "DROP TABLE scratch, tickets_version")
    assert await schema(database_url) == first


async def test_a_database_with_a_version_table_of_another_application_needs_a_second_one(
    empty_database_url: str, tmp_path: Path
) -> None:
    url = empty_database_url
    application = Application(tmp_path, url)
    await application.alembic("revision", "Begin")
    await application.alembic("upgrade", "head")
    before = await schema(url)
    settings = settings_for(url)
    for attempt in (
        migrations.upgrade(settings),
        migrations.downgrade(settings, "base"),
        migrations.current(settings),
        migrations.check(settings),
    ):
        with pytest.raises(ConfigurationError, match=r"of another application.*SOLDIER_VERSION_TABLE"):
            await attempt
    found = {finding.name: finding for finding in await examine(settings)}
    assert "of another application" in found["schema"].detail
    assert await schema(url) == before

    settings = settings_for(url, version_table=_OURS)
    await migrations.upgrade(settings)
    assert await application.generated() == _TICKETS
    await application.alembic("upgrade", "head")
    assert await migrations.check(settings) is None
    await application.alembic("check")

    await application.alembic("downgrade", "-1")
    await migrations.downgrade(settings, "base")
    assert await _tables(url) == {"alembic_version", _OURS}
    await migrations.upgrade(settings)
    await fetch(url, "DROP TYPE ticket_status")
    await application.alembic("upgrade", "head")
    await application.alembic("check")
    assert await migrations.check(settings) is None


async def test_tables_in_a_schema_of_their_own_need_no_settings_beside_it(
    empty_database_url: str, tmp_path: Path
) -> None:
    url = empty_database_url
    async with administrator(url) as connection:
        name = make_url(url).database
        await connection.execute(f"ALTER DATABASE {name} SET search_path = public, soldier")
    settings = settings_for(url, database_schema="soldier")
    application = Application(tmp_path, url)
    await application.alembic("revision", "Begin")
    await application.alembic("upgrade", "head")
    await migrations.upgrade(settings)
    # A table of the same name as one of this package's.
    await fetch(url, "CREATE TABLE runs (id bigint PRIMARY KEY)")
    assert await application.generated() == [*_TICKETS, ("remove_table", "runs")]
    await application.alembic("upgrade", "head")
    await application.alembic("check")
    application.config.attributes["options"] = {"include_schemas": True}
    await application.alembic("check")
    assert await migrations.check(settings) is None
    assert (await migrations.current(settings)).pending == []


@pytest.mark.parametrize(
    ("revision", "table"), [("0007", "tickets"), ("0001", "tickets"), ("9999", "agents"), ("own", "tickets")]
)
async def test_another_application_may_number_its_revisions_too(
    empty_database_url: str, revision: str, table: str
) -> None:
    url = empty_database_url
    await fetch(url, f"CREATE TABLE {table} (id bigint PRIMARY KEY)")
    await fetch(url, "CREATE TABLE alembic_version (version_num varchar(32) PRIMARY KEY)")
    await fetch(url, f"INSERT INTO alembic_version VALUES ('{revision}')")  # noqa: S608 - of this test.
    before = await schema(url)
    for attempt in (migrations.upgrade(settings_for(url)), migrations.downgrade(settings_for(url), "base")):
        with pytest.raises(ConfigurationError, match=f"revision {revision}.*SOLDIER_VERSION_TABLE"):
            await attempt
    assert await schema(url) == before


@pytest.mark.parametrize(
    ("statement", "name"),
    [
        ("CREATE TABLE agents (id bigint PRIMARY KEY, name text)", "agents"),
        ("CREATE TABLE rules (tenant_id uuid, id uuid, name text, PRIMARY KEY (tenant_id, id))", "rules"),
        ("CREATE VIEW runs AS SELECT 1 AS id", "runs"),
        ("CREATE SEQUENCE steps", "steps"),
    ],
)
async def test_a_table_of_another_application_with_a_name_of_this_package_is_named_first(
    empty_database_url: str, statement: str, name: str
) -> None:
    url = empty_database_url
    await fetch(url, statement)
    before = await schema(url)
    with pytest.raises(ConfigurationError, match=f"public already contains {name}, .*DATABASE_SCHEMA"):
        await migrations.upgrade(settings_for(url))
    assert await schema(url) == before
    assert await fetch(url, "SELECT FROM pg_extension WHERE extname = 'vector'") == []

    await migrations.upgrade(settings_for(url, database_schema="soldier"))


async def test_the_tables_of_pending_migrations_are_looked_for_and_no_others(database_url: str) -> None:
    settings = settings_for(database_url)
    await migrations.downgrade(settings, "0009")
    await fetch(database_url, "CREATE TABLE former_identifiers (id bigint PRIMARY KEY)")
    with pytest.raises(ConfigurationError, match="already contains former_identifiers, "):
        await migrations.upgrade(settings)
    assert (await migrations.current(settings)).revision == "0009"
    await fetch(database_url, "DROP TABLE former_identifiers")
    # Once they are there, what has become of them is for `check` to report.
    await fetch(database_url, "ALTER TABLE runs DROP CONSTRAINT pk_runs CASCADE")
    await migrations.upgrade(settings)


# -- the version table -----------------------------------------------------------------------------------------


async def test_every_command_uses_the_version_table_of_the_settings(
    empty_database_url: str, redis_url: str
) -> None:
    url = empty_database_url
    settings = settings_for(url, version_table="order", redis_url=redis_url)
    async with administrator(url) as connection:
        await run_by_hand(connection, await migrations.sql(settings, "base:0003"))
    await migrations.upgrade(settings, "0004")
    async with administrator(url) as connection:
        await run_by_hand(connection, await migrations.sql(settings, "0004:head"))
    assert await migrations.current(settings) == migrations.SchemaState(head_revision(), [])
    assert await migrations.check(settings) is None
    assert "order" in await _tables(url)
    assert "alembic_version" not in await _tables(url)
    async with DataLayer.open(settings) as data:
        assert (await data.health()).schema_at_head.detail == f"revision {head_revision()}"
    assert {finding.name: finding.ok for finding in await examine(settings)}["schema"] is True
    granted = migrations.grant_statements("services", Schemas(), version_table=settings.version_table)
    assert 'GRANT SELECT ON public."order" TO services' in granted

    await fetch(url, 'ALTER TABLE "order" RENAME TO soldier_data_version')
    settings = settings_for(url, version_table=_OURS)
    assert (await migrations.current(settings)).pending == []
    async with administrator(url) as connection:
        down = await migrations.sql(settings, f"{head_revision()}:base", down=True)
        await run_by_hand(connection, down)
    assert await _tables(url) <= {_OURS}


async def test_a_version_table_that_is_something_else_is_refused(database_url: str) -> None:
    settings = settings_for(database_url, version_table="tickets")
    await fetch(database_url, "CREATE TABLE tickets (id bigint PRIMARY KEY)")
    before = await schema(database_url)
    with pytest.raises(ConfigurationError, match=r"public\.tickets is not a version table"):
        await migrations.upgrade(settings)
    settings = settings_for(database_url, version_table="rules")
    for attempt in (migrations.upgrade(settings), migrations.sql(settings)):
        with pytest.raises(ConfigurationError, match="SOLDIER_VERSION_TABLE: rules is the name of another"):
            await attempt
    assert await schema(database_url) == before


# -- the filter for the other application ----------------------------------------------------------------------


def test_the_filter_recognises_tables_by_what_they_are() -> None:
    ours = metadata.tables["agents"].to_metadata(MetaData())
    [index] = [index for index in ours.indexes if index.name == "ix_agents_page"]
    others = MetaData()
    theirs = Table("agents", others, Column("id", Integer, primary_key=True), Index("ix_agents_id", "id"))
    versions = Table("some_version", others, Column("version_num", Integer))

    def included(item: Any, type_: str, compare_to: Any = None) -> bool:
        return include_object(item, item.name, type_, compare_to is None, compare_to)

    assert not included(ours, "table")
    assert not included(index, "index")
    assert not included(ours.primary_key, "unique_constraint")
    assert not included(ours.columns["name"], "column")
    assert not included(versions, "table")
    # A model of theirs for a table that is this package's.
    assert not included(theirs, "table", ours)
    assert included(theirs, "table")
    assert included(next(iter(theirs.indexes)), "index")
    key = ForeignKey(ours.columns["id"])
    tickets = Table("tickets", others, Column("agent_id", key))
    assert included(tickets, "table")
    assert included(key.constraint, "foreign_key_constraint")


async def _tables(url: str) -> set[str]:
    rows = await fetch(url, "SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    return {row["tablename"] for row in rows}
