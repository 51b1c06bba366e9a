"""The database and the Redis session store that the tests of this folder look into."""

from __future__ import annotations

from collections.abc import AsyncIterator
from uuid import uuid4

import pytest
from redis.asyncio import Redis

from soldier_data.postgres.database import Database
from soldier_data.sessions import RedisSessionStore, SessionTierConfig, create_redis_client
from soldier_data.settings import Settings
from tests.backends.round_trips import Proxy, proxy
from tests.conftest import settings_for


@pytest.fixture(scope="module")
async def database(shared_database_url: str) -> AsyncIterator[Database]:
    """Connections of a module's own."""
    opened = Database(settings_for(shared_database_url))
    yield opened
    await opened.close()


@pytest.fixture
async def behind(shared_database_url: str) -> AsyncIterator[tuple[Proxy, Database]]:
    """A database behind a proxy that counts and loses replies."""
    async with proxy(shared_database_url) as passing:
        opened = Database(settings_for(passing.url))
        yield passing, opened
        await opened.close()


@pytest.fixture
async def client(redis_url: str) -> AsyncIterator[Redis]:
    """A client of the tests' Redis."""
    client = create_redis_client(Settings(redis_url=redis_url))
    assert isinstance(client, Redis)
    yield client
    await client.aclose()


@pytest.fixture
def prefix() -> str:
    """A key prefix that no other test uses."""
    return f"t{uuid4().hex}"


@pytest.fixture
def store(client: Redis, prefix: str) -> RedisSessionStore:
    """A session store of the test's own."""
    return RedisSessionStore(client, SessionTierConfig(key_prefix=prefix))
