"""What the driver's failures mean: each becomes a `StoreError` whose message holds no value and no secret."""

from __future__ import annotations

from functools import cache
from typing import Any

import asyncpg
from sqlalchemy import Index, UniqueConstraint

from soldier_data.base.orm import Base
from soldier_data.errors import (
    ConfigurationError,
    ConflictError,
    NotFoundError,
    StoreConnectionError,
    StoreError,
    ValidationError,
)

_TRANSIENT = {
    "40001": "the transaction collided with another one",
    "40P01": "the transaction was chosen to end a deadlock",
    "55P03": "a lock was not to be had in time",
    "57P01": "the server is shutting down",
    "57P02": "the server crashed",
    "57P03": "the server is starting up",
    "53300": "the server has no free connection: raise max_connections or lower SOLDIER_POOL_SIZE",
    # A statement prepared before a migration changed its table; asyncpg prepares it anew the next time.
    "0A000": "the schema changed meanwhile",
}

_REFUSED = {
    "28P01": "the server refused the user name or password: check SOLDIER_DATABASE_URL",
    "28000": "the server refused this user or host: check SOLDIER_DATABASE_URL and pg_hba.conf",
    "3D000": "the database does not exist: check the name in SOLDIER_DATABASE_URL",
    "57014": "the statement was cancelled or took longer than the server's statement_timeout",
}

_NOT_MIGRATED = {"42P01", "42703", "42704", "42883", "3F000"}

_UNREACHABLE = (
    "the server could not be reached or the connection was lost: check SOLDIER_DATABASE_URL and the server"
)


_DRIVER_ERRORS = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError)


class TransientError(StoreConnectionError):
    """A failure that may be gone at the next try: a lost connection, a serialization failure, a deadlock."""


def as_store_error(error: BaseException, doing: str) -> StoreError:
    """Translate what asyncpg, SQLAlchemy's pool or the operating system raised while `doing` something."""
    if isinstance(error, StoreError):
        return error
    if isinstance(error, TimeoutError):
        return StoreConnectionError(
            f"{doing}: the database did not answer in time (SOLDIER_CONNECT_TIMEOUT, SOLDIER_COMMAND_TIMEOUT)",
            cause=error,
        )
    if isinstance(error.__cause__, _DRIVER_ERRORS):
        # SQLAlchemy's adapter wraps the driver's errors while it opens a connection.
        error = error.__cause__
    state = getattr(error, "sqlstate", None)
    if isinstance(state, str):
        return _from_sqlstate(state, error, doing)
    if isinstance(error, asyncpg.ClientConfigurationError):
        return ConfigurationError(
            f"{doing}: SOLDIER_DATABASE_URL is malformed or contradicts itself", cause=error
        )
    if isinstance(error, OSError | asyncpg.InterfaceError | asyncpg.InternalClientError):
        return TransientError(f"{doing}: {_UNREACHABLE}", cause=error)
    return StoreError(f"{doing}: unexpected {type(error).__name__} (see .cause)", cause=error)


def _from_sqlstate(state: str, error: BaseException, doing: str) -> StoreError:
    if state == "23505":
        name = str(getattr(error, "constraint_name", None))
        return ConflictError(f"{doing}: {_conflicts().get(name, 'a row with this key exists')}", cause=error)
    if state == "23503":
        return NotFoundError(f"{doing}: a row that it refers to does not exist in the tenant", cause=error)
    if state in _TRANSIENT or state.startswith("08"):
        return TransientError(f"{doing}: {_TRANSIENT.get(state, _UNREACHABLE)}", cause=error)
    if state in _REFUSED:
        return StoreConnectionError(f"{doing}: {_REFUSED[state]}", cause=error)
    if state in _NOT_MIGRATED:
        return ConfigurationError(
            f"{doing}: the database is not migrated to this version of soldier_data: run `soldier-data db upgrade`, "
            "or set SOLDIER_DATABASE_SCHEMA and SOLDIER_EXTENSIONS_SCHEMA to where things are",
            cause=error,
        )
    if state.startswith(("22", "23")) or state == "54000":
        return ValidationError(f"{doing}: PostgreSQL cannot store a value (SQLSTATE {state})", cause=error)
    if state == "42501":
        return ConfigurationError(
            f"{doing}: the database role lacks the privilege for it: grant it, or set "
            "SOLDIER_ROW_LEVEL_SECURITY=true for a role that the row-level-security policies bind",
            cause=error,
        )
    return StoreError(f"{doing}: PostgreSQL refused it (SQLSTATE {state}, see .cause)", cause=error)


@cache
def _conflicts() -> dict[str, str]:
    """What it means when a unique index is violated, as its ORM class says in `info["conflict"]`."""
    found: dict[str, str] = {}
    for table in Base.metadata.tables.values():
        unique: list[Any] = [index for index in table.indexes if index.unique]
        unique += [constraint for constraint in table.constraints if isinstance(constraint, UniqueConstraint)]
        for item in unique:
            assert isinstance(item, Index | UniqueConstraint)
            if "conflict" in item.info:
                found[str(item.name)] = item.info["conflict"]
    return found
