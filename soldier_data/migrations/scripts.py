"""Location of the migrations, and the newest revision."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from alembic.script import ScriptDirectory
from sqlalchemy import Column, MetaData, Table, Text, select

from soldier_data.postgres.statements import Statement

_PACKAGE = Path(__file__).parents[1]

# Alembic creates this table itself.
_VERSIONS = Table("alembic_version", MetaData(), Column("version_num", Text))

SCHEMA_VERSION = Statement("reading the schema version", select(_VERSIONS.c.version_num))


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
