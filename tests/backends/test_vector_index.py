"""Vector search through the index: when it is used, what it finds, and what it leaves behind.

The database of these tests is set to take an index wherever there is one: with so few rows PostgreSQL would rather
sort them.
"""

from __future__ import annotations

import json
import random
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from datetime import timedelta
from itertools import chain, combinations, pairwise
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import numpy as np
import pytest
from sqlalchemy import Text, func, select

from soldier_data.base.models import utcnow
from soldier_data.config import Agent
from soldier_data.migrations import upgrade
from soldier_data.postgres import vector_search
from soldier_data.postgres.database import Database
from soldier_data.postgres.engine import open_connection
from soldier_data.postgres.statements import Statement
from soldier_data.vectors import PostgresVectorStore
from tests.backends.connections import administrator, bound_role
from tests.backends.round_trips import transaction_pooler
from tests.conftest import DIMENSIONS, settings_for
from tests.factories.vectors import EmbeddingFactory
from tests.searches import SEARCHED, Searched, agent_of

LARGE, SMALL = 400, 60
NOON = utcnow().replace(hour=12)
AGENTS, CUSTOMERS = [uuid4(), uuid4()], [uuid4() for _ in range(40)]

every_search = pytest.mark.parametrize("searched", SEARCHED, ids=lambda searched: searched.table)


@pytest.fixture(autouse=True)
def few_rows_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """The index is used for more than 100 rows."""
    monkeypatch.setattr(vector_search, "EXACT_ROWS", 100)


@pytest.fixture(scope="module")
async def tenants(module_database_url: str) -> dict[str, tuple[Agent, list[Agent]]]:
    """In each table the agents of one large tenant and of three small ones."""
    database = Database(settings_for(module_database_url))
    filled = {}
    for searched in SEARCHED:
        large, *small = (agent_of(uuid4()) for _ in range(4))
        for agent, count in ((large, LARGE), *((each, SMALL) for each in small)):
            await searched.fill(searched.on_postgres(database), agent, list(_many(searched, agent, count)))
        filled[searched.table] = (large, small)
    await database.close()
    async with administrator(module_database_url) as connection:
        await connection.execute("VACUUM ANALYZE")
        name = await connection.fetchval("SELECT current_database()")
        for setting in ("enable_sort", "enable_incremental_sort", "enable_bitmapscan"):
            await connection.execute(f"ALTER DATABASE {name} SET {setting} = off")
    return filled


def _many(searched: Searched, agent: Agent, count: int) -> Iterator[Any]:
    chance = random.Random(count)  # noqa: S311 - no secret.
    for number in range(count):
        fields: dict[str, Any] = {}
        if searched.table == "episodes":
            fields = {
                "group_id": f"group {number % 2}",
                "agent_id": AGENTS[number % 3 == 0],
                "customer_profile_id": CUSTOMERS[number % len(CUSTOMERS)],
                "content_type": "summary" if number % 50 == 0 else "message",
                "occurred_at": NOON + timedelta(minutes=number),
            }
        elif searched.table == "entities":
            fields = {
                "group_id": f"group {number % 2}",
                "entity_type": "rare" if number % 30 == 0 else "person",
            }
        elif searched.table == "embeddings":
            fields = {
                "source_type": "rare" if number % 30 == 0 else "document",
                "metadata": {"page": number % 7, "half": number % 2},
            }
        model = "second" if number % 5 == 0 else "first"
        yield searched.new(agent, _vector(chance), model, **fields)


def _vector(chance: random.Random) -> list[float]:
    return [chance.gauss(0, 1) for _ in range(DIMENSIONS)]


@pytest.fixture
async def database(module_database_url: str, tenants: Any) -> AsyncIterator[Database]:
    opened = Database(settings_for(module_database_url, pool_size=1, pool_overflow=0))
    yield opened
    await opened.close()


@pytest.fixture
async def exact(module_database_url: str) -> AsyncIterator[Database]:
    """The same without the index."""
    opened = Database(settings_for(module_database_url, vector_index="none"))
    yield opened
    await opened.close()


