"""Migrations, run from a checkout or from the installed wheel, and the operations that they use."""

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
from soldier_data.migrations.enums import add_enum_value, create_enum, drop_enum
from soldier_data.migrations.grants import grant_statements, run_grants
from soldier_data.migrations.operations import (
    create_extension,
    create_index_concurrently,
    create_vector_index,
    drop_vector_index,
    isolate_tenants,
    set_storage,
)
from soldier_data.migrations.ownership import include_object
from soldier_data.migrations.scripts import SCHEMA_VERSION, head_revision, schema_version, script_location

__all__ = [
    "SCHEMA_VERSION",
    "Revision",
    "SchemaState",
    "add_enum_value",
    "check",
    "create_enum",
    "create_extension",
    "create_index_concurrently",
    "create_vector_index",
    "current",
    "downgrade",
    "drop_enum",
    "drop_vector_index",
    "grant_statements",
    "head_revision",
    "history",
    "include_object",
    "isolate_tenants",
    "run_grants",
    "schema_version",
    "script_location",
    "set_storage",
    "sql",
    "upgrade",
]
