"""Structured logging: one set-up for programs that have none, and the redaction that it applies.

Stores log through structlog, so that a service which has configured it gets the lines its own way. A service that
has not gets `configure_logging()` when it opens the data layer.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import MutableMapping
from typing import Any, Protocol

import structlog

# Counts of tokens (prompt_tokens) are no secrets.
_SECRET_KEY = re.compile(
    r"password|passwd|secret|token(?!s)|api_?key|authorization|credential", re.IGNORECASE
)
# Up to the last @, because passwords hold @, / and : in URLs that somebody wrote by hand.
_URL_PASSWORD = re.compile(r"(?P<start>[a-z][a-z0-9+.-]*://[^\s:/@]*):\S*@", re.IGNORECASE)
_URL_PARAMETER = re.compile(r"(?P<start>[?&]\w*(?:password|secret|token)=)[^&\s]*", re.IGNORECASE)

REDACTED = "[redacted]"


class LogSettings(Protocol):
    """The part of `Settings` that is about logging."""

    @property
    def log_level(self) -> str:
        """The least severe level that is logged."""

    @property
    def log_format(self) -> str:
        """`console` or `json`."""


def redact(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A structlog processor that hides values of secret-looking keys and passwords inside URLs."""
    return {key: REDACTED if _SECRET_KEY.search(key) else _clean(value) for key, value in event.items()}


def redact_url(url: str) -> str:
    """`url` with the password, if any, replaced: for log lines and error messages."""
    return _URL_PARAMETER.sub(rf"\g<start>{REDACTED}", _URL_PASSWORD.sub(rf"\g<start>:{REDACTED}@", url))


def get_logger(name: str) -> structlog.typing.FilteringBoundLogger:
    """A logger for one store, to be made when the store is.

    Without any configuration structlog would print every debug line to standard output. Where a store is made by
    hand in such a program, warnings and errors go to standard error, and nothing else is printed.
    """
    if structlog.is_configured():
        logger = structlog.get_logger(name)
    else:
        logger = structlog.wrap_logger(
            structlog.PrintLogger(sys.stderr),
            wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
        )
    # Bound once: the lazy logger takes longer over a suppressed line than Redis over a read.
    bound: structlog.typing.FilteringBoundLogger = logger.bind()
    return bound


def configure_logging(settings: LogSettings) -> None:
    """Set structlog up to write to standard error, unless the program has configured it already."""
    if structlog.is_configured():
        return
    level = logging.getLevelNamesMapping()[settings.log_level.upper()]
    renderer: structlog.typing.Processor
    if settings.log_format == "json":
        renderer = structlog.processors.JSONRenderer()
    else:
        # The default prints the local variables of a traceback, secrets among them, where rich is installed.
        renderer = structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
        )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            # Before the redaction, which cleans the traceback as well.
            structlog.processors.format_exc_info,
            redact,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        # Looked up for each logger: a program may replace its standard error.
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
