"""What a database URL says: hosts, and parameters as libpq has them."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from soldier_data.errors import ConfigurationError
from soldier_data.postgres.hosts import Host, Target, read_target
from soldier_data.settings import Settings

CANARY = "canary-8QX!"


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PGHOST", "PGPORT", "PGTARGETSESSIONATTRS", "PGSERVICEFILE"):
        monkeypatch.delenv(name, raising=False)


def read(rest: str, **values: object) -> Target:
    return read_target(Settings(database_url=f"postgresql://{rest}", **values))


@pytest.mark.parametrize(
    ("rest", "hosts"),
    [
        ("u:p@db.internal/x", [Host("db.internal", None)]),
        ("db.internal:6000/x", [Host("db.internal", 6000)]),
        ("a:1,b:2,c/x", [Host("a", 1), Host("b", 2), Host("c", None)]),
        ("a:1,b/x?port=7", [Host("a", 1), Host("b", 7)]),
        ("u@/x?host=a,b&port=1,2", [Host("a", 1), Host("b", 2)]),
        ("u@/x?host=a:1,/run/pg&port=2", [Host("a", 1), Host("/run/pg", 2)]),
        ("u@%2Frun%2Fpg/x", [Host("/run/pg", None)]),
        ("u@[::1]:6000,[fe80::1%25eth0]/x", [Host("::1", 6000), Host("fe80::1%eth0", None)]),
        ("u@/x?host=::1", [Host("::1", None)]),
        ("u@/x", [Host(None, None)]),
        ("/x?port=6000", [Host(None, 6000)]),
        ("u@:6000/x", [Host(None, 6000)]),
    ],
)
def test_hosts_are_read_as_libpq_reads_them(rest: str, hosts: list[Host]) -> None:
    assert read(rest).hosts == hosts


def test_hosts_come_from_the_environment_and_the_service_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PGHOST", "a,/run/pg")
    monkeypatch.setenv("PGPORT", "6000")
    assert read("u@/x").hosts == [Host("a", 6000), Host("/run/pg", 6000)]
    assert read("u@b/x").hosts == [Host("b", 6000)]
    file = tmp_path / "services"
    file.write_text("[tickets]\nhost=c,d\nport=1,2\ntarget_session_attrs=primary\nuser=clerk\n")
    monkeypatch.setenv("PGSERVICEFILE", str(file))
    target = read("/x?service=tickets")
    assert target.hosts == [Host("c", 1), Host("d", 2)]
    assert target.session_kind == "primary"
    assert "service=tickets" in target.url


def test_several_hosts_are_asked_for_one_that_takes_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    assert read("a/x").session_kind == "any"
    assert read("a,b/x").session_kind == "read-write"
    assert read("a,b/x?target_session_attrs=any").session_kind == "any"
    monkeypatch.setenv("PGTARGETSESSIONATTRS", "primary")
    assert read("a,b/x").session_kind == "primary"


def test_parameters_of_libpq_are_translated() -> None:
    target = read(
        "u:p@a,b/x?connect_timeout=7&keepalives=1&keepalives_idle=20&keepalives_interval=5&keepalives_count=4"
        "&tcp_user_timeout=1500&load_balance_hosts=random&fallback_application_name=desk&gssencmode=prefer"
        "&channel_binding=disable&sslmode=require&search_path=tickets&replication=false"
    )
    assert target.connect_timeout == 7
    assert target.shuffled
    assert target.server_settings == {"search_path": "tickets", "application_name": "desk"}
    assert target.url == "postgresql://u:p@/x?sslmode=require"
    keepalive = target.keepalive
    assert (keepalive.idle, keepalive.interval, keepalive.count, keepalive.user_timeout) == (20, 5, 4, 1.5)


def test_what_the_url_does_not_say_the_settings_say() -> None:
    target = read("a/x?connect_timeout=0&application_name=own&fallback_application_name=desk")
    assert target.connect_timeout == 3
    assert target.server_settings == {"application_name": "own"}
    keepalive = read(
        "a/x", tcp_keepalive_idle=timedelta(seconds=9), tcp_user_timeout=timedelta(0), connect_timeout=1
    ).keepalive
    assert (keepalive.idle, keepalive.interval, keepalive.count, keepalive.user_timeout) == (9, 10, 3, 0)
    assert read("a/x?keepalives=0").keepalive.idle == 0


def test_sqlalchemys_name_of_sslmode_is_understood() -> None:
    assert read("u@a/x?ssl=require").url == "postgresql://u@/x?sslmode=require"


@pytest.mark.parametrize(
    ("rest", "named"),
    [
        (f"u:{CANARY}@a/x?gssencmode=require", "gssencmode must be disable or prefer"),
        (f"u:{CANARY}@a/x?channel_binding=require", "channel_binding must be disable or prefer"),
        (f"u:{CANARY}@a/x?hostaddr=10.0.0.1", "hostaddr is not supported"),
        (f"u:{CANARY}@a/x?require_auth=none", "require_auth"),
        (f"u:{CANARY}@a/x?connect_timeout=soon", "connect_timeout must be a whole number"),
        (f"u:{CANARY}@a/x?keepalives_idle=-1", "keepalives_idle"),
        (f"u:{CANARY}@a/x?load_balance_hosts=always", "load_balance_hosts must be disable or random"),
        (f"u:{CANARY}@a/x?target_session_attrs=master", "target_session_attrs must be any or primary"),
        (f"u:{CANARY}@a/x?sslmode=on", "sslmode must be disable or"),
        (f"u:{CANARY}@a/x?ssl=true", "sslmode must be disable or"),
        (
            f"u:{CANARY}@a/x?sslrootcert=/{CANARY}/root.crt",
            "sslrootcert must be the path of an existing file",
        ),
        (f"u:{CANARY}@a/x?client_encoding=latin1", "client_encoding must be auto or utf8"),
        (f"u:{CANARY}@a/x?replication=database", "replication"),
        (f"u:{CANARY}@a/x?{CANARY}", "parameters must have the form name=value"),
        (f"u:{CANARY}@a:1,b:x/x", "a host must be"),
        (f"u:{CANARY}@a:70000/x", "a port must be a number"),
        (f"u:{CANARY}@a,b,c/x?port=1,2", "there are 2 ports for 3 hosts"),
        (f"u:{CANARY}@a,,c/x", "a host in the list has no name"),
    ],
)
def test_what_cannot_be_is_named(rest: str, named: str) -> None:
    with pytest.raises(ConfigurationError, match=f"SOLDIER_DATABASE_URL.*{named}") as refused:
        read(rest)
    assert CANARY not in str(refused.value)
    assert refused.value.__context__ is None
