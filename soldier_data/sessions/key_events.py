"""Notifications from Redis about removed keys."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

from redis.asyncio import RedisCluster

from soldier_data.errors import StoreError
from soldier_data.sessions.client import RedisRunner
from soldier_data.sessions.redis_errors import DRIVER_ERRORS

_ACTION = "watching for demotions"
_MAX_WAITING = 10_000


async def removed_keys(redis: RedisRunner) -> AsyncGenerator[bytes, None]:
    """Yield the names of keys as they expire or are deleted, on every current primary; errors as in `run`.

    Redis does not store these events: they are lost while a connection is broken or the reader lags far behind.
    """
    client = redis.client
    if isinstance(client, RedisCluster):
        listeners: list[Any] = [client.pubsub(node=node) for node in await redis.primaries(_ACTION)]
        database = 0
    else:
        listeners = [client.pubsub()]
        database = client.connection_pool.connection_kwargs.get("db", 0)
    channels = [f"__keyevent@{database}__:{event}" for event in ("expired", "del")]
    events: asyncio.Queue[bytes | StoreError] = asyncio.Queue(_MAX_WAITING)
    tasks = []
    try:
        for listener in listeners:
            await redis.run(_ACTION, listener.subscribe, *channels)
            tasks.append(asyncio.create_task(_listen(redis, listener, events)))
        while True:
            event = await events.get()
            if isinstance(event, StoreError):
                raise event
            yield event
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for listener in listeners:
            await listener.aclose()


async def _listen(redis: RedisRunner, listener: Any, events: asyncio.Queue[bytes | StoreError]) -> None:
    try:
        while True:
            try:
                async for message in listener.listen():
                    if message["type"] == "message":
                        await events.put(message["data"])
            except DRIVER_ERRORS:
                pass
            # The connection is lost. A new one restores its subscriptions.
            await redis.run(_ACTION, listener.connect)
    except StoreError as error:
        await events.put(error)
