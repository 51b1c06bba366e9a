"""What a page of episodes costs: as much as it holds, wherever it is."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any
from uuid import UUID

from soldier_data.memory import Episode, PostgresMemoryStore
from soldier_data.memory import statements as sql
from soldier_data.postgres.database import Database
from soldier_data.postgres.engine import open_connection
from tests.cases.values import NOON
from tests.conftest import settings_for

GROUP = "conversation"
LIMIT = 20


async def test_a_deep_page_of_episodes_reads_no_more_than_itself(database_url: str, tenant_id: UUID) -> None:
    database = Database(settings_for(database_url))
    episodes = [
        Episode(
            tenant_id=tenant_id,
            group_id=GROUP if number % 2 else f"another {number % 100}",
            content="Where is my order?",
            source="user",
            # Four at each moment, so that the id decides where a page begins.
            occurred_at=NOON - timedelta(seconds=number // 8),
        )
        for number in range(10_000)
    ]
    await PostgresMemoryStore(database).add_episodes(episodes)
    await database.close()
    newest_first = sorted(
        (episode for episode in episodes if episode.group_id == GROUP), key=Episode.position, reverse=True
    )
    connection = await open_connection(settings_for(database_url))
    await connection.execute("ANALYZE episodes")
    # A prepared statement is planned for its values at first, and once for all of them later.
    for mode in ("force_custom_plan", "force_generic_plan"):
        await connection.execute(f"SET plan_cache_mode = {mode}")
        for depth in (10, 4_901):
            last = newest_first[depth - 1]
            values = {
                "tenant_id": tenant_id,
                "group_id": GROUP,
                "before_at": last.occurred_at,
                "before_id": last.id,
                "limit": LIMIT,
            }
            scan, rows = await _run(connection, values)
            assert scan["Index Name"] == "ix_episodes_page"
            assert scan["Actual Rows"] == LIMIT
            assert "Rows Removed by Filter" not in scan
            assert rows == [episode.id for episode in newest_first[depth : depth + LIMIT]]
    await connection.close()


async def _run(connection: Any, values: dict[str, Any]) -> tuple[dict[str, Any], list[UUID]]:
    """The scan below the limit, and the ids that were found."""
    statement = sql.get_episodes(before=True)
    arguments = statement.arguments(values)
    explained = await connection.fetchval(
        f"EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) {statement.sql}", *arguments
    )
    plan = json.loads(explained)[0]["Plan"]
    assert plan["Node Type"] == "Limit"
    (scan,) = plan["Plans"]
    return scan, [row["id"] for row in await connection.fetch(statement.sql, *arguments)]
