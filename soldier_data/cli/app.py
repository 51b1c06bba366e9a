"""The Typer application with all commands; each command or group of commands has its own module."""

from __future__ import annotations

from typing import Annotated

import typer

from soldier_data import __version__
from soldier_data.cli.customers import app as customers
from soldier_data.cli.db import app as db
from soldier_data.cli.demo import demo
from soldier_data.cli.running import read_settings, run
from soldier_data.cli.sessions import app as sessions
from soldier_data.cli.vectors import app as vectors

app = typer.Typer(
    help="The data layer of a conversational-AI agent platform.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,
)
app.command()(demo)
app.add_typer(customers, name="customers")
app.add_typer(db, name="db")
app.add_typer(sessions, name="sessions")
app.add_typer(vectors, name="vectors")


def _show_version(requested: bool) -> None:
    if requested:
        typer.echo(f"soldier-data {__version__}")
        raise typer.Exit


@app.command()
def doctor() -> None:
    """Check the versions, schema, role and configuration of PostgreSQL and Redis. Changes nothing."""
    from soldier_data.cli.doctor import examine

    findings = run(examine(read_settings()))
    width = max(len(finding.name) for finding in findings)
    for finding in findings:
        typer.echo(f"{'ok  ' if finding.ok else 'FAIL'}  {finding.name.ljust(width)}  {finding.detail}")
    if not all(finding.ok for finding in findings):
        raise typer.Exit(1)


@app.callback()
def soldier_data(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit."),
    ] = False,
) -> None:
    """The data layer of a conversational-AI agent platform."""
