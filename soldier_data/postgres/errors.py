"""Translation of driver errors into `StoreError`s, whose messages contain no values and no secrets."""

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
"""SQLSTATE of a write to a read-only server: a standby, or a former primary."""

_TRANSIENT = {
    "25P03": "the server ended a transaction that was idle for longer than idle_in_transaction_session_timeout: do "
    "slow work before the unit of work",
    READ_ONLY: "the server is read-only: it is a standby, or became one after a failover",
    "40001": "the transaction conflicted with a concurrent one",
    "40P01": "the transaction was rolled back to resolve a deadlock",
    "53200": "the server is out of memory: lower SOLDIER_POOL_SIZE or work_mem, or add memory",
    "53300": "the server has no connection left: raise max_connections or lower SOLDIER_POOL_SIZE",
    "55P03": "timed out waiting for a lock (lock_timeout)",
    "57P01": "the server is shutting down",
    "57P02": "the server crashed",
    "57P03": "the server is starting up",
    "57P05": "the server closed a connection that was idle for longer than idle_session_timeout: set a shorter "
    "SOLDIER_POOL_RECYCLE",
}

# Errors that persist until somebody intervenes.
_REFUSED = {
    "25P04": "the transaction took longer than transaction_timeout: do less in one transaction, or raise the limit",
    "28P01": "the server rejected the user name or password: check SOLDIER_DATABASE_URL",
    "28000": "the server rejected this user or host: check SOLDIER_DATABASE_URL and pg_hba.conf",
    "3D000": "the database does not exist: check the name in SOLDIER_DATABASE_URL",
    "53000": "the server lacks a resource: see its log",
    "53100": "the server's disk is full: free some space",
    "53400": "a limit of the server was exceeded, such as temp_file_limit: raise it, or request less data",
    "57014": "the statement was cancelled or took longer than statement_timeout",
    "57P04": "the database was dropped: check the name in SOLDIER_DATABASE_URL",
    "58000": "the server had an internal error: see its log",
    "58030": "the server cannot read or write its files: see its log",
}

_MISCONFIGURED = {
    # PgBouncer sends a statement to a server where it is not prepared, or where another has its name.
    **dict.fromkeys(
        ("26000", "42P05"),
        "a prepared statement does not exist, as happens behind PgBouncer: set SOLDIER_PGBOUNCER=true",
    ),
    **dict.fromkeys(
        ("3F000", "42P01", "42703", "42704", "42883"),
        "the database is not migrated to this version of soldier_data: run `soldier-data db upgrade`, "
        "or set SOLDIER_DATABASE_SCHEMA and SOLDIER_EXTENSIONS_SCHEMA to the schemas in use",
    ),
    "42501": "the database role lacks a privilege: grant it, or set SOLDIER_ROW_LEVEL_SECURITY=true for a role that is "
    "subject to the row-level-security policies",
    "0A000": "the server does not support this statement (see .cause): docs/operations.md lists the supported "
    "versions; in a distributed PostgreSQL, every table must be distributed by tenant_id",
}

_DAMAGED = dict.fromkeys(("XX001", "XX002"), "the database is corrupted: see the server's log")

_UNREACHABLE = (
    "the server could not be reached or the connection was lost: check SOLDIER_DATABASE_URL and the server"
)


_DRIVER_ERRORS = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError)


class TransientError(StoreConnectionError):
    """An error that a retry may resolve: a lost connection, a serialization failure, a deadlock."""


_MEANINGS: tuple[tuple[type[StoreError], dict[str, str]], ...] = (
    (TransientError, _TRANSIENT),
    (StoreConnectionError, _REFUSED),
    (ConfigurationError, _MISCONFIGURED),
    (StoreError, _DAMAGED),
)


def as_store_error(error: BaseException, operation: str) -> StoreError:
    """Translate an error that asyncpg, SQLAlchemy's pool or the operating system raised during `operation`."""
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
            f"{operation}: no host of SOLDIER_DATABASE_URL matches target_session_attrs (with several hosts, "
            "read-write by default)",
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
        return NotFoundError(f"{operation}: a referenced row does not exist in the tenant", cause=error)
    if isinstance(error, asyncpg.InvalidCachedStatementError):
        # Prepared before a migration changed a table; asyncpg prepares it again next time.
        return TransientError(f"{operation}: the schema changed concurrently", cause=error)
    if getattr(error, "server_source_function", None) == "DoCopy":
        # Unlike the message, the function's name is not localised.
        return ConfigurationError(
            f"{operation}: the database role cannot use COPY, because it lacks a privilege or is subject to "
            "row-level-security policies: grant the privilege, or set SOLDIER_ROW_LEVEL_SECURITY=true",
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
    return StoreError(
        f"{operation}: PostgreSQL reported an error (SQLSTATE {state}, see .cause)", cause=error
    )


@cache
def _conflicts() -> dict[str, str]:
    """Messages for violations of unique indexes by name, from `info["conflict"]` in the ORM classes."""
    found: dict[str, str] = {}
    for table in Base.metadata.tables.values():
        unique: list[Any] = [index for index in table.indexes if index.unique]
        unique += [constraint for constraint in table.constraints if isinstance(constraint, UniqueConstraint)]
        for item in unique:
            assert isinstance(item, Index | UniqueConstraint)
            if "conflict" in item.info:
                found[str(item.name)] = item.info["conflict"]
    return found
