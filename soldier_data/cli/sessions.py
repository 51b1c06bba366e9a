"""`soldier-data sessions`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, TypeVar
from uuid import UUID

import typer
from rich.console import Console
from rich.table import Table

from soldier_data.cli.running import run

if TYPE_CHECKING:
    from soldier_data.sessions.redis import RedisSessionStore

T = TypeVar("T")

app = typer.Typer(
    help="Inspect and clean up the sessions in Redis (SOLDIER_REDIS_URL).", no_args_is_help=True
)


@app.command()
def stats() -> None:
    """Count the sessions in each tier. Scans all keys in small steps, which may take long on a large Redis."""
    counts = _run(lambda store: store.stats())
    table = Table("Tier", "Sessions")
    table.columns[1].justify = "right"
    for tier, count in counts.items():
        table.add_row(tier, f"{count:,}")
    Console().print(table)


@app.command()
def sweep() -> None:
    """Remove expired sessions and stale index entries, in small steps."""
    removed = _run(lambda store: store.cleanup_expired())
    Console().print(f"Removed {removed:,} expired sessions and index entries.", highlight=False)


@app.command()
def show(session_id: Annotated[UUID, typer.Argument(help="Id of the session.")]) -> None:
    """Print one session as JSON, without promoting it. The output contains personal data."""

    async def find(store: RedisSessionStore) -> tuple[str | None, str]:
        tier = await store.tier(session_id)
        session = await store.peek(session_id)
        return tier, "" if session is None else session.model_dump_json(indent=2)

    tier, text = _run(find)
    if not text:
        Console(stderr=True).print(f"Error: there is no session {session_id}", highlight=False)
        raise typer.Exit(1)
    Console(stderr=True).print(f"Tier: {tier}", highlight=False)
    Console().print_json(text)


def _run(work: Callable[[RedisSessionStore], Awaitable[T]]) -> T:
    return run(_with_store(work))


async def _with_store(work: Callable[[RedisSessionStore], Awaitable[T]]) -> T:
    from soldier_data.logging import configure_logging
    from soldier_data.sessions.opening import open_redis_store
    from soldier_data.settings import Settings

    settings = Settings()
    configure_logging(settings)
    store = open_redis_store(settings)
    try:
        return await work(store)
    finally:
        await store.client.aclose()
