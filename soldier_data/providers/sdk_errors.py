"""From an SDK's exception to a `ProviderError`."""

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

_NO_ANSWER_IN_TIME = (408, 504)
_INVALID = (400, 413, 422)
_DECLINED = ("content_filter", "content_policy_violation")

# What vendors call their errors. Anything else in that place may be text of the prompt.
_NAME = re.compile(r"[a-z][a-z0-9_]{0,60}")


def as_provider_error(sdk: ModuleType, error: Exception, operation: str, key_variable: str) -> ProviderError:
    """The error that leaves the provider in place of `error`, which is one of `sdk` or of what it builds on.

    Both SDKs call their exceptions alike: `APIStatusError` for an answer that tells of a failure,
    `APIConnectionError` for none, `APITimeoutError` among the latter.
    """
    if isinstance(error, TimeoutError | sdk.APITimeoutError):
        return ProviderUnavailableError(
            f"{operation}: no answer in time: try again later, or raise timeout", cause=error
        )
    if isinstance(error, sdk.APIStatusError):
        return _by_status(error, operation, key_variable)
    if isinstance(error, sdk.APIConnectionError):
        return ProviderUnavailableError(
            f"{operation}: the vendor could not be reached, or the connection broke: check base_url and the network",
            cause=error,
        )
    return ProviderError(
        f"{operation}: the answer is none that the vendor's API gives: check base_url", cause=error
    )


def _by_status(error: Any, operation: str, key_variable: str) -> ProviderError:
    status: int = error.status_code
    code = _code(error.body)
    retry_after = _retry_after(error.response.headers)
    told = f"{operation}: {status}" + (f" ({code})" if code else "")
    if status in (401, 403):
        return AuthenticationError(
            f"{told}: the key is wrong or may not do this: check {key_variable}",
            status_code=status,
            cause=error,
        )
    if status == 404:
        return ModelError(f"{told}: the vendor does not know the model", status_code=status, cause=error)
    if status == 429:
        limited = RateLimitError(
            f"{told}: too many requests: send fewer, or raise the account's limit",
            retry_after=retry_after,
            status_code=status,
            cause=error,
        )
        # OpenAI answers an account without money alike; waiting does not fill it.
        limited.is_transient = code != "insufficient_quota"
        return limited
    if status in _NO_ANSWER_IN_TIME or status >= 500:
        return ProviderUnavailableError(
            f"{told}: the vendor fails: try again later",
            retry_after=retry_after,
            status_code=status,
            cause=error,
        )
    if code in _DECLINED:
        return ContentFilterError(f"{told}: the prompt was declined", status_code=status, cause=error)
    kind = InvalidRequestError if status in _INVALID else ProviderError
    return kind(f"{told}: the vendor refuses the request; .cause says why", status_code=status, cause=error)


def _code(body: Any) -> str | None:
    """What the vendor calls the failure. OpenAI's SDK has unpacked {"error": ...} already."""
    detail = body.get("error", body) if isinstance(body, Mapping) else None
    if not isinstance(detail, Mapping):
        return None
    named = detail.get("code") or detail.get("type")
    return named if isinstance(named, str) and _NAME.fullmatch(named) else None


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait: from retry-after-ms, or from Retry-After in seconds or as a date."""
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
