"""The connections to PostgreSQL that are open: taken out for a statement or a transaction, and given back."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from time import monotonic
from typing import Any

from sqlalchemy.pool import PoolProxiedConnection
from sqlalchemy.util import greenlet_spawn

from soldier_data.errors import StoreConnectionError, StoreError
from soldier_data.logging import get_logger
from soldier_data.postgres.engine import create_engine
from soldier_data.postgres.errors import as_store_error
from soldier_data.settings import Settings

_PING_SECONDS = 1.0
"""Limit for the answer of a connection that may be lost; opening another one takes less than waiting any longer."""


class Lease:
    """A connection taken out of the pool.

    Attributes:
        since: When it was opened.
        used: When it was last taken out.
    """

    __slots__ = ("driver", "proxy", "since", "used")

    def __init__(self, proxy: PoolProxiedConnection) -> None:
        self.proxy = proxy
        self.driver: Any = proxy.driver_connection
        # SQLAlchemy replaces connections by age when they are checked out; these stay out.
        self.since: float = proxy.info.setdefault("since", monotonic())
        self.used = self.since


class ConnectionPool:
    """The free connections, kept at hand; SQLAlchemy's pool opens and closes them.

    What takes time, opening a connection or looking whether an old one still answers, is done in tasks of the pool's
    own: a caller who stops waiting leaves a connection to the next one.
    """

    def __init__(self, settings: Settings) -> None:
        self.is_closed = False
        self._settings = settings
        self._engine = create_engine(settings)
        self._recycle = settings.pool_recycle.total_seconds()
        # Taking a connection out of SQLAlchemy's pool and putting it back takes as long as a short query does, so
        # free connections stay checked out here, the last used on top.
        self._free: list[Lease] = []
        self._in_use: set[Lease] = set()
        self._wanting: deque[asyncio.Future[Lease]] = deque()
        self._supplying: set[asyncio.Task[None]] = set()
        self._coming = 0
        self._abandoning: set[asyncio.Task[None]] = set()
        self._waiting = 0
        self._turns = asyncio.Semaphore(settings.pool_size + settings.pool_overflow)
        self._idle = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        # When a connection was last lost or did not answer: those not used since then may be lost as well.
        self._doubtful = 0.0
        # Connections opened until then may lead to a server that was found to be read-only.
        self._outdated = 0.0
        self._log = get_logger(__name__)

    async def close(self) -> None:
        """Wait for what is running, `command_timeout` at most, and close every connection."""
        if self._loop is not None and self._loop.is_closed():
            # An event loop that has ended closes nothing any more.
            self.is_closed = True
            while self._free:
                self._free.pop().proxy.detach()
            return
        self._belong_here("closing the data layer")
        self.is_closed = True
        if self._in_use or self._waiting:
            self._idle.clear()
            try:
                async with asyncio.timeout(self._settings.command_timeout.total_seconds()):
                    await self._idle.wait()
            except TimeoutError:
                self._log.warning("database.close_timeout", abandoned=len(self._in_use))
                for lease in list(self._in_use):
                    lease.driver.terminate()
        for task in self._supplying:
            task.cancel()
        await asyncio.gather(*self._supplying, return_exceptions=True)
        self._give_up_free(lambda _: True)
        await asyncio.gather(*self._abandoning)
        await self._engine.dispose()

    async def acquire(self, operation: str) -> Lease:
        """Take a connection out, waiting for one if need be; `operation` is for error messages.

        Raises:
            StoreConnectionError: The server cannot be reached, or none was free in `pool_timeout`.
        """
        if self.is_closed:
            raise StoreError(f"{operation}: the data layer is closed")
        if self._loop is not asyncio.get_running_loop():
            self._belong_here(operation)
        self._waiting += 1
        try:
            if self._turns.locked():
                await self._wait_for_turn(operation)
            else:
                await self._turns.acquire()
            try:
                lease = self._pop_trusted() or await self._supplied()
            except BaseException:
                self._turns.release()
                raise
        except Exception as error:  # noqa: BLE001 - no exception of the driver may leave.
            failure = as_store_error(error, operation)
        else:
            self._in_use.add(lease)
            return lease
        finally:
            self._waiting -= 1
            if self.is_closed:
                self._notice_idle()
        raise failure

    async def release(self, lease: Lease, *, broken: bool, interrupted: bool = False) -> None:
        """Give a connection back.

        Args:
            lease: The connection.
            broken: Close it.
            interrupted: A statement, not of a transaction, was cancelled or not answered in time. The connection is
                kept if it answers once the server has cancelled the statement as well.
        """
        broken = broken or lease.driver.is_closed()
        if broken or interrupted:
            self._doubtful = monotonic()
        full = len(self._free) >= self._settings.pool_size and not self._wanting
        if broken or self.is_closed or lease.since <= self._outdated or full:
            # Not awaited: it may be a cancelled task that gives the connection back. Until it is closed it counts.
            self._give_up(lease)
        elif interrupted:
            self._start(self._recover(lease), self._abandoning)
        else:
            self._take_back(lease)

    def _take_back(self, lease: Lease) -> None:
        self._in_use.discard(lease)
        self._turns.release()
        self._hand_over(lease)
        self._notice_idle()

    async def _recover(self, lease: Lease) -> None:
        if await self._answers(lease):
            self._take_back(lease)

    def give_up_opened_until(self, moment: float) -> None:
        """Give up every connection opened until then, those in use when they are given back."""
        self._outdated = max(self._outdated, moment)
        self._give_up_free(lambda free: free.since <= self._outdated)

    def _belong_here(self, operation: str) -> None:
        if self._loop not in (None, asyncio.get_running_loop()):
            raise StoreError(
                f"{operation}: the data layer belongs to another event loop, that of its first call: open one in each "
                "asyncio.run()"
            )
        self._loop = asyncio.get_running_loop()

    async def _wait_for_turn(self, operation: str) -> None:
        try:
            async with asyncio.timeout(self._settings.pool_timeout.total_seconds()):
                await self._turns.acquire()
        except TimeoutError:
            in_vain = True
        else:
            in_vain = False
        if in_vain:
            raise StoreConnectionError(
                f"{operation}: all database connections are in use: raise SOLDIER_POOL_SIZE or SOLDIER_POOL_TIMEOUT"
            )

    def _pop_trusted(self) -> Lease | None:
        """The free connection that was used last, if nothing speaks against it."""
        if not self._free:
            return None
        lease, now = self._free[-1], monotonic()
        if lease.used < self._doubtful or now - lease.since >= self._recycle or lease.driver.is_closed():
            return None
        lease.used = now
        return self._free.pop()

    async def _supplied(self) -> Lease:
        """Wait for a connection that is given back, opened, or found to be still there."""
        wanted: asyncio.Future[Lease] = asyncio.get_running_loop().create_future()
        self._wanting.append(wanted)
        if self._coming < len(self._wanting):
            self._coming += 1
            self._start(self._supply(), self._supplying)
        try:
            lease = await wanted
        except asyncio.CancelledError:
            if wanted in self._wanting:
                self._wanting.remove(wanted)
            elif not wanted.cancelled() and wanted.exception() is None:
                # It came at the same moment.
                self._hand_over(wanted.result())
            raise
        lease.used = monotonic()
        return lease

    async def _supply(self) -> None:
        """Have one more connection ready: for the caller who waits longest, or else for the next one."""
        try:
            lease = await self._checked() or Lease(await greenlet_spawn(self._engine.pool.connect))
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - it is for the caller who waits.
            self._coming -= 1
            # Cancelled by `close`, or with all tasks of the event loop.
            self._fail(error if isinstance(error, Exception) else StoreError("the data layer is closed"))
        else:
            self._coming -= 1
            self._hand_over(lease)

    async def _checked(self) -> Lease | None:
        """A free connection that answers, if there is one."""
        while self._free:
            lease = self._free.pop()
            if monotonic() - lease.since >= self._recycle or lease.driver.is_closed():
                self._give_up(lease)
            elif lease.used >= self._doubtful or await self._answers(lease):
                return lease
        return None

    async def _answers(self, lease: Lease) -> bool:
        """Whether a connection that may be lost is still there. One that is not is given up."""
        asked, answered = monotonic(), False
        try:
            # The driver's own time-out begins only when an interrupted statement has ended.
            async with asyncio.timeout(_PING_SECONDS):
                await lease.driver.execute("SELECT 1")
            answered = True
        except TimeoutError:
            # Whatever swallowed this one's words has most probably forgotten the others as well.
            self._give_up_free(lambda free: free.used < self._doubtful)
        except Exception as error:  # noqa: BLE001 - it is lost, however that shows.
            self._log.debug("database.lost", error=type(error).__name__)
        finally:
            if not answered:
                self._give_up(lease)
        lease.used = asked
        return answered

    def _hand_over(self, lease: Lease) -> None:
        """Give a connection that nobody uses to the caller who waits longest for one, or keep it."""
        while self._wanting:
            wanted = self._wanting.popleft()
            if not wanted.done():
                wanted.set_result(lease)
                return
        if self.is_closed or len(self._free) >= self._settings.pool_size:
            self._give_up(lease)
        else:
            self._free.append(lease)

    def _fail(self, error: Exception) -> None:
        """Tell the caller who waits longest that there will be no connection, unless others are on their way."""
        if len(self._wanting) <= self._coming:
            self._log.debug("database.not_opened", error=type(error).__name__)
            return
        while self._wanting:
            wanted = self._wanting.popleft()
            if not wanted.done():
                wanted.set_exception(error)
                return

    def _give_up_free(self, condition: Callable[[Lease], bool]) -> None:
        given_up = [lease for lease in self._free if condition(lease)]
        self._free = [lease for lease in self._free if not condition(lease)]
        for lease in given_up:
            self._give_up(lease)

    def _give_up(self, lease: Lease) -> None:
        self._start(self._close(lease), self._abandoning)

    async def _close(self, lease: Lease) -> None:
        """Close a connection on which a statement may still run. Closing cancels it; hanging up would not."""
        try:
            async with asyncio.timeout(self._settings.connect_timeout.total_seconds()):
                await lease.driver.close()
        except Exception as error:  # noqa: BLE001 - the server may be gone as well.
            self._log.debug("database.abandoned", error=type(error).__name__)
            lease.driver.terminate()
        lease.proxy.invalidate()
        if lease in self._in_use:
            self._in_use.discard(lease)
            self._turns.release()
            self._notice_idle()

    def _start(self, work: Coroutine[Any, Any, None], tasks: set[asyncio.Task[None]]) -> None:
        task = asyncio.create_task(work)
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    def _notice_idle(self) -> None:
        if self.is_closed and not self._in_use and not self._waiting:
            self._idle.set()
