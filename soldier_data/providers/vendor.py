"""Common parts of the vendors' providers: lazy import of the SDK, API key, timeouts, retries and errors."""

from __future__ import annotations

import asyncio
import importlib
import logging
import os
from collections.abc import Awaitable, Callable
from types import ModuleType
from typing import Any, TypeVar

from soldier_data.providers.errors import AuthenticationError, ProviderError
from soldier_data.providers.retrying import Clock, Retrying
from soldier_data.providers.sdk_errors import as_provider_error

T = TypeVar("T")

MAX_RETRIES = 4
"""Default number of retries of a call."""

TIMEOUT = 60.0
"""Default time limit for one attempt, in seconds."""

TOTAL_TIMEOUT = 180.0
"""Default number of seconds after which no further attempt begins."""


class Vendor:
    """A vendor's SDK, and calls of it with timeouts, retries and converted errors.

    Args:
        name: Name of the package and of the extra that installs it, such as "openai".
        api_key: The API key; None for the one in the environment.
        max_retries: Largest number of retries of a call.
        timeout: Time limit for one attempt in seconds, from connecting to the last byte.
        total_timeout: Seconds after which no further attempt begins.
        clock: Source of time; None for the system's.

    Attributes:
        sdk: The imported package.
        api_key: The effective API key.

    Raises:
        ProviderError: The package is not installed.
        AuthenticationError: No key is given or set.
    """

    def __init__(
        self,
        name: str,
        api_key: str | None,
        max_retries: int,
        timeout: float,
        total_timeout: float,
        clock: Clock | None,
    ) -> None:
        self._name = name
        self._key_variable = f"{name.upper()}_API_KEY"
        self.sdk = _load(name)
        self.api_key = api_key or os.environ.get(self._key_variable, "")
        if not self.api_key:
            raise AuthenticationError(f"{name}: no API key: pass api_key, or set {self._key_variable}")
        self.timeout = timeout
        self._retrying = Retrying(max_retries, total_timeout, clock or Clock())

    def __repr__(self) -> str:
        return f"Vendor({self._name!r})"

    async def call(self, request: Callable[[], Awaitable[T]], operation: str) -> T:
        """Await `request()`, with retries after transient failures.

        Raises:
            ProviderError: The error of the last attempt.
        """
        operation = f"{self._name}: {operation}"

        async def attempt(seconds_left: float) -> T:
            try:
                # The SDK's timeout applies to each read, and never expires while single bytes keep arriving.
                async with asyncio.timeout(min(self.timeout, seconds_left)):
                    return await request()
            except Exception as error:  # noqa: BLE001 - No exception of the SDK may leave.
                failure = as_provider_error(self.sdk, error, operation, self._key_variable)
            # Outside the except block, so that the SDK's error is not chained: its text may contain the prompt.
            raise failure

        return await self._retrying.run(attempt, operation)


def _load(name: str) -> ModuleType:
    try:
        sdk = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        sdk = None
    if sdk is None:
        raise ProviderError(f'{name}: the package is not installed: run `pip install "soldier-data[{name}]"`')
    # At level DEBUG, which it may inherit from the root logger, the SDK logs whole prompts. A level that was set
    # explicitly (ANTHROPIC_LOG=debug, for example) is kept.
    logger = logging.getLogger(name)
    if logger.level == logging.NOTSET:
        logger.setLevel(logging.INFO)
    return sdk


def without_nones(**arguments: Any) -> dict[str, Any]:
    """Return the arguments that are not None, because the SDKs would send None as null."""
    return {name: value for name, value in arguments.items() if value is not None}
