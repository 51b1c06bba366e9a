"""Opening and closing the data layer with an application."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from fastapi import FastAPI
from sqlalchemy.ext.asyncio import AsyncEngine

from soldier_data.data_layer import DataLayer
from soldier_data.logging import get_logger
from soldier_data.settings import Settings


def lifespan(
    settings: Settings | None = None, *, engine: AsyncEngine | None = None
) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    """Return a lifespan for `FastAPI(lifespan=...)` that opens the data layer at start-up and closes it at shutdown.

    It logs the health of the data layer at start-up. The application also starts while the database or Redis is down:
    requests that need them get 503 until they are back, without a restart. The data layer is in
    `app.state.data_layer`.

    Args:
        settings: The settings; by default they are read from the environment.
        engine: An SQLAlchemy engine of the service, as in `DataLayer.open`. It is not disposed of at shutdown.

    Raises (at start-up):
        ConfigurationError: A setting is invalid.
    """

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        async with DataLayer.open(settings, engine=engine) as data:
            log = get_logger(__name__)
            report = await data.health()
            write, event = (log.info, "opened") if report.ok else (log.warning, "opened_degraded")
            write(
                f"data_layer.{event}",
                database=report.database.detail,
                schema=report.schema_at_head.detail,
                redis=report.redis.detail,
            )
            app.state.data_layer = data
            yield
        log.info("data_layer.closed")

    return life
