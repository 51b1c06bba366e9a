"""The Alembic environment of the example: its own tables, in the same database and schema as soldier_data's.

soldier_data keeps its version in a table of its own; see SOLDIER_VERSION_TABLE.
"""

from __future__ import annotations

import asyncio
import os

from alembic import context
from sqlalchemy import Connection, pool
from sqlalchemy.ext.asyncio import create_async_engine

from examples.tickets import Base
from soldier_data.migrations import include_object


def migrate(connection: Connection) -> None:
    """Run the migrations."""
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        include_object=include_object,
        version_table="tickets_version",
    )
    with context.begin_transaction():
        context.run_migrations()


async def connect_and_migrate() -> None:
    """Run the migrations on the database of TICKETS_DATABASE_URL."""
    engine = create_async_engine(os.environ["TICKETS_DATABASE_URL"], poolclass=pool.NullPool)
    async with engine.connect() as connection:
        await connection.run_sync(migrate)
        await connection.commit()


given = context.config.attributes.get("connection")
if given is None:
    asyncio.run(connect_and_migrate())
else:
    migrate(given)
