"""Retries of providers' calls. The SDKs' own retries are turned off."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from soldier_data.logging import get_logger
from soldier_data.providers.errors import ProviderError

T = TypeVar("T")

_FIRST_WAIT, _LONGEST_WAIT = 0.5, 8.0


class Clock:
    """Source of time for providers, replaced in tests."""

    def now(self) -> float:
        """Return the time in seconds since an arbitrary moment."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Wait for `seconds`."""
        await asyncio.sleep(seconds)


class Retrying:
    """Retries calls that fail transiently, with exponential backoff or the wait that the vendor specifies.

    Args:
        max_retries: Largest number of retries.
        total_timeout: Seconds after which no further attempt begins. If the wait would end later, the call fails.
        clock: Source of time.
    """

    def __init__(self, max_retries: int, total_timeout: float, clock: Clock) -> None:
        self._max_retries = max_retries
        self._total_timeout = total_timeout
        self._clock = clock
        self._log = get_logger(__name__)

    async def run(self, attempt: Callable[[float], Awaitable[T]], operation: str) -> T:
        """Await `attempt(seconds_left)` until it succeeds, and return its result.

        Raises:
            ProviderError: The error of the last attempt.
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
                "retrying a provider call",
                operation=operation,
                error=type(failure).__name__,
                status_code=failure.status_code,
                retry=retries,
                wait_seconds=round(wait, 3),
            )
            await self._clock.sleep(wait)


def _wait(failure: ProviderError, retries: int) -> float:
    if failure.retry_after is not None:
        return failure.retry_after
    longest: float = min(_FIRST_WAIT * 2**retries, _LONGEST_WAIT)
    # Jitter, so that callers that failed together do not retry together.
    return longest * random.uniform(0.5, 1.0)  # noqa: S311 - not used for security.
