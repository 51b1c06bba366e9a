"""What `PostgresVectorStore` does beyond the contract: round trips, lost replies, units of work, the index."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID, uuid4

import pytest

from soldier_data.base.subjects import DataSubject
from soldier_data.errors import ConflictError
from soldier_data.postgres.database import Database
from soldier_data.postgres.engine import open_connection
from soldier_data.postgres.errors import TransientError
from soldier_data.postgres.transaction import Transaction
from soldier_data.vectors import Embedding, PostgresVectorStore, VectorStore
from soldier_data.vectors import statements as sql
from tests.backends.connections import administrator, bound_role
from tests.backends.round_trips import Proxy
from tests.conftest import DIMENSIONS, settings_for
from tests.factories.vectors import EmbeddingFactory

QUERY = [1.0] + [0.0] * (DIMENSIONS - 1)


@pytest.fixture
def store(database: Database) -> PostgresVectorStore:
    return PostgresVectorStore(database)


@pytest.fixture
def behind(behind: tuple[Proxy, Database]) -> tuple[Proxy, PostgresVectorStore]:
    """A store that reaches the server by way of a proxy."""
    passing, database = behind
    return passing, PostgresVectorStore(database)


def _calls(store: VectorStore, tenant_id: UUID) -> dict[str, Callable[[], Awaitable[Any]]]:
    """A call of every method of the store."""
    one, *many = (EmbeddingFactory(tenant_id=tenant_id, source_id="s") for _ in range(4))
    somebody = DataSubject(tenant_id, frozenset([uuid4()]))
    calls: dict[str, Callable[[], Awaitable[Any]]] = {
        "add_embedding": lambda: store.add_embedding(one),
        "add_embeddings": lambda: store.add_embeddings(many),
        "search": lambda: store.search(QUERY, tenant_id, source_type="document", metadata_filter={"a": 1}),
        "delete_by_source": lambda: store.delete_by_source(tenant_id, "s"),
        "export_subject": lambda: store.export_subject(somebody),
        "erase_subject": lambda: store.erase_subject(somebody),
    }
    assert set(calls) == VectorStore.__abstractmethods__
    return calls


async def test_each_call_takes_one_round_trip_and_a_list_few(
    behind: tuple[Proxy, PostgresVectorStore], tenant_id: UUID
) -> None:
    passing, store = behind
    # The first time statements are prepared.
    for call in _calls(store, tenant_id).values():
        await call()
    counted = {name: await passing.count(call) for name, call in _calls(store, tenant_id).items()}
    # BEGIN, COMMIT, and COPY, which asks for the types of the columns first.
    assert counted.pop("add_embeddings") <= 6
    # Two to look through the metadata, one for the sources.
    assert counted == dict.fromkeys(counted, 1) | {"export_subject": 3, "erase_subject": 3}


async def test_adding_whose_reply_is_lost_takes_effect_once(
    behind: tuple[Proxy, PostgresVectorStore], tenant_id: UUID
) -> None:
    passing, store = behind
    await store.add_embedding(EmbeddingFactory())
    added = EmbeddingFactory(tenant_id=tenant_id)
    passing.lose_next_reply()
    assert await store.add_embedding(added) == added.id
    assert passing.lost == 1
    assert [each for each, _ in await store.search(QUERY, tenant_id)] == [added]


async def test_a_list_that_was_committed_without_an_answer_takes_effect_once(
    store: PostgresVectorStore, tenant_id: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = Transaction.commit
    committed = 0

    async def commit_and_lose_the_first_answer(transaction: Transaction) -> None:
        nonlocal committed
        await commit(transaction)
        committed += 1
        if committed == 1:
            raise TransientError("the connection was lost")

    monkeypatch.setattr(Transaction, "commit", commit_and_lose_the_first_answer)
    many: list[Embedding] = [EmbeddingFactory(tenant_id=tenant_id) for _ in range(5)]
    assert await store.add_embeddings(many) == 5
    assert committed == 1
    assert [each for each, _ in await store.search(QUERY, tenant_id)] == many


async def test_a_refusal_leaves_a_unit_of_work_usable(
    database: Database, store: PostgresVectorStore, tenant_id: UUID
) -> None:
    first, second = (EmbeddingFactory(tenant_id=tenant_id) for _ in range(2))
    await store.add_embedding(first)
    async with database.transaction() as transaction:
        inside = PostgresVectorStore(transaction)
        with pytest.raises(ConflictError):
            await inside.add_embedding(first)
        with pytest.raises(ConflictError):
            await inside.add_embeddings([EmbeddingFactory(tenant_id=tenant_id), first])
        await inside.add_embedding(second)
    assert [each for each, _ in await store.search(QUERY, tenant_id)] == [first, second]


async def test_more_than_fit_one_copy_are_added_together(store: PostgresVectorStore, tenant_id: UUID) -> None:
    many: list[Embedding] = [
        EmbeddingFactory(tenant_id=tenant_id, content="same", source_id="s") for _ in range(5_001)
    ]
    last = many[-1].model_copy(update={"id": many[0].id})
    with pytest.raises(ConflictError):
        await store.add_embeddings([*many[:-1], last])
    assert await store.search(QUERY, tenant_id) == []
    assert await store.add_embeddings(many) == 5_001
    assert await store.delete_by_source(tenant_id, "s") == 5_001


async def test_a_role_that_row_level_security_binds_can_do_everything(
    database_url: str, tenant_id: UUID
) -> None:
    async with bound_role(database_url) as url:
        bound = Database(settings_for(url, row_level_security=True))
        store = PostgresVectorStore(bound)
        try:
            results = [await call() for call in _calls(store, tenant_id).values()]
            assert results[1:] == [3, [], 4, {"embeddings": []}, {"embeddings": []}]
            added = EmbeddingFactory(tenant_id=tenant_id)
            await store.add_embedding(added)
            with pytest.raises(ConflictError):
                await store.add_embeddings([EmbeddingFactory(tenant_id=tenant_id), added])
            assert [each for each, _ in await store.search(QUERY, tenant_id)] == [added]
            assert await store.search(QUERY, uuid4()) == []
        finally:
            await bound.close()


async def test_a_rare_metadata_value_is_found_through_the_index(database_url: str, tenant_id: UUID) -> None:
    database = Database(settings_for(database_url))
    many = [
        EmbeddingFactory(tenant_id=tenant_id, content="x", metadata={"number": number, "language": "de"})
        for number in range(5_000)
    ]
    await PostgresVectorStore(database).add_embeddings(many)
    await database.close()
    values = {
        "tenant_id": tenant_id,
        "query": QUERY,
        "metadata_filter": json.dumps({"number": 77, "language": "de"}),
        "limit": 5,
        "max_distance": 3.0,
    }
    statement = sql.search(None, source_type=False, metadata_filter=True, embedding_model=False)
    connection = await open_connection(settings_for(database_url))
    try:
        await connection.execute("ANALYZE embeddings")
        # A prepared statement is planned for its values at first, and once for all of them later.
        for mode in ("force_custom_plan", "force_generic_plan"):
            await connection.execute(f"SET plan_cache_mode = {mode}")
            plan = await connection.fetch(f"EXPLAIN {statement.sql}", *statement.arguments(values))
            assert "ix_embeddings_metadata" in str(plan), (mode, plan)
    finally:
        await connection.close()


async def test_what_filters_compare_stays_in_the_row_beside_a_long_vector(database_url: str) -> None:
    async with administrator(database_url) as connection:
        rows = await connection.fetch(
            "SELECT attname, attstorage::text FROM pg_attribute WHERE attrelid = 'embeddings'::regclass"
        )
    storage = {row["attname"]: row["attstorage"] for row in rows}
    names = ("embedding", "embedding_model", "searched_metadata", "source_type")
    assert {name: storage[name] for name in names} == {
        "embedding": "p",
        "embedding_model": "m",
        "searched_metadata": "m",
        "source_type": "m",
    }
