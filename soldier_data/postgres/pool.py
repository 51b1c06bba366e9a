"""The pool of open PostgreSQL connections, each acquired for one statement or transaction.

The connections belong to an SQLAlchemy engine, so that the session of a unit of work runs on the connection of its
stores, and listeners of the engine hear of connections and statements. The engine opens and closes them; they are kept
here, because SQLAlchemy takes as long to check a connection out as PostgreSQL to answer a short query.
"""

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
"""Time-out of the test of a connection that may be lost. Opening a new one would be quicker than a longer wait."""


class Lease:
    """A connection of the pool.

    Attributes:
        since: Time when it was opened.
        used: Time when it was last acquired.
    """

    __slots__ = ("driver", "proxy", "since", "used")

    def __init__(self, proxy: PoolProxiedConnection) -> None:
        self.proxy = proxy
        self.driver: Any = proxy.driver_connection
        self.since: float = proxy.info.setdefault("since", monotonic())
        self.used = self.since


class ConnectionPool:
    """Keeps free connections ready for use.

    Connections are opened and tested in tasks of the pool, so that the connection is not lost when the caller stops
    waiting: the next caller gets it.
    """

    def __init__(self, settings: Settings) -> None:
        self.is_closed = False
        self._settings = settings
        self.engine = create_engine(settings)
        self._recycle = settings.pool_recycle.total_seconds()
        # The most recently used one last.
        self._free: list[Lease] = []
        self._in_use: set[Lease] = set()
        self._queue: deque[asyncio.Future[Lease]] = deque()
        self._opening_tasks: set[asyncio.Task[None]] = set()
        self._opening = 0
        self._closing_tasks: set[asyncio.Task[None]] = set()
        self._waiting = 0
        self._slots = asyncio.Semaphore(settings.pool_size + settings.pool_overflow)
        self._idle = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        # When a connection was last found lost: those not used since then may be lost as well.
        self._suspect_before = 0.0
        # Connections opened until then may be to a server that was found to be read-only.
        self._stale_until = 0.0
        self._log = get_logger(__name__)

    async def close(self) -> None:
        """Wait for running calls, for at most `command_timeout`, and close all connections."""
        if self._loop is not None and self._loop.is_closed():
            # The event loop has ended: connections cannot be closed properly.
            self.is_closed = True
            while self._free:
                self._free.pop().proxy.detach()
            return
        self._bind_loop("closing the data layer")
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
        for task in self._opening_tasks:
            task.cancel()
        await asyncio.gather(*self._opening_tasks, return_exceptions=True)
        self._discard_free(lambda _: True)
        await asyncio.gather(*self._closing_tasks)
        await self.engine.dispose()

    async def acquire(self, operation: str) -> Lease:
        """Acquire a connection, waiting for a free one if necessary. `operation` is for error messages.

        Raises:
            StoreConnectionError: The server cannot be reached, or no connection was free within `pool_timeout`.
        """
        if self.is_closed:
            raise StoreError(f"{operation}: the data layer is closed")
        if self._loop is not asyncio.get_running_loop():
            self._bind_loop(operation)
        self._waiting += 1
        try:
            if self._slots.locked():
                await self._wait_for_slot(operation)
            else:
                await self._slots.acquire()
            try:
                lease = self._pop_free() or await self._wait_for_connection()
            except BaseException:
                self._slots.release()
                raise
        except Exception as error:  # noqa: BLE001 - no driver exception may leave the package.
            failure = as_store_error(error, operation)
        else:
            self._in_use.add(lease)
            return lease
        finally:
            self._waiting -= 1
            if self.is_closed:
                self._set_idle()
        raise failure

    async def release(self, lease: Lease, *, broken: bool, interrupted: bool = False) -> None:
        """Return a connection to the pool.

        Args:
            lease: The connection.
            broken: Whether to close it.
            interrupted: Whether a statement outside of a transaction was cancelled or timed out. The connection is
                tested, and kept if it answers after the server has cancelled the statement.
        """
        broken = broken or lease.driver.is_closed()
        if broken or interrupted:
            self._suspect_before = monotonic()
        full = len(self._free) >= self._settings.pool_size and not self._queue
        if broken or self.is_closed or lease.since <= self._stale_until or full:
            # Not awaited, as the caller may be a cancelled task. The connection counts until it is closed.
            self._discard(lease)
        elif interrupted:
            self._start(self._recover(lease), self._closing_tasks)
        else:
            self._take_back(lease)

    def _take_back(self, lease: Lease) -> None:
        self._in_use.discard(lease)
        self._slots.release()
        self._pass_on(lease)
        self._set_idle()

    async def _recover(self, lease: Lease) -> None:
        if await self._answers(lease):
            self._take_back(lease)

    def discard_opened_until(self, moment: float) -> None:
        """Discard every connection opened until `moment`, those in use when they are released."""
        self._stale_until = max(self._stale_until, moment)
        self._discard_free(lambda free: free.since <= self._stale_until)

    def _bind_loop(self, operation: str) -> None:
        if self._loop not in (None, asyncio.get_running_loop()):
            raise StoreError(
                f"{operation}: the data layer belongs to another event loop, that of its first call: open one in each "
                "asyncio.run()"
            )
        self._loop = asyncio.get_running_loop()

    async def _wait_for_slot(self, operation: str) -> None:
        try:
            async with asyncio.timeout(self._settings.pool_timeout.total_seconds()):
                await self._slots.acquire()
        except TimeoutError:
            timed_out = True
        else:
            timed_out = False
        if timed_out:
            raise StoreConnectionError(
                f"{operation}: all database connections are in use: raise SOLDIER_POOL_SIZE or SOLDIER_POOL_TIMEOUT"
            )

    def _pop_free(self) -> Lease | None:
        """The most recently used free connection, unless it has to be tested or replaced first."""
        if not self._free:
            return None
        lease, now = self._free[-1], monotonic()
        if (
            lease.used < self._suspect_before
            or now - lease.since >= self._recycle
            or lease.driver.is_closed()
        ):
            return None
        lease.used = now
        return self._free.pop()

    async def _wait_for_connection(self) -> Lease:
        """Wait for a connection that is released, opened, or tested."""
        future: asyncio.Future[Lease] = asyncio.get_running_loop().create_future()
        self._queue.append(future)
        if self._opening < len(self._queue):
            self._opening += 1
            self._start(self._open(), self._opening_tasks)
        try:
            lease = await future
        except asyncio.CancelledError:
            if future in self._queue:
                self._queue.remove(future)
            elif not future.cancelled() and future.exception() is None:
                # A connection arrived at the moment of the cancellation.
                self._pass_on(future.result())
            raise
        lease.used = monotonic()
        return lease

    async def _open(self) -> None:
        """Provide one more connection, for the first caller in the queue or else for the next one."""
        try:
            lease = await self._pop_tested() or await self._connect()
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - raised to the waiting caller.
            self._opening -= 1
            # Cancelled by `close`, or at the end of the event loop.
            self._fail(error if isinstance(error, Exception) else StoreError("the data layer is closed"))
        else:
            self._opening -= 1
            self._pass_on(lease)

    async def _connect(self) -> Lease:
        proxy = await greenlet_spawn(self.engine.pool.connect)
        assert proxy.dbapi_connection is not None
        # `Transaction` begins and ends transactions, also those in which SQLAlchemy runs statements.
        self.engine.dialect.set_isolation_level(proxy.dbapi_connection, "AUTOCOMMIT")
        return Lease(proxy)

    async def _pop_tested(self) -> Lease | None:
        """A free connection that answers, or None."""
        while self._free:
            lease = self._free.pop()
            if monotonic() - lease.since >= self._recycle or lease.driver.is_closed():
                self._discard(lease)
            elif lease.used >= self._suspect_before or await self._answers(lease):
                return lease
        return None

    async def _answers(self, lease: Lease) -> bool:
        """Whether a connection that may be lost still answers. If not, it is discarded."""
        asked, answered = monotonic(), False
        try:
            # asyncpg's own time-out starts only after an interrupted statement has ended.
            async with asyncio.timeout(_PING_SECONDS):
                await lease.driver.execute("SELECT 1")
            answered = True
        except TimeoutError:
            # Whatever drops the packets of this connection most probably drops those of the others too.
            self._discard_free(lambda free: free.used < self._suspect_before)
        except Exception as error:  # noqa: BLE001 - whatever the driver raises for a lost connection.
            self._log.debug("database.lost", error=type(error).__name__)
        finally:
            if not answered:
                self._discard(lease)
        lease.used = asked
        return answered

    def _pass_on(self, lease: Lease) -> None:
        """Pass an unused connection to the first caller in the queue, or keep it."""
        while self._queue:
            future = self._queue.popleft()
            if not future.done():
                future.set_result(lease)
                return
        if self.is_closed or len(self._free) >= self._settings.pool_size:
            self._discard(lease)
        else:
            self._free.append(lease)

    def _fail(self, error: Exception) -> None:
        """Raise `error` to the first caller in the queue, unless enough connections are being opened."""
        if len(self._queue) <= self._opening:
            self._log.debug("database.not_opened", error=type(error).__name__)
            return
        while self._queue:
            future = self._queue.popleft()
            if not future.done():
                future.set_exception(error)
                return

    def _discard_free(self, condition: Callable[[Lease], bool]) -> None:
        given_up = [lease for lease in self._free if condition(lease)]
        self._free = [lease for lease in self._free if not condition(lease)]
        for lease in given_up:
            self._discard(lease)

    def _discard(self, lease: Lease) -> None:
        self._start(self._close(lease), self._closing_tasks)

    async def _close(self, lease: Lease) -> None:
        """Close a connection. Unlike terminating it, this cancels a statement that is still running."""
        try:
            async with asyncio.timeout(self._settings.connect_timeout.total_seconds()):
                await lease.driver.close()
        except Exception as error:  # noqa: BLE001 - the server may be unreachable.
            self._log.debug("database.abandoned", error=type(error).__name__)
            lease.driver.terminate()
        # SQLAlchemy has done so already if a statement of the session of a unit of work was cancelled.
        if lease.proxy.is_valid:
            lease.proxy.invalidate()
        if lease in self._in_use:
            self._in_use.discard(lease)
            self._slots.release()
            self._set_idle()

    def _start(self, work: Coroutine[Any, Any, None], tasks: set[asyncio.Task[None]]) -> None:
        task = asyncio.create_task(work)
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    def _set_idle(self) -> None:
        if self.is_closed and not self._in_use and not self._waiting:
            self._idle.set()
