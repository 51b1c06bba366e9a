"""`soldier-data db`: what an operator does to the database."""

from __future__ import annotations

from typing import Annotated

import typer

from soldier_data import migrations
from soldier_data.cli.running import read_settings, run
from soldier_data.postgres.statements import Schemas

app = typer.Typer(
    help="Migrate the database of SOLDIER_DATABASE_URL, and look at its schema.", no_args_is_help=True
)


def _show(state: migrations.SchemaState) -> None:
    typer.echo(f"The database is at revision {state.revision or 'none'}.")
    for revision in state.pending:
        typer.echo(f"pending: {revision.id}  {revision.title}")


@app.command()
def upgrade(
    revision: Annotated[str, typer.Argument(help="A revision, `head`, or so many steps: +1.")] = "head",
) -> None:
    """Run the migrations that the database lacks.

    Any number of processes may do so at once, beside live traffic.
    """
    settings = read_settings()
    run(migrations.upgrade(settings, revision))
    _show(run(migrations.current(settings)))


@app.command(context_settings={"ignore_unknown_options": True})
def downgrade(
    revision: Annotated[str, typer.Argument(help="A revision, `base`, or so many steps: -1.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Undo migrations, with all data in what they made."""
    settings = read_settings()
    if not yes:
        typer.confirm("The tables and columns of the undone migrations lose their data. Go on?", abort=True)
    run(migrations.downgrade(settings, revision))
    _show(run(migrations.current(settings)))


@app.command()
def current() -> None:
    """Show the revision of the database and what is pending."""
    _show(run(migrations.current(read_settings())))


@app.command()
def history() -> None:
    """List the migrations of this package, first to last."""
    for revision in migrations.history():
        typer.echo(f"{revision.id}  {revision.title}")


@app.command()
def check() -> None:
    """Compare the database with the models; exit code 1 if they differ."""
    differences = run(migrations.check(read_settings()))
    if differences is None:
        typer.echo("The database is as the models say.")
        return
    typer.echo("The database differs. A migration like this would bring it to the models:\n")
    typer.echo(differences)
    raise typer.Exit(1)


@app.command()
def sql(
    revisions: Annotated[str, typer.Argument(help="From where to where.")] = "base:head",
    down: Annotated[bool, typer.Option("--down", help="Undo the migrations: `0003:0001 --down`.")] = False,
) -> None:
    """Print the migrations as SQL, for psql. No database is asked."""
    typer.echo(run(migrations.sql(read_settings(), revisions, down=down)))


@app.command()
def grants(
    role: Annotated[str, typer.Argument(help="The database role that services log in with.")],
    execute: Annotated[bool, typer.Option("--run", help="Run it, instead of printing it.")] = False,
    erasure: Annotated[
        bool, typer.Option("--erasure", help="Let it erase customers too: `soldier-data customers erase`.")
    ] = False,
) -> None:
    """Print the SQL that grants ROLE what services need, or run it."""
    if execute:
        run(migrations.run_grants(read_settings(), role, erasure=erasure))
        typer.echo("Granted.")
        return
    for statement in migrations.grant_statements(role, Schemas.of(read_settings()), erasure=erasure):
        typer.echo(f"{statement};")


@app.command()
def document() -> None:
    """Print docs/schema.md: every table, its columns and indexes, and how they refer to each other."""
    # Services need none of it.
    from soldier_data.migrations.document import schema_page  # noqa: PLC0415

    typer.echo(schema_page(), nl=False)
