"""The command line: `soldier-data`."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line, or say how to install what it needs."""
    try:
        # An extra, so that services which only import the package need not install it.
        from soldier_data.cli.app import app  # noqa: PLC0415
    except ModuleNotFoundError as error:
        if error.name not in ("typer", "rich"):
            raise
        sys.exit(f'The command line needs {error.name}: run `pip install "soldier-data[cli]"`.')
    app()
