"""Rebuilding vector indexes beside live traffic, and looking at how embeddings stand."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from uuid import uuid4

import pytest

from soldier_data import migrations
from soldier_data.data_layer import DataLayer
from soldier_data.errors import ConfigurationError, ConflictError
from soldier_data.migrations.vector_indexes import BuildProgress, VectorIndex, reindex
from soldier_data.migrations.vector_status import VectorTable, fitting_lists, vector_status
from soldier_data.settings import Settings
from tests.backends.connections import administrator, bound_role
from tests.conftest import DIMENSIONS, settings_for
from tests.factories.memory import EpisodeFactory
from tests.migrations.tools import fetch

VECTOR = [1.0, *[0.0] * (DIMENSIONS - 1)]


def with_kind(settings: Settings, kind: str) -> Settings:
    return settings.model_copy(update={"vector_index": kind})


async def status_of(settings: Settings, table: str = "episodes") -> VectorTable:
    return next(item for item in await vector_status(settings) if item.name == table)


async def indexes_of(settings: Settings, table: str = "episodes") -> list[tuple[str, str, bool]]:
    """Name, method and validity of each vector index."""
    return [(item.name, item.method, item.valid) for item in (await status_of(settings, table)).indexes]


async def break_index(url: str, name: str) -> None:
    """Leave an index as an interrupted build does."""
    async with administrator(url) as connection:
        await connection.execute(
            "UPDATE pg_index SET indisvalid = false WHERE indexrelid = $1::text::regclass", name
        )


async def has_begun(phases: list[BuildProgress]) -> None:
    """Wait until a build waits for those who write to its table."""
    while not any(at.phase.startswith("waiting for writers") for at in phases):  # noqa: ASYNC110 - as a caller sees it.
        await asyncio.sleep(0.01)


async def test_the_kind_of_index_follows_the_setting(database_url: str) -> None:
    settings = settings_for(database_url)
    hnsw, ivfflat = "ix_episodes_embedding_hnsw", "ix_episodes_embedding_ivfflat"
    assert await indexes_of(settings) == [(hnsw, "hnsw", True)]

    made, removed = await reindex(with_kind(settings, "ivfflat"), ["episodes"])
    assert (made.name, made.before, made.method) == (ivfflat, None, "ivfflat")
    assert (removed.name, removed.before, removed.method) == (hnsw, "hnsw", None)
    assert await indexes_of(settings) == [(ivfflat, "ivfflat", True)]

    (removed,) = await reindex(with_kind(settings, "none"), ["episodes"])
    assert (removed.name, removed.before, removed.method) == (ivfflat, "ivfflat", None)
    assert await indexes_of(settings) == []
    assert await reindex(with_kind(settings, "none"), ["episodes"]) == []

    (made,) = await reindex(settings, ["episodes"])
    assert (made.name, made.before, made.method) == (hnsw, None, "hnsw")
    (rebuilt,) = await reindex(settings, ["episodes"])
    assert (rebuilt.name, rebuilt.before, rebuilt.method) == (hnsw, "hnsw", "hnsw")
    assert await indexes_of(settings) == [(hnsw, "hnsw", True)]


@pytest.mark.parametrize("kind", ["hnsw", "ivfflat", "none"])
async def test_the_schema_is_as_the_models_say_after_rebuilding_all(database_url: str, kind: str) -> None:
    settings = with_kind(settings_for(database_url), kind)
    await reindex(settings)
    assert await migrations.check(settings) is None


async def test_a_rebuild_replaces_what_an_interrupted_build_left(database_url: str) -> None:
    settings = settings_for(database_url)
    ((name, *_),) = await indexes_of(settings)
    definition = (await fetch(database_url, f"SELECT pg_get_indexdef('{name}'::regclass)"))[0][0]
    await fetch(database_url, definition.replace(name, f"{name}_new", 1))
    for broken in (name, f"{name}_new"):
        await break_index(database_url, broken)
    advice = list((await status_of(settings)).advice())
    assert sum("is invalid after an interrupted build" in sentence for sentence in advice) == 2

    (rebuilt,) = await reindex(settings, ["episodes"])
    assert rebuilt.before == "invalid"
    assert await indexes_of(settings) == [(name, "hnsw", True)]
    assert list((await status_of(settings)).advice()) == []


async def test_vector_indexes_made_by_hand_stay(database_url: str) -> None:
    settings = settings_for(database_url)
    await fetch(database_url, "CREATE INDEX mine ON episodes USING hnsw (embedding vector_l2_ops)")
    await reindex(with_kind(settings, "none"))
    assert await indexes_of(settings) == [("mine", "hnsw", True)]


async def test_each_schema_of_a_database_has_indexes_of_its_own(database_url: str) -> None:
    public, other = settings_for(database_url), settings_for(database_url, database_schema="soldier")
    await migrations.upgrade(other)
    await reindex(with_kind(other, "none"))
    assert await indexes_of(other) == []
    assert [method for _, method, _ in await indexes_of(public)] == ["hnsw"]
    await reindex(other, ["episodes"])
    assert await indexes_of(other) == await indexes_of(public)


async def test_writers_and_searches_do_not_wait_for_a_rebuild(settings: Settings, data: DataLayer) -> None:
    episode = EpisodeFactory.build(embedding=VECTOR)
    phases: list[BuildProgress] = []
    async with administrator(settings.database_url) as connection:
        # The build waits for this transaction, which has written to the table.
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute("DELETE FROM episodes")
        rebuilding = asyncio.create_task(reindex(settings, ["episodes"], on_progress=phases.append))
        await has_begun(phases)
        await data.memory.add_episode(episode)
        ((found, _),) = await data.memory.vector_search_episodes(VECTOR, episode.tenant_id)
        assert found.id == episode.id
        assert not rebuilding.done()
        await transaction.commit()
        (rebuilt,) = await rebuilding
    assert {(at.index, at.number, at.count) for at in phases} == {(rebuilt.name, 1, 1)}
    assert all(0.0 <= at.done <= 1.0 for at in phases)
    assert len(await data.memory.vector_search_episodes(VECTOR, episode.tenant_id)) == 1


async def test_a_rebuild_that_is_cancelled_leaves_the_old_index_in_use(settings: Settings) -> None:
    before = await indexes_of(settings)
    phases: list[BuildProgress] = []
    async with administrator(settings.database_url) as connection, connection.transaction():
        await connection.execute("DELETE FROM episodes")
        rebuilding = asyncio.create_task(reindex(settings, ["episodes"], on_progress=phases.append))
        await has_begun(phases)
        with pytest.raises(ConflictError, match="another process"):
            await reindex(settings)
        rebuilding.cancel()
        with pytest.raises(asyncio.CancelledError):
            await rebuilding
    assert set(before) <= set(await indexes_of(settings))
    await reindex(settings, ["episodes"])
    assert await indexes_of(settings) == before


async def test_rows_are_counted_by_model_and_deleted_ones_left_out(
    settings: Settings, data: DataLayer
) -> None:
    tenant_id = uuid4()
    models = ["large", "large", "small", None]
    episodes = [
        EpisodeFactory.build(tenant_id=tenant_id, embedding=VECTOR, embedding_model=model) for model in models
    ]
    deleted = EpisodeFactory.build(tenant_id=tenant_id, embedding=VECTOR, embedding_model="gone")
    bare = EpisodeFactory.build(tenant_id=tenant_id)
    await data.memory.add_episodes([*episodes, deleted, bare])
    await data.memory.delete_episode(tenant_id, deleted.id)

    found = await status_of(settings)
    assert (found.rows, found.without_embedding, found.counted) == (5, 1, True)
    assert found.by_model == {"large": 2, "small": 1, None: 1}
    advice = "\n".join(found.advice())
    assert "several models" in advice
    assert "1 rows of episodes have no embedding" in advice


async def test_a_role_that_the_policies_bind_is_told_that_it_sees_nothing(settings: Settings) -> None:
    async with bound_role(settings.database_url) as url:
        bound = settings.model_copy(update={"database_url": url})
        found = await status_of(bound)
        assert not found.counted
        assert [index.method for index in found.indexes] == ["hnsw"]
        with pytest.raises(ConfigurationError, match="does not own the tables"):
            await reindex(bound, ["episodes"])


async def test_what_cannot_be_rebuilt_is_refused_with_the_choices(shared_database_url: str) -> None:
    settings = settings_for(shared_database_url)
    with pytest.raises(ConfigurationError, match=r"agents has no embeddings: choose from .*episodes"):
        await reindex(settings, ["agents"])
    with pytest.raises(ConfigurationError, match="memory must be a number with kB, MB or GB"):
        await reindex(settings, memory="2 gigabytes")
    with pytest.raises(ConfigurationError, match="workers must be a number from 0"):
        await reindex(settings, workers=-1)


async def test_a_database_without_tables_is_to_be_migrated_first(empty_database_url: str) -> None:
    with pytest.raises(ConfigurationError, match="soldier-data db upgrade"):
        await vector_status(settings_for(empty_database_url))
    with pytest.raises(ConfigurationError, match="soldier-data db upgrade"):
        await reindex(settings_for(empty_database_url))


IVFFLAT = VectorIndex("episodes", "ix_episodes_embedding_ivfflat", "ivfflat", valid=True, bytes=1, lists=100)
TABLE = VectorTable(
    "episodes",
    rows=100_000,
    counted=True,
    without_embedding=0,
    by_model={"m": 100_000},
    expected="ivfflat",
    indexes=[IVFFLAT],
)


@pytest.mark.parametrize(("rows", "lists"), [(0, 1), (5_000, 5), (1_000_000, 1_000), (4_000_000, 2_000)])
def test_lists_fit_the_rows_as_pgvector_advises(rows: int, lists: int) -> None:
    assert fitting_lists(rows) == lists


@pytest.mark.parametrize(
    ("table", "words"),
    [
        (replace(TABLE, rows=10_000), "100 lists, but 10 would suit 10,000 rows"),
        (replace(TABLE, rows=900_000), "100 lists, but 900 would suit 900,000 rows"),
        (replace(TABLE, expected="hnsw"), "an index of type hnsw, but has ivfflat"),
        (
            replace(TABLE, indexes=[IVFFLAT, replace(IVFFLAT, name=f"{IVFFLAT.name}_new")]),
            "several vector indexes",
        ),
        (replace(TABLE, indexes=[]), "has no usable index"),
        (replace(TABLE, expected=None), "the settings say none"),
        (replace(TABLE, without_embedding=7), "7 rows of episodes have no embedding"),
    ],
)
def test_advice_says_what_is_wrong_and_nothing_else(table: VectorTable, words: str) -> None:
    (sentence,) = table.advice()
    assert words in sentence


def test_nothing_is_advised_where_all_is_well() -> None:
    assert list(TABLE.advice()) == []
    assert list(replace(TABLE, rows=0, by_model={}).advice()) == []
    assert list(replace(TABLE, counted=False, rows=0, by_model={}).advice()) == []
