"""Settings: where they come from, and how a wrong one is reported."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import ValidationError as PydanticValidationError
from structlog.testing import capture_logs

from soldier_data.errors import ConfigurationError, StoreError
from soldier_data.settings import Settings

CANARY = "canary-8QX"


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Neither the variables nor the .env file of whoever runs the tests."""
    for name in list(os.environ):
        if name.startswith("SOLDIER_") or name in ("DATABASE_URL", "REDIS_URL"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def test_the_defaults_are_those_of_the_design() -> None:
    settings = Settings()
    assert (settings.pool_size, settings.pool_overflow) == (20, 10)
    assert settings.command_timeout == timedelta(seconds=60)
    assert settings.embedding_dimensions == 1536
    assert (settings.config_backend, settings.session_backend) == ("postgres", "redis")
    assert settings.session_hot_ttl == timedelta(minutes=30)
    assert settings.session_persist_ttl == settings.session_max_age == timedelta(days=7)


def test_every_setting_is_read_from_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOLDIER_POOL_SIZE", "7")
    monkeypatch.setenv("SOLDIER_PGBOUNCER", "true")
    monkeypatch.setenv("soldier_config_backend", "inmemory")
    settings = Settings()
    assert (settings.pool_size, settings.pgbouncer, settings.config_backend) == (7, True, "inmemory")


@pytest.mark.parametrize(("name", "field"), [("DATABASE_URL", "database_url"), ("REDIS_URL", "redis_url")])
def test_the_urls_have_a_second_variable_that_yields_to_the_first(
    monkeypatch: pytest.MonkeyPatch, name: str, field: str
) -> None:
    scheme = "postgres" if name == "DATABASE_URL" else "rediss"
    monkeypatch.setenv(name, f"{scheme}://second/1")
    assert getattr(Settings(), field) == f"{scheme}://second/1"
    monkeypatch.setenv(f"SOLDIER_{name}", f"{scheme}://first/1")
    assert getattr(Settings(), field) == f"{scheme}://first/1"


def test_settings_are_read_from_an_env_file(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("SOLDIER_EMBEDDING_DIMENSIONS=4\nREDIS_URL=redis://file/0\nOTHER=x\n")
    settings = Settings()
    assert (settings.embedding_dimensions, settings.redis_url) == (4, "redis://file/0")


@pytest.mark.parametrize(
    ("text", "duration"),
    [
        ("1800", timedelta(minutes=30)),
        ("0.4", timedelta(seconds=0.4)),
        ("PT30M", timedelta(minutes=30)),
        ("P7D", timedelta(days=7)),
        ("00:00:01.5", timedelta(seconds=1.5)),
    ],
)
def test_durations_are_seconds_or_iso_8601(
    monkeypatch: pytest.MonkeyPatch, text: str, duration: timedelta
) -> None:
    monkeypatch.setenv("SOLDIER_POOL_TIMEOUT", text)
    assert Settings().pool_timeout == duration
    assert Settings(pool_timeout=duration).pool_timeout == duration


WRONG = {
    "SOLDIER_DATABASE_URL": [
        "",
        CANARY,
        f"mysql://u:{CANARY}@h/d",
        f"postgresql+psycopg://{CANARY}",
        "http://[",
    ],
    "DATABASE_URL": [f"sqlite:///{CANARY}"],
    "SOLDIER_DATABASE_SCHEMA": ["", CANARY, "Soldier", "pg_soldier", "1st", "a.b", 'a"b', "a" * 64],
    "SOLDIER_EXTENSIONS_SCHEMA": ["", CANARY],
    "SOLDIER_VERSION_TABLE": ["", CANARY, "pg_version", "a.b", "a" * 60],
    "SOLDIER_REDIS_URL": [f"http://{CANARY}", CANARY],
    "REDIS_URL": [CANARY],
    "SOLDIER_CONFIG_BACKEND": [CANARY, "redis"],
    "SOLDIER_SESSION_BACKEND": [CANARY, "postgres"],
    "SOLDIER_POOL_SIZE": ["0", "-1", CANARY, "1.5", ""],
    "SOLDIER_POOL_OVERFLOW": ["-1"],
    "SOLDIER_POOL_TIMEOUT": [CANARY, "0", "-1", "nan", "inf", "-inf", "1e300", "P99999999999D"],
    "SOLDIER_CONNECT_TIMEOUT": ["0"],
    "SOLDIER_COMMAND_TIMEOUT": ["0.0001"],
    "SOLDIER_RETRY_BUDGET": [CANARY, "inf"],
    "SOLDIER_PGBOUNCER": [CANARY],
    "SOLDIER_ROW_LEVEL_SECURITY": ["2"],
    "SOLDIER_EMBEDDING_DIMENSIONS": ["0", "16001", CANARY],
    "SOLDIER_EMBEDDING_MODEL": [""],
    "SOLDIER_VECTOR_INDEX": [CANARY, ""],
    "SOLDIER_REDIS_MAX_CONNECTIONS": ["0"],
    "SOLDIER_REDIS_TIMEOUT": ["0"],
    "SOLDIER_REDIS_WAIT_REPLICAS": ["-1", CANARY],
    "SOLDIER_REDIS_WAIT_TIMEOUT": ["0", CANARY],
    "SOLDIER_TCP_KEEPALIVE_IDLE": ["-1", CANARY],
    "SOLDIER_TCP_KEEPALIVE_INTERVAL": ["0"],
    "SOLDIER_TCP_KEEPALIVE_COUNT": ["0", "128"],
    "SOLDIER_TCP_USER_TIMEOUT": ["-1"],
    "SOLDIER_SESSION_HOT_TTL": ["0", "8640000"],
    "SOLDIER_SESSION_PERSIST_TTL": ["0", "1"],
    "SOLDIER_SESSION_MAX_AGE": ["0"],
    "SOLDIER_SESSION_KEY_PREFIX": ["", "a b", "a{b}"],
    "SOLDIER_LOG_LEVEL": [CANARY],
    "SOLDIER_LOG_FORMAT": [CANARY],
}


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in WRONG.items() for value in values]
)
def test_a_wrong_setting_is_one_line_that_names_the_variable_and_not_the_value(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError) as refused:
        Settings()
    message = str(refused.value)
    assert len(message.splitlines()) == 1
    assert name in message
    assert CANARY not in message
    assert refused.value.__cause__ is None
    assert refused.value.__context__ is None
    assert refused.value.cause is None


