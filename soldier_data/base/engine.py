"""The SQLAlchemy engine: how connections are opened and pooled."""

from __future__ import annotations

import struct
import sys
from array import array
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import asyncpg
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from soldier_data.settings import Settings

# More than the package has statements, so that none is ever prepared twice on a connection.
_STATEMENTS_KEPT_PREPARED = 1_000

# JSON that the server builds spells moments in the session's time zone, and old ones have offsets with seconds in many
# zones, which readers of JSON refuse.
_TIME_ZONE = {"timezone": "UTC"}
# What a role or a database may have set, and answers hang on: with fewer digits JSON rounds numbers, with a limit the
# indexes of words find some of the rows, and quoted names are not read back from the catalogue. PgBouncer refuses
# connections that set these.
_ANSWERS = {"extra_float_digits": "1", "gin_fuzzy_search_limit": "0", "quote_all_identifiers": "off"}


def create_engine(settings: Settings) -> AsyncEngine:
    """An engine with the pool that `settings` describe. Nothing is connected before the first use."""

    async def connect() -> Any:
        return await open_connection(settings)

    arguments: dict[str, Any] = {"async_creator_fn": connect}
    if settings.pgbouncer:
        # SQLAlchemy itself runs a few statements on the first connection. Servers behind PgBouncer keep the
        # names of prepared statements from one client to the next.
        arguments |= {
            "prepared_statement_cache_size": 0,
            "prepared_statement_name_func": lambda: f"soldier_{uuid4().hex}",
        }
    return create_async_engine(
        "postgresql+asyncpg://",
        connect_args=arguments,
        pool_size=settings.pool_size,
        max_overflow=settings.pool_overflow,
        pool_timeout=settings.pool_timeout.total_seconds(),
        pool_recycle=settings.pool_recycle.total_seconds(),
        # The connection returned last has its statements prepared and its caches warm.
        pool_use_lifo=True,
        # `Database` hands no connection back that is inside a transaction.
        pool_reset_on_return=None,
        # Documents stay text: Pydantic parses them, three times as fast as SQLAlchemy's json.loads().
        json_deserializer=str,
    )


async def open_connection(settings: Settings) -> Any:
    """Open one asyncpg connection that reads and writes vectors in binary.

    The URL is handed to asyncpg as it is: it knows libpq's parameters (sslmode, several hosts, ...).
    """
    try:
        connection = await asyncpg.connect(
            driver_url(settings.database_url),
            timeout=settings.connect_timeout.total_seconds(),
            command_timeout=settings.command_timeout.total_seconds(),
            statement_cache_size=0 if settings.pgbouncer else _STATEMENTS_KEPT_PREPARED,
            max_cached_statement_lifetime=0,
            # However long they are: saving a profile with all its parts is one long statement.
            max_cacheable_statement_size=0,
            server_settings=_TIME_ZONE if settings.pgbouncer else _TIME_ZONE | _ANSWERS,
        )
    except ValueError as error:
        # Some faults of a URL asyncpg finds by int() and the like.
        raise asyncpg.ClientConfigurationError("the URL is malformed") from error
    try:
        if settings.pgbouncer:
            # A transaction keeps the messages of a statement on one server.
            async with connection.transaction():
                await _register_vector(connection, settings.extensions_schema)
        else:
            await _register_vector(connection, settings.extensions_schema)
    except BaseException:
        connection.terminate()
        raise
    return connection


def driver_url(url: str) -> str:
    """`url` with the scheme that asyncpg and libpq take: postgresql://."""
    return urlunsplit(urlsplit(url)._replace(scheme="postgresql"))


async def _register_vector(connection: Any, schema: str) -> None:
    exists = (
        "SELECT EXISTS (SELECT FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace "
        "WHERE t.typname = 'vector' AND n.nspname = $1)"
    )
    if not await connection.fetchval(exists, schema):
        # Not migrated yet. Statements that need the type will say so, and their connection is not kept.
        return
    await connection.set_type_codec(
        "vector", schema=schema, encoder=_encode_vector, decoder=_decode_vector, format="binary"
    )


# pgvector's binary form: the count and a zero as two-byte integers, then the numbers as float32, big-endian. `struct`
# writes it straight from a list, `array` reads it into one, both faster than by way of pgvector.Vector.


@lru_cache(maxsize=16)
def _layout(dimensions: int) -> struct.Struct:
    return struct.Struct(f">HH{dimensions}f")


def _encode_vector(value: list[float]) -> bytes:
    return _layout(len(value)).pack(len(value), 0, *value)


def _decode_vector(value: bytes) -> list[float]:
    numbers = array("f", value[4:])
    if sys.byteorder == "little":
        numbers.byteswap()
    return numbers.tolist()
