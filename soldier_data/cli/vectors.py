"""`soldier-data vectors`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from soldier_data.cli.embed import embed
from soldier_data.cli.running import read_settings, run

if TYPE_CHECKING:
    from soldier_data.migrations.vector_indexes import BuildProgress, Rebuilt
    from soldier_data.migrations.vector_status import VectorTable

app = typer.Typer(help="Make embeddings, and inspect and rebuild their indexes.", no_args_is_help=True)
app.command()(embed)


@app.command()
def status() -> None:
    """Show the vector indexes, rows without an embedding, and embeddings by model, with advice.

    Counts rows, which reads every table with embeddings completely. Changes nothing.
    """
    from soldier_data.migrations.vector_status import vector_status

    console = Console()
    tables = run(vector_status(read_settings()))
    console.print(_tables(tables))
    models = [(table.name, model, rows) for table in tables for model, rows in table.by_model.items()]
    if models:
        shown = Table("Table", "Model", "Embeddings")
        shown.columns[2].justify = "right"
        for name, model, rows in sorted(models, key=lambda item: (item[0], -item[2])):
            shown.add_row(name, "(not named)" if model is None else escape(model), f"{rows:,}")
        console.print(shown)
    if not all(table.counted for table in tables):
        console.print(
            "Row-level security hides the rows from this role: the numbers of rows are PostgreSQL's estimates (~). "
            "For exact numbers connect as a superuser, or as a role with BYPASSRLS.",
            highlight=False,
        )
    for advice in (advice for table in tables for advice in table.advice()):
        console.print(f"- {escape(advice)}", highlight=False)


@app.command("reindex")
def rebuild(
    tables: Annotated[
        list[str] | None, typer.Argument(help="Tables whose vector indexes to rebuild. Default: all tables.")
    ] = None,
    memory: Annotated[
        str | None,
        typer.Option(
            help="maintenance_work_mem for the builds, such as 2GB. An index that fits into it builds faster."
        ),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(help="max_parallel_maintenance_workers for the builds.")
    ] = None,
) -> None:
    """Rebuild the vector indexes as SOLDIER_VECTOR_INDEX specifies, while the tables are in use.

    The role must own the tables. Searches use the existing index until the new one is ready.
    """
    from soldier_data.migrations.vector_indexes import reindex

    console = Console()
    settings = read_settings()
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[phase]}"),
        console=console,
        transient=True,
    ) as progress:
        task = progress.add_task("Connecting", total=1.0, phase="")

        def show(build: BuildProgress) -> None:
            description = f"{build.index} ({build.number} of {build.count})"
            phase = build.phase.removeprefix("building index: ")
            progress.update(task, description=description, completed=build.done, phase=phase)

        try:
            rebuilt = run(reindex(settings, tables or (), memory=memory, workers=workers, on_progress=show))
        except KeyboardInterrupt:
            console.print(
                "Interrupted: the existing indexes stay in use. Run the command again to rebuild them."
            )
            raise typer.Exit(130) from None
    for item in rebuilt:
        console.print(_sentence(item), highlight=False)
    if not rebuilt:
        console.print("Nothing to do: SOLDIER_VECTOR_INDEX is none, and there are no vector indexes.")


def _tables(tables: list[VectorTable]) -> Table:
    shown = Table("Table", "Rows", "Without embedding", "Vector index", "Size", "State")
    for number in (1, 2, 4):
        shown.columns[number].justify = "right"
    for table in tables:
        rows = f"{table.rows:,}" if table.counted else f"~{table.rows:,}"
        without = f"{table.without_embedding:,}" if table.counted else "?"
        for index in table.indexes:
            lists = "" if index.lists is None else f", {index.lists} lists"
            state = "valid" if index.valid else "[red]invalid[/]"
            shown.add_row(table.name, rows, without, f"{index.method}{lists}", _size(index.bytes), state)
        if not table.indexes:
            shown.add_row(
                table.name, rows, without, "none", "", "" if table.expected is None else "[red]missing[/]"
            )
    return shown


def _sentence(item: Rebuilt) -> str:
    if item.method is None:
        return f"Removed {item.name}."
    history = {None: "new", "invalid": "was invalid"}.get(item.before, "rebuilt")
    return f"{item.name}: {item.method}, {_size(item.bytes)}, {item.seconds:.1f} s ({history})"


def _size(size: int) -> str:
    return f"{size / 2**20:,.0f} MB" if size >= 2**20 else f"{size / 2**10:,.0f} kB"
