"""`soldier-data demo`."""

from __future__ import annotations

import signal
import sys
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from soldier_data.cli.running import read_settings, run
from soldier_data.errors import ConfigurationError

if TYPE_CHECKING:
    from soldier_data.data_layer import DataLayer
    from soldier_data.demo.dataset import Source


def demo(
    conversations: Annotated[
        Path | None,
        typer.Option(help="Conversations to replay, .jsonl or .jsonl.gz. Default: a packaged sample."),
    ] = None,
    guidelines: Annotated[
        Path | None,
        typer.Option(help="The agent's guidelines, .json or .json.gz. Default: a packaged sample."),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Number of conversations to replay. Default: all.")
    ] = None,
    keep: Annotated[
        Path | None, typer.Option(help="Folder to keep the data in. Default: the data is deleted.")
    ] = None,
    own_servers: Annotated[
        bool,
        typer.Option(
            "--own-servers",
            help="Use the servers of SOLDIER_DATABASE_URL and SOLDIER_REDIS_URL, with a new tenant.",
        ),
    ] = False,
) -> None:
    """Store an agent, replay a support desk's conversations turn by turn, and show the stored data.

    Starts a PostgreSQL and a Redis of its own, and stops them at the end.
    """
    from soldier_data.data_layer import DataLayer
    from soldier_data.demo.dataset import SAMPLE_CONVERSATIONS, SAMPLE_GUIDELINES

    # Shells make background jobs ignore SIGINT. This handler is set so that an interrupt stops the servers.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    console = Console()
    if keep is not None and own_servers:
        raise typer.BadParameter("--keep cannot be combined with --own-servers.")
    sources = (conversations or SAMPLE_CONVERSATIONS, guidelines or SAMPLE_GUIDELINES)
    settings = read_settings()
    data_layer = (
        DataLayer.open(settings, migrate=True) if own_servers else DataLayer.embedded(keep, settings=settings)
    )
    try:
        run(_run(console, data_layer, *sources, limit))
    except KeyboardInterrupt:
        console.print("Interrupted: the servers were stopped.")
        raise typer.Exit(130) from None
    if keep is not None:
        console.print(
            f"The data is in {escape(str(keep))}; running the same command again adds to it.", highlight=False
        )


async def _run(
    console: Console,
    data_layer: AbstractAsyncContextManager[DataLayer],
    conversations: Source,
    guidelines: Source,
    limit: int | None,
) -> None:
    from soldier_data.base.models import new_id
    from soldier_data.demo.dataset import count_conversations, read_conversations, read_guidelines
    from soldier_data.demo.replay import Stopwatch, replay, store_support_desk
    from soldier_data.demo.report import show
    from soldier_data.providers.hashing import HashingEmbeddingProvider

    # Opened before the servers start, so that a wrong path is reported at once.
    parsed_guidelines = read_guidelines(guidelines)
    total = min(count_conversations(conversations), limit or sys.maxsize)
    if total == 0:
        raise ConfigurationError(f"{conversations} has no conversations: pass a file with at least one")
    stopwatch = Stopwatch()
    async with AsyncExitStack() as stack:
        with (
            console.status("Starting PostgreSQL and Redis, and running the migrations ..."),
            stopwatch.measure("start the servers and migrate"),
        ):
            data = await stack.enter_async_context(data_layer)
        provider = HashingEmbeddingProvider(data.settings.embedding_dimensions)
        with console.status(f"Storing an agent with {len(parsed_guidelines)} guidelines ..."):
            desk = await store_support_desk(data, new_id(), parsed_guidelines.values(), provider, stopwatch)
        with _progress(console) as progress:
            task = progress.add_task("Replaying conversations", total=total)
            done = await replay(
                data,
                desk,
                read_conversations(conversations, limit=limit),
                provider,
                stopwatch,
                on_conversation=lambda: progress.advance(task),
            )
        console.print(
            f"Replayed [bold]{len(done.session_ids):,}[/] conversations with [bold]{done.turns:,}[/] turns "
            f"in [bold]{done.seconds:.1f} s[/]: {done.turns / done.seconds:,.0f} turns a second.\n",
            highlight=False,
        )
        await show(console, data, done, provider)


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
    )
