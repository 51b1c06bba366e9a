"""Alembic's environment: the connection to the database, and the comparison with the models."""

from __future__ import annotations

import asyncio
from logging.config import fileConfig
from typing import Any

from alembic import context
from sqlalchemy.schema import CreateSchema

from soldier_data.migrations.comparison import use_strict_implementation
from soldier_data.migrations.connection import (
    LIMIT_LOCK_WAITS,
    open_for_migration,
    run_migrations,
    set_search_path,
)
from soldier_data.migrations.offline import expect_begin, expect_result
from soldier_data.migrations.writing import configure_comparison, render_item
from soldier_data.postgres.ddl import DDLOptions, use_ddl_options
from soldier_data.schema import metadata_with_vector_indexes
from soldier_data.settings import Settings

config = context.config


def configure(**arguments: Any) -> None:
    """Configure Alembic with `arguments` and with the comparison of this package."""
    context.configure(**arguments, **options, version_table=settings.version_table)
    use_strict_implementation(context.get_context())


def run_offline(settings: Settings) -> None:
    """Write the migrations as SQL instead of running them."""
    with use_ddl_options(DDLOptions.of(settings)):
        configure(
            dialect_name="postgresql",
            literal_binds=True,
            transaction_per_migration=True,
            on_version_apply=expect_result,
        )
        begin = context.get_starting_revision_argument()
        context.execute(LIMIT_LOCK_WAITS)
        if not begin:
            for schema in sorted({settings.database_schema, settings.extensions_schema} - {"public"}):
                context.execute(CreateSchema(schema, if_not_exists=True))
        context.execute(set_search_path(settings.database_schema))
        context.execute(expect_begin(context.get_context(), begin))
        with context.begin_transaction():
            context.run_migrations()


async def run_online(settings: Settings) -> None:
    """Migrate the database of the settings."""
    async with open_for_migration(settings) as connection:
        await connection.run_sync(run_migrations, settings, configure)


# `soldier_data.migrations` passes these attributes and reads the last one; the command `alembic` passes none.
settings = config.attributes.get("settings") or Settings()
with use_ddl_options(DDLOptions.of(settings)):
    options = configure_comparison(metadata_with_vector_indexes())
given_connection = config.attributes.get("connection")
config.attributes["render_item"] = render_item

if context.is_offline_mode():
    run_offline(settings)
elif given_connection is not None:
    run_migrations(given_connection, settings, configure)
else:
    if config.config_file_name is not None:
        fileConfig(config.config_file_name, disable_existing_loggers=False)
    asyncio.run(run_online(settings))
