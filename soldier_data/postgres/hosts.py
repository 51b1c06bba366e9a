"""Parsing of the database URL: its hosts and parameters.

Parameters that asyncpg knows are passed to it. Other parameters of libpq, which asyncpg would send to the server as
settings, are translated, ignored where they request the default, or rejected by name.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from configparser import ConfigParser
from configparser import Error as ConfigParserError
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit, urlunsplit

from soldier_data.base.keepalive import Keepalive
from soldier_data.errors import ConfigurationError
from soldier_data.settings import Settings

_OF_THE_DRIVER = {
    *("user", "password", "passfile", "dbname", "database", "service", "krbsrvname", "gsslib"),
    *("sslmode", "sslcert", "sslkey", "sslrootcert", "sslcrl", "sslpassword", "sslnegotiation"),
    *("ssl_min_protocol_version", "ssl_max_protocol_version"),
}

_FILES = ("sslcert", "sslkey", "sslrootcert", "sslcrl")

_SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")

# Values that request what the driver does anyway.
_LEFT_OUT = {
    "channel_binding": ("disable", "prefer"),
    "client_encoding": ("auto", "utf8", "utf-8"),
    "gssdelegation": ("0",),
    "gssencmode": ("disable", "prefer"),
    "replication": ("0", "false", "no", "off"),
    "sslcertmode": ("allow",),
    "sslcompression": ("0", "1"),
    "sslsni": ("1",),
}

_REFUSED = {
    *("hostaddr", "max_protocol_version", "min_protocol_version", "require_auth", "requirepeer"),
    *("scram_client_key", "scram_server_key", "servicefile", "sslcrldir", "sslkeylogfile"),
    *("oauth_client_id", "oauth_client_secret", "oauth_issuer", "oauth_scope"),
}

STANDBY_KINDS = ("standby", "read-only", "prefer-standby")
"""Values of `target_session_attrs` for connections that do not write."""

_SESSION_KINDS = ("any", "primary", "read-write", *STANDBY_KINDS)

# An item of a comma-separated list: [address]:port or name:port.
_NAMED = re.compile(r"(?:\[(?P<address>[^\[\]]+)\]|(?P<name>[^:\[\]]*))(?::(?P<port>\d+))?")


class Host(NamedTuple):
    """The location of a server: a name, an address or the folder of a Unix socket. None means the driver's default."""

    name: str | None
    port: int | None


class Target(NamedTuple):
    """The contents of a database URL.

    Attributes:
        url: URL for the driver, with the user, the database and TLS options, but without hosts.
        hosts: Hosts to try, in this order.
        shuffled: Whether to try the hosts in random order instead.
        session_kind: Required kind of server, as in `target_session_attrs`.
        connect_timeout: Time-out for each host, in seconds.
        server_settings: Server settings of the connections.
        keepalive: TCP keep-alive options.
    """

    url: str
    hosts: list[Host]
    shuffled: bool
    session_kind: str
    connect_timeout: float
    server_settings: dict[str, str]
    keepalive: Keepalive


def read_target(settings: Settings) -> Target:
    """Parse the database URL of `settings`. Its parameters override the other settings.

    Raises:
        ConfigurationError: The URL is malformed, or a parameter is invalid.
    """
    parts = urlsplit(settings.database_url)._replace(scheme="postgresql")
    try:
        # Like the driver: the last value of a name wins, and empty values are ignored.
        given = dict(parse_qsl(parts.query, strict_parsing=True)) if parts.query else {}
    except ValueError:
        malformed = True
    else:
        malformed = False
    if malformed:
        raise _wrong("parameters must have the form name=value, separated by &")
    given, service = _checked(given), _service(given)
    login, at, authority = parts.netloc.rpartition("@")
    hosts = _hosts(authority, given, service)
    default_kind = "read-write" if len(hosts) > 1 else "any"
    kind = (
        given.pop("target_session_attrs", None)
        or service.get("target_session_attrs")
        or os.environ.get("PGTARGETSESSIONATTRS")
        or default_kind
    )
    _check_choice("target_session_attrs", kind, _SESSION_KINDS)
    balance = given.pop("load_balance_hosts", "disable")
    _check_choice("load_balance_hosts", balance, ("disable", "random"))
    keepalive = _keepalive(given, settings)
    timeout = _number(given, "connect_timeout", settings.connect_timeout.total_seconds())
    of_the_driver = {name: given.pop(name) for name in list(given) if name in _OF_THE_DRIVER}
    if (fallback := given.pop("fallback_application_name", None)) is not None:
        given.setdefault("application_name", fallback)
    return Target(
        url=urlunsplit(parts._replace(netloc=login + at, query=urlencode(of_the_driver))),
        hosts=hosts,
        shuffled=balance == "random",
        session_kind=kind,
        connect_timeout=timeout,
        server_settings=given,
        keepalive=keepalive,
    )


