"""The stores that the contracts are run against."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID, uuid4

import pytest
from redis.asyncio import Redis, RedisCluster
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine

from soldier_data import DataLayer, UnitOfWork, prepare_engine
from soldier_data.config import Agent, ConfigStore
from soldier_data.postgres.database import Database
from soldier_data.postgres.executor import Executor
from soldier_data.profiles import CustomerProfile, ProfileStore
from soldier_data.sessions import RedisSessionStore, SessionTierConfig, create_redis_client
from soldier_data.sessions.durable import DurableSessionStore
from soldier_data.settings import Settings
from tests.cases import audit, config, memory, profiles, runs, sessions, vectors
from tests.cases.case import Domain
from tests.cases.stores import in_memory
from tests.conftest import service_url, settings_for
from tests.factories.config import AgentFactory
from tests.factories.profiles import FullProfileFactory

SESSION_BACKENDS = ("inmemory", "redis", "redis-cluster", "redis-on-path", "redis-durable")


@pytest.fixture(scope="session")
async def shared_database(shared_database_url: str) -> AsyncIterator[Database]:
    """Connections for all tests that keep to a tenant of their own."""
    database = Database(settings_for(shared_database_url))
    yield database
    await database.close()


@pytest.fixture(scope="session")
async def service(shared_database_url: str) -> AsyncIterator[tuple[DataLayer, AsyncEngine]]:
    """A data layer on the engine of a service."""
    url = service_url(shared_database_url)
    # Other tests on the same database end all connections to it.
    engine = prepare_engine(create_async_engine(url, pool_pre_ping=True))
    async with DataLayer.open(
        settings_for(shared_database_url, session_backend="inmemory"), engine=engine
    ) as data:
        yield data, engine
    await engine.dispose()


@pytest.fixture
async def unit_in_session(service: tuple[DataLayer, AsyncEngine]) -> AsyncIterator[UnitOfWork]:
    """A unit of work in the transaction of a service's session."""
    data, engine = service
    async with AsyncSession(engine) as session, data.unit_of_work(session=session) as unit:
        yield unit


def backends_of(domain: Domain[Any, Any]) -> list[str]:
    """What a contract is run against: the domain's stores, and the one in the transaction of a service's session."""
    return [*domain.backends, *(["session"] if "postgres" in domain.backends else [])]


def store_on(request: pytest.FixtureRequest, domain: Domain[Any, Any], backend: str) -> Any:
    """The domain's store on one backend. A server is started only for those that need it."""
    if backend.startswith("redis"):
        return request.getfixturevalue(f"{backend.replace('-', '_')}_store")
    if backend == "inmemory":
        return in_memory(domain)
    return domain.backends["postgres"](executor_of(request, backend))


def executor_of(request: pytest.FixtureRequest, backend: str) -> Executor:
    """Where the statements of a store on PostgreSQL run: on the pool, or in the transaction of a service's session."""
    if backend == "session":
        executor: Executor = request.getfixturevalue("unit_in_session").config._db
        return executor
    database: Database = request.getfixturevalue("shared_database")
    return database


@pytest.fixture
def store(request: pytest.FixtureRequest, domain: Domain[Any, Any], backend: str) -> Any:
    """The store of a test that is parametrized with `domain` and `backend`."""
    return store_on(request, domain, backend)


@pytest.fixture(params=backends_of(config.DOMAIN))
def config_store(request: pytest.FixtureRequest) -> Any:
    """Each config store in turn."""
    return store_on(request, config.DOMAIN, request.param)


@pytest.fixture
async def agent(config_store: ConfigStore, tenant_id: UUID) -> Agent:
    """A stored agent."""
    saved: Agent = AgentFactory(tenant_id=tenant_id)
    await config_store.save_agent(saved)
    return saved


@pytest.fixture(params=backends_of(audit.DOMAIN))
def audit_store(request: pytest.FixtureRequest) -> Any:
    """Each audit store in turn."""
    return store_on(request, audit.DOMAIN, request.param)


@pytest.fixture(params=backends_of(profiles.DOMAIN))
def profile_store(request: pytest.FixtureRequest) -> Any:
    """Each profile store in turn."""
    return store_on(request, profiles.DOMAIN, request.param)


@pytest.fixture
async def profile(profile_store: ProfileStore, tenant_id: UUID) -> CustomerProfile:
    """A stored profile with two of everything."""
    saved: CustomerProfile = FullProfileFactory(tenant_id=tenant_id)
    await profile_store.save(saved)
    return saved


@pytest.fixture(params=backends_of(memory.DOMAIN))
def memory_store(request: pytest.FixtureRequest) -> Any:
    """Each memory store in turn."""
    return store_on(request, memory.DOMAIN, request.param)


@pytest.fixture(params=backends_of(runs.DOMAIN))
def run_store(request: pytest.FixtureRequest) -> Any:
    """Each run store in turn."""
    return store_on(request, runs.DOMAIN, request.param)


@pytest.fixture(params=backends_of(vectors.DOMAIN))
def vector_store(request: pytest.FixtureRequest) -> Any:
    """Each vector store in turn."""
    return store_on(request, vectors.DOMAIN, request.param)


@pytest.fixture(params=SESSION_BACKENDS)
def session_store(request: pytest.FixtureRequest) -> Any:
    """Each session store in turn, that of Redis on three kinds of servers."""
    return store_on(request, sessions.DOMAIN, request.param)


# -- the Redis servers -----------------------------------------------------------------------------------------


@asynccontextmanager
async def _store_of(client: Redis | RedisCluster) -> AsyncIterator[RedisSessionStore]:
    yield RedisSessionStore(client, SessionTierConfig(key_prefix=f"t{uuid4().hex}"))
    await client.aclose()


@pytest.fixture
async def redis_store(redis_url: str) -> AsyncIterator[RedisSessionStore]:
    """A session store on the tests' Redis."""
    async with _store_of(create_redis_client(Settings(redis_url=redis_url))) as made:
        yield made


@pytest.fixture
async def redis_on_path_store(redis_on_path_url: str) -> AsyncIterator[RedisSessionStore]:
    """A session store on the Redis that the machine has installed."""
    async with _store_of(create_redis_client(Settings(redis_url=redis_on_path_url))) as made:
        yield made


@pytest.fixture
async def redis_durable_store(
    redis_url: str, shared_database: Database
) -> AsyncIterator[DurableSessionStore]:
    """A session store on PostgreSQL, with copies on the tests' Redis."""
    client = create_redis_client(Settings(redis_url=redis_url))
    yield DurableSessionStore(client, shared_database, SessionTierConfig(key_prefix=f"t{uuid4().hex}"))
    await client.aclose()


@pytest.fixture
async def redis_cluster_store(redis_cluster_url: str) -> AsyncIterator[RedisSessionStore]:
    """A session store on a Redis Cluster."""
    async with _store_of(RedisCluster.from_url(redis_cluster_url)) as made:
        yield made
