"""Migrations cancelled at any moment: they end at once, as cancelled, and can be run again to the end."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable, Coroutine, Generator
from functools import partial
from time import monotonic
from typing import Any

import pytest

from soldier_data import migrations
from soldier_data.migrations.connection import _LOCK
from tests.backends.connections import administrator
from tests.conftest import settings_for
from tests.migrations.tools import CHECKOUT, environment, schema
from tests.reliability.conftest import Counts, Found
from tests.reliability.test_cancellation_in_bulk import no_stray_errors

_BAR = 1.0


class Cancelling:
    """Awaits a coroutine, and cancels the task that does so where the coroutine waits for the n-th time.

    Attributes:
        done: Whether it has come to that.
        seconds: How long the coroutine went on afterwards.
    """

    def __init__(self, work: Coroutine[Any, Any, Any], position: int) -> None:
        self._work = work
        self._left = position
        self.done = False
        self.seconds = 0.0

    def __await__(self) -> Generator[Any, Any, None]:
        work, began = self._work.__await__(), monotonic()
        go_on: Callable[[], Any] = partial(next, work)
        try:
            while True:
                awaited = go_on()
                self._left -= 1
                if self._left == 0:
                    self.done, began = True, monotonic()
                    task = asyncio.current_task()
                    assert task is not None
                    task.cancel()
                try:
                    yield awaited
                except BaseException as error:  # noqa: BLE001 - handed on to where it belongs.
                    go_on = partial(work.throw, error)
                else:
                    go_on = partial(next, work)
        except StopIteration:
            pass
        finally:
            self.seconds = monotonic() - began


async def cancelled(work: Coroutine[Any, Any, Any], position: int) -> Cancelling:
    """Cancel `work` at a position, and see that it leaves as a cancellation."""
    cancelling = Cancelling(work, position)

    async def run() -> None:
        await cancelling

    task = asyncio.ensure_future(run())
    await asyncio.wait([task])
    if not cancelling.done:
        task.result()
    elif not task.cancelled():
        pytest.fail(f"cancelled at {position}, but ended as {task.exception()!r}")
    return cancelling


@pytest.mark.parametrize("way", ["upgrade", "downgrade"])
async def test_migrating_passes_a_cancellation_on_wherever_it_arrives(
    empty_database_url: str, database_url: str, count: Counts, report: Found, way: str
) -> None:
    settings = settings_for(empty_database_url)
    # The last ones of the many that a migration has are as different as the first ones.
    step, position, cancellations, slowest = count(41, 1), 1, 0, 0.0
    if way == "downgrade":
        await migrations.upgrade(settings)

    async def reached() -> str | None:
        return (await migrations.current(settings)).revision

    with no_stray_errors():
        while True:
            before = await reached()
            migrating = (
                migrations.upgrade(settings) if way == "upgrade" else migrations.downgrade(settings, "base")
            )
            cancelling = await cancelled(migrating, position)
            if not cancelling.done:
                break
            cancellations += 1
            slowest = max(slowest, cancelling.seconds)
            # What is done is not done again, so the next migration begins with the first positions.
            position = position + step if await reached() == before else 1 + cancellations % step
    assert await reached() == (migrations.head_revision() if way == "upgrade" else None)
    await migrations.upgrade(settings)
    assert await schema(empty_database_url) == await schema(database_url)
    if count.soak:
        assert slowest < _BAR
    report(
        f"{way} that is cancelled wherever it waits, then run again",
        bar="CancelledError within 1 s; runs to the end; schema identical",
        found=f"{cancellations} cancellations, the slowest over after {slowest * 1000:.0f} ms; schema identical",
    )


async def test_an_interrupt_ends_an_upgrade_that_waits(empty_database_url: str) -> None:
    async with administrator(empty_database_url) as holder:
        # Another process migrates, for all that this one can tell.
        await holder.execute(f"SELECT pg_advisory_lock({_LOCK})")
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", "from soldier_data.cli import main; main()", "db", "upgrade"),
            env=environment(CHECKOUT, SOLDIER_DATABASE_URL=empty_database_url),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            # A shell lets its background jobs, of which this test may be one, ignore interrupts.
            preexec_fn=partial(signal.signal, signal.SIGINT, signal.default_int_handler),
        )
        waiting = (
            "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_try_advisory_lock%' "
            "AND datname = current_database() AND pid <> pg_backend_pid()"
        )
        while not await holder.fetchval(waiting):
            assert process.returncode is None
            await asyncio.sleep(0.05)
        process.send_signal(signal.SIGINT)
        output, _ = await process.communicate()
        assert process.returncode == 130, output
        assert b"Traceback" not in output
    await migrations.upgrade(settings_for(empty_database_url))
