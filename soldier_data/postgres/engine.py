"""The SQLAlchemy engine: how connections are opened and pooled."""

from __future__ import annotations

import asyncio
import random
import struct
import sys
from array import array
from collections.abc import Awaitable, Callable
from functools import lru_cache, partial
from inspect import isawaitable
from itertools import product
from typing import Any
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import asyncpg
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from soldier_data.errors import ConfigurationError
from soldier_data.postgres.errors import TransientError, as_store_error
from soldier_data.postgres.hosts import Host, Target, read_target
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
_PROTOCOL_VIOLATION = "08P01"
# No such parameter, not a value of it, only to be set at the server's start, only by a superuser; and PgBouncer's.
_REFUSED_SETTING = {"42704", "22023", "55P02", "42501", _PROTOCOL_VIOLATION}


def create_engine(settings: Settings) -> AsyncEngine:
    """An engine that opens connections as `settings` say. Nothing is connected before the first use."""
    arguments: dict[str, Any] = {"async_creator_fn": Connector(settings).open}
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
        # `ConnectionPool` keeps to the limit, and hands none back that is open: two pools would keep twice as many.
        max_overflow=-1,
        # `Database` hands no connection back that is inside a transaction.
        pool_reset_on_return=None,
        # Documents stay text: Pydantic parses them, three times as fast as SQLAlchemy's json.loads().
        json_deserializer=str,
    )


class Connector:
    """Opens connections to the server of a database URL, whichever of its hosts that is at."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        # Hosts at which the last try found no server, or not one of the kind that is wanted.
        self._failed: set[Host] = set()

    async def open(self) -> Any:
        """Open one asyncpg connection that reads and writes vectors in binary.

        Hosts are tried one after the other, those that failed the last time after the others.
        """
        target = read_target(self._settings)
        hosts = random.sample(target.hosts, len(target.hosts)) if target.shuffled else target.hosts
        hosts = sorted(hosts, key=self._failed.__contains__)
        kinds = ("standby", "any") if target.session_kind == "prefer-standby" else (target.session_kind,)
        failure: Exception | None = None
        for kind, host in product(kinds, hosts):
            try:
                connection = await self._open_at(host, kind, target)
            except Exception as error:
                if not _may_be_elsewhere(error):
                    raise
                self._failed.add(host)
                # One host's silence says less than what another one answered.
                if failure is None or isinstance(failure, TimeoutError):
                    failure = error
            else:
                self._failed.discard(host)
                return connection
        assert failure is not None, "there is a host"
        raise failure

    async def _open_at(self, host: Host, kind: str, target: Target) -> Any:
        settings = self._settings
        async with asyncio.timeout(target.connect_timeout):
            connection = await _connect(
                target,
                host=host.name,
                port=host.port,
                target_session_attrs=kind,
                password=_password(settings),
                command_timeout=settings.command_timeout.total_seconds(),
                statement_cache_size=0 if settings.pgbouncer else _STATEMENTS_KEPT_PREPARED,
                max_cached_statement_lifetime=0,
                # However long they are: saving a profile with all its parts is one long statement.
                max_cacheable_statement_size=0,
                server_settings=target.server_settings
                | (_TIME_ZONE if settings.pgbouncer else _TIME_ZONE | _ANSWERS),
            )
            try:
                target.keepalive.set_on(connection._transport.get_extra_info("socket"))  # noqa: SLF001 - there is no other way to it.
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


async def open_connection(settings: Settings) -> Any:
    """Open one connection, as `Connector.open` does."""
    return await Connector(settings).open()


def driver_url(url: str) -> str:
    """`url` with the scheme that asyncpg and libpq take: postgresql://."""
    return urlunsplit(urlsplit(url)._replace(scheme="postgresql"))


def _password(settings: Settings) -> str | Callable[[], Awaitable[str]] | None:
    """The password that replaces the URL's; the driver calls a function each time that it connects."""
    password = settings.database_password
    return password if password is None or isinstance(password, str) else partial(_ask, password)


async def _ask(for_password: Callable[[], str | Awaitable[str]]) -> str:
    try:
        answer = for_password()
        found = await answer if isawaitable(answer) else answer
    except Exception as error:  # noqa: BLE001 - whatever the function raises.
        cause = error
    else:
        if isinstance(found, str):
            return found
        raise ConfigurationError(f"database_password has to return a str, not a {type(found).__name__}")
    raise TransientError(
        f"asking for the database password failed: database_password raised {type(cause).__name__} (see .cause)",
        cause=cause,
    )


def _may_be_elsewhere(error: Exception) -> bool:
    """Whether the next host may do what this one did not."""
    return isinstance(error, TimeoutError) or isinstance(as_store_error(error, ""), TransientError)


async def _connect(target: Target, **arguments: Any) -> Any:
    """Connect as `target` says.

    Raises:
        ConfigurationError: The server refused a setting that the URL gives it.
    """
    try:
        return await asyncpg.connect(target.url, timeout=None, **arguments)
    except asyncpg.PostgresError as error:
        if error.sqlstate not in _REFUSED_SETTING:
            raise
        cause = error
    # The text is in the server's language; names in it are not. PgBouncer's has no quotes.
    known = [name for name in target.server_settings if name in str(cause)]
    if not known and cause.sqlstate == _PROTOCOL_VIOLATION:
        raise cause
    which = f"the parameter {known[0]}" if known else "a parameter"
    raise ConfigurationError(
        f"SOLDIER_DATABASE_URL: the server refused {which} (SQLSTATE {cause.sqlstate}): leave it out, or correct it",
        cause=cause,
    )


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
