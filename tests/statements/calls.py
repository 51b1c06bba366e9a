"""The calls that send every statement of the PostgreSQL stores.

A method that always sends the same statements is called as the cases of tests/cases call it. A method with several
ways, or with filters, has calls here: one for each way, with every filter.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import timedelta
from functools import partial
from typing import Any
from uuid import UUID, uuid4

from soldier_data.base.paging import Cursor
from soldier_data.base.subjects import SubjectRecords
from soldier_data.errors import NotFoundError
from soldier_data.runs import RunStatus
from tests.cases import config, memory, stores
from tests.cases.case import Domain, as_of, stored
from tests.cases.kinds.config import PARTS
from tests.factories.profiles import (
    ChannelIdentityFactory,
    CustomerProfileFactory,
    ProfileAssetFactory,
    ProfileFieldFactory,
)
from tests.factories.runs import RunFactory
from tests.statements.common import (
    MODEL,
    Call,
    missing_embeddings,
    saves,
    searches,
    subject_calls,
)

DOMAINS = tuple(domain for domain in stores.DOMAINS if "postgres" in domain.backends)
"""The stores on PostgreSQL."""

_LONG_AGO = timedelta(0)
_IF_TAKEN = "the second statement only if the id is taken"
_IF_NOTHING = "the second statement only if nothing was saved"
_MANY = "for 5,000 rows at a time in one transaction; the second statement only if an id is taken"
_ROW_LEVEL_SECURITY = "with row-level security"


def calls_of(domain: Domain[Any, Any]) -> list[Call]:
    """The calls of a store's methods."""
    listed = [*saves(domain), *_CALLS.get(domain.store, [])]
    if issubclass(domain.backends["postgres"], SubjectRecords):
        listed += subject_calls(domain)
    explicit = {call.method for call in listed}
    return listed + [Call(case.method, case.call) for case in domain.cases if case.method not in explicit]


# -- config ----------------------------------------------------------------------------------------------------


async def _purge_agent(store: Any, own: Any, tenant: UUID) -> object:
    """Purge an agent with one of everything."""
    await store.delete_agent(tenant, own.agent.id)
    return await store.purge_deleted(tenant, _LONG_AGO)


async def _save_many(store: Any, own: Any, tenant: UUID) -> object:
    """Save one of everything, and save parts without their agent."""
    await store.save_many([as_of(entity, tenant) for entity in vars(own).values()])
    for kind in PARTS:
        with suppress(NotFoundError):
            await store.save_many([as_of(stored(own, kind), tenant, agent_id=uuid4())])
    return None


_CONFIG = [
    Call("get_agents", lambda store, _own, tenant: store.get_agents(tenant, enabled_only=True)),
    Call(
        "get_rules",
        lambda store, own, tenant: store.get_rules(
            tenant, own.agent.id, scope=own.rule.scope, scope_id=own.rule.scope_id
        ),
    ),
    Call(
        "list_migration_plans",
        lambda store, own, tenant: store.list_migration_plans(tenant, own.plan.scenario_id, own.plan.status),
    ),
    *searches(
        "vector_search_rules",
        lambda store, own, tenant: store.vector_search_rules(
            config.VECTOR, tenant, own.agent.id, embedding_model=MODEL
        ),
    ),
    *searches(
        "vector_search_scenarios",
        lambda store, own, tenant: store.vector_search_scenarios(
            config.VECTOR, tenant, own.agent.id, embedding_model=MODEL
        ),
    ),
    Call("save_many", _save_many),
    Call("purge_deleted", _purge_agent, "in batches, each in a transaction"),
    *missing_embeddings(),
]

# -- memory ----------------------------------------------------------------------------------------------------


async def _add_episodes(store: Any, own: Any, tenant: UUID) -> object:
    return await store.add_episodes([as_of(own.episode, tenant)])


_MEMORY = [
    Call("add_episodes", _add_episodes, _MANY),
    Call("add_episodes", _add_episodes, _ROW_LEVEL_SECURITY, {"row_level_security": True}),
    Call(
        "get_episodes",
        lambda store, own, tenant: store.get_episodes(
            tenant, own.episode.group_id, before=Cursor.after(own.later_episode)
        ),
    ),
    *searches(
        "vector_search_episodes",
        lambda store, own, tenant: store.vector_search_episodes(
            memory.VECTOR, tenant, embedding_model=MODEL, **own.filters
        ),
    ),
    Call(
        "text_search_episodes",
        lambda store, own, tenant: store.text_search_episodes("parcel", tenant, **own.filters),
    ),
    *searches(
        "hybrid_search_episodes",
        lambda store, own, tenant: store.hybrid_search_episodes(
            "parcel", memory.VECTOR, tenant, embedding_model=MODEL, **own.filters
        ),
    ),
    Call(
        "get_entities",
        lambda store, own, tenant: store.get_entities(
            tenant, own.entity.group_id, entity_type=own.entity.entity_type
        ),
    ),
    *searches(
        "vector_search_entities",
        lambda store, own, tenant: store.vector_search_entities(
            memory.VECTOR,
            tenant,
            group_id=own.entity.group_id,
            entity_type=own.entity.entity_type,
            embedding_model=MODEL,
        ),
    ),
    Call(
        "get_relationships",
        lambda store, own, tenant: store.get_relationships(
            tenant,
            own.relationship.group_id,
            from_entity_id=own.entity.id,
            to_entity_id=own.neighbour.id,
            relation_type=own.relationship.relation_type,
        ),
    ),
    Call(
        "traverse_from_entities",
        lambda store, own, tenant: store.traverse_from_entities(
            [own.entity.id],
            tenant,
            own.entity.group_id,
            relation_types=[own.relationship.relation_type],
            with_embeddings=True,
        ),
    ),
    *missing_embeddings(),
]

