"""Structured logging: a default configuration of structlog, and the redaction of secrets.

Stores log through structlog, so a service that configures structlog decides on the output. For any other service
the data layer calls `configure_logging()` when it is opened.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import MutableMapping
from typing import Any, Protocol

import structlog

# Does not match counts of tokens such as prompt_tokens.
_SECRET_KEY = re.compile(
    r"password|passwd|secret|token(?!s)|api_?key|authorization|credential", re.IGNORECASE
)
# Matches up to the last @, because URLs written by hand may have unescaped @, / and : in the password.
_URL_PASSWORD = re.compile(r"(?P<start>[a-z][a-z0-9+.-]*://[^\s:/@]*):\S*@", re.IGNORECASE)
_URL_PARAMETER = re.compile(r"(?P<start>[?&]\w*(?:password|secret|token)=)[^&\s]*", re.IGNORECASE)

REDACTED = "[redacted]"


class LogSettings(Protocol):
    """The settings that `configure_logging` needs."""

    @property
    def log_level(self) -> str:
        """The lowest level that is logged."""

    @property
    def log_format(self) -> str:
        """`console` or `json`."""


def redact(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Structlog processor that redacts the values of secret-looking keys, and passwords in URLs."""
    return {key: REDACTED if _SECRET_KEY.search(key) else _clean(value) for key, value in event.items()}


def redact_url(url: str) -> str:
    """Return `url` with its password, if any, redacted, for log lines and error messages."""
    return _URL_PARAMETER.sub(rf"\g<start>{REDACTED}", _URL_PASSWORD.sub(rf"\g<start>:{REDACTED}@", url))


def get_logger(name: str) -> structlog.typing.FilteringBoundLogger:
    """Return a logger. A store calls it once, when it is created.

    If structlog is not configured, the logger writes warnings and errors to standard error, where structlog's
    default would print every debug line to standard output.
    """
    if structlog.is_configured():
        logger = structlog.get_logger(name)
    else:
        logger = structlog.wrap_logger(
            structlog.PrintLogger(sys.stderr),
            wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
        )
    # Bound once, because a suppressed line costs more on the lazy proxy than a read from Redis.
    bound: structlog.typing.FilteringBoundLogger = logger.bind()
    return bound


def configure_logging(settings: LogSettings) -> None:
    """Configure structlog to write to standard error, unless the program has configured it already."""
    if structlog.is_configured():
        return
    level = logging.getLevelNamesMapping()[settings.log_level.upper()]
    renderer: structlog.typing.Processor
    if settings.log_format == "json":
        renderer = structlog.processors.JSONRenderer()
    else:
        # With rich installed, the default formatter prints local variables, which may hold secrets.
        renderer = structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
        )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            # Before `redact`, so that the traceback is redacted too.
            structlog.processors.format_exc_info,
            redact,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        # Evaluated for each logger, because a program may replace its standard error.
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),
        cache_logger_on_first_use=False,
    )


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        return redact_url(value)
    if isinstance(value, BaseException):
        return redact_url(repr(value))
    if isinstance(value, dict):
        return {
            key: REDACTED if _SECRET_KEY.search(str(key)) else _clean(nested) for key, nested in value.items()
        }
    if isinstance(value, list | tuple):
        return [_clean(nested) for nested in value]
    return value
