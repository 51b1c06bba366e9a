"""Running the work of a command, and reporting its failure: a line on standard error, and exit code 1."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import typer

from soldier_data.errors import StoreError

if TYPE_CHECKING:
    from soldier_data.settings import Settings

T = TypeVar("T")


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run `work` in a new event loop.

    Raises:
        Exit: It failed; the error has been printed.
    """
    with reporting_errors():
        return asyncio.run(work)


def read_settings() -> Settings:
    """Read the settings from the environment.

    Raises:
        Exit: One is invalid; the error has been printed.
    """
    from soldier_data.settings import Settings

    with reporting_errors():
        return Settings()


@contextmanager
def reporting_errors() -> Iterator[None]:
    """Print an error of a store or a provider without a traceback, and exit."""
    from soldier_data.providers import ProviderError

    try:
        yield
    except (StoreError, ProviderError) as error:
        typer.echo(f"Error: {error}", err=True)
        raise typer.Exit(1) from None