def test_each_wrong_setting_has_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SOLDIER_POOL_SIZE", "SOLDIER_LOG_LEVEL", "DATABASE_URL"):
        monkeypatch.setenv(name, CANARY)
    with pytest.raises(ConfigurationError) as refused:
        Settings()
    lines = str(refused.value).splitlines()
    assert len(lines) == 3
    assert {line.split(":")[0] for line in lines} == {
        "SOLDIER_POOL_SIZE",
        "SOLDIER_LOG_LEVEL",
        "SOLDIER_DATABASE_URL (or DATABASE_URL)",
    }


def test_a_wrong_argument_is_reported_alike() -> None:
    with pytest.raises(StoreError, match="SOLDIER_POOL_SIZE"):
        Settings(pool_size=0)


def test_settings_are_frozen_and_do_not_show_the_urls() -> None:
    settings = Settings(database_url=f"postgresql://u:{CANARY}@h/d", redis_url=f"redis://:{CANARY}@h/0")
    assert CANARY not in repr(settings)
    assert CANARY not in str(settings)
    settings = Settings(redis_password=CANARY, redis_sentinel_password=CANARY)
    assert CANARY not in repr(settings)
    with pytest.raises(PydanticValidationError):
        settings.pool_size = 3  # type: ignore[misc]


def test_an_unknown_argument_is_refused() -> None:
    with pytest.raises(ConfigurationError) as refused:
        Settings(pool_sizee=3, nothing_like_it=CANARY)
    assert str(refused.value).splitlines() == [
        "pool_sizee: there is no such setting: did you mean pool_size?",
        "nothing_like_it: there is no such setting: remove it",
    ]


def test_the_names_of_variables_are_known_as_arguments() -> None:
    settings = Settings(SOLDIER_REDIS_URL="redis://a/0", DATABASE_URL="postgresql://b/c", _env_file=None)
    assert (settings.redis_url, settings.database_url) == ("redis://a/0", "postgresql://b/c")


def test_an_unknown_variable_is_warned_of_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("soldier_data.setting_names._logged", set())
    monkeypatch.setenv("SOLDIER_POOLSIZE", CANARY)
    monkeypatch.setenv("SOLDIER_NOTHING_LIKE_IT", CANARY)
    monkeypatch.setenv("SOLDIER_TEST_DATABASE_URL", CANARY)
    (tmp_path / ".env").write_text(f"SOLDIER_LOGLEVEL={CANARY}\nOTHER={CANARY}\n")
    with capture_logs() as told:
        Settings()
        Settings()
    assert sorted((line["variable"], line["did_you_mean"]) for line in told) == [
        ("SOLDIER_LOGLEVEL", "SOLDIER_LOG_LEVEL"),
        ("SOLDIER_NOTHING_LIKE_IT", None),
        ("SOLDIER_POOLSIZE", "SOLDIER_POOL_SIZE"),
    ]
    assert {line["log_level"] for line in told} == {"warning"}
    assert CANARY not in repr(told)


@pytest.mark.parametrize("content", [f"SOLDIER_X={CANARY} \xe4".encode("latin-1"), CANARY.encode("utf-16")])
def test_an_env_file_that_is_not_text_in_utf_8_is_named_and_not_shown(tmp_path: Path, content: bytes) -> None:
    (tmp_path / ".env").write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"^\.env is not UTF-8 text: save it") as refused:
        Settings()
    assert CANARY not in repr(refused.value)
    assert refused.value.__cause__ is None
    assert refused.value.__context__ is None
    assert refused.value.cause is None


def test_an_env_file_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("SOLDIER_POOL_SIZE=7\n", encoding="utf-8-sig")
    assert Settings().pool_size == 7


def test_a_password_is_a_string_or_a_callable() -> None:
    assert Settings(redis_password=CANARY).redis_password == CANARY
    assert Settings(redis_password=token).redis_password is token
    for name in ("redis_password", "redis_sentinel_password"):
        with pytest.raises(ConfigurationError) as refused:
            Settings(**{name: CANARY.encode()})
        assert (
            str(refused.value) == f"SOLDIER_{name.upper()}: must be a string or a function that returns one"
        )


def token() -> str:
    return CANARY


def test_waiting_for_replicas_must_leave_time_to_answer() -> None:
    with pytest.raises(ConfigurationError, match="shorter than SOLDIER_REDIS_TIMEOUT"):
        Settings(redis_wait_replicas=1, redis_wait_timeout=5, redis_timeout=5)
