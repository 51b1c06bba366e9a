"""Stores and connections of a test's own, and what no error of theirs may show."""

from __future__ import annotations

import traceback
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import asyncpg
from sqlalchemy import make_url

from soldier_data.config import PostgresConfigStore
from soldier_data.errors import StoreError
from soldier_data.migrations import run_grants
from soldier_data.postgres.database import Database
from soldier_data.postgres.engine import driver_url
from soldier_data.postgres.pool import ConnectionPool
from soldier_data.settings import Settings
from tests.conftest import settings_for

CANARY = "canary-8QX!"
"""The password in URLs that do not work."""


def pool_of(database: Database | None) -> ConnectionPool:
    """The pool of a database that opens connections itself."""
    assert database is not None
    assert isinstance(database._pool, ConnectionPool)
    return database._pool


@asynccontextmanager
async def opened(url: str, **values: Any) -> AsyncIterator[PostgresConfigStore]:
    database = Database(settings_for(url, **values))
    try:
        yield PostgresConfigStore(database)
    finally:
        await database.close()


@asynccontextmanager
async def bound_role(url: str) -> AsyncIterator[str]:
    """The database by way of a role that may do everything that the row-level-security policies let it.

    It owns nothing and has no BYPASSRLS.
    """
    role = f"bound_{uuid4().hex}"
    async with administrator(url) as connection:
        await connection.execute(f"CREATE ROLE {role} LOGIN NOBYPASSRLS PASSWORD 'bound'")
        await connection.execute(
            f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role}"
        )
        by_role = make_url(url).set(username=role, password="bound")  # noqa: S106 - of a test role.
        yield by_role.render_as_string(hide_password=False)
        await connection.execute(f"DROP OWNED BY {role}")
        await connection.execute(f"DROP ROLE {role}")


@asynccontextmanager
async def granted_role(settings: Settings) -> AsyncIterator[str]:
    """The database by way of a role that has what `soldier-data db grants` gives, and an empty search_path."""
    role = f"services_{uuid4().hex}"
    async with administrator(settings.database_url) as connection:
        await connection.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'x'")
        await connection.execute(f"ALTER ROLE {role} SET search_path = ''")
        await run_grants(settings, role, erasure=True)
        by_role = make_url(settings.database_url).set(username=role, password="x")  # noqa: S106 - of a test role.
        yield by_role.render_as_string(hide_password=False)
        await connection.execute(f"DROP OWNED BY {role}")
        await connection.execute(f"DROP ROLE {role}")


async def forget_search_path(url: str) -> None:
    """Make the search_path of the database empty for everybody."""
    async with administrator(url) as connection:
        await connection.execute(f"ALTER DATABASE {make_url(url).database} SET search_path = ''")


@asynccontextmanager
async def administrator(url: str) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(driver_url(url))
    try:
        yield connection
    finally:
        await connection.close()


def assert_clean(error: BaseException) -> None:
    """No exception of the driver is chained, and no secret shows."""
    assert isinstance(error, StoreError)
    assert error.__cause__ is None
    assert error.__context__ is None
    assert CANARY not in "".join(traceback.format_exception(error))
    assert CANARY not in repr(error)
