"""`soldier-data vectors embed`."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from soldier_data.cli.running import read_settings, run

if TYPE_CHECKING:
    from soldier_data.providers import EmbeddedStore, EmbeddingProvider, EmbedReport
    from soldier_data.settings import Settings


class ProviderName(StrEnum):
    """The embedding providers to choose from."""

    OPENAI = "openai"
    HASHING = "hashing"


def embed(
    provider: Annotated[
        ProviderName, typer.Option(help="Embedding provider: OpenAI's API, or hashed words (no network).")
    ],
    tenant: Annotated[
        UUID | None,
        typer.Option(help="Embed the texts of this tenant only. Required with row-level security."),
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Number of texts in a batch.")] = 100,
    max_per_minute: Annotated[
        int | None, typer.Option(min=1, help="Largest number of texts embedded in a minute.")
    ] = None,
) -> None:
    """Embed the rules, scenarios and episodes that lack an embedding by the provider's model.

    Each batch is saved at once. You can interrupt the command at any time and run it again to continue.
    """
    console = Console()
    settings = read_settings()
    if settings.row_level_security and tenant is None:
        raise typer.BadParameter("With row-level security only one tenant is visible: pass --tenant.")
    try:
        reports = run(_embed_all(console, settings, provider, tenant, batch_size, max_per_minute))
    except typer.Exit:
        console.print("The embeddings made so far are saved; run the same command again to continue.")
        raise
    except KeyboardInterrupt:
        console.print("Interrupted: the embeddings made so far are saved; run the same command to continue.")
        raise typer.Exit(130) from None
    embedded = sum(report.embedded for report in reports)
    skipped = sum(report.skipped for report in reports)
    console.print(f"Embedded [bold]{embedded:,}[/] texts.", highlight=False)
    if skipped:
        console.print(
            f"Skipped {skipped:,}: they changed meanwhile (run the command again), or the provider rejected them.",
            highlight=False,
        )


async def _embed_all(
    console: Console,
    settings: Settings,
    name: ProviderName,
    tenant: UUID | None,
    batch_size: int,
    max_per_minute: int | None,
) -> list[EmbedReport]:
    from soldier_data.data_layer import DataLayer
    from soldier_data.providers import embed_missing

    provider = _provider(name, settings)

    async def embed_store(store: EmbeddedStore, texts: str, progress: Progress) -> EmbedReport:
        task = progress.add_task(f"Embedding {texts}", total=None)

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

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    try:
        async with DataLayer.open(settings) as data:
            with Progress(*columns, console=console) as progress:
                return [
                    await embed_store(data.config, "rules and scenarios", progress),
                    await embed_store(data.memory, "episodes", progress),
                ]
    finally:
        await provider.close()


def _provider(name: ProviderName, settings: Settings) -> EmbeddingProvider:
    from soldier_data.providers import HashingEmbeddingProvider, OpenAIEmbeddingProvider

    if name is ProviderName.OPENAI:
        return OpenAIEmbeddingProvider(dimensions=settings.embedding_dimensions)
    return HashingEmbeddingProvider(settings.embedding_dimensions)
