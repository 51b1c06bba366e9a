"""Real servers for the tests, and databases cloned from a migrated template."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from uuid import UUID, uuid4

import asyncpg
import pytest
from sqlalchemy import make_url

from soldier_data.data_layer import DataLayer
from soldier_data.embedded import EmbeddedServers
from soldier_data.errors import ConfigurationError
from soldier_data.migrations import upgrade
from soldier_data.postgres.engine import driver_url
from soldier_data.settings import Settings
from tests.redis_servers import program, program_on_path, redis_cluster, redis_server

DIMENSIONS = 8
"""Length of embeddings in the tests: short, so that they can be read."""

_DATABASE_URL = "SOLDIER_TEST_DATABASE_URL"
_REDIS_URL = "SOLDIER_TEST_REDIS_URL"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options of the tests in tests/reliability, which `make soak` uses."""
    parser.addoption("--soak", action="store_true", help="run tests/reliability with the full counts")
    parser.addoption("--soak-report", metavar="FILE", help="where to write what the reliability tests found")


@pytest.fixture(scope="session")
def servers() -> Iterator[EmbeddedServers | None]:
    """The embedded servers of this test process, unless both servers are given from outside."""
    if os.environ.get(_DATABASE_URL) and os.environ.get(_REDIS_URL):
        yield None
        return
    try:
        started = EmbeddedServers.start()
    except ConfigurationError as error:
        pytest.skip(f"no servers: {error}; or set {_DATABASE_URL} and {_REDIS_URL}")
    with started:
        yield started


@pytest.fixture(scope="session")
def server_url(servers: EmbeddedServers | None) -> str:
    """A PostgreSQL server, by way of a role that may create databases."""
    if given := os.environ.get(_DATABASE_URL):
        return given
    assert servers is not None
    return servers.database_url


@pytest.fixture(scope="session")
def redis_url(servers: EmbeddedServers | None) -> str:
    """A Redis server. Tests share it, each with a key prefix of its own."""
    if given := os.environ.get(_REDIS_URL):
        return given
    assert servers is not None
    return servers.redis_url


@pytest.fixture(scope="session")
def redis_cluster_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Redis Cluster of three nodes."""
    with redis_cluster(program(), tmp_path_factory.mktemp("cluster")) as nodes:
        yield nodes[0].url


@pytest.fixture(scope="session")
def redis_on_path_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The Redis that the machine has installed: Debian's is 7.0."""
    with redis_server(program_on_path(), tmp_path_factory.mktemp("redis")) as server:
        yield server.url


@pytest.fixture(scope="session")
async def template(server_url: str) -> AsyncIterator[str]:
    """The name of a migrated database that is cloned, never connected to."""
    name = f"soldier_template_{uuid4().hex}"
    await _administer(server_url, f"CREATE DATABASE {name}")
    await upgrade(settings_for(with_database(server_url, name)))
    yield name
    await _administer(server_url, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="session")
async def shared_database_url(server_url: str, template: str) -> AsyncIterator[str]:
    """One database for all tests that keep to a tenant of their own."""
    async for url in _clone(server_url, template):
        yield url


@pytest.fixture(scope="module")
async def module_database_url(server_url: str, template: str) -> AsyncIterator[str]:
    """A database for the tests of one module alone, each with tenants of its own."""
    async for url in _clone(server_url, template):
        yield url


@pytest.fixture
async def database_url(server_url: str, template: str) -> AsyncIterator[str]:
    """A database for one test alone."""
    async for url in _clone(server_url, template):
        yield url


@pytest.fixture
async def empty_database_url(server_url: str) -> AsyncIterator[str]:
    """A database without any migration."""
    async for url in _clone(server_url, "template1"):
        yield url


@pytest.fixture(scope="module")
async def module_empty_database_url(server_url: str) -> AsyncIterator[str]:
    """A database without any migration, for the tests of one module."""
    async for url in _clone(server_url, "template1"):
        yield url


@pytest.fixture
def settings(database_url: str, redis_url: str) -> Settings:
    """Settings for a data layer of one test's own."""
    return settings_for(database_url, redis_url=redis_url, session_key_prefix=f"t{uuid4().hex}")


@pytest.fixture
async def data(settings: Settings) -> AsyncIterator[DataLayer]:
    """A data layer on real servers, of one test's own."""
    async with DataLayer.open(settings) as opened:
        yield opened


@pytest.fixture
def tenant_id() -> UUID:
    """A tenant that no other test knows."""
    return uuid4()


def settings_for(database_url: str, **values: object) -> Settings:
    """Settings for tests: short vectors, and failures that do not take long."""
    return Settings(
        **{
            "database_url": database_url,
            "embedding_dimensions": DIMENSIONS,
            "retry_budget": 2,
            "pool_size": 10,
            **values,
        }
    )


def with_database(url: str, name: str) -> str:
    """`url` with the database replaced."""
    return make_url(url).set(database=name).render_as_string(hide_password=False)


def service_url(url: str) -> str:
    """`url` as a service gives it to `create_async_engine`."""
    return driver_url(url).replace("postgresql://", "postgresql+asyncpg://")


async def _clone(server_url: str, template: str) -> AsyncIterator[str]:
    name = f"soldier_test_{uuid4().hex}"
    await _administer(server_url, f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY FILE_COPY")
    yield with_database(server_url, name)
    await _administer(server_url, f"DROP DATABASE {name} WITH (FORCE)")


async def _administer(server_url: str, sql: str) -> None:
    connection = await asyncpg.connect(driver_url(server_url))
    try:
        await connection.execute(sql)
    finally:
        await connection.close()
