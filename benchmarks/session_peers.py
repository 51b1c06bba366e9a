"""Comparison with openai-agents' sessions, which store the items of a conversation."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from importlib import import_module
from typing import Any

from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import create_async_engine

from benchmarks import samples
from benchmarks.harness import Bench, Case
from benchmarks.peers import Cases, Opener, open_peers
from soldier_data.base.models import new_id

GET_SESSION = "session get, hot"
SAVE_SESSION = "session save"

# About the size of a session here.
_ITEMS = [{"role": ("user", "assistant")[n % 2], "content": samples.sentence(48)} for n in range(10)]
_TURN = _ITEMS[:2]

_ON_SQLALCHEMY = "openai-agents' SQLAlchemySession"


@asynccontextmanager
async def opened(bench: Bench, client: Redis) -> AsyncIterator[dict[str, Cases]]:
    """Open the peers of the session store: reading a conversation's items, and adding the two of a turn."""

    @asynccontextmanager
    async def on_redis(_bench: Bench, _sample: Any) -> AsyncIterator[Cases]:
        session_class = import_module("agents.extensions.memory.redis_session").RedisSession
        yield await _cases(session_class(str(new_id()), redis_client=client))

    @asynccontextmanager
    async def on_sqlalchemy(bench: Bench, _sample: Any) -> AsyncIterator[Cases]:
        async with _sqlalchemy_session(bench) as session:
            yield await _cases(session)

    openers: dict[str, Opener] = {
        "openai-agents' RedisSession": on_redis,
        _ON_SQLALCHEMY: on_sqlalchemy,
    }
    async with AsyncExitStack() as stack:
        yield await open_peers(stack, bench, None, openers)


@asynccontextmanager
async def as_turns(bench: Bench, read: str, add: str, *, turns: int) -> AsyncIterator[dict[str, Cases]]:
    """Open the peer of the audit store: reading the items of `turns` turns, and adding those of one."""

    @asynccontextmanager
    async def on_sqlalchemy(bench: Bench, _sample: Any) -> AsyncIterator[Cases]:
        async with _sqlalchemy_session(bench) as kept, _sqlalchemy_session(bench) as growing:
            await kept.add_items(_TURN * turns)
            yield {read: Case(kept.get_items), add: Case(lambda: growing.add_items(_TURN))}

    async with AsyncExitStack() as stack:
        yield await open_peers(stack, bench, None, {_ON_SQLALCHEMY: on_sqlalchemy})


@asynccontextmanager
async def _sqlalchemy_session(bench: Bench) -> AsyncIterator[Any]:
    session_class = import_module("agents.extensions.memory.sqlalchemy_session").SQLAlchemySession
    engine = create_async_engine(
        bench.data.settings.database_url.replace("postgresql://", "postgresql+asyncpg://", 1)
    )
    yield session_class(str(new_id()), engine=engine, create_tables=True)
    await engine.dispose()


async def _cases(session: Any) -> Cases:
    await session.add_items(_ITEMS)

    async def forget_turn() -> None:
        # Keeps the length of the conversation constant.
        for _ in _TURN:
            await session.pop_item()

    return {
        GET_SESSION: Case(session.get_items),
        SAVE_SESSION: Case(lambda: session.add_items(_TURN), forget_turn),
    }
