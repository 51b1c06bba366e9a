"""The SQLAlchemy engine, and how it opens connections."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from functools import partial
from inspect import isawaitable
from itertools import product
from typing import Any
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import asyncpg
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from soldier_data.errors import ConfigurationError
from soldier_data.postgres.ddl import set_extensions_schema
from soldier_data.postgres.errors import TransientError, as_store_error
from soldier_data.postgres.hosts import Host, Target, read_target
from soldier_data.postgres.vector_codec import register_vector_codec
from soldier_data.settings import Settings

# More than the number of statements, so that none is prepared twice on a connection.
_STATEMENTS_KEPT_PREPARED = 1_000

# JSON that the server builds has datetimes in the session's time zone. In many zones, old ones have offsets with
# seconds, which JSON parsers reject.
_TIME_ZONE = {"timezone": "UTC"}
# Settings of a role or database that would change results: fewer digits round the numbers in JSON, a limit makes GIN
# indexes find only some rows, and quoted identifiers break the comparison with the catalogue. PgBouncer rejects
# connections that set these.
_ANSWERS = {"extra_float_digits": "1", "gin_fuzzy_search_limit": "0", "quote_all_identifiers": "off"}
_PROTOCOL_VIOLATION = "08P01"
# Unknown parameter, invalid value, fixed at server start, superusers only; and the code that PgBouncer uses.
_REFUSED_SETTING = {"42704", "22023", "55P02", "42501", _PROTOCOL_VIOLATION}


def create_engine(settings: Settings) -> AsyncEngine:
    """An engine configured by `settings`. It connects on first use."""
    arguments: dict[str, Any] = {"async_creator_fn": Connector(settings).open}
    if settings.pgbouncer:
        # For the statements that SQLAlchemy runs on the first connection: behind PgBouncer, names of prepared
        # statements outlive a client.
        arguments |= {
            "prepared_statement_cache_size": 0,
            "prepared_statement_name_func": lambda: f"soldier_{uuid4().hex}",
        }
    engine = create_async_engine(
        "postgresql+asyncpg://",
        connect_args=arguments,
        # `ConnectionPool` keeps the connections.
        poolclass=NullPool,
        # `Database` never returns a connection that is in a transaction.
        pool_reset_on_return=None,
    )
    set_extensions_schema(engine.dialect, settings.extensions_schema)
    return engine


class Connector:
    """Opens connections to the hosts of a database URL."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        # Hosts where the last attempt found no server, or none of the requested kind.
        self._failed: set[Host] = set()

    async def open(self) -> Any:
        """Open an asyncpg connection that has the vector codec.

        Hosts are tried in order, those that failed last time after the others, each with its own time-out.
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
                # An error is more informative than a time-out.
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
                # No limit: the statement that saves a profile with all its parts is long.
                max_cacheable_statement_size=0,
                server_settings=target.server_settings
                | (_TIME_ZONE if settings.pgbouncer else _TIME_ZONE | _ANSWERS),
            )
            try:
                target.keepalive.set_on(connection._transport.get_extra_info("socket"))  # noqa: SLF001 - asyncpg has no public access to the socket.
                if settings.pgbouncer:
                    # In a transaction, PgBouncer sends all messages of a statement to one server.
                    async with connection.transaction():
                        await register_vector_codec(connection)
                else:
                    await register_vector_codec(connection)
            except BaseException:
                connection.terminate()
                raise
        return connection


async def open_connection(settings: Settings) -> Any:
    """Open a connection as `Connector.open` does."""
    return await Connector(settings).open()


def driver_url(url: str) -> str:
    """`url` with the scheme that asyncpg and libpq accept: postgresql://."""
    return urlunsplit(urlsplit(url)._replace(scheme="postgresql"))


def _password(settings: Settings) -> str | Callable[[], Awaitable[str]] | None:
    """The password that overrides the URL. asyncpg calls a function for every connection."""
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
        raise ConfigurationError(f"database_password must return a str, not a {type(found).__name__}")
    raise TransientError(
        f"getting the database password: database_password raised {type(cause).__name__} (see .cause)",
        cause=cause,
    )


def _may_be_elsewhere(error: Exception) -> bool:
    """Whether another host may succeed."""
    return isinstance(error, TimeoutError) or isinstance(as_store_error(error, ""), TransientError)


async def _connect(target: Target, **arguments: Any) -> Any:
    """Connect to `target`.

    Raises:
        ConfigurationError: The server rejected a setting in the URL.
    """
    try:
        return await asyncpg.connect(target.url, timeout=None, **arguments)
    except asyncpg.PostgresError as error:
        if error.sqlstate not in _REFUSED_SETTING:
            raise
        cause = error
    # The message is localised; the names in it are not.
    known = [name for name in target.server_settings if name in str(cause)]
    if not known and cause.sqlstate == _PROTOCOL_VIOLATION:
        raise cause
    which = f"the parameter {known[0]}" if known else "a parameter"
    raise ConfigurationError(
        f"SOLDIER_DATABASE_URL: the server rejected {which} (SQLSTATE {cause.sqlstate}): remove or correct it",
        cause=cause,
    )
