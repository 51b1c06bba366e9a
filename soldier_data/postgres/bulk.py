"""Driver calls that send many rows, and that stop on cancellation, on time-out and when the connection is lost.

While the server does not read, for instance because a row is locked, asyncpg's bulk calls swallow cancellations and do
not notice a lost connection. They therefore run in tasks of their own, which callers abandon when they give up. Such a
task ends when its connection is closed; do not use the connection again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import asyncpg

T = TypeVar("T")


class _Withdrawn(Exception):  # noqa: N818 - seen by asyncpg alone.
    """Stops asyncpg from sending the remaining rows."""


class _Rows:
    """The parameters of a statement, row by row. asyncpg requests more whenever the server has read some."""

    def __init__(self, rows: Sequence[Sequence[Any]]) -> None:
        self._rows = rows
        self._withdrawn = False

    def __iter__(self) -> Iterator[Sequence[Any]]:
        for row in self._rows:
            if self._withdrawn:
                # asyncpg then discards the rows sent so far, and ends the message properly.
                raise _Withdrawn
            yield row

    def withdraw(self) -> None:
        """Send no further rows."""
        self._withdrawn = True


async def fetch_many(driver: Any, sql: str, rows: Sequence[Sequence[Any]], time_out: float) -> list[Any]:
    """Run `sql` once for each of `rows`, in one round trip, and return the rows of all results."""
    arguments = _Rows(rows)
    call = asyncio.ensure_future(driver.fetchmany(sql, arguments))
    returned: list[Any] = await _outcome(driver, call, time_out, arguments.withdraw)
    return returned


async def copy_rows(
    driver: Any, schema: str, table: str, columns: list[str], rows: list[tuple[Any, ...]], time_out: float
) -> None:
    """Insert `rows` with binary COPY. Values are in the order of `columns`."""
    call = asyncio.ensure_future(
        driver.copy_records_to_table(table, schema_name=schema, columns=columns, records=rows)
    )
    # Unlike `fetchmany`, it can be cancelled.
    await _outcome(driver, call, time_out, call.cancel)


async def _outcome(driver: Any, call: asyncio.Future[T], time_out: float, give_up: Callable[[], object]) -> T:
    loop = asyncio.get_running_loop()

    def end(_connection: object) -> None:
        # In the next iteration of the loop: in this one, the driver may still set the reason as the call's exception.
        loop.call_soon(call.cancel)

    driver.add_termination_listener(end)
    try:
        await asyncio.wait([call], timeout=time_out)
    finally:
        if not call.done():
            give_up()
            call.add_done_callback(_look_at)
    if not call.done():
        raise TimeoutError
    driver.remove_termination_listener(end)
    if driver.is_closed():
        # An interrupted COPY would wait for a reply to its cancellation.
        driver.terminate()
        if call.cancelled() or isinstance(call.exception(), AttributeError):
            # asyncpg raises AttributeError when its connection has disappeared.
            raise asyncpg.ConnectionDoesNotExistError(
                "the connection was closed in the middle of an operation"
            )
    return call.result()


def _look_at(call: asyncio.Future[Any]) -> None:
    """Retrieve the exception of an abandoned call, so that asyncio does not log it."""
    if not call.cancelled():
        call.exception()
