"""What traversals of `PostgresMemoryStore` cost."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any
from uuid import UUID, uuid4

import pytest

from soldier_data.memory import graph
from soldier_data.memory import statements as sql
from soldier_data.postgres.engine import open_connection
from tests.conftest import settings_for
from tests.factories.memory import EntityFactory, RelationshipFactory


async def _cost_of_traversal(connection: Any, tenant_id: UUID, edges: Sequence[tuple[int, int]]) -> int:
    """How many pages it takes to reach all of a new graph from its first entity, none of them temporary."""
    group_id = uuid4().hex
    entities = [EntityFactory(tenant_id=tenant_id, group_id=group_id) for _ in range(len(edges) + 1)]
    relationships = [
        RelationshipFactory(
            tenant_id=tenant_id,
            group_id=group_id,
            from_entity_id=entities[one].id,
            to_entity_id=entities[other].id,
        )
        for one, other in edges
    ]
    for table, added in ((sql.ENTITIES, entities), (sql.RELATIONSHIPS, relationships)):
        columns = [column.name for column in table.columns]
        rows = [{**each.__dict__, "attributes": "{}", "write_id": uuid4()} for each in added]
        await connection.copy_records_to_table(
            table.name, columns=columns, records=[[row[name] for name in columns] for row in rows]
        )
    statement = graph.traverse(relation_types=False, embeddings=True)
    values = {
        "tenant_id": tenant_id,
        "group_id": group_id,
        "ids": [entities[0].id],
        "depth": len(entities),
        "limit": len(entities),
    }
    explain = f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {statement.sql}"
    plan = json.loads(await connection.fetchval(explain, *statement.arguments(values)))[0]["Plan"]
    assert plan["Actual Rows"] == len(entities)
    assert plan["Temp Read Blocks"] == plan["Temp Written Blocks"] == 0
    pages: int = plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]
    return pages


@pytest.mark.parametrize("shape", ["a chain", "a star"])
async def test_a_traversal_costs_what_it_reaches_and_needs_no_temporary_files(
    shape: str, database_url: str, tenant_id: UUID
) -> None:
    def edges(count: int) -> list[tuple[int, int]]:
        return [(number if shape == "a chain" else 0, number + 1) for number in range(count)]

    connection = await open_connection(settings_for(database_url))
    short = await _cost_of_traversal(connection, tenant_id, edges(1_000))
    assert await _cost_of_traversal(connection, tenant_id, edges(4_000)) < 6 * short
    await connection.close()
