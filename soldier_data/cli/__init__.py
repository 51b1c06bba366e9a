"""The command line: `soldier-data`."""

from __future__ import annotations

import codecs
import os
import sys
from io import TextIOWrapper
from typing import Any

_ESCAPING = "soldier_data.escaping"


def main() -> None:
    """Run the command line; exit with an error message if its packages are not installed."""
    try:
        # An extra, so that services which only import the package need not install it.
        from soldier_data.cli.app import app
    except ModuleNotFoundError as error:
        if error.name not in ("typer", "rich"):
            raise
        sys.exit(f'Error: the command line needs {error.name}: run `pip install "soldier-data[cli]"`')
    if isinstance(sys.stdout, TextIOWrapper):
        codecs.register_error(_ESCAPING, _escaped)
        sys.stdout.reconfigure(errors=_ESCAPING)
    try:
        try:
            app()
        finally:
            sys.stdout.flush()
    except OSError as error:
        # Otherwise Python would try to flush the rest again on exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            # The reader closed the pipe early, as `head` does.
            sys.exit(1)
        reason = error.strerror or type(error).__name__
        sys.exit(f"Error: {error.filename or 'cannot write the output'}: {reason}")


def _escaped(error: Any) -> tuple[str, int]:
    r"""Escape characters that the output's encoding lacks as \u00e9, which is also valid in JSON."""
    unknown = error.object[error.start : error.end].encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{unknown[at : at + 4]}" for at in range(0, len(unknown), 4)), error.end
