"""The codec that sends and receives vectors in pgvector's binary format, as lists of floats."""

from __future__ import annotations

import sys
from array import array
from functools import partial
from typing import Any
from weakref import WeakSet

from pgvector import Vector
from sqlalchemy import Dialect, event
from sqlalchemy.ext.asyncio import AsyncEngine

from soldier_data.postgres.ddl import set_extensions_schema

_HAS_CODEC = "soldier_data.vector_codec"

_prepared: WeakSet[Dialect] = WeakSet()
"""The dialects of prepared engines. Each engine has its own."""

# The schema of the extension comes first; others may have a type of this name too.
_SCHEMAS = (
    "SELECT n.nspname FROM pg_catalog.pg_type t JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace "
    "LEFT JOIN pg_catalog.pg_extension e ON e.extname = 'vector' AND e.extnamespace = n.oid "
    "WHERE t.typname = 'vector' ORDER BY e.oid"
)


# The defaults, which a role or database may have changed: fewer digits would round numbers in JSON, and a limit would
# make searches for words find only some rows.
_EXACT = (
    "SELECT set_config('extra_float_digits', '1', false), set_config('gin_fuzzy_search_limit', '0', false)"
)


def prepare_engine(engine: AsyncEngine) -> AsyncEngine:
    """Register the vector codec on every connection that `engine` opens from now on.

    It also sets the parameters `extra_float_digits` and `gin_fuzzy_search_limit` to their defaults. The time zone and
    all other parameters of the session stay yours.

    An engine of your own needs it before a `DataLayer` uses its connections. Columns of pgvector's SQLAlchemy type
    `VECTOR` work with it too.

    Returns:
        The engine.
    """
    if engine.dialect not in _prepared:
        _prepared.add(engine.dialect)
        event.listen(engine.sync_engine, "connect", partial(_register, engine.dialect))
    return engine


def has_vector_codec(info: dict[str, Any]) -> bool:
    """Return True if a connection with this `info` was opened by a prepared engine."""
    return _HAS_CODEC in info


async def register_vector_codec(connection: Any) -> str | None:
    """Register the codec on an asyncpg connection; returns the schema of pgvector, or None without pgvector."""
    schemas: list[str] = [row["nspname"] for row in await connection.fetch(_SCHEMAS)]
    for schema in schemas:
        await connection.set_type_codec(
            "vector", schema=schema, encoder=encode_vector, decoder=decode_vector, format="binary"
        )
    return schemas[0] if schemas else None


def _register(dialect: Dialect, dbapi_connection: Any, record: Any) -> None:
    async def register(connection: Any) -> str | None:
        # In a transaction, PgBouncer sends all messages to one server.
        async with connection.transaction():
            await connection.execute(_EXACT)
            return await register_vector_codec(connection)

    if schema := dbapi_connection.run_async(register):
        record.info[_HAS_CODEC] = True
        set_extensions_schema(dialect, schema)


def encode_vector(value: Any) -> bytes:
    """The binary format of a vector: a list of floats, a NumPy array, a `pgvector.Vector`, its text, or that format."""
    if isinstance(value, bytes):
        # In arrays, because asyncpg takes lists of lists for matrices.
        return value
    if isinstance(value, str):
        # What pgvector's SQLAlchemy types bind.
        return Vector.from_text(value).to_binary()
    if isinstance(value, Vector) and not isinstance(value, list):
        return value.to_binary()
    return Vector(value).to_binary()


class _FloatList(list[float], Vector):
    """A list of floats that pgvector's SQLAlchemy types take for a vector."""

    def to_list(self) -> list[float]:
        return list(self)


def decode_vector(value: bytes) -> list[float]:
    """The elements of a vector in binary format."""
    # The number of dimensions and a zero as 16-bit integers, then float32 numbers, all big-endian. Half as long as
    # by way of Vector.from_binary.
    numbers = array("f", value[4:])
    if sys.byteorder == "little":
        numbers.byteswap()
    return _FloatList(numbers.tolist())
