"""What the driver's failures mean: each becomes a `StoreError` whose message holds no value and no secret."""

from __future__ import annotations

from functools import cache
from typing import Any

import asyncpg
from sqlalchemy import Index, UniqueConstraint

from soldier_data.errors import (
    ConfigurationError,
    ConflictError,
    NotFoundError,
    StoreConnectionError,
    StoreError,
    ValidationError,
)
from soldier_data.postgres.orm import Base

READ_ONLY = "25006"
"""SQLSTATE of a write to a server that takes none: a standby, or a primary that became one."""

_TRANSIENT = {
    "25P03": "the server ended a transaction that waited for longer than its idle_in_transaction_session_timeout: do "
    "what takes long before the unit of work",
    READ_ONLY: "the server is read-only: it is a standby or was made one, so another one has to be the primary",
    "40001": "the transaction collided with another one",
    "40P01": "the transaction was chosen to end a deadlock",
    "53200": "the server is out of memory: lower SOLDIER_POOL_SIZE or the server's work_mem, or give it more",
    "53300": "the server has no free connection: raise max_connections or lower SOLDIER_POOL_SIZE",
    "55P03": "a lock was not to be had in time",
    "57P01": "the server is shutting down",
    "57P02": "the server crashed",
    "57P03": "the server is starting up",
    "57P05": "the server ended a connection that was free for longer than its idle_session_timeout: let "
    "SOLDIER_POOL_RECYCLE be shorter",
}

# These stay as they are until somebody does something about them.
_REFUSED = {
    "25P04": "the transaction took longer than the server's transaction_timeout: do less in one, or raise it",
    "28P01": "the server refused the user name or password: check SOLDIER_DATABASE_URL",
    "28000": "the server refused this user or host: check SOLDIER_DATABASE_URL and pg_hba.conf",
    "3D000": "the database does not exist: check the name in SOLDIER_DATABASE_URL",
    "53000": "the server lacks something that it needs: see its log",
    "53100": "the server's disk is full: make room on it",
    "53400": "a limit of the server was exceeded, such as temp_file_limit: raise it, or ask for less",
    "57014": "the statement was cancelled or took longer than the server's statement_timeout",
    "57P04": "the database was dropped: check the name in SOLDIER_DATABASE_URL",
    "58000": "the server has a fault of its own: see its log",
    "58030": "the server cannot read or write its files: see its log",
}

_MISCONFIGURED = {
    # PgBouncer hands statements to servers that have not seen them prepared, or have seen another one so named.
    **dict.fromkeys(
        ("26000", "42P05"),
        "a prepared statement got lost between the connections of a pooler: set SOLDIER_PGBOUNCER=true",
    ),
    **dict.fromkeys(
        ("3F000", "42P01", "42703", "42704", "42883"),
        "the database is not migrated to this version of soldier_data: run `soldier-data db upgrade`, "
        "or set SOLDIER_DATABASE_SCHEMA and SOLDIER_EXTENSIONS_SCHEMA to where things are",
    ),
    "42501": "the database role lacks the privilege for it: grant it, or set SOLDIER_ROW_LEVEL_SECURITY=true for a "
    "role that the row-level-security policies bind",
    "0A000": "the server does not support this statement (.cause says why): docs/operations.md names the versions "
    "needed; a distributed PostgreSQL has to have every table distributed by tenant_id",
}

_DAMAGED = dict.fromkeys(("XX001", "XX002"), "the database is damaged: see the server's log")

_UNREACHABLE = (
    "the server could not be reached or the connection was lost: check SOLDIER_DATABASE_URL and the server"
)


_DRIVER_ERRORS = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError)


class TransientError(StoreConnectionError):
    """A failure that may be gone at the next try: a lost connection, a serialization failure, a deadlock."""


_MEANINGS: tuple[tuple[type[StoreError], dict[str, str]], ...] = (
    (TransientError, _TRANSIENT),
    (StoreConnectionError, _REFUSED),
    (ConfigurationError, _MISCONFIGURED),
    (StoreError, _DAMAGED),
)


def as_store_error(error: BaseException, operation: str) -> StoreError:
    """Translate what asyncpg, SQLAlchemy's pool or the operating system raised during `operation`."""
    if isinstance(error, StoreError):
        return error
    if isinstance(error, TimeoutError):
        return StoreConnectionError(
            f"{operation}: the database did not answer in time (SOLDIER_CONNECT_TIMEOUT, SOLDIER_COMMAND_TIMEOUT)",
            cause=error,
        )
    if isinstance(error.__cause__, _DRIVER_ERRORS):
        # SQLAlchemy's adapter wraps the driver's errors while it opens a connection.
        error = error.__cause__
    state = getattr(error, "sqlstate", None)
    if isinstance(state, str):
        return _from_sqlstate(state, error, operation)
    if isinstance(error, asyncpg.ClientConfigurationError):
        return ConfigurationError(
            f"{operation}: SOLDIER_DATABASE_URL is malformed or contradicts itself", cause=error
        )
    if isinstance(error, asyncpg.TargetServerAttributeNotMatched):
        return TransientError(
            f"{operation}: no host of SOLDIER_DATABASE_URL has a server of the kind that target_session_attrs says "
            "(read-write unless set, where there are several hosts)",
            cause=error,
        )
    if isinstance(error, OSError | asyncpg.InterfaceError | asyncpg.InternalClientError):
        return TransientError(f"{operation}: {_UNREACHABLE}", cause=error)
    return StoreError(f"{operation}: unexpected {type(error).__name__} (see .cause)", cause=error)


def _from_sqlstate(state: str, error: BaseException, operation: str) -> StoreError:
    if state == "23505":
        name = str(getattr(error, "constraint_name", None))
        return ConflictError(
            f"{operation}: {_conflicts().get(name, 'a row with this key exists')}", cause=error
        )
    if state == "23503":
        return NotFoundError(
            f"{operation}: a row that it refers to does not exist in the tenant", cause=error
        )
    if isinstance(error, asyncpg.InvalidCachedStatementError):
        # Prepared before a migration changed its table; asyncpg prepares it anew the next time.
        return TransientError(f"{operation}: the schema changed meanwhile", cause=error)
    if getattr(error, "server_source_function", None) == "DoCopy":
        # Unlike the text, this is the same in every language of the server.
        return ConfigurationError(
            f"{operation}: COPY is not for a role that the row-level-security policies bind: set "
            "SOLDIER_ROW_LEVEL_SECURITY=true, or grant the privilege that is lacking",
            cause=error,
        )
    for kind, meanings in _MEANINGS:
        if state in meanings:
            return kind(f"{operation}: {meanings[state]}", cause=error)
    if state.startswith("08"):
        return TransientError(f"{operation}: {_UNREACHABLE}", cause=error)
    if state.startswith(("22", "23", "54")):
        return ValidationError(
            f"{operation}: PostgreSQL cannot store a value (SQLSTATE {state})", cause=error
        )
    return StoreError(f"{operation}: PostgreSQL refused it (SQLSTATE {state}, see .cause)", cause=error)


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
