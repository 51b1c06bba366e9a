"""Connections of an SQLAlchemy engine that belongs to the service."""

from __future__ import annotations

import asyncio
from typing import Any

from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.util import greenlet_spawn

from soldier_data.errors import ConfigurationError, StoreConnectionError, StoreError
from soldier_data.postgres.errors import as_store_error
from soldier_data.postgres.pool import Lease
from soldier_data.postgres.vector_codec import has_vector_codec


class EnginePool:
    """Acquires each connection from the pool of an engine, which opens, limits, tests and recycles them.

    Args:
        engine: The engine. Closing the pool does not dispose of it.
    """

    def __init__(self, engine: AsyncEngine) -> None:
        self.is_closed = False
        # For the sessions of units of work: `Transaction` begins and ends their transactions.
        self.engine = engine.execution_options(isolation_level="AUTOCOMMIT")
        self._connect = engine.sync_engine.pool.connect
        self._stale_until = 0.0

    async def acquire(self, operation: str) -> Lease:
        """Acquire a connection. `operation` is for error messages.

        Raises:
            StoreConnectionError: The server cannot be reached, or all connections of the pool are in use.
            ConfigurationError: The engine was not prepared.
        """
        if self.is_closed:
            raise StoreError(f"{operation}: the data layer is closed")
        while True:
            lease = await self._acquire(operation)
            if lease.since > self._stale_until:
                break
            await self.release(lease, broken=True)
        if has_vector_codec(lease.proxy.info):
            return lease
        await self.release(lease, broken=False)
        raise ConfigurationError(
            f"{operation}: the connection cannot send vectors: call soldier_data.prepare_engine(engine) before the "
            "engine opens connections, and migrate the database before that"
        )

    async def release(self, lease: Lease, *, broken: bool, interrupted: bool = False) -> None:
        """Return a connection to the engine's pool, or close it if it is broken or still runs a statement."""
        if broken or interrupted or lease.since <= self._stale_until:
            await greenlet_spawn(lease.proxy.invalidate)
        else:
            await greenlet_spawn(lease.proxy.close)

    def discard_opened_until(self, time: float) -> None:
        """Close connections opened until `time` instead of using them."""
        self._stale_until = max(self._stale_until, time)

    async def close(self) -> None:
        """Reject further calls."""
        self.is_closed = True

    async def _acquire(self, operation: str) -> Lease:
        connecting = asyncio.ensure_future(greenlet_spawn(self._connect))
        try:
            return Lease(await asyncio.shield(connecting))
        except asyncio.CancelledError:
            # The connection would be lost to the pool.
            connecting.add_done_callback(_return)
            raise
        except PoolTimeoutError as error:
            failure: StoreError = StoreConnectionError(
                f"{operation}: all connections of the engine's pool are in use: raise its pool_size or pool_timeout",
                cause=error,
            )
        except Exception as error:  # noqa: BLE001 - no driver exception may leave the package.
            failure = as_store_error(error, operation)
        raise failure


def _return(connecting: asyncio.Future[Any]) -> None:
    if not connecting.cancelled() and connecting.exception() is None:
        asyncio.ensure_future(greenlet_spawn(connecting.result().close))  # noqa: RUF006 - the loop keeps it until done.
