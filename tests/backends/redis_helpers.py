from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from soldier_data.sessions import RedisSessionStore, Session


def keys(store: RedisSessionStore, session: Session) -> tuple[str, str]:
    prefix = store.config.key_prefix
    return f"{prefix}:hot:{{{session.session_id}}}", f"{prefix}:persist:{{{session.session_id}}}"


async def wait_until(is_so: Callable[[], Awaitable[bool]]) -> None:
    """Ask again and again: what happens in a server tells nobody."""
    async with asyncio.timeout(10):
        while not await is_so():  # noqa: ASYNC110 - as said.
            await asyncio.sleep(0.01)
