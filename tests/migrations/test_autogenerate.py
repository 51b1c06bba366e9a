"""Autogenerate: a changed model comes out as a migration that runs unedited, up and down."""

from __future__ import annotations

import re
from pathlib import Path

from soldier_data.migrations import head_revision, upgrade
from tests.conftest import DIMENSIONS, settings_for
from tests.migrations.tools import alembic, edit, fetch, python, schema


async def test_new_columns_and_tables_come_out_of_autogenerate_as_a_migration_that_runs(
    empty_database_url: str, checkout: Path
) -> None:
    edit(
        checkout / "soldier_data" / "config" / "orm.py",
        "    resolver_tool_id: Mapped[str]\n",
        "    resolver_tool_id: Mapped[str]\n"
        '    color: Mapped[str | None] = mapped_column(info={"storage": "MAIN"})\n'
        "    meaning: Mapped[list[float] | None]\n",
    )
    with (checkout / "soldier_data" / "config" / "orm.py").open("a") as orm:
        orm.write(
            "\n\nclass NoteRow(TenantKey, Base):\n"
            '    """A note."""\n\n'
            '    __tablename__ = "notes"\n'
            '    __table_args__ = (Index("ix_notes_page", "tenant_id", "written_at"),)\n\n'
            "    written_at: Mapped[datetime]\n"
            "    meaning: Mapped[list[float] | None]\n"
            "    document: Mapped[dict[str, Any]]\n"
        )
    await upgrade(settings_for(empty_database_url))
    before = await schema(empty_database_url)
    with (checkout / ".env").open("w") as file:
        file.write(f"SOLDIER_EMBEDDING_DIMENSIONS={DIMENSIONS}\n")
    output = await alembic(
        empty_database_url,
        "revision --autogenerate -m 'Add color and notes'",
        "upgrade head",
        "check",
        folder=checkout,
    )
    assert "No new upgrade operations detected" in output

    columns = await fetch(
        empty_database_url,
        "SELECT attrelid::regclass::text || '.' || attname, format_type(atttypid, atttypmod) FROM pg_attribute "
        "JOIN pg_class c ON c.oid = attrelid AND c.relkind = 'r' "
        "WHERE attname IN ('color', 'meaning') AND attnum > 0 ORDER BY 1",
    )
    assert [tuple(column) for column in columns] == [
        ("notes.meaning", f"vector({DIMENSIONS})"),
        ("variables.color", "text"),
        ("variables.meaning", f"vector({DIMENSIONS})"),
    ]
    storage = "SELECT attstorage::text AS it FROM pg_attribute WHERE attname = 'color' AND attnum > 0"
    assert [row["it"] for row in await fetch(empty_database_url, storage)] == ["m"]
    secured = "SELECT relforcerowsecurity AS it FROM pg_class WHERE oid = 'notes'::regclass"
    assert (await fetch(empty_database_url, secured))[0]["it"] is True
    assert len(await fetch(empty_database_url, "SELECT FROM pg_policies WHERE tablename = 'notes'")) == 1

    await alembic(empty_database_url, "downgrade -1", folder=checkout)
    assert await schema(empty_database_url) == before


async def test_a_table_without_tenants_comes_out_of_autogenerate_without_a_policy_and_goes_with_its_class(
    database_url: str, checkout: Path
) -> None:
    orm_path = checkout / "soldier_data" / "config" / "orm.py"
    original = orm_path.read_text()
    with orm_path.open("a") as orm:
        orm.write(
            "\n\nclass CurrencyRow(Base):\n"
            '    """A currency, the same for all tenants."""\n\n'
            '    __tablename__ = "currencies"\n\n'
            "    code: Mapped[str] = mapped_column(primary_key=True)\n"
            "    digits: Mapped[int]\n"
        )
    before = await schema(database_url)
    with (checkout / ".env").open("w") as file:
        file.write(f"SOLDIER_EMBEDDING_DIMENSIONS={DIMENSIONS}\n")
    output = await alembic(
        database_url,
        "revision --autogenerate -m 'Add currencies'",
        "upgrade head",
        "check",
        folder=checkout,
    )
    assert "No new upgrade operations detected" in output
    secured = "SELECT relrowsecurity AS it FROM pg_class WHERE oid = 'currencies'::regclass"
    assert (await fetch(database_url, secured))[0]["it"] is False
    healthy = await python(checkout, "-c", _POLICIES_ARE_WELL, SOLDIER_DATABASE_URL=database_url)
    assert "Finding(name='policies', ok=True" in healthy

    orm_path.write_text(original)
    await fetch(database_url, "CREATE TABLE tickets (id bigint PRIMARY KEY)")
    output = await alembic(
        database_url,
        "revision --autogenerate -m 'Remove currencies'",
        "upgrade head",
        "check",
        "downgrade -2",
        folder=checkout,
    )
    assert "No new upgrade operations detected" in output
    [written] = (checkout / "alembic" / "versions").glob("0*_remove_currencies.py")
    assert re.findall(r"op\.(\w+_table)\(\s*\"(\w+)", written.read_text()) == [
        ("drop_table", "currencies"),
        ("create_table", "currencies"),
    ]
    await fetch(database_url, "DROP TABLE tickets")
    assert await schema(database_url) == before


