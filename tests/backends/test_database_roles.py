"""The database by way of a role that the row-level-security policies bind, and behind a transaction pooler."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from soldier_data.config import Agent, PostgresConfigStore, Rule
from soldier_data.errors import ConfigurationError, ValidationError
from soldier_data.postgres.database import Database
from tests.backends.connections import administrator, assert_clean, bound_role, opened
from tests.backends.round_trips import transaction_pooler
from tests.conftest import DIMENSIONS, settings_for
from tests.factories.config import AgentFactory, RuleFactory


@pytest.fixture
async def bound_url(database_url: str) -> AsyncIterator[str]:
    """The database by way of a role that the row-level-security policies bind."""
    async with bound_role(database_url) as url:
        yield url


async def test_a_bound_role_works_with_row_level_security_and_sees_no_other_tenant(bound_url: str) -> None:
    mine, theirs = AgentFactory(), AgentFactory()
    async with opened(bound_url, row_level_security=True) as store:
        for agent in (mine, theirs):
            rule: Rule = RuleFactory(
                tenant_id=agent.tenant_id, agent_id=agent.id, embedding=[1.0] * DIMENSIONS
            )
            await store.save_many([agent, rule])
            await store.save_agent(agent, if_revision=1)
            key = (agent.tenant_id, agent.id)
            assert await store.get_agents(agent.tenant_id) == ([agent], 1)
            [(found, score)] = await store.vector_search_rules([1.0] * DIMENSIONS, *key)
            assert (found, round(score, 6)) == (rule, 1.0)
        assert await store.get_agent(mine.tenant_id, theirs.id) is None
        with pytest.raises(ValidationError):
            await store.save_many([mine, theirs])

        async with store._db.transaction() as transaction:  # type: ignore[attr-defined]
            inner = PostgresConfigStore(transaction)
            for agent in (mine, theirs, mine):
                agent.description = "changed together"
                await inner.save_agent(agent)
                assert await inner.get_agent(agent.tenant_id, agent.id) == agent
        assert await store.delete_agent(theirs.tenant_id, theirs.id) is True
        assert await store.purge_deleted(theirs.tenant_id, timedelta(0)) == 2

    async with administrator(bound_url) as connection:
        assert await connection.fetchval("SELECT count(*) FROM agents") == 0
        async with connection.transaction():
            await connection.execute(f"SET LOCAL app.tenant_id = '{mine.tenant_id}'")
            rows = await connection.fetch("SELECT id FROM agents")
        assert [row["id"] for row in rows] == [mine.id]


async def test_a_bound_role_without_the_setting_sees_nothing_and_is_told_of_the_setting(
    bound_url: str, database_url: str
) -> None:
    agent: Agent = AgentFactory()
    async with opened(database_url) as store:
        await store.save_agent(agent)
    async with opened(bound_url) as store:
        assert await store.get_agent(agent.tenant_id, agent.id) is None
        assert await store.delete_agent(agent.tenant_id, agent.id) is False
        with pytest.raises(ConfigurationError, match="SOLDIER_ROW_LEVEL_SECURITY") as failed:
            await store.save_agent(AgentFactory())
        assert_clean(failed.value)


async def test_a_transaction_pooler_is_no_hindrance_in_pgbouncer_mode(database_url: str) -> None:
    async with transaction_pooler(database_url) as pooler:
        databases = [Database(settings_for(pooler.url, pgbouncer=True)) for _ in range(2)]
        stores = [PostgresConfigStore(database) for database in databases]
        agents = [AgentFactory() for _ in range(10)]

        async def work(store: PostgresConfigStore, agent: Agent) -> None:
            rules = [
                RuleFactory(tenant_id=agent.tenant_id, agent_id=agent.id, embedding=[1.0] * DIMENSIONS)
                for _ in range(3)
            ]
            await store.save_many([agent, *rules])
            for rule in rules:
                await store.save_rule(rule, if_revision=1)
                assert await store.get_rule(agent.tenant_id, rule.id) == rule
            assert len(await store.vector_search_rules([1.0] * DIMENSIONS, agent.tenant_id, agent.id)) == 3
            assert await store.delete_agent(agent.tenant_id, agent.id) is True

        pairs = zip(stores * 5, agents, strict=True)
        await asyncio.gather(*(work(store, agent) for store, agent in pairs))
        for database in databases:
            await database.close()
