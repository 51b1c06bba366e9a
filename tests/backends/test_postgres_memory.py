"""What `PostgresMemoryStore` does beyond the contract: round trips, plans, races, lost replies, bound roles."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import timedelta
from itertools import chain, combinations, product
from typing import Any
from uuid import UUID, uuid4

import pytest

from soldier_data.base.paging import Cursor
from soldier_data.base.subjects import DataSubject
from soldier_data.errors import ConflictError, NotFoundError
from soldier_data.memory import Entity, Episode, MemoryStore, PostgresMemoryStore, Relationship, graph
from soldier_data.memory import statements as sql
from soldier_data.postgres.database import Database
from soldier_data.postgres.engine import open_connection
from soldier_data.postgres.statements import Statement
from tests.backends.connections import bound_role
from tests.backends.round_trips import Proxy
from tests.cases.values import NOON
from tests.conftest import DIMENSIONS, settings_for
from tests.factories.memory import EntityFactory, EpisodeFactory, RelationshipFactory

QUERY = [1.0] * DIMENSIONS
GROUP = "conversation"


@pytest.fixture
def behind(behind: tuple[Proxy, Database]) -> tuple[Proxy, PostgresMemoryStore]:
    """A store that reaches the server by way of a proxy."""
    passing, database = behind
    return passing, PostgresMemoryStore(database)


def _everything(tenant_id: UUID) -> tuple[Episode, Entity, Entity, Relationship]:
    first, second = EntityFactory.build_batch(2, tenant_id=tenant_id, embedding=QUERY)
    return (
        EpisodeFactory(tenant_id=tenant_id, content="the word", embedding=QUERY),
        first,
        second,
        RelationshipFactory(tenant_id=tenant_id, from_entity_id=first.id, to_entity_id=second.id),
    )


def _calls(store: MemoryStore, tenant_id: UUID) -> list[tuple[str, Callable[[], Awaitable[Any]]]]:
    episode, first, second, relationship = _everything(tenant_id)
    cursor = Cursor.after(episode)
    somebody = DataSubject(tenant_id, frozenset([uuid4()]))
    return [
        ("add_episode", lambda: store.add_episode(episode)),
        ("get_episode", lambda: store.get_episode(tenant_id, episode.id)),
        ("get_episodes", lambda: store.get_episodes(tenant_id, GROUP)),
        ("get_episodes, before", lambda: store.get_episodes(tenant_id, GROUP, before=cursor)),
        ("vector_search_episodes", lambda: store.vector_search_episodes(QUERY, tenant_id)),
        ("text_search_episodes", lambda: store.text_search_episodes("a word", tenant_id)),
        ("text_search_episodes, short", lambda: store.text_search_episodes("w", tenant_id)),
        ("hybrid_search_episodes", lambda: store.hybrid_search_episodes("word", QUERY, tenant_id)),
        ("delete_episode", lambda: store.delete_episode(tenant_id, episode.id)),
        ("add_entity", lambda: store.add_entity(first)),
        ("add_entity, another", lambda: store.add_entity(second)),
        ("get_entity", lambda: store.get_entity(tenant_id, first.id)),
        ("get_entities", lambda: store.get_entities(tenant_id, GROUP)),
        ("update_entity", lambda: store.update_entity(first)),
        ("vector_search_entities", lambda: store.vector_search_entities(QUERY, tenant_id)),
        ("add_relationship", lambda: store.add_relationship(relationship)),
        ("get_relationship", lambda: store.get_relationship(tenant_id, relationship.id)),
        ("get_relationships", lambda: store.get_relationships(tenant_id, GROUP)),
        ("update_relationship", lambda: store.update_relationship(relationship)),
        (
            "traverse_from_entities",
            lambda: store.traverse_from_entities([first.id], tenant_id, GROUP, depth=3),
        ),
        ("delete_relationship", lambda: store.delete_relationship(tenant_id, relationship.id)),
        ("delete_entity", lambda: store.delete_entity(tenant_id, first.id)),
        ("delete_by_group", lambda: store.delete_by_group(tenant_id, GROUP)),
        ("purge_deleted", lambda: store.purge_deleted(tenant_id, timedelta(0))),
        ("count_to_embed", lambda: store.count_to_embed("model", tenant_id=tenant_id)),
        ("list_to_embed", lambda: store.list_to_embed("model", tenant_id=tenant_id)),
        ("list_subject_sessions", lambda: store.list_subject_sessions(somebody)),
    ]


# -- round trips -----------------------------------------------------------------------------------------------


async def test_each_call_takes_one_round_trip(
    behind: tuple[Proxy, PostgresMemoryStore], tenant_id: UUID
) -> None:
    passing, store = behind
    for _, call in _calls(store, tenant_id):
        await call()
    counted = {name: await passing.count(call) for name, call in _calls(store, tenant_id)}
    # Looking through a table takes two round trips a page.
    assert counted == dict.fromkeys(counted, 1) | {"list_subject_sessions": 2}
    in_a_transaction = {"add_episodes", "set_embeddings", "export_subject", "erase_subject"}
    assert {name.split(",")[0] for name in counted} | in_a_transaction == MemoryStore.__abstractmethods__


async def test_six_thousand_episodes_take_a_few_round_trips(
    behind: tuple[Proxy, PostgresMemoryStore], tenant_id: UUID
) -> None:
    passing, store = behind

    def some(number: int) -> list[Episode]:
        return [
            Episode(tenant_id=tenant_id, group_id=GROUP, content="x" * 200, source="user", embedding=QUERY)
            for _ in range(number)
        ]

    # The first COPY on a connection lets the driver ask for the types of the columns.
    await store.add_episodes(some(1))
    assert await passing.count(lambda: store.add_episodes(some(1))) == 3
    assert await passing.count(lambda: store.add_episodes(some(6_000))) == 4
    assert await store.delete_by_group(tenant_id, GROUP) == 6_002


# -- plans -----------------------------------------------------------------------------------------------------


async def _fill(connection: Any) -> None:
    """Multiply what is stored: 5 tenants with 2,000 of everything in 40 groups, and 200 sessions."""
    tenant = "CASE WHEN t = 1 THEN tenant_id ELSE md5('tenant' || t)::uuid END"
    an_entity = "md5('entity' || t || '/' || {n})::uuid"
    for table in (sql.EPISODES, sql.ENTITIES, sql.RELATIONSHIPS):
        changed = {
            "tenant_id": tenant,
            "id": an_entity.format(n="n"),
            "group_id": "CASE WHEN n % 40 = 1 THEN group_id ELSE 'group ' || n % 40 END",
            "occurred_at": "occurred_at + random() * interval '1000 hours'",
            "recorded_at": "recorded_at + random() * interval '1000 hours'",
            "session_id": "md5('session' || t || '/' || n % 200)::uuid",
            "customer_profile_id": "md5('customer' || t || '/' || n % 100)::uuid",
            "content_folded": "md5(n::text) || ' ' || md5(t::text) || CASE WHEN n % 500 = 0 THEN ' rare' ELSE '' END",
            "from_entity_id": an_entity.format(n="n"),
            "to_entity_id": an_entity.format(n="(n * 7 % 2000 + 1)"),
            "deleted_at": "CASE WHEN n % 100 = 0 THEN now() - interval '1 day' END",
        }
        columns = [column.name for column in table.columns]
        values = ", ".join(changed.get(name, name) for name in columns)
        await connection.execute(
            f"INSERT INTO {table.name} ({', '.join(columns)}) SELECT {values} FROM {table.name}, "  # noqa: S608
            "generate_series(1, 5) t, generate_series(1, 2000) n ON CONFLICT DO NOTHING"
        )
    # The vacuum empties the list of rows that the trigram index has still to take in.
    await connection.execute("VACUUM ANALYZE")


BY_FILTER = {
    "group_id": "ix_episodes_page",
    "customer_profile_id": "ix_episodes_customer",
    "session_id": "ix_episodes_session",
}
FILTERS = ("group_id", "agent_id", "customer_profile_id", "session_id", "content_type", "occurred_after")


def _listing() -> Iterator[tuple[Statement, set[str]]]:
    """Every statement that looks for more than one row, or not by id, and the indexes of which it uses one."""
    for before in (False, True):
        yield sql.get_episodes(before=before), {"ix_episodes_page"}
    for chosen in chain.from_iterable(combinations(FILTERS, size) for size in (0, 1, 2, 6)):
        filters = frozenset(chosen)
        narrow = {index for name, index in BY_FILTER.items() if name in filters}
        # Where nothing narrows the search, any index that begins with the tenant serves.
        by_time = narrow or {"ix_episodes_tenant", "pk_episodes"}
        yield sql.vector_search(sql.EPISODES, filters, None, embedding_model=False), by_time
        for indexed in (False, True):
            words = {"ix_episodes_words"} if indexed else set()
            yield sql.text_search_episodes(filters, indexed=indexed), by_time | words
            yield (
                sql.hybrid_search_episodes(filters, None, embedding_model=False, indexed=indexed),
                by_time | words,
            )
    page = {"ix_entities_page"}
    yield sql.get_entities(frozenset({"group_id"})), page
    yield sql.get_entities(frozenset({"group_id", "entity_type"})), page
    yield sql.vector_search(sql.ENTITIES, frozenset(), None, embedding_model=False), {"pk_entities", *page}
    by_type = frozenset({"group_id", "entity_type"})
    yield sql.vector_search(sql.ENTITIES, by_type, None, embedding_model=False), page
    relationships = {"ix_relationships_page"}
    ends = {"ix_relationships_from", "ix_relationships_to"}
    yield sql.get_relationships(frozenset({"group_id"})), relationships
    yield sql.get_relationships(frozenset({"group_id", "relation_type"})), relationships
    yield sql.get_relationships(frozenset({"group_id", "from_entity_id"})), ends
    yield sql.get_relationships(frozenset({"group_id", "to_entity_id"})), ends
    for with_types, embeddings in product((False, True), repeat=2):
        yield graph.traverse(relation_types=with_types, embeddings=embeddings), ends
    yield graph.delete_entity, ends
    yield graph.delete_by_group, {"ix_episodes_page"}
    yield graph.purge_deleted, {"ix_episodes_purge"}


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", ()):
        yield from _nodes(child)


@pytest.fixture(scope="module")
async def large_tenant(module_database_url: str) -> AsyncIterator[tuple[Any, dict[str, Any]]]:
    """A connection to a database of 30,000 rows, and values for the statements."""
    tenant_id = uuid4()
    opened = Database(settings_for(module_database_url))
    store = PostgresMemoryStore(opened)
    episode, first, second, relationship = _everything(tenant_id)
    episode.occurred_at = NOON
    await store.add_episode(episode)
    await store.add_entity(first)
    await store.add_entity(second)
    await store.add_relationship(relationship)
    await opened.close()
    connection = await open_connection(settings_for(module_database_url))
    await _fill(connection)
    some = await connection.fetchrow(
        "SELECT session_id, customer_profile_id FROM episodes WHERE tenant_id = $1 AND deleted_at IS NULL "
        "AND session_id IS NOT NULL LIMIT 1",
        tenant_id,
    )
    entity_id = await connection.fetchval("SELECT id FROM entities WHERE tenant_id = $1 LIMIT 1", tenant_id)
    yield (
        connection,
        {
            "tenant_id": tenant_id,
            "group_id": GROUP,
            "agent_id": uuid4(),
            "customer_profile_id": some["customer_profile_id"],
            "session_id": some["session_id"],
            "content_type": "message",
            "occurred_after": NOON,
            "entity_type": "person",
            "relation_type": "knows",
            "from_entity_id": entity_id,
            "to_entity_id": entity_id,
            "id": entity_id,
            "ids": [entity_id],
            "relation_types": ["knows"],
            "depth": 3,
            "before_at": NOON + timedelta(hours=500),
            "before_id": uuid4(),
            "pattern": "%rare%",
            "patterns": [],
            "force_custom_plan": True,
            "query": QUERY,
            "max_distance": 0.5,
            "limit": 10,
            "text_limit": 100,
            "fused_limit": 10,
            "now": NOON,
            "before": NOON,
            "write_id": uuid4(),
        },
    )
    await connection.close()


async def _plan(connection: Any, statement: Statement, values: dict[str, Any]) -> list[dict[str, Any]]:
    rows = await connection.fetch(f"EXPLAIN (FORMAT JSON) {statement.sql}", *statement.arguments(values))
    return list(_nodes(json.loads(rows[0][0])[0]["Plan"]))


async def test_everything_of_a_large_tenant_is_read_through_an_index(
    large_tenant: tuple[Any, dict[str, Any]],
) -> None:
    connection, values = large_tenant
    for statement, expected in _listing():
        nodes = await _plan(connection, statement, values)
        used = {node["Index Name"] for node in nodes if "Index Name" in node}
        scanned = {node["Relation Name"] for node in nodes if node["Node Type"] == "Seq Scan"}
        assert not scanned, (statement.sql, scanned)
        assert used & expected, (statement.sql, used)


async def test_no_page_of_a_large_tenant_is_sorted(large_tenant: tuple[Any, dict[str, Any]]) -> None:
    connection, values = large_tenant
    for statement in (
        sql.get_episodes(before=False),
        sql.get_episodes(before=True),
        sql.get_entities(frozenset({"group_id"})),
        sql.text_search_episodes(frozenset(), indexed=False),
        sql.text_search_episodes(frozenset({"content_type", "occurred_after"}), indexed=False),
    ):
        nodes = await _plan(connection, statement, {**values, "patterns": ["%a%"]})
        assert "Sort" not in {node["Node Type"] for node in nodes}, statement.sql


async def test_a_rare_word_is_found_by_trigrams_and_a_common_one_by_time(
    large_tenant: tuple[Any, dict[str, Any]],
) -> None:
    connection, values = large_tenant
    statement = sql.text_search_episodes(frozenset(), indexed=True)
    prepared = await connection.prepare(statement.sql)

    async def indexes(pattern: str) -> set[str]:
        arguments = statement.arguments({**values, "pattern": pattern})
        explained = await prepared.explain(*arguments)
        return {node["Index Name"] for node in _nodes(explained[0]["Plan"]) if "Index Name" in node}

    # So often that PostgreSQL would have settled on one plan for all words.
    for _ in range(10):
        await prepared.fetch(*statement.arguments({**values, "pattern": "%rare%"}))
    assert "ix_episodes_words" in await indexes("%rare%")
    assert await indexes("%1%") == {"ix_episodes_tenant"}
    plans = await connection.fetchrow(
        "SELECT generic_plans, custom_plans FROM pg_prepared_statements WHERE statement = $1", statement.sql
    )
    assert plans["generic_plans"] == 0
    assert plans["custom_plans"] == 10


# -- races -----------------------------------------------------------------------------------------------------


async def test_of_many_who_add_one_id_one_succeeds(database: Database, tenant_id: UUID) -> None:
    store = PostgresMemoryStore(database)
    id_ = uuid4()
    episodes = [EpisodeFactory(tenant_id=tenant_id, id=id_) for _ in range(20)]
    added = await asyncio.gather(
        *(store.add_episode(episode) for episode in episodes[:10]),
        *(store.add_episodes([EpisodeFactory(tenant_id=tenant_id), episode]) for episode in episodes[10:]),
        return_exceptions=True,
    )
    assert sum(isinstance(result, ConflictError) for result in added) == 19
    (winner,) = (place for place, result in enumerate(added) if not isinstance(result, BaseException))
    assert await store.get_episode(tenant_id, id_) == episodes[winner]
    assert len(await store.get_episodes(tenant_id, GROUP)) == (1 if winner < 10 else 2)


async def test_a_relationship_added_while_its_entity_is_deleted_never_stays_visible(
    database: Database, tenant_id: UUID
) -> None:
    store = PostgresMemoryStore(database)
    refused = 0
    for _ in range(20):
        _, first, second, _ = _everything(tenant_id)
        await store.add_entity(first)
        await store.add_entity(second)
        relationships = [
            RelationshipFactory(tenant_id=tenant_id, from_entity_id=one, to_entity_id=two)
            for one, two in [(first.id, second.id), (second.id, first.id)] * 3
        ]
        results = await asyncio.gather(
            *(store.add_relationship(relationship) for relationship in relationships[:3]),
            store.delete_entity(tenant_id, first.id),
            *(store.add_relationship(relationship) for relationship in relationships[3:]),
            return_exceptions=True,
        )
        assert results[3] is True
        assert {type(result) for result in results[:3] + results[4:]} <= {UUID, NotFoundError}
        refused += sum(isinstance(result, NotFoundError) for result in results)
        assert await store.get_relationships(tenant_id, GROUP) == []
        reached = await store.traverse_from_entities([second.id], tenant_id, GROUP, with_embeddings=True)
        assert reached == [second]
        await store.delete_by_group(tenant_id, GROUP)
    assert refused > 0
    await store.purge_deleted(tenant_id, timedelta(0))


async def test_a_relationship_committed_while_the_deletion_of_its_entity_waits_is_hidden(
    database: Database, tenant_id: UUID
) -> None:
    store = PostgresMemoryStore(database)
    _, first, second, relationship = _everything(tenant_id)
    await store.add_entity(first)
    await store.add_entity(second)
    async with database.transaction() as transaction:
        await PostgresMemoryStore(transaction).add_relationship(relationship)
        deleting = asyncio.create_task(store.delete_entity(tenant_id, second.id))
        await asyncio.sleep(0.1)
        assert not deleting.done()
    assert await deleting is True
    assert await store.get_relationship(tenant_id, relationship.id) is None
    assert await store.get_relationships(tenant_id, GROUP) == []
    assert await store.delete_relationship(tenant_id, relationship.id) is False
    assert await store.update_relationship(relationship) is False
    assert await store.traverse_from_entities([first.id], tenant_id, GROUP, with_embeddings=True) == [first]
    assert await store.purge_deleted(tenant_id, timedelta(0)) == 2
    await store.add_entity(second)
    await store.add_relationship(relationship)
    assert await store.get_relationships(tenant_id, GROUP) == [relationship]


async def test_a_relationship_moved_to_an_entity_that_is_being_deleted_is_refused(
    database: Database, tenant_id: UUID
) -> None:
    store = PostgresMemoryStore(database)
    _, first, second, relationship = _everything(tenant_id)
    third = EntityFactory(tenant_id=tenant_id)
    for entity in (first, second, third):
        await store.add_entity(entity)
    await store.add_relationship(relationship)
    moved = relationship.model_copy(update={"to_entity_id": third.id})
    async with database.transaction() as transaction:
        await PostgresMemoryStore(transaction).delete_entity(tenant_id, third.id)
        moving = asyncio.create_task(store.update_relationship(moved))
        await asyncio.sleep(0.1)
        assert not moving.done()
    with pytest.raises(NotFoundError):
        await moving
    assert await store.get_relationships(tenant_id, GROUP) == [relationship]


# -- lost replies ----------------------------------------------------------------------------------------------


async def test_a_write_whose_reply_is_lost_takes_effect_once(
    behind: tuple[Proxy, PostgresMemoryStore], tenant_id: UUID
) -> None:
    passing, store = behind
    episode, first, second, relationship = _everything(tenant_id)
    moved = relationship.model_copy(update={"to_entity_id": first.id})
    expected: list[tuple[Callable[[], Awaitable[Any]], Any]] = [
        (lambda: store.add_episode(episode), episode.id),
        (lambda: store.add_entity(first), first.id),
        (lambda: store.add_entity(second), second.id),
        (lambda: store.add_relationship(relationship), relationship.id),
        (lambda: store.update_entity(first.model_copy(update={"name": "changed"})), True),
        (lambda: store.update_relationship(moved), True),
        (lambda: store.delete_episode(tenant_id, episode.id), True),
        (lambda: store.delete_relationship(tenant_id, relationship.id), True),
        (lambda: store.update_entity(second.model_copy(update={"deleted_at": NOON})), True),
        (lambda: store.delete_entity(tenant_id, first.id), True),
    ]
    for call, result in expected:
        passing.lose_next_reply()
        assert await call() == result
    assert passing.lost == len(expected)
    assert await store.get_entities(tenant_id, GROUP) == []
    assert await store.purge_deleted(tenant_id, timedelta(0)) == 4


async def test_the_deletion_of_a_group_counts_alike_when_its_reply_is_lost(
    behind: tuple[Proxy, PostgresMemoryStore], tenant_id: UUID
) -> None:
    passing, store = behind
    episode, first, second, relationship = _everything(tenant_id)
    await store.add_episodes([episode, EpisodeFactory(tenant_id=tenant_id)])
    await store.add_entity(first)
    await store.add_entity(second)
    await store.add_relationship(relationship)
    passing.lose_next_reply()
    assert await store.delete_by_group(tenant_id, GROUP) == 5
    assert passing.lost == 1
    assert await store.delete_by_group(tenant_id, GROUP) == 0


async def test_a_list_whose_commit_goes_unanswered_is_added_once(
    behind: tuple[Proxy, PostgresMemoryStore], tenant_id: UUID
) -> None:
    passing, store = behind
    episodes = EpisodeFactory.build_batch(30, tenant_id=tenant_id)
    passing.lose_next_reply("COMMIT")
    assert await store.add_episodes(episodes) == 30
    assert passing.lost == 1
    assert len(await store.get_episodes(tenant_id, GROUP)) == 30
    with pytest.raises(ConflictError):
        await store.add_episodes(episodes)


# -- bound roles -----------------------------------------------------------------------------------------------


@pytest.fixture
async def bound_url(database_url: str) -> AsyncIterator[str]:
    """The database by way of a role that the row-level-security policies bind."""
    async with bound_role(database_url) as url:
        yield url


async def test_a_bound_role_can_do_everything(bound_url: str, tenant_id: UUID) -> None:
    database = Database(settings_for(bound_url, row_level_security=True))
    store = PostgresMemoryStore(database)
    for _, call in _calls(store, tenant_id):
        await call()
    episodes = EpisodeFactory.build_batch(20, tenant_id=tenant_id, content="the word")
    assert await store.add_episodes(episodes) == 20
    with pytest.raises(ConflictError):
        await store.add_episodes([EpisodeFactory(tenant_id=tenant_id), episodes[7]])
    assert len(await store.text_search_episodes("WORD", tenant_id, limit=30)) == 20
    foreign = EpisodeFactory(content="the word")
    async with database.transaction() as transaction:
        unit = PostgresMemoryStore(transaction)
        await unit.add_episodes([foreign])
        assert await unit.delete_by_group(tenant_id, GROUP) == 20
    assert await store.get_episodes(foreign.tenant_id, GROUP) == [foreign]
    await database.close()
