"""`soldier-data sessions`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, TypeVar
from uuid import UUID

import typer
from rich.console import Console
from rich.table import Table

from soldier_data.cli.running import run

if TYPE_CHECKING:
    from soldier_data.sessions.durable import SessionRepair
    from soldier_data.sessions.redis import RedisSessionStore

T = TypeVar("T")

app = typer.Typer(
    help="Inspect and clean up the sessions in Redis (SOLDIER_REDIS_URL).", no_args_is_help=True
)


class OnlyInRedis(StrEnum):
    """Treatment of sessions that PostgreSQL lacks."""

    KEEP = "keep"
    ADOPT = "adopt"
    DELETE = "delete"


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
def repair(
    only_in_redis: Annotated[
        OnlyInRedis,
        typer.Option(help="Keep sessions that PostgreSQL lacks, adopt them there, or delete them."),
    ] = OnlyInRedis.KEEP,
) -> None:
    """Bring Redis in line with PostgreSQL, page by page (with SOLDIER_SESSION_DURABILITY=postgres).

    When you switch to that setting, pass --only-in-redis adopt once, while no service saves sessions.
    """
    from soldier_data.errors import ConfigurationError
    from soldier_data.sessions.durable import DurableSessionStore

    async def work(store: RedisSessionStore) -> SessionRepair:
        if not isinstance(store, DurableSessionStore):
            raise ConfigurationError(
                "sessions are stored in Redis alone: there is nothing to repair unless SOLDIER_SESSION_DURABILITY is "
                "postgres"
            )
        return await store.repair(only_in_redis.value)

    done = _run(work)
    console = Console()
    console.print(
        f"Checked {done.checked:,} sessions and copied {done.copied:,} of them to Redis.", highlight=False
    )
    if done.only_in_redis:
        outcome = {
            OnlyInRedis.KEEP: "were kept: pass --only-in-redis adopt or --only-in-redis delete",
            OnlyInRedis.ADOPT: "were saved in PostgreSQL",
            OnlyInRedis.DELETE: "were deleted",
        }[only_in_redis]
        console.print(
            f"{done.only_in_redis:,} sessions that PostgreSQL lacked {outcome}.",
            highlight=False,
            soft_wrap=True,
        )


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
    from soldier_data.postgres.database import Database
    from soldier_data.sessions.opening import open_durable_store, open_redis_store
    from soldier_data.settings import Settings

    settings = Settings()
    configure_logging(settings)
    database = Database(settings) if settings.has_durable_sessions else None
    store = open_redis_store(settings) if database is None else open_durable_store(settings, database)
    try:
        return await work(store)
    finally:
        await store.client.aclose()
        if database is not None:
            await database.close()