_POLICIES_ARE_WELL = """
import asyncio
from soldier_data.cli.doctor import examine
from soldier_data.settings import Settings
print(asyncio.run(examine(Settings(session_backend="inmemory"))))
"""


async def test_a_vector_index_comes_out_of_autogenerate_and_is_built_beside_live_traffic(
    database_url: str, checkout: Path
) -> None:
    edit(
        checkout / "soldier_data" / "config" / "orm.py",
        '        purge_index("rules"),\n',
        '        purge_index("rules"),\n'
        "        Index(\n"
        '            "ix_rules_meaning",\n'
        '            "embedding",\n'
        '            postgresql_using="hnsw",\n'
        '            postgresql_with={"m": 12, "ef_construction": 40},\n'
        '            postgresql_ops={"embedding": "vector_cosine_ops"},\n'
        "            postgresql_where=LIVING,\n"
        "        ),\n",
    )
    (checkout / ".env").write_text(f"SOLDIER_EMBEDDING_DIMENSIONS={DIMENSIONS}\n")
    before = await schema(database_url)
    output = await alembic(
        database_url,
        "revision --autogenerate -m 'Index the meaning of rules'",
        "upgrade head",
        "check",
        folder=checkout,
    )
    assert "No new upgrade operations detected" in output
    definition = "SELECT pg_get_indexdef('ix_rules_meaning'::regclass) AS it"
    built = (await fetch(database_url, definition))[0]["it"]
    assert built.endswith(
        "USING hnsw (embedding vector_cosine_ops) WITH (m='12', ef_construction='40') WHERE (deleted_at IS NULL)"
    )
    [written] = (checkout / "alembic" / "versions").glob("0*_index_the_meaning_of_rules.py")
    assert "create_index_concurrently(" in written.read_text()
    after = await schema(database_url)

    # As a build leaves it that was killed.
    invalid = "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'ix_rules_meaning'::regclass"
    await fetch(database_url, invalid)
    await alembic(database_url, f"stamp {head_revision()}", "upgrade head", "check", folder=checkout)
    assert await schema(database_url) == after
    valid = "SELECT indisvalid AS it FROM pg_index WHERE indexrelid = 'ix_rules_meaning'::regclass"
    assert (await fetch(database_url, valid))[0]["it"] is True

    await alembic(database_url, "downgrade -1", folder=checkout)
    assert await schema(database_url) == before


async def test_a_constraint_and_a_type_come_out_of_autogenerate(database_url: str, checkout: Path) -> None:
    path = checkout / "soldier_data" / "config" / "orm.py"
    edit(
        path,
        "    cache_ttl_seconds: Mapped[int] = mapped_column(default=0)\n",
        "    cache_ttl_seconds: Mapped[float] = mapped_column(Double, default=0)\n",
    )
    edit(
        path,
        '        purge_index("variables"),\n',
        '        purge_index("variables"),\n        CheckConstraint("cache_ttl_seconds >= 0", name="ttl"),\n',
    )
    edit(path, "from sqlalchemy import ", "from sqlalchemy import CheckConstraint, Double, ")
    (checkout / ".env").write_text(f"SOLDIER_EMBEDDING_DIMENSIONS={DIMENSIONS}\n")
    before = await schema(database_url)
    output = await alembic(
        database_url,
        "revision --autogenerate -m 'Fractions of seconds'",
        "upgrade head",
        "check",
        "downgrade -1",
        folder=checkout,
    )
    assert "No new upgrade operations detected" in output
    assert await schema(database_url) == before


