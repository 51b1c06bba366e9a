"""Conversion of SDK exceptions to `ProviderError`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from types import ModuleType
from typing import Any

from soldier_data.providers.errors import (
    AuthenticationError,
    ContentFilterError,
    InvalidRequestError,
    ModelError,
    ProviderError,
    ProviderUnavailableError,
    RateLimitError,
)

_TIMEOUTS = (408, 504)
_INVALID = (400, 413, 422)
_DECLINED = ("content_filter", "content_policy_violation")

# Error codes of vendors. Any other content of that field may be text of the prompt.
_NAME = re.compile(r"[a-z][a-z0-9_]{0,60}")


def as_provider_error(sdk: ModuleType, error: Exception, operation: str, key_variable: str) -> ProviderError:
    """Return the `ProviderError` to raise in place of `error`, an exception of `sdk` or of its HTTP client.

    Both SDKs use the same names: `APIStatusError` for an error response, `APIConnectionError` for none, and its
    subclass `APITimeoutError`.
    """
    if isinstance(error, TimeoutError | sdk.APITimeoutError):
        return ProviderUnavailableError(
            f"{operation}: timed out: try again later, or raise timeout", cause=error
        )
    if isinstance(error, sdk.APIStatusError):
        return _by_status(error, operation, key_variable)
    if isinstance(error, sdk.APIConnectionError):
        return ProviderUnavailableError(
            f"{operation}: the vendor could not be reached, or the connection was lost: check base_url and the network",
            cause=error,
        )
    return ProviderError(
        f"{operation}: the response is not one of the vendor's API: check base_url", cause=error
    )


def _by_status(error: Any, operation: str, key_variable: str) -> ProviderError:
    status: int = error.status_code
    code = _code(error.body)
    kind, problem = _classified(status, code, key_variable)
    failure = kind(
        f"{operation}: {status}{f' ({code})' if code else ''}: {problem}",
        status_code=status,
        retry_after=_retry_after(error.response.headers),
        cause=error,
    )
    if status == 429 and code == "insufficient_quota":
        # The account has no credit left, and waiting does not help.
        failure.is_transient = False
    return failure


def _classified(status: int, code: str | None, key_variable: str) -> tuple[type[ProviderError], str]:
    if status in (401, 403):
        return AuthenticationError, f"the API key is invalid or lacks a permission: check {key_variable}"
    if status == 404:
        return ModelError, "the model does not exist"
    if status == 429:
        return RateLimitError, "too many requests: send fewer, or raise the account's limit"
    if status in _TIMEOUTS or status >= 500:
        return ProviderUnavailableError, "the vendor's server failed: try again later"
    if code in _DECLINED:
        return ContentFilterError, "the prompt was declined"
    kind = InvalidRequestError if status in _INVALID else ProviderError
    return kind, "the vendor rejected the request: see .cause for the reason"


def _code(body: Any) -> str | None:
    """Return the vendor's error code, if any. OpenAI's SDK has already unpacked {"error": ...}."""
    detail = body.get("error", body) if isinstance(body, Mapping) else None
    if not isinstance(detail, Mapping):
        return None
    named = detail.get("code") or detail.get("type")
    return named if isinstance(named, str) and _NAME.fullmatch(named) else None


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds to wait, from retry-after-ms, or from Retry-After in seconds or as a date; None if neither."""
    for name, unit in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        try:
            seconds = float(headers.get(name, "")) / unit
        except ValueError:
            continue
        return seconds if 0 <= seconds < float("inf") else None
    try:
        at = parsedate_to_datetime(headers.get("retry-after", ""))
    except ValueError:
        return None
    if at.tzinfo is None:
        at = at.replace(tzinfo=UTC)
    return max(0.0, (at - datetime.now(UTC)).total_seconds())
