"""The data layer's life within an application's."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from fastapi import FastAPI

from soldier_data.data_layer import DataLayer
from soldier_data.logging import get_logger
from soldier_data.settings import Settings


def lifespan(settings: Settings | None = None) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    """What `FastAPI(lifespan=...)` takes: opens the data layer at the start and closes it at the end.

    Its health is checked and logged once it is open. Where the database or Redis is away the application starts
    all the same, degraded: what needs them is answered with 503 until they are back, without a restart. The data
    layer is found in `app.state.data_layer`.

    Args:
        settings: The settings; by default those of the environment.

    Raises (at the start):
        ConfigurationError: A setting is wrong.
    """

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        async with DataLayer.open(settings) as data:
            log = get_logger(__name__)
            report = await data.health()
            tell, event = (log.info, "opened") if report.ok else (log.warning, "opened_degraded")
            tell(
                f"data_layer.{event}",
                database=report.database.detail,
                schema=report.schema_at_head.detail,
                redis=report.redis.detail,
            )
            app.state.data_layer = data
            yield
        log.info("data_layer.closed")

    return life