def _queries(count: int) -> list[list[float]]:
    chance = random.Random(count)  # noqa: S311 - no secret.
    return [_vector(chance) for _ in range(count)]


def _ids(found: list[tuple[Any, float]]) -> list[UUID]:
    return [entity.id for entity, _ in found]


async def _recall(
    searched: Searched,
    through_index: Database,
    exact: Database,
    agent: Agent,
    queries: Sequence[list[float]] | None = None,
    **options: Any,
) -> float:
    """The share of the nearest that are found; every search finds as many as there are."""
    found = wanted = 0
    for query in queries or _queries(20):
        nearest = _ids(
            await searched.find(searched.on_postgres(exact), query, agent, min_score=-1.0, **options)
        )
        got = await searched.find(
            searched.on_postgres(through_index), query, agent, min_score=-1.0, **options
        )
        assert len(got) == len(nearest)
        assert got == sorted(got, key=lambda item: (-item[1], item[0].id))
        found += len(set(nearest) & set(_ids(got)))
        wanted += len(nearest)
    return found / wanted if wanted else 1.0


# -- which way is taken ----------------------------------------------------------------------------------------


async def _recorded(
    searched: Searched, database: Database, agent: Agent, monkeypatch: pytest.MonkeyPatch, **options: Any
) -> tuple[str, list[Any]]:
    """The SQL of a search and its arguments."""
    executed: list[tuple[str, list[Any]]] = []
    arguments_of = Statement.arguments

    def recorded(statement: Statement, values: Mapping[str, Any]) -> list[Any]:
        arguments = arguments_of(statement, values)
        executed.append((statement.sql, arguments))
        return arguments

    with monkeypatch.context() as patched:
        patched.setattr(Statement, "arguments", recorded)
        await searched.find(searched.on_postgres(database), _queries(1)[0], agent, **options)
    [only] = executed
    return only


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", ()):
        yield from _nodes(child)


async def _times_scanned(database: Database, index: str, statement: tuple[str, list[Any]]) -> int:
    """How often the index is scanned; a part of the plan that is not executed is not counted."""
    sql, arguments = statement
    connection = await open_connection(database.settings)
    try:
        found = await connection.fetchval(f"EXPLAIN (ANALYZE, FORMAT JSON) {sql}", *arguments)
    finally:
        await connection.close()
    nodes = _nodes(json.loads(found)[0]["Plan"])
    return sum(int(node["Actual Loops"]) for node in nodes if node.get("Index Name") == index)


