"""`soldier-data customers`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, TypeVar
from uuid import UUID

import typer

from soldier_data.cli.running import run

if TYPE_CHECKING:
    from soldier_data.data_layer import DataLayer

T = TypeVar("T")

app = typer.Typer(help="Export or erase everything stored about a customer.", no_args_is_help=True)

_PROFILE = typer.Argument(help="Id of the customer's profile.")
_TENANT = typer.Option(help="Id of the tenant.")
_SESSION = typer.Option(help="Id of an expired session of the customer. May be repeated.")


@app.command()
def export(
    profile_id: Annotated[UUID, _PROFILE],
    tenant: Annotated[UUID, _TENANT],
    session: Annotated[list[UUID] | None, _SESSION] = None,
    lines: Annotated[
        bool,
        typer.Option("--lines", help="Print JSON Lines, one record per line, instead of one document."),
    ] = False,
    with_embeddings: Annotated[
        bool, typer.Option("--with-embeddings", help="Include the embeddings.")
    ] = False,
) -> None:
    """Print everything stored about a customer as JSON. The output contains personal data."""

    async def print_document(data: DataLayer) -> None:
        exported = await data.export_customer(
            tenant, profile_id, session_ids=session or (), with_embeddings=with_embeddings
        )
        typer.echo(exported.model_dump_json(indent=2))

    async def print_lines(data: DataLayer) -> None:
        async for line in data.export_customer_lines(
            tenant, profile_id, session_ids=session or (), with_embeddings=with_embeddings
        ):
            typer.echo(line, nl=False)

    _run(print_lines if lines else print_document)


@app.command()
def erase(
    profile_id: Annotated[UUID, _PROFILE],
    tenant: Annotated[UUID, _TENANT],
    session: Annotated[list[UUID] | None, _SESSION] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")] = False,
) -> None:
    """Erase a customer permanently from every store. If interrupted, run it again to finish."""
    if not yes:
        typer.confirm(f"Permanently erase customer {profile_id} of tenant {tenant}?", abort=True)
    report = _run(lambda data: data.erase_customer(tenant, profile_id, session_ids=session or ()))
    typer.echo(report.model_dump_json(indent=2))


def _run(work: Callable[[DataLayer], Awaitable[T]]) -> T:
    from soldier_data.data_layer import DataLayer

    async def with_data_layer() -> T:
        async with DataLayer.open() as data:
            return await work(data)

    return run(with_data_layer())
