"""The stores that the contracts are run against."""

from __future__ import annotations

from collections.abc import AsyncIterator
from uuid import UUID, uuid4

import pytest
from redis.asyncio import Redis, RedisCluster

from soldier_data.audit import AuditStore, InMemoryAuditStore, PostgresAuditStore
from soldier_data.base.database import Database
from soldier_data.config import Agent, ConfigStore, InMemoryConfigStore, PostgresConfigStore
from soldier_data.memory import InMemoryMemoryStore, MemoryStore, PostgresMemoryStore
from soldier_data.profiles import InMemoryProfileStore, PostgresProfileStore, ProfileStore
from soldier_data.runs import InMemoryRunStore, PostgresRunStore, RunStore
from soldier_data.sessions import (
    InMemorySessionStore,
    RedisSessionStore,
    SessionStore,
    SessionTierConfig,
    create_redis_client,
)
from soldier_data.settings import Settings
from soldier_data.vectors import InMemoryVectorStore, PostgresVectorStore, VectorStore
from tests.conftest import DIMENSIONS, settings_for
from tests.factories.config import AgentFactory


@pytest.fixture(scope="session")
async def shared_database(shared_database_url: str) -> AsyncIterator[Database]:
    """Connections for all tests that keep to a tenant of their own."""
    database = Database(settings_for(shared_database_url))
    yield database
    await database.close()


@pytest.fixture(params=["inmemory", "postgres"])
def config_store(request: pytest.FixtureRequest) -> ConfigStore:
    """Each config store in turn. The server is started only for the one that needs it."""
    if request.param == "inmemory":
        return InMemoryConfigStore(DIMENSIONS)
    return PostgresConfigStore(request.getfixturevalue("shared_database"))


@pytest.fixture
async def agent(config_store: ConfigStore, tenant_id: UUID) -> Agent:
    """A stored agent."""
    saved: Agent = AgentFactory(tenant_id=tenant_id)
    await config_store.save_agent(saved)
    return saved


@pytest.fixture(params=["inmemory", "postgres"])
def audit_store(request: pytest.FixtureRequest) -> AuditStore:
    """Each audit store in turn."""
    if request.param == "inmemory":
        return InMemoryAuditStore()
    return PostgresAuditStore(request.getfixturevalue("shared_database"))


@pytest.fixture(params=["inmemory", "postgres"])
def profile_store(request: pytest.FixtureRequest) -> ProfileStore:
    """Each profile store in turn."""
    if request.param == "inmemory":
        return InMemoryProfileStore()
    return PostgresProfileStore(request.getfixturevalue("shared_database"))


@pytest.fixture(params=["inmemory", "postgres"])
def memory_store(request: pytest.FixtureRequest) -> MemoryStore:
    """Each memory store in turn."""
    if request.param == "inmemory":
        return InMemoryMemoryStore(DIMENSIONS)
    return PostgresMemoryStore(request.getfixturevalue("shared_database"))


@pytest.fixture(params=["inmemory", "postgres"])
def run_store(request: pytest.FixtureRequest) -> RunStore:
    """Each run store in turn."""
    if request.param == "inmemory":
        return InMemoryRunStore()
    return PostgresRunStore(request.getfixturevalue("shared_database"))


@pytest.fixture(params=["inmemory", "postgres"])
def vector_store(request: pytest.FixtureRequest) -> VectorStore:
    """Each vector store in turn."""
    if request.param == "inmemory":
        return InMemoryVectorStore(DIMENSIONS)
    return PostgresVectorStore(request.getfixturevalue("shared_database"))


@pytest.fixture(params=["inmemory", "redis", "redis-cluster", "redis-on-path"])
async def session_store(request: pytest.FixtureRequest) -> AsyncIterator[SessionStore]:
    """Each session store in turn."""
    config = SessionTierConfig(key_prefix=f"t{uuid4().hex}")
    if request.param == "inmemory":
        yield InMemorySessionStore(config)
        return
    client: Redis | RedisCluster
    if request.param == "redis-cluster":
        client = RedisCluster.from_url(request.getfixturevalue("redis_cluster_url"))
    else:
        fixture = "redis_url" if request.param == "redis" else "redis_on_path_url"
        client = create_redis_client(Settings(redis_url=request.getfixturevalue(fixture)))
    yield RedisSessionStore(client, config)
    await client.aclose()
