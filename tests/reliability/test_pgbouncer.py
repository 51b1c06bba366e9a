"""Tenants stay apart behind a real PgBouncer, which hands each transaction another server connection."""

from __future__ import annotations

import asyncio
import random
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import make_url, select

from soldier_data.config import Agent, PostgresConfigStore
from soldier_data.config.orm import AgentRow
from soldier_data.data_layer import DataLayer
from soldier_data.postgres.database import Database
from soldier_data.postgres.statements import Statement, table_of
from soldier_data.settings import Settings
from tests.backends.connections import administrator, bound_role
from tests.conftest import settings_for
from tests.factories.config import AgentFactory
from tests.factories.memory import EpisodeFactory
from tests.reliability.conftest import Counts, Found
from tests.reliability.pgbouncer import pgbouncer

CLIENTS, CONNECTIONS, TENANTS = 40, 4, 50

# No filter: the policies alone decide whose rows these are.
_WHOSE = Statement("looking whose rows are shown", select(table_of(AgentRow).c.tenant_id).distinct())


def _settings(url: str, **values: Any) -> Settings:
    return settings_for(url, pgbouncer=True, pool_size=1, pool_overflow=0, **values)


class Client:
    """One process of a service: a connection to the pooler, used with a tenant and without.

    Attributes:
        transactions: How many transactions it ran.
        foreign: How many rows of other tenants it saw.
    """

    def __init__(self, url: str, agents: dict[UUID, Agent], seed: int) -> None:
        self._data = DataLayer(_settings(url, row_level_security=True))
        self._without_tenant = Database(_settings(url))
        self._agents = agents
        self._chance = random.Random(seed)  # noqa: S311 - no secret.
        self.transactions = 0
        self.without_tenant = 0
        self.foreign = 0

    async def work(self, transactions: int) -> None:
        while self.transactions < transactions:
            tenant_id = self._chance.choice(list(self._agents))
            if self._chance.random() < 0.2:
                await self._look_without_tenant(tenant_id)
                self.without_tenant += 1
            else:
                await self._chance.choice([self._read, self._write])(tenant_id)
            self.transactions += 1

    async def _look_without_tenant(self, tenant_id: UUID) -> None:
        agents, total = await PostgresConfigStore(self._without_tenant).get_agents(tenant_id)
        shown = await self._without_tenant.fetch_all(_WHOSE, {"tenant_id": tenant_id})
        self.foreign += len(agents) + total + len(shown)

    async def _read(self, tenant_id: UUID) -> None:
        assert await self._data.config.get_agent(tenant_id, self._agents[tenant_id].id) is not None
        await self._see_whose(tenant_id)

    async def _write(self, tenant_id: UUID) -> None:
        async with self._data.unit_of_work() as uow:
            agent = await uow.config.get_agent(tenant_id, self._agents[tenant_id].id)
            assert agent is not None
            await uow.memory.add_episode(EpisodeFactory(tenant_id=tenant_id))
            self.foreign += sum(
                episode.tenant_id != tenant_id
                for episode in await uow.memory.get_episodes(tenant_id, "conversation", limit=5)
            )
        await self._see_whose(tenant_id)

    async def _see_whose(self, tenant_id: UUID) -> None:
        assert self._data._database is not None
        shown = await self._data._database.fetch_all(_WHOSE, {"tenant_id": tenant_id})
        assert shown
        self.foreign += sum(row["tenant_id"] != tenant_id for row in shown)

    async def close(self) -> None:
        await self._data.close()
        await self._without_tenant.close()


async def test_no_tenant_sees_another_one_behind_pgbouncer(
    database_url: str, count: Counts, report: Found
) -> None:
    each = count(10, 75)
    async with bound_role(database_url) as target, pgbouncer(target, size=CONNECTIONS) as url:
        async with DataLayer.open(_settings(url, row_level_security=True)) as data:
            made: list[Agent] = [AgentFactory() for _ in range(TENANTS)]
            agents = {agent.tenant_id: agent for agent in made}
            for agent in agents.values():
                await data.config.save_agent(agent)
        clients = [Client(url, agents, seed) for seed in range(CLIENTS)]
        try:
            await asyncio.gather(*(client.work(each) for client in clients))
            async with administrator(database_url) as connection:
                used = await connection.fetchval(
                    "SELECT count(*) FROM pg_stat_activity WHERE usename = $1", make_url(target).username
                )
        finally:
            for client in clients:
                await client.close()
    transactions = sum(client.transactions for client in clients)
    without = sum(client.without_tenant for client in clients)
    foreign = sum(client.foreign for client in clients)
    assert transactions == CLIENTS * each
    assert without > transactions / 10
    assert 0 < used <= CONNECTIONS
    assert foreign == 0
    report(
        f"PgBouncer in transaction mode: {CLIENTS} clients, {CONNECTIONS} server connections, {TENANTS} tenants, "
        f"{transactions:,} transactions, {without / transactions:.0%} without a tenant",
        bar="0 errors, 0 rows of another tenant",
        found=f"0 errors, {foreign} rows of another tenant, {used} server connections used",
    )


async def test_every_store_works_behind_pgbouncer(database_url: str, tenant_id: UUID) -> None:
    from tests.cases.stores import DOMAINS, outcome

    async with bound_role(database_url) as target, pgbouncer(target, size=2) as url:
        database = Database(_settings(url, row_level_security=True))
        for domain in DOMAINS:
            if "postgres" not in domain.backends:
                continue
            store = domain.backends["postgres"](database)
            own = await domain.seed(store, uuid4())
            for case in domain.cases:
                assert await outcome(case, store, own, uuid4()) == case.expected, case.method
        await database.close()