@every_search
async def test_many_rows_are_searched_through_the_index_and_few_exactly(
    searched: Searched,
    database: Database,
    tenants: dict[str, tuple[Agent, list[Agent]]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    large, (small, *_) = tenants[searched.table]
    index = f"ix_{searched.table}_{searched.column}_hnsw"
    for agent, expected in ((large, 1), (small, 0)):
        statement = await _recorded(searched, database, agent, monkeypatch)
        assert await _times_scanned(database, index, statement) == expected
    # A search for a large part of the rows is faster without the index.
    everything = await _recorded(searched, database, large, monkeypatch, limit=LARGE)
    assert await _times_scanned(database, index, everything) == 0


@every_search
async def test_the_plan_is_made_for_the_tenant_at_hand_however_often_a_statement_runs(
    searched: Searched,
    database: Database,
    tenants: dict[str, tuple[Agent, list[Agent]]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    large, _ = tenants[searched.table]
    sql, arguments = await _recorded(searched, database, large, monkeypatch)
    connection = await open_connection(database.settings)
    prepared = await connection.prepare(sql, name="searching")
    for _ in range(10):
        await prepared.fetch(*arguments)
    counted = "SELECT custom_plans, generic_plans FROM pg_prepared_statements WHERE name = 'searching'"
    assert tuple(await connection.fetchrow(counted)) == (10, 0)
    await connection.close()


# -- what is found ---------------------------------------------------------------------------------------------

FILTERS: dict[str, list[dict[str, Any]]] = {
    "rules": [{}],
    "scenarios": [{}],
    "episodes": [
        {"group_id": "group 1"},
        {"agent_id": AGENTS[1]},
        {"customer_profile_id": CUSTOMERS[3]},
        {"content_type": "summary"},
        {"occurred_after": NOON + timedelta(minutes=20)},
        {"occurred_before": NOON + timedelta(minutes=15)},
    ],
    "entities": [{"group_id": "group 1"}, {"entity_type": "rare"}],
    "embeddings": [
        {"source_type": "rare"},
        {"metadata_filter": {"page": 3}},
        {"metadata_filter": {"half": 1}},
    ],
}


def _combinations(table: str) -> list[dict[str, Any]]:
    filters = [*FILTERS[table], {"embedding_model": "second"}]
    chosen = chain.from_iterable(combinations(filters, size) for size in (0, 1, 2))
    return [dict(chain.from_iterable(each.items() for each in options)) for options in chosen]


@every_search
async def test_the_index_finds_the_nearest_and_as_many_as_there_are_whatever_the_filters(
    searched: Searched, database: Database, exact: Database, tenants: dict[str, tuple[Agent, list[Agent]]]
) -> None:
    large, small = tenants[searched.table]
    for options in _combinations(searched.table):
        assert await _recall(searched, database, exact, large, limit=10, **options) >= 0.99, options
    for agent in small:
        assert await _recall(searched, database, exact, agent, limit=10) == 1.0


async def test_hybrid_search_ranks_alike_with_the_index_and_without(
    database: Database, exact: Database, tenants: dict[str, tuple[Agent, list[Agent]]]
) -> None:
    episodes = next(each for each in SEARCHED if each.table == "episodes")
    large, _ = tenants["episodes"]
    for query in _queries(5):
        through_index = await episodes.on_postgres(database).hybrid_search_episodes(
            "a e", query, large.tenant_id
        )
        without = await episodes.on_postgres(exact).hybrid_search_episodes("a e", query, large.tenant_id)
        assert through_index == without


async def test_an_index_that_finds_too_few_gives_way_to_an_exact_search(
    database: Database,
    exact: Database,
    tenants: dict[str, tuple[Agent, list[Agent]]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # It stops after the first rows that it looks at, of which half do not meet the condition.
    monkeypatch.setattr(vector_search, "_MOST_SCANNED", 1)
    monkeypatch.setattr(vector_search, "_MOST_EF_SEARCH", 1)
    monkeypatch.setattr(vector_search, "_ROWS_PER_RESULT", 1)
    embeddings = next(each for each in SEARCHED if each.table == "embeddings")
    large, _ = tenants["embeddings"]
    assert await _recall(embeddings, database, exact, large, limit=90, metadata_filter={"half": 1}) == 1.0


# -- what is left behind ---------------------------------------------------------------------------------------

_EF_SEARCH = Statement(
    "reading a setting", select(func.current_setting("hnsw.ef_search", type_=Text()).label("it"))
)


async def test_the_settings_of_a_search_end_with_its_transaction(
    database: Database, tenants: dict[str, tuple[Agent, list[Agent]]]
) -> None:
    episodes = next(each for each in SEARCHED if each.table == "episodes")
    large, _ = tenants["episodes"]
    values = {"tenant_id": large.tenant_id}
    query = _queries(1)[0]

    async def ef_search(db: Any) -> str:
        row = await db.fetch_one(_EF_SEARCH, values)
        value: str = row["it"]
        return value

    # There is one connection, so each of these sees what the one before has left.
    await episodes.find(episodes.on_postgres(database), query, large)
    assert await ef_search(database) == "40"
    async with database.transaction() as transaction:
        await episodes.find(episodes.on_postgres(transaction), query, large)
        assert await ef_search(transaction) == "300"
    assert await ef_search(database) == "40"


async def test_behind_a_transaction_pooler_the_index_finds_the_same(
    module_database_url: str,
    database: Database,
    tenants: dict[str, tuple[Agent, list[Agent]]],
) -> None:
    async with transaction_pooler(module_database_url) as pooler:
        pooled = Database(settings_for(pooler.url, pgbouncer=True))
        for searched in SEARCHED:
            large, _ = tenants[searched.table]
            for query in _queries(3):
                found = await searched.find(searched.on_postgres(pooled), query, large)
                assert found == await searched.find(searched.on_postgres(database), query, large)
        await pooled.close()


async def test_a_role_that_row_level_security_binds_finds_the_same(
    module_database_url: str,
    exact: Database,
    tenants: dict[str, tuple[Agent, list[Agent]]],
) -> None:
    async with bound_role(module_database_url) as url:
        bound = Database(settings_for(url, row_level_security=True))
        for searched in SEARCHED:
            large, _ = tenants[searched.table]
            assert await _recall(searched, bound, exact, large, limit=10) >= 0.99
        await bound.close()


# -- real vectors ----------------------------------------------------------------------------------------------

_SHARED_DATA = Path(__file__).resolve().parents[3] / "shared" / "data"


@pytest.mark.skipif(not _SHARED_DATA.is_dir(), reason="the embeddings of ../shared/data are not here")
async def test_real_embeddings_are_found_for_a_large_tenant_among_small_ones(
    empty_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vector_search, "EXACT_ROWS", 500)
    base = np.load(_SHARED_DATA / "utterances_base_f16.npy", mmap_mode="r")
    queries = np.load(_SHARED_DATA / "utterances_queries_f16.npy", mmap_mode="r")
    settings = settings_for(empty_database_url, embedding_dimensions=base.shape[1])
    await upgrade(settings)
    database, exact = Database(settings), Database(settings.model_copy(update={"vector_index": "none"}))
    store = PostgresVectorStore(database)
    agents = [agent_of(uuid4()) for _ in range(6)]
    for agent, (first, last) in zip(
        agents, pairwise([0, 2_500, 2_600, 2_700, 2_800, 2_900, 3_000]), strict=True
    ):
        await store.add_embeddings(
            EmbeddingFactory(
                tenant_id=agent.tenant_id, embedding=base[row].tolist(), metadata={"third": row % 3}
            )
            for row in range(first, last)
        )
    async with administrator(empty_database_url) as connection:
        await connection.execute("VACUUM ANALYZE embeddings")
    embeddings = next(each for each in SEARCHED if each.table == "embeddings")
    wanted = [query.tolist() for query in queries[:40]]
    for agent in agents:
        for options in ({}, {"metadata_filter": {"third": 1}}):
            assert await _recall(embeddings, database, exact, agent, wanted, limit=10, **options) >= 0.99
    await database.close()
    await exact.close()


# -- IVFFlat ---------------------------------------------------------------------------------------------------


async def test_ivfflat_finds_as_many_as_there_are(
    empty_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_for(empty_database_url, vector_index="ivfflat")
    await upgrade(settings)
    async with administrator(empty_database_url) as connection:
        name = await connection.fetchval("SELECT current_database()")
        await connection.execute(f"ALTER DATABASE {name} SET enable_sort = off")
        await connection.execute(f"ALTER DATABASE {name} SET enable_bitmapscan = off")
    database, exact = Database(settings), Database(settings_for(empty_database_url, vector_index="none"))
    embeddings = next(each for each in SEARCHED if each.table == "embeddings")
    agent = agent_of(uuid4())
    await embeddings.fill(embeddings.on_postgres(database), agent, list(_many(embeddings, agent, LARGE)))
    async with administrator(empty_database_url) as connection:
        # Lists that were made of no rows fit none.
        await connection.execute("REINDEX TABLE embeddings")
        await connection.execute("VACUUM ANALYZE embeddings")
    statement = await _recorded(embeddings, database, agent, monkeypatch)
    assert await _times_scanned(database, "ix_embeddings_embedding_ivfflat", statement) == 1
    assert await _recall(embeddings, database, exact, agent, limit=10) >= 0.9
    for options in _combinations("embeddings"):
        # The check of each search's length is what counts: the index is as good as its lists.
        assert await _recall(embeddings, database, exact, agent, limit=10, **options) >= 0.5
    await database.close()
    await exact.close()
