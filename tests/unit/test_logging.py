"""Logging: what is hidden, and who may configure it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from soldier_data.logging import REDACTED, configure_logging, redact, redact_url
from soldier_data.settings import Settings

CANARY = "canary-8QX"


@pytest.fixture(autouse=True)
def configured_anew() -> Iterator[None]:
    """Logging as in a program that has not configured it; the next data layer configures it again."""
    structlog.reset_defaults()
    yield
    structlog.reset_defaults()


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://user:{CANARY}@host:5432/db",
        f"redis://:{CANARY}@host/0",
        f"postgresql+asyncpg://user:{CANARY}/with/slashes@host/db",
        f"postgresql://user:{CANARY}@with@ats@host/db",
        f"postgresql://user:a:b:{CANARY}@host/db",
        f"postgresql://host/db?user=u&password={CANARY}&sslmode=require",
        f"cannot connect to rediss://:{CANARY}@host, giving up",
    ],
)
def test_passwords_in_urls_are_hidden(url: str) -> None:
    assert CANARY not in redact_url(url)
    assert REDACTED in redact_url(url)
    assert "host" in redact_url(url)


@pytest.mark.parametrize(
    "text", ["postgresql://user@host/db", "redis://host:6379/0", "12:30 to me@example.org", "a://b:80/c"]
)
def test_text_without_a_password_is_left_alone(text: str) -> None:
    assert redact_url(text) == text


@pytest.mark.parametrize(
    "key", ["password", "db_password", "PASSWD", "api_key", "apikey", "Authorization", "auth_token", "secret"]
)
def test_values_of_secret_looking_keys_are_hidden(key: str) -> None:
    event: dict[str, Any] = {key: CANARY, "nested": {key: CANARY, "list": [{key: CANARY}]}, "event": "e"}
    cleaned = redact(None, "info", event)
    assert CANARY not in repr(cleaned)
    assert cleaned["event"] == "e"


def test_counts_of_tokens_are_no_secrets() -> None:
    assert redact(None, "info", {"prompt_tokens": 5, "tokens_used": 7}) == {
        "prompt_tokens": 5,
        "tokens_used": 7,
    }


def test_urls_inside_lists_tuples_and_exceptions_are_cleaned() -> None:
    url = f"redis://:{CANARY}@h/0"
    event = {"list": [url], "tuple": (1, url), "dict": {"a": url}, "error": OSError(url), "number": 1}
    cleaned = redact(None, "info", event)
    assert CANARY not in repr(cleaned)
    assert cleaned["number"] == 1


@pytest.mark.parametrize("log_format", ["console", "json"])
def test_no_traceback_shows_a_secret(log_format: str, capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(Settings(log_format=log_format))
    url = f"postgresql://user:{CANARY}@host/db"

    def fail() -> None:
        raise OSError(f"cannot reach {url}")

    try:
        fail()
    except OSError:
        structlog.get_logger().exception("failed", url=url)
    shown = capsys.readouterr().err
    assert "cannot reach" in shown
    assert CANARY not in shown


def test_json_lines_are_json(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(Settings(log_format="json", log_level="info"))
    log = structlog.get_logger()
    log.debug("not shown")
    log.info("shown", count=3)
    line = json.loads(capsys.readouterr().err)
    assert (line["event"], line["count"], line["level"]) == ("shown", 3, "info")


def test_a_service_that_has_configured_structlog_keeps_its_set_up() -> None:
    seen: list[Any] = []

    def keep(_logger: Any, _method: str, event: Any) -> Any:
        seen.append(event)
        raise structlog.DropEvent

    structlog.configure(processors=[keep])
    configure_logging(Settings(log_level="error"))
    structlog.get_logger().info("mine")
    assert [event["event"] for event in seen] == ["mine"]
