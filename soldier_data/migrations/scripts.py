"""Location of the migrations, and the newest revision."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from alembic.script import ScriptDirectory
from sqlalchemy import Column, MetaData, Table, Text, select

from soldier_data.postgres.statements import Statement

_PACKAGE = Path(__file__).parents[1]


@cache
def schema_version(version_table: str) -> Statement:
    """Return the statement that reads the revision of the database from `version_table`."""
    # Alembic creates this table itself.
    versions = Table(version_table, MetaData(), Column("version_num", Text))
    return Statement("reading the schema version", select(versions.c.version_num))


SCHEMA_VERSION = schema_version("alembic_version")
"""The same, for the default of SOLDIER_VERSION_TABLE."""


def script_location() -> Path:
    """Return the folder of the migrations: alembic/ of the checkout, or its copy in the installed package."""
    checkout = _PACKAGE.parent / "alembic"
    return checkout if (checkout / "env.py").is_file() else _PACKAGE / "_alembic"


def script_directory() -> ScriptDirectory:
    """Return Alembic's view of the migrations."""
    return ScriptDirectory(str(script_location()))


@cache
def head_revision() -> str:
    """Return the newest revision of this package."""
    head = script_directory().get_current_head()
    assert head is not None
    return head