def _checked(given: dict[str, str]) -> dict[str, str]:
    """`given` without ignored parameters, and with SQLAlchemy's `ssl` renamed to `sslmode`."""
    for name in sorted(_REFUSED & given.keys()):
        raise _wrong(f"the parameter {name} is not supported: remove it")
    for name, allowed in _LEFT_OUT.items():
        _check_choice(name, given.get(name, allowed[0]).lower(), allowed)
    kept = {name: value for name, value in given.items() if name not in _LEFT_OUT}
    if "ssl" in kept:
        kept.setdefault("sslmode", kept.pop("ssl"))
    _check_choice("sslmode", kept.get("sslmode", "prefer"), _SSL_MODES)
    for name in _FILES:
        if name in kept and not Path(kept[name]).is_file():
            raise _wrong(f"the parameter {name} must be the path of an existing file")
    return kept


def _service(given: Mapping[str, str]) -> Mapping[str, str]:
    """The section of the connection service file that the URL names. asyncpg reads the other parameters itself."""
    if "service" not in given:
        return {}
    file = ConfigParser(interpolation=None)
    try:
        file.read(os.environ.get("PGSERVICEFILE") or Path("~/.pg_service.conf").expanduser())
    except (ConfigParserError, RuntimeError):
        return {}
    return dict(file[given["service"]]) if given["service"] in file else {}


def _hosts(authority: str, given: dict[str, str], service: Mapping[str, str]) -> list[Host]:
    parameter, ports = given.pop("host", ""), given.pop("port", "")
    names = unquote(authority) or parameter or service.get("host") or os.environ.get("PGHOST", "")
    ports = ports or service.get("port") or os.environ.get("PGPORT", "")
    hosts = [_host(name) for name in names.split(",")]
    if ports:
        numbers = [_port(number) for number in ports.split(",")]
        if len(numbers) not in (1, len(hosts)):
            raise _wrong(f"there are {len(numbers)} ports for {len(hosts)} hosts")
        if len(numbers) == 1:
            numbers *= len(hosts)
        hosts = [
            Host(host.name, number if host.port is None else host.port)
            for host, number in zip(hosts, numbers, strict=True)
        ]
    if len(hosts) > 1 and any(host.name is None for host in hosts):
        raise _wrong("a host in the list has no name")
    return hosts


def _host(text: str) -> Host:
    if text.startswith("/"):
        return Host(text, None)
    if "[" not in text and text.count(":") > 1:
        # An IPv6 address without brackets, hence without a port.
        return Host(text, None)
    found = _NAMED.fullmatch(text)
    if found is None:
        raise _wrong("a host must be a name, name:port, [IPv6 address]:port or the folder of a socket")
    port = found["port"]
    return Host(found["address"] or found["name"] or None, None if port is None else _port(port))


def _port(text: str) -> int:
    if not (text.isdecimal() and 0 < int(text) < 65536):
        raise _wrong("a port must be a number from 1 to 65535")
    return int(text)


def _keepalive(given: dict[str, str], settings: Settings) -> Keepalive:
    if given.pop("keepalives", "1") == "0":
        settings = settings.model_copy(update={"tcp_keepalive_idle": timedelta(0)})
    chosen = Keepalive.of(settings)
    return Keepalive(
        idle=_number(given, "keepalives_idle", chosen.idle),
        interval=_number(given, "keepalives_interval", chosen.interval),
        count=int(_number(given, "keepalives_count", chosen.count)),
        user_timeout=_number(given, "tcp_user_timeout", chosen.user_timeout * 1000) / 1000,
    )


def _number(given: dict[str, str], name: str, default: float) -> float:
    text = given.pop(name, "0")
    if not (text.isdecimal() and int(text) < 2**31):
        raise _wrong(f"the parameter {name} must be a whole number")
    # In libpq, 0 means the default.
    return int(text) or default


def _check_choice(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise _wrong(f"the parameter {name} must be {' or '.join(allowed)}, or be omitted")


def _wrong(what: str) -> ConfigurationError:
    return ConfigurationError(f"SOLDIER_DATABASE_URL is malformed or cannot be used: {what}")
