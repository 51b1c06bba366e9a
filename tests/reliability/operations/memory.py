"""What the state machine does to the memory store."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from soldier_data.base.embedded_texts import TextToEmbed
from soldier_data.memory import Entity, Episode, MemoryStore, Relationship
from tests.reliability.operations.config import MODELS, lists_to_embed
from tests.reliability.operations.values import (
    AGES,
    JSON,
    LIMITS,
    MOMENTS,
    NAMES,
    OPTIONAL_VECTORS,
    SCORES,
    TENANT,
    TO_DELETE,
    VECTORS,
    certain,
    cursors,
    entities,
    ids,
    lists,
    subjects,
)
from tests.reliability.side_by_side import Operations, call

EPISODE_IDS, ENTITY_IDS = ids(20, 4), ids(30, 4)
EPISODE, ENTITY = st.sampled_from(EPISODE_IDS), st.sampled_from(ENTITY_IDS)
RELATIONSHIP = st.sampled_from(ids(40, 4))
OWNER = st.none() | st.sampled_from(ids(50, 2))
GROUPS = st.sampled_from(["g", "h"])
CONTENTS = st.sampled_from(["", "The parcel is late", "PARCEL 100% paid", "a", "Straße \\ late_parcel"])
QUERIES = st.sampled_from(["parcel", "LATE parcel", "strasse", "%", "_", "\\", "", " ", "a", "is"])
CONTENT_TYPES = st.sampled_from(["message", "fact"])

FILTERS: dict[str, st.SearchStrategy[Any]] = {
    "group_id": st.none() | GROUPS,
    "agent_id": OWNER,
    "customer_profile_id": OWNER,
    "session_id": OWNER,
    "content_type": st.none() | CONTENT_TYPES,
    "occurred_after": st.none() | MOMENTS,
    "occurred_before": st.none() | MOMENTS,
}
FEW_FILTERS = {"group_id": st.none() | GROUPS}

EPISODES = entities(
    Episode,
    id=EPISODE,
    group_id=GROUPS,
    content=CONTENTS,
    content_type=CONTENT_TYPES,
    source=st.just("user"),
    source_metadata=JSON,
    occurred_at=MOMENTS,
    recorded_at=MOMENTS,
    agent_id=OWNER,
    customer_profile_id=OWNER,
    session_id=OWNER,
    embedding=OPTIONAL_VECTORS,
    embedding_model=MODELS,
    entity_ids=st.lists(ENTITY, max_size=1),
    deleted_at=TO_DELETE,
)
ENTITIES = entities(
    Entity,
    id=ENTITY,
    group_id=GROUPS,
    name=NAMES,
    entity_type=NAMES,
    attributes=JSON,
    recorded_at=MOMENTS,
    embedding=OPTIONAL_VECTORS,
    deleted_at=TO_DELETE,
)
RELATIONSHIPS = entities(
    Relationship,
    id=RELATIONSHIP,
    group_id=GROUPS,
    from_entity_id=ENTITY,
    to_entity_id=ENTITY,
    relation_type=NAMES,
    attributes=JSON,
    recorded_at=MOMENTS,
    deleted_at=TO_DELETE,
)
TEXTS = st.builds(
    TextToEmbed, st.sampled_from(["episode", "episode", "rule"]), TENANT, EPISODE, st.just("text")
)

PEOPLE = subjects(ids(50, 2), ids(50, 2))

OPERATIONS = Operations(
    store="memory",
    contract=MemoryStore,
    first=[
        call("add_episodes", st.tuples(*[certain(EPISODES, id=id_) for id_ in EPISODE_IDS[:3]])),
        call("add_entity", certain(ENTITIES, id=ENTITY_IDS[0], group_id="g")),
        call("add_entity", certain(ENTITIES, id=ENTITY_IDS[1], group_id="g")),
        call("add_entity", certain(ENTITIES, id=ENTITY_IDS[2], group_id="g")),
        call(
            "add_relationship",
            certain(RELATIONSHIPS, from_entity_id=ENTITY_IDS[0], to_entity_id=ENTITY_IDS[1]),
        ),
        call(
            "add_relationship",
            certain(RELATIONSHIPS, from_entity_id=ENTITY_IDS[2], to_entity_id=ENTITY_IDS[1]),
        ),
    ],
    reads=[
        call("get_episode", TENANT, EPISODE),
        call("get_episodes", TENANT, GROUPS, limit=LIMITS, before=cursors(EPISODE_IDS)),
        call("vector_search_episodes", VECTORS, TENANT, **FEW_FILTERS, limit=LIMITS, min_score=SCORES),
        call("vector_search_episodes", VECTORS, TENANT, **FILTERS),
        call("text_search_episodes", QUERIES, TENANT, **FEW_FILTERS, limit=LIMITS),
        call("text_search_episodes", QUERIES, TENANT, **FILTERS),
        call("hybrid_search_episodes", QUERIES, VECTORS, TENANT, **FEW_FILTERS, limit=LIMITS),
        call("hybrid_search_episodes", QUERIES, VECTORS, TENANT, **FILTERS),
        call("count_to_embed", MODELS, tenant_id=TENANT),
        lists_to_embed(["episode"]),
        call("get_entity", TENANT, ENTITY),
        call("get_entities", TENANT, GROUPS, entity_type=st.none() | NAMES, limit=LIMITS),
        call(
            "vector_search_entities",
            VECTORS,
            TENANT,
            group_id=st.none() | GROUPS,
            entity_type=st.none() | NAMES,
            limit=LIMITS,
            min_score=SCORES,
        ),
        call("get_relationship", TENANT, RELATIONSHIP),
        call("get_relationships", TENANT, GROUPS),
        call(
            "get_relationships",
            TENANT,
            GROUPS,
            from_entity_id=st.none() | ENTITY,
            to_entity_id=st.none() | ENTITY,
            relation_type=st.none() | NAMES,
        ),
        call(
            "traverse_from_entities",
            st.lists(ENTITY, max_size=2),
            TENANT,
            GROUPS,
            depth=st.sampled_from([-1, 0, 1, 2, 3]),
            relation_types=st.none() | st.lists(NAMES, max_size=2),
            limit=LIMITS,
            with_embeddings=st.booleans(),
        ),
        call("list_subject_sessions", PEOPLE),
        call("export_subject", PEOPLE),
    ],
    writes=[
        call("add_episode", EPISODES),
        call("add_episodes", lists(EPISODES)),
        call("delete_episode", TENANT, EPISODE),
        call("set_embeddings", st.lists(st.tuples(TEXTS, VECTORS), max_size=2), MODELS),
        # A graph takes many of these.
        call("add_entity", ENTITIES),
        call("add_entity", ENTITIES),
        call("update_entity", ENTITIES),
        call("delete_entity", TENANT, ENTITY),
        call("add_relationship", RELATIONSHIPS),
        call("add_relationship", RELATIONSHIPS),
        call("update_relationship", RELATIONSHIPS),
        call("delete_relationship", TENANT, RELATIONSHIP),
        call("delete_by_group", TENANT, GROUPS),
        call("purge_deleted", TENANT, AGES),
        call("erase_subject", PEOPLE),
    ],
)
