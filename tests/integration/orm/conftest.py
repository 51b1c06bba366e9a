"""A data layer, and the engine and session of a service, on one database for the tests of a module."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import RelationshipProperty, configure_mappers

from soldier_data import Agent, DataLayer, orm, prepare_engine
from tests.conftest import service_url, settings_for
from tests.factories.config import AgentFactory

configure_mappers()
ROWS: list[Any] = [getattr(orm, name) for name in orm.__all__ if name != "Base"]
RELATIONSHIPS: list[RelationshipProperty[Any]] = [
    each for row in ROWS for each in row.__mapper__.relationships
]


@pytest.fixture(scope="module")
async def data(module_database_url: str, redis_url: str) -> AsyncIterator[DataLayer]:
    settings = settings_for(module_database_url, redis_url=redis_url, session_key_prefix=f"t{uuid4().hex}")
    async with DataLayer.open(settings) as opened:
        yield opened


@pytest.fixture(scope="module")
async def engine(module_database_url: str) -> AsyncIterator[AsyncEngine]:
    own = prepare_engine(create_async_engine(service_url(module_database_url)))
    yield own
    await own.dispose()


@pytest.fixture
async def session(engine: AsyncEngine) -> AsyncIterator[AsyncSession]:
    async with AsyncSession(engine) as opened:
        yield opened


async def saved_agent(data: DataLayer, tenant_id: UUID, **fields: Any) -> Agent:
    """A stored agent."""
    agent: Agent = AgentFactory(tenant_id=tenant_id, **fields)
    await data.config.save_agent(agent)
    return agent
