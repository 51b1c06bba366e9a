"""The indexes of embeddings follow the settings."""

from __future__ import annotations

import pytest

from soldier_data import migrations
from soldier_data.postgres.vector_index import embedding_columns, vector_index_name
from soldier_data.schema import metadata
from tests.backends.connections import administrator
from tests.conftest import settings_for
from tests.migrations.tools import fetch, schema

COLUMNS = [(column.table.name, column.name) for column in embedding_columns(metadata)]


async def _vector_indexes(url: str) -> dict[str, str]:
    found = await fetch(
        url,
        "SELECT i.indexrelid::regclass::text AS name, pg_get_indexdef(i.indexrelid) AS definition FROM pg_index i "
        "JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am a ON a.oid = c.relam AND a.amname IN ('hnsw', 'ivfflat')",
    )
    return {row["name"]: row["definition"].partition(" USING ")[2] for row in found}


@pytest.mark.parametrize(
    ("kind", "options"),
    [("hnsw", "WITH (m='16', ef_construction='128')"), ("ivfflat", "WITH (lists='100')")],
)
async def test_every_column_of_embeddings_has_an_index_of_the_kind_that_is_set(
    empty_database_url: str, kind: str, options: str
) -> None:
    settings = settings_for(empty_database_url, vector_index=kind)
    await migrations.upgrade(settings)
    indexes = await _vector_indexes(empty_database_url)
    assert set(indexes) == {vector_index_name(table, column, kind) for table, column in COLUMNS}
    for table, column in COLUMNS:
        definition = f"{kind} (((l2_normalize({column}))::halfvec(8)) halfvec_cosine_ops) {options}"
        living = " WHERE (deleted_at IS NULL)" if "deleted_at" in metadata.tables[table].c else ""
        assert indexes[vector_index_name(table, column, kind)] == definition + living
    assert await migrations.check(settings) is None


@pytest.mark.parametrize("values", [{"vector_index": "none"}, {"embedding_dimensions": 4_001}])
async def test_there_is_no_index_where_none_is_set_or_vectors_are_too_long_for_one(
    empty_database_url: str, values: dict[str, object]
) -> None:
    settings = settings_for(empty_database_url, **values)
    await migrations.upgrade(settings)
    assert await _vector_indexes(empty_database_url) == {}
    assert await migrations.check(settings) is None


async def test_an_index_of_the_longest_vectors_that_it_takes_can_be_built(empty_database_url: str) -> None:
    settings = settings_for(empty_database_url, embedding_dimensions=4_000)
    await migrations.upgrade(settings)
    assert len(await _vector_indexes(empty_database_url)) == len(COLUMNS)
    assert await migrations.check(settings) is None


async def test_another_kind_than_the_database_has_is_a_difference(database_url: str) -> None:
    found = await migrations.check(settings_for(database_url, vector_index="ivfflat"))
    assert found is not None
    assert "ix_rules_embedding_hnsw" in found
    assert "create_vector_index('rules', 'embedding', living=True)" in found
    none_at_all = await migrations.check(settings_for(database_url, vector_index="none"))
    assert none_at_all is not None
    assert "create_vector_index" not in none_at_all


async def test_a_changed_or_missing_index_of_embeddings_is_a_difference(database_url: str) -> None:
    async with administrator(database_url) as connection:
        await connection.execute("ALTER INDEX ix_rules_embedding_hnsw SET (m = 8)")
        await connection.execute("DROP INDEX ix_episodes_embedding_hnsw")
    found = await migrations.check(settings_for(database_url))
    assert found is not None
    for table in ("rules", "episodes"):
        assert f"create_vector_index('{table}', 'embedding', living=True)" in found
    assert "embeddings" not in found


async def test_indexes_of_embeddings_come_and_go_with_their_migration(database_url: str) -> None:
    settings = settings_for(database_url)
    before = await schema(database_url)
    await migrations.downgrade(settings, "0007")
    assert await _vector_indexes(database_url) == {}
    columns = "SELECT FROM pg_attribute WHERE attrelid = 'entities'::regclass AND attname = 'embedding_model'"
    assert await fetch(database_url, f"{columns} AND NOT attisdropped") == []
    await migrations.upgrade(settings)
    assert {row[:-1] for row in await schema(database_url)} == {row[:-1] for row in before}
