"""Making Redis clients from the settings: one server, Sentinel or Cluster, as the URL says."""

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
    """A client for the servers of `settings`, which owns its connections: `aclose` closes them.

    Raises:
        ConfigurationError: The URL cannot be used.
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
    # Raised outside the except block: the driver's message may repeat the URL.
    raise ConfigurationError(f"{_URL} cannot be used: check its form and its options", cause=cause)


def _cluster_client(settings: Settings, parts: SplitResult, scheme: str) -> RedisCluster:
    hosts = _hosts(parts, _REDIS_PORT)
    options = _options(settings, _of_first_host(parts, scheme, parts.path.strip("/")))
    if options.pop("connection_class", None) is SSLConnection:
        options["ssl"] = True
    for name in ("host", "port"):
        options.pop(name, None)
    return RedisCluster(
        startup_nodes=[ClusterNode(host, port) for host, port in hosts],
        # While a part of the slots has no primary, the sessions in the others can be had.
        require_full_coverage=False,
        **options,
    )


def _sentinel_client(settings: Settings, parts: SplitResult, scheme: str) -> Redis:
    hosts = _hosts(parts, _SENTINEL_PORT)
    service, _, database = parts.path.strip("/").partition("/")
    if not service:
        raise ConfigurationError(f"{_URL} names no service: redis+sentinel://host,host/service")
    options = _options(settings, _of_first_host(parts, scheme, database))
    for name in ("host", "port"):
        options.pop(name, None)
    if options.pop("connection_class", None) is SSLConnection:
        options["ssl"] = True
    for_sentinels = {name: value for name, value in options.items() if name.startswith(("ssl", "socket_"))}
    # One that is silent must not take the time in which the next one could be asked.
    patience = settings.redis_timeout.total_seconds() / (len(hosts) + 1)
    for_sentinels |= {"socket_timeout": patience, "socket_connect_timeout": patience, "retry": _no_retry()}
    for_sentinels |= _credentials(
        settings.redis_sentinel_username, settings.redis_sentinel_password, "redis_sentinel_password"
    )
    sentinels = _Sentinels(hosts, sentinel_kwargs=for_sentinels)  # type: ignore[no-untyped-call]
    return Redis.from_pool(_SentinelPool(service, sentinels, **options))  # type: ignore[no-untyped-call]


async def drop_idle_connections(client: RedisClient) -> None:
    """Close every connection that nobody uses just now. What needs one opens it anew."""
    if isinstance(client, RedisCluster):
        for node in client.get_nodes():
            await drop_idle_connections_of(node)
    else:
        await _close(client.connection_pool._available_connections)  # noqa: SLF001 - as below.


async def drop_idle_connections_of(node: ClusterNode) -> None:
    """The same for one node of a cluster."""
    # redis-py's own method waits for the other side, which may be gone, and meanwhile lets others take them out.
    await _close(node._free)  # noqa: SLF001 - as said.


async def _close(connections: Iterable[AbstractConnection]) -> None:
    for connection in tuple(connections):
        await connection.disconnect(nowait=True)


class _Sentinels(Sentinel):
    """Sentinels of which most are asked.

    redis-py believes the first that answers. One that has not heard of a fail-over yet names the former primary, and
    if that is back already, what is read there is old.
    """

    async def discover_master(self, service_name: str) -> tuple[str, int]:
        asked = [asyncio.ensure_future(sentinel.sentinel_masters()) for sentinel in self.sentinels]
        known: list[tuple[int, str, int]] = []
        answers = 0
        failure: Exception | None = None
        try:
            for answer in asyncio.as_completed(asked):
                try:
                    masters: Any = await answer
                except (RedisConnectionError, RedisTimeoutError) as error:
                    failure = error
                    continue
                answers += 1
                state = masters.get(service_name)
                if state and self.check_master_state(state, service_name):
                    known.append((state["config-epoch"], state["ip"], state["port"]))
                if known and answers * 2 > len(asked):
                    break
        finally:
            for task in asked:
                task.cancel()
            await asyncio.gather(*asked, return_exceptions=True)
        if not known:
            raise MasterNotFoundError(f"No master found for {service_name!r} : {failure!r}")
        # Each fail-over has a higher epoch than the one before.
        _, host, port = max(known)
        return host, port


class _SentinelPool(SentinelConnectionPool):
    """A pool that closes its connections to the sentinels too."""

    async def disconnect(self, inuse_connections: bool = True) -> None:
        if inuse_connections:
            await super().disconnect()
        else:
            # Called when the primary has changed, in the midst of other calls.
            await _close(self._available_connections)

    async def aclose(self) -> None:
        try:
            await super().aclose()
        finally:
            await self.sentinel_manager.aclose()


def _options(settings: Settings, url: str) -> dict[str, Any]:
    """What redis-py's connections are made with; options in the URL win."""
    given: dict[str, Any] = dict(parse_url(url))
    username, password = given.pop("username", None), given.pop("password", None)
    keepalive = Keepalive.of(settings)
    if settings.redis_password is not None:
        password = settings.redis_password
    return {
        "max_connections": settings.redis_max_connections,
        # The deadline of `RedisRunner` bounds every command. Another one here costs a fifth of a GET.
        "socket_timeout": None,
        "socket_connect_timeout": settings.redis_timeout.total_seconds(),
        "socket_keepalive": bool(keepalive.idle),
        "socket_keepalive_options": keepalive.options(),
        # At once, on a new connection, in case this one was lost while it was idle. The rest does `RedisRunner`.
        "retry": Retry(NoBackoff(), retries=1),
        # With these the pool no longer checks that a connection holds no unread reply.
        "maint_notifications_config": MaintNotificationsConfig(enabled=False),
        **_credentials(username, password, "redis_password"),
        **given,
    }


def _no_retry() -> Retry:
    return Retry(NoBackoff(), retries=0)


def _hosts(parts: SplitResult, default_port: int) -> list[tuple[str, int]]:
    hosts = []
    for place in parts.netloc.rpartition("@")[2].split(","):
        one = urlsplit(f"//{place}")
        if not one.hostname:
            raise ConfigurationError(f"{_URL} lacks a host: redis+...://host:port,host:port")
        hosts.append((one.hostname, one.port or default_port))
    return hosts


def _of_first_host(parts: SplitResult, scheme: str, database: str) -> str:
    """The URL as redis-py understands it, for its options and credentials."""
    credentials, at, hosts = parts.netloc.rpartition("@")
    return parts._replace(
        scheme=scheme, netloc=f"{credentials}{at}{hosts.split(',')[0]}", path=f"/{database}"
    ).geturl()


class PasswordError(AuthenticationError):
    """A callable gave no password.

    Attributes:
        setting: The setting that it belongs to.
        failure: What it raised, or what is wrong with what it returned.
    """

    def __init__(self, setting: str, failure: Exception) -> None:
        super().__init__(f"{setting} failed")
        self.setting = setting
        self.failure = failure


class _AskedCredentials(CredentialProvider):
    """Asks for a password each time that a connection is opened."""

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
                raise TypeError(f"returned {type(password).__name__}, not str")  # noqa: TRY301 - told alike.
        except Exception as error:  # noqa: BLE001 - whatever the caller's function raises.
            failure = error
        else:
            return (self._username, password) if self._username else (password,)
        raise PasswordError(self._setting, failure)


def _credentials(username: str | None, password: Password | None, setting: str) -> dict[str, Any]:
    if callable(password):
        return {"credential_provider": _AskedCredentials(username, password, setting)}
    return {"username": username, "password": password or None}
