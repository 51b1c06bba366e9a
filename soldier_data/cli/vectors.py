"""`soldier-data vectors`."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, TypeVar
from uuid import UUID

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table

from soldier_data.cli.running import read_settings, run
from soldier_data.data_layer import DataLayer
from soldier_data.migrations.vector_indexes import BuildProgress, Rebuilt, reindex
from soldier_data.migrations.vector_status import VectorTable, vector_status
from soldier_data.providers import (
    EmbeddedStore,
    EmbeddingProvider,
    EmbedReport,
    HashingEmbeddingProvider,
    OpenAIEmbeddingProvider,
    embed_missing,
)
from soldier_data.settings import Settings

T = TypeVar("T")

app = typer.Typer(help="Embeddings and their indexes.", no_args_is_help=True)


class ProviderName(StrEnum):
    """Where embeddings come from."""

    OPENAI = "openai"
    HASHING = "hashing"


@app.callback()
def vectors() -> None:
    """Embeddings and their indexes."""


@app.command()
def embed(
    provider: Annotated[
        ProviderName, typer.Option(help="Where the embeddings come from: a model, or the hashing of words.")
    ],
    tenant: Annotated[
        UUID | None,
        typer.Option(help="One tenant, instead of all. Needed where row-level security is on."),
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="How many texts to embed at a time.")] = 100,
    max_per_minute: Annotated[
        int | None, typer.Option(min=1, help="The most texts to embed in a minute.")
    ] = None,
) -> None:
    """Embed the rules, scenarios and episodes that have no embedding, or one of another model.

    What is done is kept: interrupt it at any time, and run it again to go on.
    """
    console = Console()
    settings = read_settings()
    if settings.row_level_security and tenant is None:
        raise typer.BadParameter("Row-level security shows one tenant at a time: name it by --tenant.")
    try:
        reports = run(_run(console, settings, provider, tenant, batch_size, max_per_minute))
    except typer.Exit:
        console.print("What was embedded until then is kept; the same command goes on.")
        raise
    except KeyboardInterrupt:
        console.print("Interrupted: what was embedded is kept, and the same command goes on.")
        raise typer.Exit(130) from None
    embedded = sum(report.embedded for report in reports)
    skipped = sum(report.skipped for report in reports)
    console.print(f"Embedded [bold]{embedded:,}[/] texts.", highlight=False)
    if skipped:
        console.print(
            f"Left out {skipped:,}: changed meanwhile (run it again), or refused by the provider.",
            highlight=False,
        )


@app.command()
def status() -> None:
    """Show the vector indexes, what has no embedding, and which models made the others; and say what to do.

    Rows are counted, which reads every table with embeddings from end to end. Changes nothing.
    """
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
            "Take a superuser, or a role with BYPASSRLS, to have them counted.",
            highlight=False,
        )
    for advice in (advice for table in tables for advice in table.advice()):
        console.print(f"- {escape(advice)}", highlight=False)


@app.command("reindex")
def rebuild(
    tables: Annotated[
        list[str] | None, typer.Argument(help="Tables whose vector indexes to rebuild; all unless named.")
    ] = None,
    memory: Annotated[
        str | None,
        typer.Option(
            help="PostgreSQL's maintenance_work_mem for it, such as 2GB. An index that fits builds faster."
        ),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(help="PostgreSQL's max_parallel_maintenance_workers for it.")
    ] = None,
) -> None:
    """Build the vector indexes anew, while the tables are in use, as SOLDIER_VECTOR_INDEX says.

    The role must own the tables. An index that is there serves searches until the new one is ready.
    """
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

        def show(at: BuildProgress) -> None:
            description = f"{at.index} ({at.number} of {at.count})"
            phase = at.phase.removeprefix("building index: ")
            progress.update(task, description=description, completed=at.done, phase=phase)

        try:
            rebuilt = run(reindex(settings, tables or (), memory=memory, workers=workers, on_progress=show))
        except KeyboardInterrupt:
            console.print("Interrupted: the indexes that there were are in use as before. Run it again.")
            raise typer.Exit(130) from None
    for item in rebuilt:
        console.print(_sentence(item), highlight=False)
    if not rebuilt:
        console.print("The settings want no vector index there, and there is none.")


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
                table.name, rows, without, "none", "", "" if table.wanted is None else "[red]missing[/]"
            )
    return shown


def _sentence(item: Rebuilt) -> str:
    if item.method is None:
        return f"Removed {item.name}."
    was = {None: "new", "invalid": "was invalid"}.get(item.before, "rebuilt")
    return f"{item.name}: {item.method}, {_size(item.bytes)}, {item.seconds:.1f} s ({was})"


def _size(size: int) -> str:
    return f"{size / 2**20:,.0f} MB" if size >= 2**20 else f"{size / 2**10:,.0f} kB"


async def _run(
    console: Console,
    settings: Settings,
    name: ProviderName,
    tenant: UUID | None,
    batch_size: int,
    max_per_minute: int | None,
) -> list[EmbedReport]:
    provider = _provider(name, settings)

    async def embed_all(store: EmbeddedStore, what: str, progress: Progress) -> EmbedReport:
        task = progress.add_task(f"Embedding {what}", total=None)

        def show(done: int, total: int) -> None:
            progress.update(task, completed=done, total=total)

        report = await embed_missing(
            store,
            provider,
            tenant_id=tenant,
            batch_size=batch_size,
            max_per_minute=max_per_minute,
            on_progress=show,
        )
        show(report.embedded + report.skipped, report.embedded + report.skipped)
        return report

    try:
        async with DataLayer.open(settings) as data:
            with _progress(console) as progress:
                return [
                    await embed_all(data.config, "rules and scenarios", progress),
                    await embed_all(data.memory, "episodes", progress),
                ]
    finally:
        await provider.close()


def _provider(name: ProviderName, settings: Settings) -> EmbeddingProvider:
    if name is ProviderName.OPENAI:
        return OpenAIEmbeddingProvider(dimensions=settings.embedding_dimensions)
    return HashingEmbeddingProvider(settings.embedding_dimensions)


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
    )
