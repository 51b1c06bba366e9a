"""When a provider's call is tried again, and after which wait. The SDKs' own retries are off."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from soldier_data.logging import get_logger
from soldier_data.providers.errors import ProviderError, ProviderUnavailableError, RateLimitError

T = TypeVar("T")

_FIRST_WAIT, _LONGEST_WAIT = 0.5, 8.0


class Clock:
    """Time as the providers see it; tests put another one in its place."""

    def now(self) -> float:
        """Seconds since some moment."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await asyncio.sleep(seconds)


class Retrying:
    """Repeats calls that fail transiently, waiting twice as long each time or as long as the vendor asks.

    Args:
        max_retries: How often a call is repeated at most.
        total_timeout: Seconds after which no further attempt begins. A longer wait than is left fails at once.
        clock: Where the time comes from.
    """

    def __init__(self, max_retries: int, total_timeout: float, clock: Clock) -> None:
        self._max_retries = max_retries
        self._total_timeout = total_timeout
        self._clock = clock
        self._log = get_logger(__name__)

    async def run(self, attempt: Callable[[float], Awaitable[T]], operation: str) -> T:
        """Await `attempt(seconds left)` until it succeeds.

        Raises:
            ProviderError: What the last attempt raised.
        """
        deadline = self._clock.now() + self._total_timeout
        retries = 0
        while True:
            try:
                return await attempt(deadline - self._clock.now())
            except ProviderError as error:
                failure = error
            if not failure.is_transient or retries >= self._max_retries:
                raise failure
            wait = _wait(failure, retries)
            if self._clock.now() + wait >= deadline:
                raise failure
            retries += 1
            self._log.warning(
                "provider call is repeated",
                operation=operation,
                error=type(failure).__name__,
                status_code=failure.status_code,
                retry=retries,
                wait_seconds=round(wait, 3),
            )
            await self._clock.sleep(wait)


def _wait(failure: ProviderError, retries: int) -> float:
    asked = failure.retry_after if isinstance(failure, RateLimitError | ProviderUnavailableError) else None
    if asked is not None:
        return asked
    longest: float = min(_FIRST_WAIT * 2**retries, _LONGEST_WAIT)
    # Callers that failed together spread out over half of the wait.
    return longest * random.uniform(0.5, 1.0)  # noqa: S311 - No secret comes of it.
