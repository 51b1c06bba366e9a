"""Which episodes, entities and relationships are a person's, for the store in memory.

`subject_statements.py` says the same to PostgreSQL.
"""

from __future__ import annotations

from collections.abc import Iterable
from uuid import UUID

from soldier_data.base.subjects import DataSubject, json_text
from soldier_data.memory.models import Entity, Episode, Relationship
from soldier_data.memory.tables import Tables, ends


def episodes_of(tables: Tables, subject: DataSubject) -> list[Episode]:
    """The person's episodes."""
    return [each for each in tables.episodes.of_tenant(subject.tenant_id) if _is_theirs(each, subject)]


def find_all(tables: Tables, subject: DataSubject) -> dict[str, list[UUID]]:
    """The ids of everything that is the person's, by table."""
    episodes = episodes_of(tables, subject)
    others = [each for each in tables.episodes.of_tenant(subject.tenant_id) if not _is_theirs(each, subject)]
    groups = {each.group_id for each in episodes} - {each.group_id for each in others}
    mentioned = _entity_ids(episodes) - _entity_ids(others)
    entities = sorted(
        each.id
        for each in tables.entities.of_tenant(subject.tenant_id)
        if each.id in mentioned or each.group_id in groups or _mentions(each, subject)
    )
    gone = set(entities)
    relationships = sorted(
        each.id
        for each in tables.relationships.of_tenant(subject.tenant_id)
        if not gone.isdisjoint(ends(each)) or each.group_id in groups or _mentions(each, subject)
    )
    return {
        "episodes": sorted(each.id for each in episodes),
        "entities": entities,
        "relationships": relationships,
    }


def _is_theirs(episode: Episode, subject: DataSubject) -> bool:
    if episode.customer_profile_id is not None:
        return episode.customer_profile_id in subject.profile_ids
    return episode.session_id in subject.session_ids or subject.is_mentioned_in(
        episode.group_id, json_text(episode, "source_metadata")
    )


def _mentions(each: Entity | Relationship, subject: DataSubject) -> bool:
    return subject.is_mentioned_in(each.group_id, json_text(each, "attributes"))


def _entity_ids(episodes: Iterable[Episode]) -> set[UUID]:
    return {entity_id for episode in episodes for entity_id in episode.entity_ids}
