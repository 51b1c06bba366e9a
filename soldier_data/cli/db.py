"""`soldier-data db`: migrations, schema checks and grants."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from soldier_data.cli.running import read_settings, run

if TYPE_CHECKING:
    from soldier_data.migrations import SchemaState

app = typer.Typer(help="Migrate and inspect the database of SOLDIER_DATABASE_URL.", no_args_is_help=True)


def _show(state: SchemaState) -> None:
    typer.echo(f"The database is at revision {state.revision or 'none'}.")
    for revision in state.pending:
        typer.echo(f"pending: {revision.id}  {revision.title}")


@app.command()
def upgrade(
    revision: Annotated[
        str, typer.Argument(help="A revision, `head`, or a number of steps such as +1.")
    ] = "head",
) -> None:
    """Run the pending migrations.

    Safe under live traffic, and in several processes at once.
    """
    from soldier_data import migrations

    settings = read_settings()
    run(migrations.upgrade(settings, revision))
    _show(run(migrations.current(settings)))


@app.command(context_settings={"ignore_unknown_options": True})
def downgrade(
    revision: Annotated[str, typer.Argument(help="A revision, `base`, or a number of steps such as -1.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")] = False,
) -> None:
    """Undo migrations. The data in the tables and columns that they created is lost."""
    from soldier_data import migrations

    settings = read_settings()
    if not yes:
        typer.confirm(
            "The data in the tables and columns of these migrations will be lost. Continue?", abort=True
        )
    run(migrations.downgrade(settings, revision))
    _show(run(migrations.current(settings)))


@app.command()
def current() -> None:
    """Show the revision of the database, and the pending migrations."""
    from soldier_data import migrations

    _show(run(migrations.current(read_settings())))


@app.command()
def history() -> None:
    """List the migrations of this package, oldest first."""
    from soldier_data import migrations

    for revision in migrations.history():
        typer.echo(f"{revision.id}  {revision.title}")


@app.command()
def check() -> None:
    """Compare the schema of the database with the models; exit code 1 if they differ."""
    from soldier_data import migrations

    differences = run(migrations.check(read_settings()))
    if differences is None:
        typer.echo("The database matches the models.")
        return
    typer.echo("The database differs from the models. This migration would remove the differences:\n")
    typer.echo(differences)
    raise typer.Exit(1)


@app.command()
def sql(
    revisions: Annotated[
        str, typer.Argument(help="Revisions to migrate from and to, FROM:TO.")
    ] = "base:head",
    down: Annotated[
        bool, typer.Option("--down", help="Write the downgrade, for example `0003:0001 --down`.")
    ] = False,
) -> None:
    """Print the migrations as SQL for psql, without connecting to the database."""
    from soldier_data import migrations

    typer.echo(run(migrations.sql(read_settings(), revisions, down=down)))


@app.command()
def grants(
    role: Annotated[str, typer.Argument(help="The database role that services log in with.")],
    execute: Annotated[bool, typer.Option("--run", help="Run the SQL instead of printing it.")] = False,
    erasure: Annotated[
        bool, typer.Option("--erasure", help="Also grant what `soldier-data customers erase` needs.")
    ] = False,
) -> None:
    """Print, or run, the SQL that grants ROLE the privileges that services need."""
    from soldier_data import migrations
    from soldier_data.postgres.statements import Schemas

    settings = read_settings()
    if execute:
        run(migrations.run_grants(settings, role, erasure=erasure))
        typer.echo("Granted.")
        return
    for statement in migrations.grant_statements(
        role, Schemas.of(settings), erasure=erasure, version_table=settings.version_table
    ):
        typer.echo(f"{statement};")


@app.command()
def document() -> None:
    """Print docs/schema.md: every table with its columns, indexes and foreign keys."""
    from soldier_data.migrations.document import schema_page

    typer.echo(schema_page(), nl=False)
