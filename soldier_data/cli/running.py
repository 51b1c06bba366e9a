"""How every command does its work, and tells of a failure: one line on standard error, and exit code 1."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import typer

from soldier_data.errors import StoreError
from soldier_data.providers import ProviderError
from soldier_data.settings import Settings

T = TypeVar("T")


def run(work: Coroutine[Any, Any, T]) -> T:
    """Await `work`.

    Raises:
        Exit: It failed, and that has been told.
    """
    with telling_errors():
        return asyncio.run(work)


def read_settings() -> Settings:
    """The settings of the environment.

    Raises:
        Exit: One is wrong, and that has been told.
    """
    with telling_errors():
        return Settings()


@contextmanager
def telling_errors() -> Iterator[None]:
    """Let an error of a store or a provider end the command, instead of being shown with a traceback."""
    try:
        yield
    except (StoreError, ProviderError) as error:
        typer.echo(f"Error: {error}", err=True)
        raise typer.Exit(1) from None
