"""The rules that say which episodes, entities and relationships are a person's."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from soldier_data.base.subject_rules import Fields, In, IsNone, Mentions, Overlaps, SubjectSearch

_EPISODES = In("customer_profile_id", "profile_ids") | (
    IsNone("customer_profile_id")
    & (In("session_id", "session_ids") | Mentions("group_id", "source_metadata"))
)
_SHARING = In("group_id", "groups") | Overlaps("entity_ids", "entity_ids")
_ENTITIES = In("id", "entity_ids") | In("group_id", "groups") | Mentions("group_id", "attributes")
_RELATIONSHIPS = (
    In("from_entity_id", "entity_ids")
    | In("to_entity_id", "entity_ids")
    | In("group_id", "groups")
    | Mentions("group_id", "attributes")
)
# The ids of a person occur in JSON documents and in freely chosen group ids too, so that whole tables are searched.
# That takes long where they are large, but is done once in a person's life.


async def find_sessions(search: SubjectSearch) -> list[UUID]:
    """The sessions of the person's episodes, in order."""
    rows = await search.rows("episodes", _EPISODES, fields=["session_id"])
    return sorted({row["session_id"] for row in rows} - {None})


async def find(search: SubjectSearch) -> dict[str, list[UUID]]:
    """The ids of the person's records, by table."""
    episodes = await search.rows("episodes", _EPISODES, fields=["id", "group_id", "entity_ids"])
    groups, mentioned = await _not_shared(search, episodes)
    entities = await search.ids("entities", _ENTITIES, entity_ids=mentioned, groups=groups)
    relationships = await search.ids(
        "relationships", _RELATIONSHIPS, entity_ids=frozenset(entities), groups=groups
    )
    return {
        "episodes": sorted(row["id"] for row in episodes),
        "entities": entities,
        "relationships": relationships,
    }


async def _not_shared(search: SubjectSearch, episodes: Sequence[Fields]) -> tuple[set[str], set[UUID]]:
    """The groups and the entities of these episodes that no other episode is in, or mentions."""
    own = {row["id"] for row in episodes}
    groups = {row["group_id"] for row in episodes}
    entities = {id_ for row in episodes for id_ in row["entity_ids"]}
    if own:
        # Both sets shrink while pages are read, so that a group that everybody shares is soon not searched for.
        lists = {"groups": groups, "entity_ids": entities}
        async for page in search.pages("episodes", _SHARING, lists, ["id", "group_id", "entity_ids"]):
            for row in page:
                if row["id"] not in own:
                    groups.discard(row["group_id"])
                    entities.difference_update(row["entity_ids"])
    return groups, entities
