"""Creating Redis clients from the settings: for one server, Sentinel or Cluster, depending on the URL."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from inspect import isawaitable
from typing import Any
from urllib.parse import SplitResult, urlsplit

from redis.asyncio import ConnectionPool, Redis, RedisCluster
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.connection import (
    AbstractConnection,
    SSLConnection,
    UnixDomainSocketConnection,
    parse_url,
)
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import MasterNotFoundError, Sentinel, SentinelConnectionPool
from redis.backoff import NoBackoff
from redis.credentials import CredentialProvider
from redis.exceptions import AuthenticationError, RedisClusterException, RedisError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.maint_notifications import MaintNotificationsConfig

from soldier_data.base.keepalive import Keepalive
from soldier_data.errors import ConfigurationError
from soldier_data.settings import Password, Settings

RedisClient = Redis | RedisCluster

_SENTINEL_PORT = 26379
_REDIS_PORT = 6379

_URL = "SOLDIER_REDIS_URL"


def create_redis_client(settings: Settings) -> RedisClient:
    """Create a client that owns its connections: `aclose` closes them.

    Raises:
        ConfigurationError: The URL is invalid.
    """
    parts = urlsplit(settings.redis_url)
    scheme, _, kind = parts.scheme.partition("+")
    try:
        if kind == "cluster":
            return _cluster_client(settings, parts, scheme)
        if kind == "sentinel":
            return _sentinel_client(settings, parts, scheme)
        options = _options(settings, settings.redis_url)
        if options.get("connection_class") is UnixDomainSocketConnection:
            del options["socket_keepalive"], options["socket_keepalive_options"]
        return Redis.from_pool(ConnectionPool(**options))
    except (RedisError, RedisClusterException, ValueError, TypeError) as error:
        cause = error
    # Raised outside the except block: the driver's message may contain the URL.
    raise ConfigurationError(f"{_URL} is invalid: check its format and its options", cause=cause)


def _cluster_client(settings: Settings, parts: SplitResult, scheme: str) -> RedisCluster:
    hosts = _hosts(parts, _REDIS_PORT)
    options = _options_without_host(settings, parts, scheme, parts.path.strip("/"))
    return RedisCluster(
        startup_nodes=[ClusterNode(host, port) for host, port in hosts],
        # If some slots have no primary, the sessions in the others stay available.
        require_full_coverage=False,
        **options,
    )


def _sentinel_client(settings: Settings, parts: SplitResult, scheme: str) -> Redis:
    hosts = _hosts(parts, _SENTINEL_PORT)
    service, _, database = parts.path.strip("/").partition("/")
    if not service:
        raise ConfigurationError(f"{_URL} has no service name: use redis+sentinel://host,host/service")
    options = _options_without_host(settings, parts, scheme, database)
    # A silent sentinel must leave enough time for asking the next one.
    timeout = settings.redis_timeout.total_seconds() / (len(hosts) + 1)
    sentinel_options = {
        **{name: value for name, value in options.items() if name.startswith(("ssl", "socket_"))},
        "socket_timeout": timeout,
        "socket_connect_timeout": timeout,
        "retry": Retry(NoBackoff(), retries=0),
        **_credentials(
            settings.redis_sentinel_username, settings.redis_sentinel_password, "redis_sentinel_password"
        ),
    }
    sentinels = _Sentinels(hosts, sentinel_kwargs=sentinel_options)  # type: ignore[no-untyped-call]
    return Redis.from_pool(_SentinelPool(service, sentinels, **options))  # type: ignore[no-untyped-call]


async def drop_idle_connections(client: RedisClient) -> None:
    """Close all connections that are not in use. New ones are opened on demand."""
    if isinstance(client, RedisCluster):
        for node in client.get_nodes():
            await drop_idle_connections_of(node)
    else:
        await _close(client.connection_pool._available_connections)  # noqa: SLF001 - there is no public method.


async def drop_idle_connections_of(node: ClusterNode) -> None:
    """Close all connections to a node of a cluster that are not in use."""
    # redis-py's own method waits for the server, which may be unreachable, and meanwhile others may take connections.
    await _close(node._free)  # noqa: SLF001 - as above.


async def close_connections_of(node: ClusterNode) -> None:
    """Close all connections to a node of a cluster."""
    await _close(node._connections)  # noqa: SLF001 - as above.


async def _close(connections: Iterable[AbstractConnection]) -> None:
    for connection in tuple(connections):
        await connection.disconnect(nowait=True)


class _Sentinels(Sentinel):
    """Sentinels that are asked until a majority has answered.

    redis-py trusts the first answer. A sentinel that does not know of a failover yet names the former primary, and if
    that one is back already, reads from it return old data.
    """

    async def discover_master(self, service_name: str) -> tuple[str, int]:
        queries = [asyncio.ensure_future(sentinel.sentinel_masters()) for sentinel in self.sentinels]
        known: list[tuple[int, str, int]] = []
        answers = 0
        failure: Exception | None = None
        try:
            for answer in asyncio.as_completed(queries):
                try:
                    masters: Any = await answer
                except (RedisConnectionError, RedisTimeoutError) as error:
                    failure = error
                    continue
                answers += 1
                state = masters.get(service_name)
                if state and self.check_master_state(state, service_name):
                    known.append((state["config-epoch"], state["ip"], state["port"]))
                if known and answers * 2 > len(queries):
                    break
        finally:
            for task in queries:
                task.cancel()
            await asyncio.gather(*queries, return_exceptions=True)
        if not known:
            raise MasterNotFoundError(f"No master found for {service_name!r} : {failure!r}")
        # Each failover has a higher epoch than the previous one.
        _, host, port = max(known)
        return host, port


class _SentinelPool(SentinelConnectionPool):
    """A pool that also closes its connections to the sentinels."""

    async def disconnect(self, inuse_connections: bool = True) -> None:
        if inuse_connections:
            await super().disconnect()
        else:
            # Called when the primary has changed, while other calls are using connections.
            await _close(self._available_connections)

    async def aclose(self) -> None:
        try:
            await super().aclose()
        finally:
            await self.sentinel_manager.aclose()


def _options(settings: Settings, url: str) -> dict[str, Any]:
    """Return the options of redis-py's connections; options in the URL take precedence."""
    given: dict[str, Any] = dict(parse_url(url))
    username, password = given.pop("username", None), given.pop("password", None)
    keepalive = Keepalive.of(settings)
    if settings.redis_password is not None:
        password = settings.redis_password
    return {
        "max_connections": settings.redis_max_connections,
        # `RedisRunner` limits the time of every command. A second limit would cost a fifth of a GET.
        "socket_timeout": None,
        "socket_connect_timeout": settings.redis_timeout.total_seconds(),
        "socket_keepalive": bool(keepalive.idle),
        "socket_keepalive_options": keepalive.options(),
        # One immediate retry on a new connection, for connections lost while idle; `RedisRunner` does the others.
        "retry": Retry(NoBackoff(), retries=1),
        # If enabled, the pool does not check connections for unread replies.
        "maint_notifications_config": MaintNotificationsConfig(enabled=False),
        **_credentials(username, password, "redis_password"),
        **given,
    }


