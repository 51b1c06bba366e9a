"""A unit of work whose connection breaks fails as one StoreConnectionError; `run_in_transaction` repeats it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import cast
from uuid import UUID, uuid4

import pytest

from soldier_data.config import Agent
from soldier_data.data_layer import DataLayer
from soldier_data.errors import StoreConnectionError
from soldier_data.memory import Episode
from soldier_data.postgres.unit_transaction import UnitTransaction
from soldier_data.unit_of_work import UnitOfWork
from tests.backends.connections import assert_clean, pool_of
from tests.conftest import settings_for
from tests.factories.config import AgentFactory
from tests.factories.memory import EpisodeFactory
from tests.reliability.conftest import Counts, Found
from tests.reliability.faulty_proxy import FaultyProxy, faulty_proxy

ANSWERS = ("BEGIN", "first save", "RELEASE SAVEPOINT", "second save", "COMMIT")
"""What the server is asked by `Work`, in this order: BEGIN and RELEASE SAVEPOINT together with a SAVEPOINT."""


class Work:
    """Two saves that belong together."""

    def __init__(self, tenant_id: UUID) -> None:
        self.agent: Agent = AgentFactory(tenant_id=tenant_id)
        self.episode: Episode = EpisodeFactory(tenant_id=tenant_id)
        self.runs = 0

    async def __call__(self, unit: UnitOfWork) -> None:
        self.runs += 1
        await unit.config.save_agent(self.agent)
        if self.runs == 1:
            await unit.memory.add_episode(self.episode)
        else:
            # An earlier run may have been committed, though its answer was lost.
            found = await unit.memory.get_episode(self.episode.tenant_id, self.episode.id)
            if found is None:
                await unit.memory.add_episode(self.episode)

    async def stored(self, data: DataLayer) -> tuple[Agent | None, Episode | None]:
        return (
            await data.config.get_agent(self.agent.tenant_id, self.agent.id),
            await data.memory.get_episode(self.episode.tenant_id, self.episode.id),
        )


async def prepared(data: DataLayer) -> None:
    work = Work(uuid4())
    async with data.unit_of_work() as unit:
        await work(unit)
    assert None not in await work.stored(data)


@pytest.fixture
async def passing(shared_database_url: str) -> AsyncIterator[FaultyProxy]:
    async with faulty_proxy(shared_database_url) as running:
        yield running


@pytest.fixture
async def data(passing: FaultyProxy, redis_url: str) -> AsyncIterator[DataLayer]:
    """A data layer with one connection to PostgreSQL, by way of the proxy, that has every statement prepared."""
    limits = {"pool_size": 1, "connect_timeout": 0.5, "command_timeout": 0.5, "retry_budget": 15}
    settings = settings_for(passing.url, redis_url=redis_url, **limits)
    async with DataLayer.open(settings) as opened:
        await prepared(opened)
        before = passing.asked
        await prepared(opened)
        # Two for what was stored.
        assert passing.asked - before == len(ANSWERS) + 2
        yield opened


async def fails(data: DataLayer, work: Work) -> None:
    """The unit of work fails as one clean StoreConnectionError, and leaves nothing checked out."""
    called: list[str] = []
    with pytest.raises(StoreConnectionError) as failed:  # noqa: PT012 - the whole block is what raises.
        async with data.unit_of_work() as unit:
            unit.after_commit(lambda: called.append("committed"))
            await work(unit)
    assert_clean(failed.value)
    assert called == []
    assert data._database is not None
    pool = pool_of(data._database)
    await asyncio.gather(*pool._closing_tasks)
    assert pool._in_use == set()


async def test_a_lost_reply_fails_the_unit_of_work_as_a_whole(
    data: DataLayer, passing: FaultyProxy, report: Found
) -> None:
    for place, answer in enumerate(ANSWERS):
        work = Work(uuid4())
        # On a new connection, asyncpg also asks for the types of parameters.
        await prepared(data)
        passing.lose_reply(place)
        if answer == "BEGIN":
            # Nothing is done yet: it takes another connection.
            async with data.unit_of_work() as unit:
                await work(unit)
            assert passing.lost == 1
            assert None not in await work.stored(data)
            continue
        await fails(data, work)
        assert passing.lost == place + 1
        stored = await work.stored(data)
        # Lost is the reply alone: a COMMIT was done.
        assert [one is not None for one in stored] == [answer == "COMMIT"] * 2, answer
    report(
        "each reply lost of a unit of work, from BEGIN to COMMIT",
        bar="BEGIN is repeated, any other fails as one StoreConnectionError, all or nothing",
        found=f"BEGIN repeated, one StoreConnectionError each for the others, {passing.lost} replies lost",
    )


async def test_a_reply_that_does_not_come_fails_the_unit_of_work_in_time(
    data: DataLayer, passing: FaultyProxy, count: Counts, report: Found
) -> None:
    places = range(len(ANSWERS))[-count(1, len(ANSWERS)) :]
    for place in places:
        work = Work(uuid4())
        await prepared(data)
        passing.stall_reply(place)
        await fails(data, work)
        passing.stall_after = None
        stored = await work.stored(data)
        assert [one is not None for one in stored] == [ANSWERS[place] == "COMMIT"] * 2, ANSWERS[place]
    report(
        "each reply of a unit of work, from BEGIN to COMMIT, not coming",
        bar="fails as one StoreConnectionError within the command time-out, all or nothing",
        found=f"one StoreConnectionError each, {len(places)} replies",
    )


async def test_run_in_transaction_repeats_the_work_after_a_lost_reply(
    data: DataLayer, passing: FaultyProxy, report: Found
) -> None:
    for place, answer in enumerate(ANSWERS):
        work = Work(uuid4())
        # On a new connection, asyncpg also asks for the types of parameters.
        await prepared(data)
        passing.lose_reply(place)
        await data.run_in_transaction(work)
        assert passing.lost == place + 1
        # That BEGIN was lost shows before the work begins.
        assert work.runs == (1 if answer == "BEGIN" else 2)
        assert await work.stored(data) == (work.agent, work.episode)
        assert work.agent.revision == (2 if answer == "COMMIT" else 1)
    report(
        "each reply lost of run_in_transaction, from BEGIN to COMMIT",
        bar="the work is repeated as a whole",
        found=f"everything stored each time, {passing.lost} replies lost",
    )


async def test_run_in_transaction_repeats_the_work_after_a_deadlock(
    data: DataLayer, shared_database_url: str, redis_url: str, tenant_id: UUID, report: Found
) -> None:
    agents: list[Agent] = [AgentFactory(tenant_id=tenant_id) for _ in range(2)]
    await data.config.save_many(agents)
    both = asyncio.Barrier(2)
    runs = 0

    async def crossing(first: Agent, second: Agent) -> None:
        async def work(unit: UnitOfWork) -> None:
            nonlocal runs
            runs += 1
            await unit.config.save_agent(first.model_copy())
            if runs <= 2:
                # Each holds what the other wants.
                await both.wait()
            await unit.config.save_agent(second.model_copy())

        settings = settings_for(shared_database_url, redis_url=redis_url, retry_budget=15)
        async with DataLayer.open(settings) as own:
            await own.run_in_transaction(work)

    await asyncio.gather(crossing(*agents), crossing(*reversed(agents)))
    # The one that is begun again may well collide with the other once more.
    assert runs >= 3
    for agent in agents:
        stored = await data.config.get_agent(tenant_id, agent.id)
        assert stored is not None
        assert stored.revision == 3
    report(
        "two units of work in a deadlock (SQLSTATE 40P01)",
        bar="repeated by run_in_transaction, both are done",
        found=f"both done, {runs} runs",
    )


async def test_run_in_transaction_repeats_the_work_after_a_serialization_failure(
    data: DataLayer, shared_database_url: str, redis_url: str, tenant_id: UUID, report: Found
) -> None:
    agent: Agent = AgentFactory(tenant_id=tenant_id)
    await data.config.save_agent(agent)
    runs = 0

    async def work(unit: UnitOfWork) -> None:
        nonlocal runs
        runs += 1
        transaction = await cast("UnitTransaction", unit._transaction).begun(savepoint=False)
        await transaction._command("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ", "testing")
        read = await unit.config.get_agent(tenant_id, agent.id)
        assert read is not None
        if runs == 1:
            await others.config.save_agent(agent)
        await unit.config.save_agent(read)

    async with DataLayer.open(settings_for(shared_database_url, redis_url=redis_url)) as others:
        await data.run_in_transaction(work)
    assert runs == 2
    stored = await data.config.get_agent(tenant_id, agent.id)
    assert stored is not None
    assert stored.revision == 3
    report(
        "a unit of work that cannot be serialized (SQLSTATE 40001)",
        bar="repeated by run_in_transaction",
        found=f"done, {runs} runs",
    )
