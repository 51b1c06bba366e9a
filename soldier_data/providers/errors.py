"""The errors that a provider raises."""

from __future__ import annotations

from soldier_data.providers.usage import TokenUsage


class ProviderError(Exception):
    """Base of every error of a provider, and the class of refusals that have none of their own.

    Messages name the vendor, the model and what to do; they never hold a key, a prompt or a reply.

    Attributes:
        status_code: Of the vendor's answer, if it is what went wrong.
        is_transient: Whether the same call may succeed later.
        usage: The tokens that will be paid for although the call failed: of replies that did not fit, or were declined
            or cut off. 0 where no answer said how many.
        cause: The SDK's exception, kept for debuggers. Its text may repeat the prompt, so it is deliberately not
            chained (`__cause__`), printed or logged.
    """

    is_transient = False

    def __init__(
        self,
        message: str,
        *,
        status_code: int | None = None,
        usage: TokenUsage | None = None,
        cause: BaseException | None = None,
    ) -> None:
        super().__init__(message)
        self.status_code = status_code
        self.usage = usage or TokenUsage()
        self.cause = cause


class AuthenticationError(ProviderError):
    """The key is missing, wrong, or may not use the model (401, 403)."""


class InvalidRequestError(ProviderError):
    """The vendor takes the request for wrong or too large (400, 413, 422)."""


class ModelError(ProviderError):
    """The vendor does not know the model (404)."""


class ContentFilterError(ProviderError):
    """The vendor or the model declined the prompt, or withheld the reply."""


class RateLimitError(ProviderError):
    """Too many requests (429), still after the retries, or a quota that is used up.

    Attributes:
        retry_after: Seconds to wait that the vendor asked for, if it did.
    """

    is_transient = True

    def __init__(
        self,
        message: str,
        *,
        retry_after: float | None = None,
        status_code: int | None = None,
        cause: BaseException | None = None,
    ) -> None:
        super().__init__(message, status_code=status_code, cause=cause)
        self.retry_after = retry_after


class ProviderUnavailableError(ProviderError):
    """The vendor failed (5xx), could not be reached or did not answer in time, still after the retries.

    Attributes:
        retry_after: Seconds to wait that the vendor asked for, if it did.
    """

    is_transient = True

    def __init__(
        self,
        message: str,
        *,
        retry_after: float | None = None,
        status_code: int | None = None,
        cause: BaseException | None = None,
    ) -> None:
        super().__init__(message, status_code=status_code, cause=cause)
        self.retry_after = retry_after


class StructuredOutputError(ProviderError):
    """The reply does not fit the schema, even after asking again, or was cut off."""