# -- audit -----------------------------------------------------------------------------------------------------

_AUDIT = [
    Call(
        "list_turns_by_tenant",
        lambda store, own, tenant: store.list_turns_by_tenant(
            tenant,
            start_time=own.turn.timestamp,
            end_time=own.later_turn.timestamp,
            before=Cursor.after(own.later_turn),
        ),
    ),
    Call(
        "list_events_by_session",
        lambda store, own, tenant: store.list_events_by_session(
            tenant, own.turn.session_id, event_type=own.event.event_type
        ),
    ),
    Call("save_turn", lambda store, own, tenant: store.save_turn(as_of(own.turn, tenant)), _IF_TAKEN),
    Call("save_event", lambda store, own, tenant: store.save_event(as_of(own.event, tenant)), _IF_TAKEN),
    Call("save_turns", lambda store, own, tenant: store.save_turns([as_of(own.turn, tenant)]), _IF_TAKEN),
    Call("save_events", lambda store, own, tenant: store.save_events([as_of(own.event, tenant)]), _IF_TAKEN),
]

# -- profiles --------------------------------------------------------------------------------------------------


async def _merge(store: Any, own: Any, tenant: UUID) -> object:
    """Merge profiles that both have an external id."""
    source, target = (CustomerProfileFactory(tenant_id=tenant, external_id=str(uuid4())) for _ in range(2))
    await store.save(source)
    await store.save(target)
    return await store.merge_profiles(tenant, source.id, target.id)


_CHANGES: dict[str, Callable[[Any, Any, UUID], Awaitable[object]]] = {
    "save": lambda store, own, tenant: store.save(as_of(own.profile, tenant)),
    "delete": lambda store, own, tenant: store.delete(tenant, own.profile.id),
    "update_field": lambda store, own, tenant: store.update_field(
        tenant, own.profile.id, ProfileFieldFactory()
    ),
    "add_asset": lambda store, own, tenant: store.add_asset(tenant, own.profile.id, ProfileAssetFactory()),
    "link_channel": lambda store, own, tenant: store.link_channel(
        tenant, own.profile.id, ChannelIdentityFactory()
    ),
}


async def _change_again(store: Any, own: Any, tenant: UUID, *, method: str) -> object:
    """Change a profile that another transaction seems to have changed at the same time."""
    store._db.seems_changed = True
    return await _CHANGES[method](store, own, tenant)


_PROFILES = [
    *(Call(method, call) for method, call in _CHANGES.items()),
    *(
        Call(
            method,
            partial(_change_again, method=method),
            "if another transaction changes the profile meanwhile, the first of these, then in a transaction the "
            "second and again the first",
        )
        for method in _CHANGES
    ),
    Call("merge_profiles", _merge, "in one transaction"),
]

# -- runs ------------------------------------------------------------------------------------------------------


async def _save_run_with_taken_key(store: Any, own: Any, tenant: UUID) -> object:
    return await store.save_run(RunFactory(tenant_id=tenant, idempotency_key=own.key))


async def _save_call_without_step(store: Any, own: Any, tenant: UUID) -> object:
    return await store.save_llm_call(as_of(own.call, tenant, step_id=None))


_RUNS = [
    Call(
        "list_runs",
        lambda store, own, tenant: store.list_runs(
            tenant, own.run.actor, status=RunStatus.FAILED, before=Cursor.after(own.later_run)
        ),
    ),
    Call(
        "count_runs",
        lambda store, own, tenant: store.count_runs(tenant, own.run.actor, status=RunStatus.FAILED),
    ),
    Call("save_run", _save_run_with_taken_key, "if another run has the `idempotency_key` or `trace_id`"),
    Call("save_llm_call", _save_call_without_step, f"without a step; {_IF_NOTHING}"),
    Call(
        "save_llm_call",
        lambda store, own, tenant: store.save_llm_call(as_of(own.call, tenant)),
        f"of a step; {_IF_NOTHING}",
    ),
]

# -- vectors ---------------------------------------------------------------------------------------------------


async def _add_embeddings(store: Any, own: Any, tenant: UUID) -> object:
    return await store.add_embeddings([as_of(own, tenant)])


_VECTORS = [
    Call("add_embeddings", _add_embeddings, _MANY),
    Call("add_embeddings", _add_embeddings, _ROW_LEVEL_SECURITY, {"row_level_security": True}),
    *searches(
        "search",
        lambda store, own, tenant: store.search(
            own.embedding,
            tenant,
            source_type=own.source_type,
            metadata_filter=own.metadata,
            embedding_model=MODEL,
        ),
    ),
]

_CALLS: dict[str, list[Call]] = {
    "config": _CONFIG,
    "memory": _MEMORY,
    "audit": _AUDIT,
    "profiles": _PROFILES,
    "runs": _RUNS,
    "vectors": _VECTORS,
}
