"""The commands, each in a module of its own."""

from __future__ import annotations

import typer

from soldier_data.cli.customers import app as customers
from soldier_data.cli.db import app as db
from soldier_data.cli.demo import demo
from soldier_data.cli.doctor import doctor
from soldier_data.cli.sessions import app as sessions
from soldier_data.cli.vectors import app as vectors

app = typer.Typer(
    help="The data layer of a conversational-AI agent platform.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,
)
app.command()(demo)
app.command()(doctor)
app.add_typer(customers, name="customers")
app.add_typer(db, name="db")
app.add_typer(sessions, name="sessions")
app.add_typer(vectors, name="vectors")


@app.callback()
def soldier_data() -> None:
    """The data layer of a conversational-AI agent platform."""
