"""Calls of the driver that send many rows, ended as soon as their caller, their time or the connection ends.

While the server does not take what is sent, because a row is locked, say, asyncpg waits for nothing else: not for a
cancellation, which it swallows, and not for the end of the connection. These calls therefore run in tasks of
their own, which the caller need not wait for. What is left of such a task ends with the connection, which is not to be
used again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import asyncpg

T = TypeVar("T")


class _Withdrawn(Exception):  # noqa: N818 - seen by asyncpg alone.
    """The rows that are not sent yet are not to be sent."""


class _Rows:
    """The parameters of a statement, row by row. asyncpg asks for more whenever the server has taken some."""

    def __init__(self, rows: Sequence[Sequence[Any]]) -> None:
        self._rows = rows
        self._withdrawn = False

    def __iter__(self) -> Iterator[Sequence[Any]]:
        for row in self._rows:
            if self._withdrawn:
                # asyncpg then lets the server forget the rows before, and ends what it sends as it must be ended.
                raise _Withdrawn
            yield row

    def withdraw(self) -> None:
        """Send no more."""
        self._withdrawn = True


async def fetch_many(driver: Any, sql: str, rows: Sequence[Sequence[Any]], time_out: float) -> list[Any]:
    """Run `sql` once for each of `rows`, in one round trip, and return what all of them returned."""
    arguments = _Rows(rows)
    call = asyncio.ensure_future(driver.fetchmany(sql, arguments))
    returned: list[Any] = await _outcome(driver, call, time_out, arguments.withdraw)
    return returned


async def copy_rows(
    driver: Any, schema: str, table: str, columns: list[str], rows: list[tuple[Any, ...]], time_out: float
) -> None:
    """Write `rows` by binary COPY. The values are in the order of `columns`."""
    call = asyncio.ensure_future(
        driver.copy_records_to_table(table, schema_name=schema, columns=columns, records=rows)
    )
    # Unlike `fetchmany`, it passes a cancellation on.
    await _outcome(driver, call, time_out, call.cancel)


async def _outcome(driver: Any, call: asyncio.Future[T], time_out: float, give_up: Callable[[], object]) -> T:
    loop = asyncio.get_running_loop()

    def end(_connection: object) -> None:
        # At the loop's next turn: in this one, the call may still hear from the driver why the connection ended.
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
        # A COPY that was cut off waits for the answer to a cancellation, unless it is told that none comes.
        driver.terminate()
        if call.cancelled() or isinstance(call.exception(), AttributeError):
            # The latter is how asyncpg fails that finds itself without a connection.
            raise asyncpg.ConnectionDoesNotExistError(
                "the connection was closed in the middle of an operation"
            )
    return call.result()


def _look_at(call: asyncio.Future[Any]) -> None:
    """Let asyncio know that nobody is interested in how the call ended."""
    if not call.cancelled():
        call.exception()
