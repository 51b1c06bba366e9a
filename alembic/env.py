"""How Alembic reaches the database and compares it with the models."""

from __future__ import annotations

import asyncio
from logging.config import fileConfig

from alembic import context

from soldier_data.base.orm import embedding_dimensions
from soldier_data.migrations import configure_comparison, open_for_migration, run_migrations
from soldier_data.schema import metadata
from soldier_data.settings import Settings

config = context.config


def run_offline() -> None:
    """Write SQL instead of running it."""
    embedding_dimensions.set(Settings().embedding_dimensions)
    context.configure(dialect_name="postgresql", literal_binds=True, **configure_comparison(metadata))
    with context.begin_transaction():
        context.run_migrations()


async def run_online() -> None:
    """Migrate the database that the settings name."""
    async with open_for_migration(Settings()) as connection:
        await connection.run_sync(run_migrations, metadata)


if context.is_offline_mode():
    run_offline()
elif (given := config.attributes.get("connection")) is not None:
    run_migrations(given, metadata)
else:
    if config.config_file_name is not None:
        fileConfig(config.config_file_name, disable_existing_loggers=False)
    asyncio.run(run_online())
