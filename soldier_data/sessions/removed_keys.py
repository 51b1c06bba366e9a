"""Hearing from Redis that keys are gone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

from redis.asyncio import RedisCluster

from soldier_data.errors import StoreError
from soldier_data.sessions.client import RedisRunner
from soldier_data.sessions.redis_errors import DRIVER_ERRORS

_ACTION = "watching for demotions"
_WAITING = 10_000


async def watch_removed_keys(redis: RedisRunner) -> AsyncGenerator[bytes, None]:
    """Names of keys as they expire or are deleted, from every node that is a primary now; errors as in `run`.

    Redis keeps no such events: those of a broken connection, or of a reader who is far behind, are lost.
    """
    client = redis.client
    if isinstance(client, RedisCluster):
        listeners: list[Any] = [client.pubsub(node=node) for node in await redis.primaries(_ACTION)]
        database = 0
    else:
        listeners = [client.pubsub()]
        database = client.connection_pool.connection_kwargs.get("db", 0)
    channels = [f"__keyevent@{database}__:{event}" for event in ("expired", "del")]
    heard: asyncio.Queue[bytes | StoreError] = asyncio.Queue(_WAITING)
    tasks = []
    try:
        for listener in listeners:
            await redis.run(_ACTION, listener.subscribe, *channels)
            tasks.append(asyncio.create_task(_listen(redis, listener, heard)))
        while True:
            event = await heard.get()
            if isinstance(event, StoreError):
                raise event
            yield event
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for listener in listeners:
            await listener.aclose()


async def _listen(redis: RedisRunner, listener: Any, heard: asyncio.Queue[bytes | StoreError]) -> None:
    try:
        while True:
            try:
                async for message in listener.listen():
                    if message["type"] == "message":
                        await heard.put(message["data"])
            except DRIVER_ERRORS:
                pass
            # The connection broke. A new one subscribes by itself.
            await redis.run(_ACTION, listener.connect)
    except StoreError as error:
        await heard.put(error)
