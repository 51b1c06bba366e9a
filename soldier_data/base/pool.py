"""The connections to PostgreSQL that are open: taken out for a statement or a transaction, and given back."""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import Any

from sqlalchemy.pool import PoolProxiedConnection
from sqlalchemy.util import greenlet_spawn

from soldier_data.base.engine import create_engine
from soldier_data.base.failures import as_store_error
from soldier_data.errors import StoreConnectionError, StoreError
from soldier_data.logging import get_logger
from soldier_data.settings import Settings


class Lease:
    """A connection taken out of the pool."""

    __slots__ = ("driver", "proxy", "since")

    def __init__(self, proxy: PoolProxiedConnection) -> None:
        self.proxy = proxy
        self.driver: Any = proxy.driver_connection
        # SQLAlchemy replaces connections by age when they are checked out; these stay out.
        self.since: float = proxy.info.setdefault("since", monotonic())


class ConnectionPool:
    """SQLAlchemy's pool, with the free connections kept at hand."""

    def __init__(self, settings: Settings) -> None:
        self.is_closed = False
        self._settings = settings
        self._engine = create_engine(settings)
        self._recycle = settings.pool_recycle.total_seconds()
        # Taking a connection out of SQLAlchemy's pool and putting it back takes as long as a short query does, so
        # free connections stay checked out here, the last used on top.
        self._free: list[Lease] = []
        self._in_use: set[Lease] = set()
        self._abandoning: set[asyncio.Task[None]] = set()
        self._waiting = 0
        # Callers wait here and never at the pool, which does not wake those who wait when a connection could not
        # be made: they would sit out their time while the server is down.
        self._turns = asyncio.Semaphore(settings.pool_size + settings.pool_overflow)
        self._idle = asyncio.Event()
        self._log = get_logger(__name__)

    async def close(self) -> None:
        """Wait for what is running, `command_timeout` at most, and close every connection."""
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
        while self._free:
            await greenlet_spawn(self._free.pop().proxy.close)
        await self._engine.dispose()

    async def acquire(self, doing: str) -> Lease:
        """Take a connection out, waiting for one if need be; `doing` is for error messages.

        Raises:
            StoreConnectionError: The server cannot be reached, or none was free in `pool_timeout`.
        """
        if self.is_closed:
            raise StoreError(f"{doing}: the data layer is closed")
        self._waiting += 1
        try:
            await self._take_turn(doing)
            try:
                lease = await self._connect()
            except BaseException:
                self._turns.release()
                raise
        except Exception as error:  # noqa: BLE001 - no exception of the driver may leave.
            failure = as_store_error(error, doing)
        else:
            self._in_use.add(lease)
            return lease
        finally:
            self._waiting -= 1
            self._notice_idle()
        raise failure

    async def _take_turn(self, doing: str) -> None:
        if not self._turns.locked():
            await self._turns.acquire()
            return
        try:
            async with asyncio.timeout(self._settings.pool_timeout.total_seconds()):
                await self._turns.acquire()
        except TimeoutError:
            in_vain = True
        else:
            in_vain = False
        if in_vain:
            raise StoreConnectionError(
                f"{doing}: all database connections are in use: raise SOLDIER_POOL_SIZE or SOLDIER_POOL_TIMEOUT"
            )

    async def _connect(self) -> Lease:
        while self._free:
            lease = self._free.pop()
            if not lease.driver.is_closed() and monotonic() - lease.since < self._recycle:
                return lease
            lease.proxy.invalidate()
            await greenlet_spawn(lease.proxy.close)
        while True:
            proxy = await greenlet_spawn(self._engine.pool.connect)
            lease = Lease(proxy)
            if not lease.driver.is_closed():
                return lease
            proxy.invalidate()

    async def release(self, lease: Lease, *, broken: bool) -> None:
        """Give a connection back; a broken one is closed."""
        if broken and not lease.driver.is_closed():
            # Not awaited: it may be a cancelled task that gives the connection back.
            task = asyncio.create_task(self._abandon(lease))
            self._abandoning.add(task)
            task.add_done_callback(self._abandoning.discard)
            return
        await self._put_back(lease)

    async def _abandon(self, lease: Lease) -> None:
        """Close a connection on which a statement may still run. Closing cancels it; hanging up would not."""
        try:
            async with asyncio.timeout(self._settings.connect_timeout.total_seconds()):
                await lease.driver.close()
        except Exception as error:  # noqa: BLE001 - the server may be gone as well.
            self._log.debug("database.abandoned", error=type(error).__name__)
            lease.driver.terminate()
        await self._put_back(lease)

    async def _put_back(self, lease: Lease) -> None:
        self._in_use.discard(lease)
        try:
            if lease.driver.is_closed():
                lease.proxy.invalidate()
            elif not self.is_closed and len(self._free) < self._settings.pool_size:
                self._free.append(lease)
                return
            await greenlet_spawn(lease.proxy.close)
        finally:
            self._turns.release()
            self._notice_idle()

    def _notice_idle(self) -> None:
        if self.is_closed and not self._in_use and not self._waiting:
            self._idle.set()
