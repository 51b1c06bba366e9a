"""The config store compared with handwritten asyncpg code."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import cycle
from typing import Any, cast

import asyncpg
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from benchmarks import by_hand, peers, samples, trips
from benchmarks.config_sample import (
    DELETE_RULE,
    GET_AGENT,
    GET_PLAIN_RULE,
    GET_RULE,
    LIST_RULES,
    SAVE_AGENT,
    SAVE_NEW_RULE,
    SAVE_RULE,
    SEARCH_RULES,
    Sample,
)
from benchmarks.harness import LIMIT, OURS, Bar, Bench, Case
from soldier_data import DataLayer, Rule, prepare_engine
from soldier_data.postgres.engine import driver_url
from soldier_data.settings import Settings

GET = Bar(1.5)
LIST = Bar(1.5)
SAVE = Bar(1.6)
SEARCH = Bar(0.020, of="ours")
# Within the differences between two runs of the same code.
UNNOTICED = Bar(1.03)


_TASKS = 50
_GETS_PER_TASK = 20


async def measure(bench: Bench) -> None:
    """Fill the tables, then measure every operation."""
    data = bench.data
    sample = Sample(data.settings.embedding_dimensions, searched=1_000 if bench.quick else 10_000)
    await sample.store(data)
    # As autovacuum would do later, so that the planner has current statistics.
    connection = await by_hand.connect(data.settings.database_url)
    await connection.execute("VACUUM ANALYZE")
    bench.note(
        f"The vector search is over {len(sample.large_rules):,} rules of one agent with "
        f"{data.settings.embedding_dimensions:,} dimensions, and returns 10."
    )
    async with trips.counting(data.settings) as counted:
        bench.round_trips |= await counted.count(await ours(counted.data, sample))
    our_cases = await ours(data, sample)
    limits = await by_hand.config_cases(connection, data, sample)
    bars = {
        GET_AGENT: GET,
        GET_RULE: GET,
        GET_PLAIN_RULE: GET,
        LIST_RULES: LIST,
        SAVE_AGENT: SAVE,
        SAVE_RULE: SAVE,
        SAVE_NEW_RULE: SAVE,
        SEARCH_RULES: SEARCH,
    }
    reads = (GET_AGENT, GET_RULE, GET_PLAIN_RULE, LIST_RULES)
    async with peers.for_config(bench, sample) as others:
        for operation, case in our_cases.items():
            await bench.compare(
                operation,
                {OURS: case} | ({LIMIT: limits[operation]} if operation in limits else {}),
                bar=bars.get(operation),
                peers=others.get(operation),
                same=operation in reads,
            )
    await _save_many(bench, sample, connection)
    await _concurrently(bench, sample)
    await _listened_to(bench, sample)
    await connection.close()


async def ours(data: DataLayer, sample: Sample) -> dict[str, Case]:
    """Return the operations with the store."""
    store, tenant_id = data.config, sample.tenant_id
    agents, own_agents = cycle(sample.agents), cycle(await sample.own_agents(data))
    rules, plain = cycle(sample.listed_rules), cycle(sample.plain_rules)
    own_rules, vectors, queries = (
        cycle(await sample.own_rules(data)),
        cycle(sample.new_vectors),
        cycle(sample.queries),
    )
    next_rule: Rule

    async def make_rule() -> None:
        nonlocal next_rule
        (next_rule,) = samples.rules(sample.written, [next(vectors)])

    async def store_rule() -> None:
        await make_rule()
        await store.save_rule(next_rule)

    return {
        GET_AGENT: Case(lambda: store.get_agent(tenant_id, next(agents).id)),
        GET_PLAIN_RULE: Case(lambda: store.get_rule(tenant_id, next(plain).id)),
        GET_RULE: Case(lambda: store.get_rule(tenant_id, next(rules).id)),
        LIST_RULES: Case(lambda: store.get_rules(tenant_id, sample.listed.id)),
        SAVE_AGENT: Case(lambda: store.save_agent(next(own_agents))),
        SAVE_RULE: Case(lambda: store.save_rule(next(own_rules))),
        SAVE_NEW_RULE: Case(lambda: store.save_rule(next_rule), make_rule),
        DELETE_RULE: Case(lambda: store.delete_rule(tenant_id, next_rule.id), store_rule),
        SEARCH_RULES: Case(lambda: store.vector_search_rules(next(queries), tenant_id, sample.large.id)),
    }


async def _save_many(bench: Bench, sample: Sample, connection: Any) -> None:
    count = 200 if bench.quick else 1_000
    dimensions = bench.data.settings.embedding_dimensions
    ours, limit = (samples.with_embeddings(sample.written, count, dimensions) for _ in range(2))
    statement = by_hand.upsert("rules", list(Rule.model_fields))

    async def executemany() -> None:
        async with connection.transaction():
            await connection.executemany(statement, [by_hand.rule_arguments(rule) for rule in limit])

    await bench.compare(
        f"save_many of {count:,} rules, a rule",
        {
            OURS: Case(lambda: bench.data.config.save_many(ours), operations=count),
            LIMIT: Case(executemany, operations=count),
        },
    )


async def _concurrently(bench: Bench, sample: Sample) -> None:
    """Measure many concurrent tasks, which shows the effect of the pools."""
    store, tenant_id = bench.data.config, sample.tenant_id
    ids = [agent.id for agent in sample.agents]
    size = bench.data.settings.pool_size

    async def task() -> None:
        for number in range(_GETS_PER_TASK):
            await store.get_agent(tenant_id, ids[number % len(ids)])

    async with asyncpg.create_pool(bench.data.settings.database_url, min_size=size, max_size=size) as pool:

        async def task_by_hand() -> None:
            for number in range(_GETS_PER_TASK):
                row = await pool.fetchrow(by_hand.SELECT_AGENT, tenant_id, ids[number % len(ids)])
                by_hand.to_agent(row)

        operations = _TASKS * _GETS_PER_TASK
        await bench.compare(
            f"get agent in {_TASKS} tasks at once, a get",
            {
                OURS: Case(lambda: asyncio.gather(*(task() for _ in range(_TASKS))), operations=operations),
                f"asyncpg's pool of {size}": Case(
                    lambda: asyncio.gather(*(task_by_hand() for _ in range(_TASKS))), operations=operations
                ),
            },
        )


async def _listened_to(bench: Bench, sample: Sample) -> None:
    """Measure what SQLAlchemy's listeners cost: nothing if there are none."""
    agents = cycle(sample.agents)

    def get_agent(data: DataLayer) -> Case:
        return Case(lambda: data.config.get_agent(sample.tenant_id, next(agents).id))

    settings = bench.data.settings
    async with (
        DataLayer.open(settings) as unchecked,
        own_engine(settings) as engine,
        DataLayer.open(settings, engine=engine) as on_engine,
        own_engine(settings) as observed,
        DataLayer.open(settings, engine=observed) as with_listener,
    ):
        cast("Any", unchecked.config)._db._driver_of = lambda lease: lease.driver  # noqa: SLF001 - leaves out the check.
        event.listen(observed.sync_engine, "before_cursor_execute", lambda *_: None)
        cases = {OURS: get_agent(bench.data), "without looking for listeners": get_agent(unchecked)}
        await bench.compare("get an agent, nobody listens", cases, bar=UNNOTICED)
        cases = {OURS: get_agent(on_engine), "on the library's engine": get_agent(bench.data)}
        await bench.compare("get an agent, on an engine of the service's own", cases)
        cases = {OURS: get_agent(with_listener), "nobody listens": get_agent(on_engine)}
        await bench.compare("get an agent, on such an engine with a listener", cases)


@asynccontextmanager
async def own_engine(settings: Settings) -> AsyncIterator[AsyncEngine]:
    """An engine as a service creates it."""
    url = driver_url(settings.database_url).replace("postgresql://", "postgresql+asyncpg://")
    engine = prepare_engine(create_async_engine(url))
    yield engine
    await engine.dispose()
