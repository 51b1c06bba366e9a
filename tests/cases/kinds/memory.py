"""The kinds of entities that the memory store keeps."""

from __future__ import annotations

from functools import partial
from typing import Any
from uuid import UUID, uuid4

from soldier_data.memory import Entity, Episode, Relationship
from tests.cases.kind import Kind
from tests.cases.values import BEFORE_1970, DOCUMENT, HALVES, LATER, LATEST, LEAP_DAY, TEXT
from tests.factories.memory import EntityFactory, EpisodeFactory, RelationshipFactory


def _full_episode() -> dict[str, Any]:
    return {
        "group_id": TEXT,
        "recorded_at": LEAP_DAY,
        "agent_id": uuid4(),
        "customer_profile_id": uuid4(),
        "session_id": uuid4(),
        "content": "x" * 100_000,
        "content_type": "fact",
        "source": "external",
        "source_metadata": DOCUMENT,
        "importance": 0.1 + 0.2,
        "occurred_at": BEFORE_1970,
        "embedding": HALVES,
        "embedding_model": TEXT,
        "entity_ids": [uuid4(), UUID(int=0)],
    }


def _full_entity() -> dict[str, Any]:
    return {
        "group_id": TEXT,
        "recorded_at": LEAP_DAY,
        "name": TEXT,
        "entity_type": TEXT,
        "attributes": DOCUMENT,
        "valid_from": BEFORE_1970,
        "valid_to": LATEST,
        "embedding": HALVES,
        "embedding_model": TEXT,
    }


def _full_relationship() -> dict[str, Any]:
    return {
        "group_id": TEXT,
        "recorded_at": LEAP_DAY,
        "relation_type": TEXT,
        "attributes": DOCUMENT,
        "confidence": 0.1 + 0.2,
        "valid_from": BEFORE_1970,
        "valid_to": LATER,
    }


_memory = partial(Kind, store="memory", adds="add_{name}")

EPISODE = _memory("episode", Episode, EpisodeFactory, _full_episode, adds_many="add_episodes", updates=None)
ENTITY = _memory(
    "entity",
    Entity,
    EntityFactory,
    _full_entity,
    tables=("entities",),
    changed=("attributes", {"changed": True}),
    updates="update_{name}",
)
RELATIONSHIP = _memory(
    "relationship",
    Relationship,
    RelationshipFactory,
    _full_relationship,
    changed=("confidence", 0.25),
    parents={"from_entity_id": ENTITY, "to_entity_id": ENTITY},
    updates="update_{name}",
)

KINDS = (EPISODE, ENTITY, RELATIONSHIP)
