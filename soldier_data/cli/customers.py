"""`soldier-data customers`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, TypeVar
from uuid import UUID

import typer

from soldier_data.cli.running import run
from soldier_data.data_layer import DataLayer

T = TypeVar("T")

app = typer.Typer(help="Hand out, or erase, all that is held about a customer.", no_args_is_help=True)

_PROFILE = typer.Argument(help="The id of the customer's profile.")
_TENANT = typer.Option(help="The id of the tenant.")
_SESSION = typer.Option(
    help="A further conversation of the customer's, long ended. May be given several times."
)


@app.command()
def export(
    profile_id: Annotated[UUID, _PROFILE],
    tenant: Annotated[UUID, _TENANT],
    session: Annotated[list[UUID] | None, _SESSION] = None,
    lines: Annotated[
        bool,
        typer.Option("--lines", help="Print JSON Lines, one for each record, as they are read."),
    ] = False,
    with_embeddings: Annotated[
        bool, typer.Option("--with-embeddings", help="Include the vectors too.")
    ] = False,
) -> None:
    """Print everything held about a customer as JSON, personal data and all."""

    async def whole(data: DataLayer) -> None:
        found = await data.export_customer(
            tenant, profile_id, session_ids=session or (), with_embeddings=with_embeddings
        )
        typer.echo(found.model_dump_json(indent=2))

    async def in_lines(data: DataLayer) -> None:
        async for line in data.export_customer_lines(
            tenant, profile_id, session_ids=session or (), with_embeddings=with_embeddings
        ):
            typer.echo(line, nl=False)

    _done(in_lines if lines else whole)


@app.command()
def erase(
    profile_id: Annotated[UUID, _PROFILE],
    tenant: Annotated[UUID, _TENANT],
    session: Annotated[list[UUID] | None, _SESSION] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Erase a customer from every store, for good. What was broken off is finished by running it again."""
    if not yes:
        typer.confirm(f"Erase the customer {profile_id} of the tenant {tenant} for good?", abort=True)
    report = _done(lambda data: data.erase_customer(tenant, profile_id, session_ids=session or ()))
    typer.echo(report.model_dump_json(indent=2))


def _done(work: Callable[[DataLayer], Awaitable[T]]) -> T:
    async def on_data_layer() -> T:
        async with DataLayer.open() as data:
            return await work(data)

    return run(on_data_layer())
