"""`soldier-data demo`."""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from soldier_data.base.models import new_id
from soldier_data.data_layer import DataLayer
from soldier_data.demo.dataset import (
    SAMPLE_CONVERSATIONS,
    SAMPLE_GUIDELINES,
    Source,
    count_conversations,
    read_conversations,
    read_guidelines,
)
from soldier_data.demo.replay import Stopwatch, replay, store_support_desk
from soldier_data.demo.report import show
from soldier_data.errors import StoreError
from soldier_data.providers.hashing import HashingEmbeddingProvider
from soldier_data.settings import Settings


def demo(
    conversations: Annotated[
        Path | None, typer.Option(help="Conversations to replay, .jsonl or .jsonl.gz, instead of the sample.")
    ] = None,
    guidelines: Annotated[
        Path | None, typer.Option(help="What the agents go by, .json or .json.gz, instead of the sample's.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Replay the first so many conversations.")] = None,
    keep: Annotated[
        Path | None, typer.Option(help="A folder to keep the data in; it is removed otherwise.")
    ] = None,
    own_servers: Annotated[
        bool,
        typer.Option(
            "--own-servers",
            help="Use the servers of SOLDIER_DATABASE_URL and SOLDIER_REDIS_URL, under a tenant of its own.",
        ),
    ] = False,
) -> None:
    """Store an agent, replay a support desk's conversations turn by turn, and show what came of it.

    PostgreSQL and Redis are started for it and stopped afterwards.
    """
    console = Console()
    if keep is not None and own_servers:
        raise typer.BadParameter("--keep is for the servers that the demo starts: leave one of the two out.")
    try:
        settings = Settings()
        servers = (
            DataLayer.open(settings, migrate=True)
            if own_servers
            else DataLayer.embedded(keep, settings=settings)
        )
        asyncio.run(
            _run(
                console,
                servers,
                conversations or SAMPLE_CONVERSATIONS,
                guidelines or SAMPLE_GUIDELINES,
                limit,
            )
        )
    except StoreError as error:
        console.print(f"[bold red]The demo stopped:[/] {error}", highlight=False, soft_wrap=True)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        console.print("Interrupted. The servers are stopped.")
        raise typer.Exit(130) from None
    if keep is not None:
        console.print(
            f"The data is kept in {keep}: `soldier-data demo --keep {keep}` adds to it.", highlight=False
        )


async def _run(
    console: Console,
    servers: AbstractAsyncContextManager[DataLayer],
    conversations: Source,
    guidelines: Source,
    limit: int | None,
) -> None:
    # Files are opened before the servers: a wrong path should not cost a start.
    books = read_guidelines(guidelines)
    total = count_conversations(conversations)
    total = total if limit is None else min(limit, total)
    stopwatch = Stopwatch()
    with console.status("Starting PostgreSQL and Redis, and running the migrations ..."):
        with stopwatch.measure("start the servers and migrate"):
            data = await servers.__aenter__()
    try:
        provider = HashingEmbeddingProvider(data.settings.embedding_dimensions)
        with console.status(f"Storing an agent that goes by {len(books)} guidelines ..."):
            desk = await store_support_desk(data, new_id(), books.values(), provider, stopwatch)
        with _progress(console) as progress:
            task = progress.add_task("Replaying conversations", total=total)
            done = await replay(
                data,
                desk,
                read_conversations(conversations, limit=limit),
                provider,
                stopwatch,
                lambda: progress.advance(task),
            )
        console.print(
            f"Replayed [bold]{len(done.session_ids):,}[/] conversations with [bold]{done.turns:,}[/] turns in "
            f"[bold]{done.seconds:.1f} s[/]: {done.turns / done.seconds:,.0f} turns a second.\n",
            highlight=False,
        )
        await show(console, data, done, provider)
    except BaseException as error:
        await servers.__aexit__(type(error), error, error.__traceback__)
        raise
    await servers.__aexit__(None, None, None)


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
    )