async def test_a_new_value_of_an_enum_that_is_kept_as_text_needs_no_migration(
    database_url: str, checkout: Path
) -> None:
    edit(
        checkout / "soldier_data" / "config" / "models.py",
        '    STEP = "step"\n',
        '    STEP = "step"\n    TURN = "turn"\n',
    )
    (checkout / ".env").write_text(f"SOLDIER_EMBEDDING_DIMENSIONS={DIMENSIONS}\n")
    checked = await alembic(database_url, "check", folder=checkout)
    assert "No new upgrade operations detected" in checked


async def test_an_enum_of_postgresql_and_its_new_values_come_out_of_autogenerate(
    database_url: str, checkout: Path
) -> None:
    path = checkout / "soldier_data" / "config" / "orm.py"
    edit(path, "from sqlalchemy import ", "from sqlalchemy import Enum, ")
    edit(
        path,
        "    resolver_tool_id: Mapped[str]\n",
        "    resolver_tool_id: Mapped[str]\n"
        '    color: Mapped[str | None] = mapped_column(Enum("red", "it\'s: green", name="color"))\n',
    )
    with path.open("a") as orm:
        orm.write(
            "\n\nclass NoteRow(TenantKey, Base):\n"
            '    """A note."""\n\n'
            '    __tablename__ = "notes"\n\n'
            '    color: Mapped[str] = mapped_column(Enum("red", "it\'s: green", name="color"))\n'
            '    size: Mapped[str] = mapped_column(Enum("small", "large", name="size"))\n'
        )
    (checkout / ".env").write_text(f"SOLDIER_EMBEDDING_DIMENSIONS={DIMENSIONS}\n")
    labels = (
        "SELECT typname || ' ' || string_agg(enumlabel, ', ' ORDER BY enumsortorder) AS it "
        "FROM pg_enum JOIN pg_type t ON t.oid = enumtypid GROUP BY typname ORDER BY typname"
    )
    before = await schema(database_url)
    output = await alembic(
        database_url,
        "revision --autogenerate -m 'Add colors and sizes'",
        "upgrade head",
        "check",
        folder=checkout,
    )
    assert "No new upgrade operations detected" in output
    assert [row["it"] for row in await fetch(database_url, labels)] == [
        "color red, it's: green",
        "size small, large",
    ]
    first = await schema(database_url)
    [written] = (checkout / "alembic" / "versions").glob("0*_add_colors_and_sizes.py")
    await python(checkout, "-m", "ruff", "check", str(written))
    await python(checkout, "-m", "ruff", "format", "--check", str(written))

    path.write_text(path.read_text().replace('Enum("red", ', 'Enum("pink", "red", "blue", '))
    output = await alembic(
        database_url, "revision --autogenerate -m 'More colors'", "upgrade head", "check", folder=checkout
    )
    assert "No new upgrade operations detected" in output
    assert (await fetch(database_url, labels))[0]["it"] == "color pink, red, blue, it's: green"

    await alembic(database_url, "downgrade -2", folder=checkout)
    assert await schema(database_url) == before
    assert await fetch(database_url, labels) == []
    await alembic(
        database_url, "upgrade head", f"stamp {head_revision()}", "upgrade head", "check", folder=checkout
    )
    assert await schema(database_url) == first


async def test_generated_revisions_are_numbered_in_sequence(database_url: str, checkout: Path) -> None:
    await alembic(
        database_url,
        "revision --autogenerate -m 'Add nothing'",
        "upgrade head",
        "revision --autogenerate -m 'Add nothing again'",
        "upgrade head",
        "revision --autogenerate --rev-id own -m 'Add nothing more'",
        folder=checkout,
    )
    expected = int(head_revision()) + 1
    written = {path.name for path in (checkout / "alembic" / "versions").glob("*add_nothing*")}
    assert written == {
        f"{expected:04d}_add_nothing.py",
        f"{expected + 1:04d}_add_nothing_again.py",
        "own_add_nothing_more.py",
    }
