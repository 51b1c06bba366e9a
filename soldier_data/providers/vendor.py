"""What the providers of both vendors share: the SDK loaded late, the key, timeouts, retries and errors."""

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
"""How often a call is repeated."""

TIMEOUT = 60.0
"""Seconds that one attempt may take."""

TOTAL_TIMEOUT = 180.0
"""Seconds after which no further attempt begins."""


class Vendor:
    """The SDK of one vendor and how it is called.

    Args:
        name: Of the package and of the extra that installs it: "openai".
        api_key: The key, or None for the one in the environment.
        max_retries: How often a call is repeated.
        timeout: Seconds that one attempt may take, from connecting to the last byte.
        total_timeout: Seconds after which no further attempt begins.
        clock: Where waiting and its measure come from.

    Attributes:
        sdk: The package.
        api_key: The key in force.

    Raises:
        ProviderError: The package is not installed.
        AuthenticationError: There is no key.
    """

    def __init__(
        self,
        name: str,
        api_key: str | None,
        *,
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
            raise AuthenticationError(f"{name}: no key: pass api_key, or set {self._key_variable}")
        self.timeout = timeout
        self._retrying = Retrying(max_retries, total_timeout, clock or Clock())

    def __repr__(self) -> str:
        return f"Vendor({self._name!r})"

    async def call(self, request: Callable[[], Awaitable[T]], operation: str) -> T:
        """Await `request()`, repeated while it fails transiently.

        Raises:
            ProviderError: By what the last attempt failed.
        """
        told = f"{self._name}: {operation}"

        async def attempt(seconds_left: float) -> T:
            try:
                # The SDK's timeout counts from byte to byte, and would wait for ever on one that trickles.
                async with asyncio.timeout(min(self.timeout, seconds_left)):
                    return await request()
            except Exception as error:  # noqa: BLE001 - No exception of the SDK may leave.
                failure = as_provider_error(self.sdk, error, told, self._key_variable)
            # Outside of the except block, so that the SDK's error is not chained: its text may hold the prompt.
            raise failure

        return await self._retrying.run(attempt, told)


def _load(name: str) -> ModuleType:
    try:
        sdk = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        sdk = None
    if sdk is None:
        raise ProviderError(f'{name}: the package is missing: run `pip install "soldier-data[{name}]"`')
    # At the level DEBUG, which it takes over from the root logger, the SDK logs whole prompts. A level that was set
    # for it on purpose (ANTHROPIC_LOG=debug, say) stays.
    logger = logging.getLogger(name)
    if logger.level == logging.NOTSET:
        logger.setLevel(logging.INFO)
    return sdk


def without_nones(**arguments: Any) -> dict[str, Any]:
    """The arguments that are given, because the SDKs send None as null."""
    return {name: value for name, value in arguments.items() if value is not None}
