"""Migrations into a schema of one's own: all of it is there, and nothing else is touched."""

from __future__ import annotations

from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy import make_url

from soldier_data import migrations
from soldier_data.migrations import head_revision
from soldier_data.settings import Settings
from tests.backends.connections import administrator
from tests.conftest import DIMENSIONS, settings_for
from tests.migrations.tools import alembic, edit, fetch, run_by_hand, schema

_IN_PUBLIC = """
SELECT relname AS name FROM pg_class c WHERE relnamespace = 'public'::regnamespace
AND NOT EXISTS (SELECT FROM pg_depend WHERE objid = c.oid AND classid = 'pg_class'::regclass AND deptype = 'e')
UNION ALL
SELECT proname FROM pg_proc p WHERE pronamespace = 'public'::regnamespace
AND NOT EXISTS (SELECT FROM pg_depend WHERE objid = p.oid AND classid = 'pg_proc'::regclass AND deptype = 'e')
"""


@pytest.fixture
async def settings(empty_database_url: str) -> Settings:
    """A database without any migration, where search_path leads nowhere."""
    async with administrator(empty_database_url) as connection:
        await connection.execute(
            f"ALTER DATABASE {make_url(empty_database_url).database} SET search_path = ''"
        )
    return settings_for(empty_database_url, database_schema="soldier")


async def test_all_of_it_is_in_the_schema_and_nothing_in_public(
    settings: Settings, shared_database_url: str
) -> None:
    url = settings.database_url
    await migrations.upgrade(settings)
    assert await schema(url, "soldier") == await schema(shared_database_url)
    assert await fetch(url, _IN_PUBLIC) == []
    assert await migrations.check(settings) is None
    assert await migrations.current(settings) == migrations.SchemaState(head_revision(), [])

    await migrations.downgrade(settings, "base")
    left = await fetch(url, "SELECT tablename FROM pg_tables WHERE schemaname = 'soldier'")
    assert [row["tablename"] for row in left] == ["alembic_version"]


async def test_sql_written_offline_makes_the_same(settings: Settings, shared_database_url: str) -> None:
    url = settings.database_url
    async with administrator(url) as connection:
        await run_by_hand(connection, await migrations.sql(settings))
    assert await schema(url, "soldier") == await schema(shared_database_url)
    assert await fetch(url, _IN_PUBLIC) == []
    assert await migrations.check(settings) is None

    async with administrator(url) as connection:
        await run_by_hand(connection, await migrations.sql(settings, f"{head_revision()}:base", down=True))
    left = await fetch(url, "SELECT tablename FROM pg_tables WHERE schemaname = 'soldier'")
    assert {row["tablename"] for row in left} <= {"alembic_version"}


async def test_what_autogenerate_writes_runs_in_the_schema_up_and_down(
    settings: Settings, checkout: Path
) -> None:
    edit(
        checkout / "soldier_data" / "config" / "orm.py",
        '        purge_index("rules"),\n',
        '        purge_index("rules"),\n'
        "        Index(\n"
        '            "ix_rules_meaning",\n'
        '            "meaning",\n'
        '            postgresql_using="hnsw",\n'
        '            postgresql_ops={"meaning": "vector_cosine_ops"},\n'
        "        ),\n",
    )
    edit(
        checkout / "soldier_data" / "config" / "orm.py",
        "    action_text: Mapped[str]\n",
        "    action_text: Mapped[str]\n    meaning: Mapped[list[float] | None]\n",
    )
    with (checkout / "soldier_data" / "config" / "orm.py").open("a") as orm:
        orm.write(
            "\n\nclass NoteRow(TenantKey, Base):\n"
            '    """A note."""\n\n'
            '    __tablename__ = "notes"\n\n'
            "    meaning: Mapped[list[float] | None]\n"
        )
    url = settings.database_url
    await migrations.upgrade(settings)
    await fetch(url, "ALTER TABLE soldier.entities ALTER COLUMN embedding TYPE public.vector(9)")
    await fetch(url, "ALTER TABLE soldier.templates ADD COLUMN meaning public.vector(4)")
    before = await schema(url, "soldier")
    (checkout / ".env").write_text(
        f"SOLDIER_DATABASE_SCHEMA=soldier\nSOLDIER_EMBEDDING_DIMENSIONS={DIMENSIONS}\n"
    )
    output = await alembic(
        url, "revision --autogenerate -m 'Meanings'", "upgrade head", "check", folder=checkout
    )
    assert "No new upgrade operations detected" in output
    [written] = (checkout / "alembic" / "versions").glob("0*_meanings.py")
    assert "soldier." not in written.read_text().replace("soldier_data.", "")
    assert await fetch(url, _IN_PUBLIC) == []
    after = await schema(url, "soldier")
    assert {row[0] for row in after} - {row[0] for row in before} == {
        "notes",
        "pk_notes",
        "ix_notes_meaning_hnsw",
        "ix_rules_meaning",
        "ix_rules_meaning_hnsw",
    }

    await alembic(url, "downgrade -1", folder=checkout)
    # But for the last place in a row: where its columns are, which a column that comes back changes.
    assert [row[:-1] for row in await schema(url, "soldier")] == [row[:-1] for row in before]


async def test_what_a_migration_drops_is_never_looked_for_in_another_schema(database_url: str) -> None:
    first = await schema(database_url)
    settings = settings_for(database_url, database_schema="soldier")
    await migrations.upgrade(settings, "0007")
    # One remains, so that the revision is believed.
    made = await fetch(
        database_url,
        "SELECT string_agg('soldier.' || tablename, ', ') AS it FROM pg_tables "
        "WHERE schemaname = 'soldier' AND tablename NOT IN ('alembic_version', 'embeddings')",
    )
    await fetch(database_url, f"DROP TABLE {made[0]['it']}")
    await migrations.downgrade(settings, "base")
    assert await schema(database_url) == first
    assert await migrations.check(settings_for(database_url)) is None


async def test_an_owner_of_the_schema_alone_may_migrate(database_url: str) -> None:
    role = f"owner_{uuid4().hex}"
    async with administrator(database_url) as connection:
        await connection.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'x'")
        await connection.execute(f"CREATE SCHEMA soldier AUTHORIZATION {role}")
        try:
            by_role = make_url(database_url).set(username=role, password="x")  # noqa: S106 - of a test role.
            url = by_role.render_as_string(hide_password=False)
            settings = settings_for(url, database_schema="soldier")
            await migrations.upgrade(settings)
            assert await migrations.check(settings) is None
            owners = "SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = 'soldier'"
            assert [row["tableowner"] for row in await connection.fetch(owners)] == [role]
        finally:
            await connection.execute(f"DROP OWNED BY {role}")
            await connection.execute(f"DROP ROLE {role}")
