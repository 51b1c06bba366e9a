"""The database URL: the hosts that it names, and what its parameters mean.

The driver's own parameters go on to it as they are. Those of libpq that the driver would take for settings of the
server are translated, left out where nothing is lost by it, or refused by name.
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

# What asks for nothing that the driver does not do anyway.
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
"""What `target_session_attrs` may ask for where nothing is to be written."""

_SESSION_KINDS = ("any", "primary", "read-write", *STANDBY_KINDS)

# One of a comma-separated list: [address]:port or name:port.
_NAMED = re.compile(r"(?:\[(?P<address>[^\[\]]+)\]|(?P<name>[^:\[\]]*))(?::(?P<port>\d+))?")


class Host(NamedTuple):
    """Where a server may be: a name, an address or the folder of a Unix socket; None is for the driver's defaults."""

    name: str | None
    port: int | None


class Target(NamedTuple):
    """What a database URL says.

    Attributes:
        url: For the driver: the user, the database, TLS.
        hosts: Where to look for the server, in this order.
        shuffled: Whether in any order instead.
        session_kind: What the server has to be, in the words of `target_session_attrs`.
        connect_timeout: Limit for each host, in seconds.
        server_settings: Settings of the server for these connections.
        keepalive: When a connection that has gone silent is given up.
    """

    url: str
    hosts: list[Host]
    shuffled: bool
    session_kind: str
    connect_timeout: float
    server_settings: dict[str, str]
    keepalive: Keepalive


def read_target(settings: Settings) -> Target:
    """What the database URL of `settings` says; it wins over what the settings say.

    Raises:
        ConfigurationError: The URL is malformed, or a parameter cannot be what it is.
    """
    parts = urlsplit(settings.database_url)._replace(scheme="postgresql")
    try:
        # As the driver reads them: the last one of a name counts, and one without a value does not.
        given = dict(parse_qsl(parts.query, strict_parsing=True)) if parts.query else {}
    except ValueError:
        malformed = True
    else:
        malformed = False
    if malformed:
        raise _wrong("its parameters have to be name=value, joined by &")
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
    """`given` without what is left out, and with SQLAlchemy's name of `sslmode` replaced."""
    for name in sorted(_REFUSED & given.keys()):
        raise _wrong(f"the parameter {name} is not supported: leave it out")
    for name, allowed in _LEFT_OUT.items():
        _check_choice(name, given.get(name, allowed[0]).lower(), allowed)
    kept = {name: value for name, value in given.items() if name not in _LEFT_OUT}
    if "ssl" in kept:
        kept.setdefault("sslmode", kept.pop("ssl"))
    _check_choice("sslmode", kept.get("sslmode", "prefer"), _SSL_MODES)
    for name in _FILES:
        if name in kept and not Path(kept[name]).is_file():
            raise _wrong(f"the parameter {name} has to be the path of a file, and there is none")
    return kept


def _service(given: Mapping[str, str]) -> Mapping[str, str]:
    """The section of the connection service file that the URL names; the driver takes the rest of it from there."""
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
            raise _wrong(f"{len(numbers)} ports are given for {len(hosts)} hosts")
        if len(numbers) == 1:
            numbers *= len(hosts)
        hosts = [
            Host(host.name, number if host.port is None else host.port)
            for host, number in zip(hosts, numbers, strict=True)
        ]
    if len(hosts) > 1 and any(host.name is None for host in hosts):
        raise _wrong("a host of the list has no name")
    return hosts


def _host(text: str) -> Host:
    if text.startswith("/"):
        return Host(text, None)
    if "[" not in text and text.count(":") > 1:
        # An IPv6 address that needs no brackets, having no port.
        return Host(text, None)
    found = _NAMED.fullmatch(text)
    if found is None:
        raise _wrong("a host has to be a name, name:port, [IPv6 address]:port or the folder of a socket")
    port = found["port"]
    return Host(found["address"] or found["name"] or None, None if port is None else _port(port))


def _port(text: str) -> int:
    if not (text.isdecimal() and 0 < int(text) < 65536):
        raise _wrong("a port has to be a number from 1 to 65535")
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
        raise _wrong(f"the parameter {name} has to be a whole number")
    # To libpq 0 is its own default.
    return int(text) or default


def _check_choice(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise _wrong(f"the parameter {name} has to be {' or '.join(allowed)}, or be left out")


def _wrong(what: str) -> ConfigurationError:
    return ConfigurationError(f"SOLDIER_DATABASE_URL is malformed or cannot be used: {what}")
