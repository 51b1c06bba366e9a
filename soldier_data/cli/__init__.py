"""The command line: `soldier-data`."""

from __future__ import annotations

import codecs
import os
import sys
from io import TextIOWrapper
from typing import Any

_ESCAPING = "soldier_data.escaping"


def main() -> None:
    """Run the command line, or say how to install what it needs."""
    try:
        # An extra, so that services which only import the package need not install it.
        from soldier_data.cli.app import app  # noqa: PLC0415
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
        # Python would try to write the rest again at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            # Whoever read the output has seen enough.
            sys.exit(1)
        told = error.strerror or type(error).__name__
        sys.exit(f"Error: {error.filename or 'the output cannot be written'}: {told}")


def _escaped(error: Any) -> tuple[str, int]:
    r"""What is written for characters that the output's encoding lacks: \u00e9, which means the same in JSON."""
    unknown = error.object[error.start : error.end].encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{unknown[at : at + 4]}" for at in range(0, len(unknown), 4)), error.end
