"""The errors that providers raise."""

from __future__ import annotations

from soldier_data.providers.usage import TokenUsage


class ProviderError(Exception):
    """Base class of the errors that providers raise; raised itself for failures without a class of their own.

    Messages name the vendor, the model and the remedy; they never contain a key, a prompt or a reply.

    Attributes:
        status_code: HTTP status code of the vendor's response; None if there was none.
        is_transient: True if the same call may succeed later.
        retry_after: Seconds to wait before the next call, if the vendor specified them.
        usage: Tokens that are billed although the call failed, for replies that were invalid, declined or truncated.
            0 if the vendor did not report them.
        cause: The SDK's exception, for debugging. Its text may contain the prompt, so it is deliberately not chained
            (`__cause__`), printed or logged.
    """

    is_transient = False

    def __init__(
        self,
        message: str,
        *,
        status_code: int | None = None,
        retry_after: float | None = None,
        usage: TokenUsage | None = None,
        cause: BaseException | None = None,
    ) -> None:
        super().__init__(message)
        self.status_code = status_code
        self.retry_after = retry_after
        self.usage = usage or TokenUsage()
        self.cause = cause


class AuthenticationError(ProviderError):
    """The API key is missing, invalid, or not allowed to use the model (401, 403)."""


class InvalidRequestError(ProviderError):
    """The vendor rejected the request as invalid or too large (400, 413, 422)."""


class ModelError(ProviderError):
    """The model does not exist (404)."""


class ContentFilterError(ProviderError):
    """The vendor or the model declined the prompt or withheld the reply."""


class RateLimitError(ProviderError):
    """Too many requests despite retries, or the quota is used up (429)."""

    is_transient = True


class ProviderUnavailableError(ProviderError):
    """The vendor failed (5xx), could not be reached or did not respond in time, despite retries."""

    is_transient = True


class StructuredOutputError(ProviderError):
    """The reply was truncated, or does not match the schema even after asking again."""
