"""`soldier-data vectors`."""

from __future__ import annotations

import asyncio
from enum import StrEnum
from typing import Annotated
from uuid import UUID

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from soldier_data.data_layer import DataLayer
from soldier_data.errors import StoreError
from soldier_data.providers import (
    EmbeddedStore,
    EmbeddingProvider,
    EmbedReport,
    HashingEmbeddingProvider,
    OpenAIEmbeddingProvider,
    ProviderError,
    embed_missing,
)
from soldier_data.settings import Settings

app = typer.Typer(help="Embeddings.", no_args_is_help=True)


class ProviderName(StrEnum):
    """Where embeddings come from."""

    OPENAI = "openai"
    HASHING = "hashing"


@app.callback()
def vectors() -> None:
    """Embeddings."""


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
    try:
        settings = Settings()
        if settings.row_level_security and tenant is None:
            raise typer.BadParameter("Row-level security shows one tenant at a time: name it by --tenant.")
        reports = asyncio.run(_run(console, settings, provider, tenant, batch_size, max_per_minute))
    except (StoreError, ProviderError) as error:
        console.print(f"[bold red]Stopped:[/] {escape(str(error))}", highlight=False, soft_wrap=True)
        console.print("What was embedded until then is kept; the same command goes on.")
        raise typer.Exit(1) from None
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
