"""Handwritten asyncpg code for the operations of the memory store: the lower limit of their cost."""

from __future__ import annotations

import json
from itertools import cycle
from typing import Any

from benchmarks import by_hand
from benchmarks.harness import Case
from benchmarks.memory_sample import (
    ADD_EPISODE,
    COMMON,
    FOUND,
    GET_EPISODE,
    GET_EPISODES,
    GROUP,
    HYBRID_SEARCH,
    LISTED,
    RARE,
    SEARCH_COMMON_WORD,
    SEARCH_RARE_WORD,
    TRAVERSE,
    VECTOR_SEARCH,
    Sample,
)
from soldier_data.base.models import new_id
from soldier_data.memory import Entity, Episode

_EPISODE_FIELDS = ", ".join(Episode.model_fields)
_COLUMNS = [*Episode.model_fields, "content_folded", "write_id"]
_LIVING = f"SELECT {_EPISODE_FIELDS} FROM episodes WHERE tenant_id = $1 AND deleted_at IS NULL"  # noqa: S608 - constants.

# Sorts ids and distances first, because sorting rows with embeddings is expensive.
_SEARCH = f"""
SELECT {_EPISODE_FIELDS}, distance FROM (
    SELECT id, embedding <=> $2 AS distance FROM episodes
    WHERE tenant_id = $1 AND deleted_at IS NULL AND embedding IS NOT NULL ORDER BY distance, id LIMIT $3
) nearest JOIN episodes USING (id) WHERE tenant_id = $1 ORDER BY distance, id
"""  # noqa: S608 - constants.

_TRAVERSE = f"""
WITH RECURSIVE edges AS NOT MATERIALIZED (
    SELECT from_entity_id AS here, to_entity_id AS there FROM relationships
    WHERE tenant_id = $1 AND group_id = $2 AND deleted_at IS NULL
    UNION ALL
    SELECT to_entity_id, from_entity_id FROM relationships
    WHERE tenant_id = $1 AND group_id = $2 AND deleted_at IS NULL
), reached (id, depth) AS (
    SELECT $3::uuid, 0
    UNION
    SELECT there, depth + 1 FROM reached JOIN edges ON here = reached.id WHERE depth < 2
)
SELECT {", ".join(f"entity.{name}" for name in Entity.model_fields)} FROM entities entity
JOIN (SELECT id, min(depth) AS depth FROM reached GROUP BY id) nearest USING (id)
WHERE tenant_id = $1 AND group_id = $2 AND deleted_at IS NULL ORDER BY depth, id
"""  # noqa: S608 - constants.

_FUSED = 100
"""Number of rows of each ranking that are fused."""


async def cases(connection: Any, sample: Sample) -> dict[str, Case]:
    """The same operations with one prepared statement each, and plain validation."""
    tenant_id = sample.tenant_id
    newest = "ORDER BY occurred_at DESC, id DESC LIMIT"
    get = await connection.prepare(f"{_LIVING} AND id = $2")
    list_ = await connection.prepare(f"{_LIVING} AND group_id = $2 {newest} $3")
    search = await connection.prepare(_SEARCH)
    # The words are constants in the statement, so that the planner can use their statistics.
    rare = await connection.prepare(f"{_LIVING} AND content_folded LIKE '%{RARE}%' {newest} $2")
    common = await connection.prepare(f"{_LIVING} AND content_folded LIKE '%{COMMON}%' {newest} $2")
    walk = await connection.prepare(_TRAVERSE)
    add = await connection.prepare(by_hand.insert("episodes", _COLUMNS))
    read, listed, starts = cycle(sample.episodes[:100]), cycle(sample.groups()), cycle(sample.entities[:100])
    near, nearby, new = cycle(sample.queries), cycle(sample.queries), cycle(sample.vectors(100))
    written: list[Episode] = []

    async def make_episode() -> None:
        written[:] = sample.new_episodes([next(new)])

    async def get_episode() -> Episode:
        return to_episode(await get.fetchrow(tenant_id, next(read).id))

    async def get_episodes() -> list[Episode]:
        return [to_episode(row) for row in await list_.fetch(tenant_id, next(listed), LISTED)]

    async def vector_search() -> list[tuple[Episode, float]]:
        rows = await search.fetch(tenant_id, next(near), FOUND)
        return [(to_episode(row), 1.0 - row["distance"]) for row in rows]

    async def text_search(statement: Any) -> list[Episode]:
        return [to_episode(row) for row in await statement.fetch(tenant_id, FOUND)]

    async def hybrid_search() -> list[tuple[Episode, float]]:
        """Run two searches and fuse their results."""
        rankings = (
            await rare.fetch(tenant_id, _FUSED),
            await search.fetch(tenant_id, next(nearby), _FUSED),
        )
        scores: dict[Any, float] = {}
        rows = {}
        for ranking in rankings:
            for rank, row in enumerate(ranking, start=1):
                scores[row["id"]] = scores.get(row["id"], 0.0) + 1.0 / (60 + rank)
                rows[row["id"]] = row
        best = sorted(scores, key=lambda id_: (-scores[id_], id_))[:FOUND]
        return [(to_episode(rows[id_]), scores[id_]) for id_ in best]

    async def traverse() -> list[Entity]:
        rows = await walk.fetch(tenant_id, GROUP, next(starts).id)
        return [Entity.model_validate({**row, "attributes": json.loads(row["attributes"])}) for row in rows]

    return {
        GET_EPISODE: Case(get_episode),
        GET_EPISODES: Case(get_episodes),
        ADD_EPISODE: Case(lambda: add.fetchval(*_arguments(written[0])), make_episode),
        VECTOR_SEARCH: Case(vector_search),
        SEARCH_RARE_WORD: Case(lambda: text_search(rare)),
        SEARCH_COMMON_WORD: Case(lambda: text_search(common)),
        HYBRID_SEARCH: Case(hybrid_search),
        TRAVERSE: Case(traverse),
    }


async def copy(connection: Any, episodes: list[Episode]) -> None:
    """Add all episodes with one binary COPY."""
    records = [_arguments(episode) for episode in episodes]
    await connection.copy_records_to_table("episodes", columns=_COLUMNS, records=records)


def to_episode(row: Any) -> Episode:
    """Return the entity of a row, by plain validation."""
    return Episode.model_validate({**row, "source_metadata": json.loads(row["source_metadata"])})


def _arguments(episode: Episode) -> tuple[Any, ...]:
    values = {**episode.__dict__, "source_metadata": json.dumps(episode.source_metadata)}
    return (*values.values(), episode.content.casefold(), new_id())
