"""Bringing a database to the schema of this package, from a checkout or from the installed wheel."""

from soldier_data.migrations.commands import (
    Revision,
    SchemaState,
    check,
    current,
    downgrade,
    history,
    sql,
    upgrade,
)
from soldier_data.migrations.grants import grant_statements, run_grants
from soldier_data.migrations.operations import create_index_concurrently
from soldier_data.migrations.scripts import SCHEMA_VERSION, head_revision, script_location

__all__ = [
    "SCHEMA_VERSION",
    "Revision",
    "SchemaState",
    "check",
    "create_index_concurrently",
    "current",
    "downgrade",
    "grant_statements",
    "head_revision",
    "history",
    "run_grants",
    "script_location",
    "sql",
    "upgrade",
]
