"""How Alembic reaches the database and compares it with the models."""

from __future__ import annotations

import asyncio
from logging.config import fileConfig

from alembic import context

from soldier_data.base.orm import embedding_dimensions
from soldier_data.migrations.connection import LIMIT_LOCK_WAITS, open_for_migration, run_migrations
from soldier_data.migrations.writing import configure_comparison, render_item
from soldier_data.schema import metadata
from soldier_data.settings import Settings

config = context.config
options = configure_comparison(metadata)


def run_offline(settings: Settings) -> None:
    """Write SQL instead of running it."""
    token = embedding_dimensions.set(settings.embedding_dimensions)
    try:
        context.configure(
            dialect_name="postgresql", literal_binds=True, transaction_per_migration=True, **options
        )
        context.execute(LIMIT_LOCK_WAITS)
        with context.begin_transaction():
            context.run_migrations()
    finally:
        embedding_dimensions.reset(token)


async def run_online(settings: Settings) -> None:
    """Migrate the database that the settings name."""
    async with open_for_migration(settings) as connection:
        await connection.run_sync(run_migrations, options)


# `soldier_data.migrations` hands these over and takes the last one back; the command `alembic` hands over nothing.
given_settings = config.attributes.get("settings")
given_connection = config.attributes.get("connection")
config.attributes["render_item"] = render_item

if context.is_offline_mode():
    run_offline(given_settings or Settings())
elif given_connection is not None:
    run_migrations(given_connection, options)
else:
    if config.config_file_name is not None:
        fileConfig(config.config_file_name, disable_existing_loggers=False)
    asyncio.run(run_online(given_settings or Settings()))