def _options_without_host(
    settings: Settings, parts: SplitResult, scheme: str, database: str
) -> dict[str, Any]:
    """Return the options of a URL with several hosts."""
    credentials, at, hosts = parts.netloc.rpartition("@")
    # redis-py parses URLs with only one host.
    netloc = f"{credentials}{at}{hosts.split(',')[0]}"
    url = parts._replace(scheme=scheme, netloc=netloc, path=f"/{database}").geturl()
    options = _options(settings, url)
    for name in ("host", "port"):
        options.pop(name, None)
    if options.pop("connection_class", None) is SSLConnection:
        options["ssl"] = True
    return options


def _hosts(parts: SplitResult, default_port: int) -> list[tuple[str, int]]:
    hosts = []
    for address in parts.netloc.rpartition("@")[2].split(","):
        host = urlsplit(f"//{address}")
        if not host.hostname:
            raise ConfigurationError(f"{_URL} has an empty host: use redis+...://host:port,host:port")
        hosts.append((host.hostname, host.port or default_port))
    return hosts


class PasswordError(AuthenticationError):
    """A callable did not return a password.

    Attributes:
        setting: The setting that holds the callable.
        failure: The exception that it raised, or a TypeError if it did not return a string.
    """

    def __init__(self, setting: str, failure: Exception) -> None:
        super().__init__(f"{setting} failed")
        self.setting = setting
        self.failure = failure


class _CallableCredentials(CredentialProvider):
    """Credentials whose password comes from a callable, called each time a connection is opened."""

    def __init__(self, username: str | None, password: Any, setting: str) -> None:
        self._username = username
        self._password = password
        self._setting = setting

    async def get_credentials_async(self) -> tuple[str] | tuple[str, str]:
        try:
            password = self._password()
            if isawaitable(password):
                password = await password
            if not isinstance(password, str):
                raise TypeError(f"returned {type(password).__name__}, not str")  # noqa: TRY301 - handled alike.
        except Exception as error:  # noqa: BLE001 - the callable may raise anything.
            failure = error
        else:
            return (self._username, password) if self._username else (password,)
        raise PasswordError(self._setting, failure)


def _credentials(username: str | None, password: Password | None, setting: str) -> dict[str, Any]:
    if callable(password):
        return {"credential_provider": _CallableCredentials(username, password, setting)}
    return {"username": username, "password": password or None}
