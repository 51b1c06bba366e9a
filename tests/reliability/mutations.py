"""A call of every method that changes something, on what the seeds of tests/cases store."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from functools import partial
from itertools import chain
from typing import Any
from uuid import UUID, uuid4

from soldier_data.base.embedded_texts import TextToEmbed
from soldier_data.base.subjects import DataSubject
from soldier_data.profiles import Channel
from soldier_data.sessions import PendingMigration
from tests.cases import audit, config, memory, profiles, runs, sessions, vectors
from tests.cases.case import Case, Domain, public_methods, stored
from tests.cases.kind import Kind
from tests.cases.kinds import kinds_of
from tests.cases.kinds.config import REVISIONED, RULE, TEMPLATE, VARIABLE
from tests.cases.kinds.runs import RUN
from tests.cases.kinds.sessions import SESSION
from tests.conftest import DIMENSIONS
from tests.factories.audit import AuditEventFactory, TurnRecordFactory
from tests.factories.memory import EpisodeFactory
from tests.factories.profiles import (
    ChannelIdentityFactory,
    CustomerProfileFactory,
    ProfileAssetFactory,
    ProfileFieldFactory,
)
from tests.factories.vectors import EmbeddingFactory

MODEL = "another model"
VECTOR = [1.0] * DIMENSIONS

_READS = (
    "get_",
    "list_",
    "count_",
    "find_",
    "export_",
    "search",
    "vector_search_",
    "text_search_",
    "hybrid_search_",
)
_OTHER_READS = {"get", "traverse_from_entities", "health_check"}


def mutating_methods(contract: type[Any]) -> set[str]:
    """The public methods that change something."""
    reads = {name for name in public_methods(contract) if name.startswith(_READS)} - {"get_or_create"}
    return public_methods(contract) - reads - _OTHER_READS


async def revision(save: Callable[..., Awaitable[object]], entity: Any, **options: Any) -> object:
    """The entity's revision once it is saved."""
    await save(entity, **options)
    return entity.revision


async def erased(store: Any, subject: DataSubject) -> int:
    """How many records went."""
    return sum(len(ids) for ids in (await store.erase_subject(subject)).values())


def another(own: Any, kind: Kind, tenant_id: UUID) -> Any:
    """One that is not stored yet, and refers to what the seed stored."""
    parents = {name: parent.id(stored(own, parent)) for name, parent in kind.parents.items()}
    return kind.make(tenant_id=tenant_id, **parents)


def _addition(kind: Kind) -> Case[Any, Any]:
    """Store one that is new. The id comes back."""

    async def adding(store: Any, own: Any, tenant_id: UUID) -> object:
        entity = another(own, kind, tenant_id)
        return await kind.save(store, entity) == kind.id(entity)

    return Case(kind.method(kind.adds), adding, expected=True)


def _saves(kind: Kind) -> list[Case[Any, Any]]:
    """Saves of an entity that is stored, with and without a condition, and of a new one."""

    async def replacing(store: Any, own: Any, _tenant_id: UUID) -> object:
        return await revision(partial(kind.save, store), stored(own, kind))

    async def conditional(store: Any, own: Any, _tenant_id: UUID) -> object:
        entity = stored(own, kind)
        return await revision(partial(kind.save, store), entity, if_revision=entity.revision)

    async def new(store: Any, own: Any, tenant_id: UUID) -> object:
        return await revision(partial(kind.save, store), another(own, kind, tenant_id), if_revision=0)

    return [
        Case(kind.method(kind.adds), call, result)
        for call, result in ((replacing, 2), (conditional, 2), (new, 1))
    ]


def _update(kind: Kind) -> Case[Any, Any]:
    return Case(f"update_{kind}", lambda store, own, _: kind.update(store, stored(own, kind)), expected=True)


def _deletion(kind: Kind) -> Case[Any, Any]:
    return Case(f"delete_{kind}", lambda store, own, _: kind.delete(store, stored(own, kind)), expected=True)


async def _archive(store: Any, own: config.Stored, tenant_id: UUID) -> object:
    return await store.archive_scenario_version(tenant_id, own.scenario.model_copy(update={"version": 7}))


async def _save_many(store: Any, own: config.Stored, tenant_id: UUID) -> object:
    new = [another(own, kind, tenant_id) for kind in (RULE, TEMPLATE, VARIABLE)]
    entities = [own.agent, own.rule, own.plan, *new]
    await store.save_many(entities)
    return [entity.revision for entity in entities]


CONFIG: list[Case[Any, Any]] = [
    *chain.from_iterable(_saves(kind) for kind in REVISIONED),
    *(_deletion(kind) for kind in REVISIONED),
    Case("archive_scenario_version", _archive, None),
    Case("save_many", _save_many, [2, 2, 2, 1, 1, 1]),
    Case(
        "set_embeddings",
        lambda store, own, id_: store.set_embeddings(
            [(TextToEmbed("rule", id_, own.rule.id, "x", own.rule.revision), VECTOR)], MODEL
        ),
        1,
    ),
    Case("purge_deleted", lambda store, _, id_: store.purge_deleted(id_, timedelta(0)), 1),
]


MEMORY: list[Case[Any, Any]] = [
    *(_addition(kind) for kind in kinds_of("memory")),
    *(_update(kind) for kind in kinds_of("memory") if kind.updates),
    *(_deletion(kind) for kind in kinds_of("memory")),
    Case(
        "add_episodes",
        lambda store, _, id_: store.add_episodes([EpisodeFactory(tenant_id=id_) for _ in range(3)]),
        3,
    ),
    # Two episodes, two entities and the relationship between them.
    Case("delete_by_group", lambda store, own, id_: store.delete_by_group(id_, own.episode.group_id), 5),
    Case(
        "set_embeddings",
        lambda store, own, id_: store.set_embeddings(
            [(TextToEmbed("episode", id_, own.episode.id, "x"), VECTOR)], MODEL
        ),
        1,
    ),
    Case("purge_deleted", lambda store, _, id_: store.purge_deleted(id_, timedelta(0)), 1),
    # Three episodes, two entities and the relationship between them.
    Case("erase_subject", lambda store, own, id_: erased(store, memory.subject(own, id_)), 6),
]


def _records(own: Any, factory: Any, tenant_id: UUID) -> list[Any]:
    """One that is stored already, and two new ones."""
    return [own, *(factory(tenant_id=tenant_id) for _ in range(2))]


AUDIT: list[Case[Any, Any]] = [
    *(_addition(kind) for kind in kinds_of("audit")),
    Case(
        "save_turns",
        lambda store, own, id_: store.save_turns(_records(own.turn, TurnRecordFactory, id_)),
        3,
    ),
    Case(
        "save_events",
        lambda store, own, id_: store.save_events(_records(own.event, AuditEventFactory, id_)),
        3,
    ),
    Case("erase_subject", lambda store, own, id_: erased(store, audit.subject(own, id_)), 3),
]


async def _get_or_create(store: Any, _own: profiles.Stored, tenant_id: UUID) -> object:
    profile = await store.get_or_create(tenant_id, Channel.SLACK, "somebody new")
    return profile.revision


PROFILES: list[Case[Any, Any]] = [
    Case("get_or_create", _get_or_create, 1),
    # The seed has updated a field.
    Case("save", lambda store, own, _: revision(store.save, own.profile), 3),
    Case("save", lambda store, own, _: revision(store.save, own.profile, if_revision=2), 3),
    Case(
        "save",
        lambda store, _, id_: revision(store.save, CustomerProfileFactory(tenant_id=id_), if_revision=0),
        1,
    ),
    Case("delete", lambda store, own, id_: store.delete(id_, own.profile.id), True),
    Case(
        "update_field",
        lambda store, own, id_: store.update_field(id_, own.profile.id, ProfileFieldFactory(name="city")),
        True,
    ),
    Case(
        "add_asset", lambda store, own, id_: store.add_asset(id_, own.profile.id, ProfileAssetFactory()), True
    ),
    Case(
        "link_channel",
        lambda store, own, id_: store.link_channel(id_, own.profile.id, ChannelIdentityFactory()),
        True,
    ),
    Case(
        "merge_profiles",
        lambda store, own, id_: store.merge_profiles(id_, own.second.id, own.profile.id),
        True,
    ),
    Case("purge_deleted", lambda store, _, id_: store.purge_deleted(id_, timedelta(0)), 1),
    Case("erase_subject", lambda store, own, id_: erased(store, profiles.subject(own, id_)), 1),
]


RUNS: list[Case[Any, Any]] = [
    *_saves(RUN),
    *(_addition(kind) for kind in kinds_of("runs")),
    *(_deletion(kind) for kind in kinds_of("runs") if kind.deletes),
    Case("erase_subject", lambda store, own, id_: erased(store, runs.subject(own, id_)), 5),
]

VECTORS: list[Case[Any, Any]] = [
    *(_addition(kind) for kind in kinds_of("vectors")),
    Case(
        "add_embeddings",
        lambda store, _, id_: store.add_embeddings([EmbeddingFactory(tenant_id=id_) for _ in range(3)]),
        3,
    ),
    Case("delete_by_source", lambda store, own, id_: store.delete_by_source(id_, own.source_id), 1),
    Case("erase_subject", lambda store, own, id_: erased(store, vectors.subject(own, id_)), 1),
]

PENDING = PendingMigration(target_version=2, anchor_content_hash="abc", migration_plan_id=uuid4())

SESSIONS: list[Case[Any, Any]] = [
    *_saves(SESSION),
    Case("delete", lambda store, own, _: store.delete(own.session_id), True),
    Case("delete", lambda store, own, id_: store.delete(own.session_id, tenant_id=id_), True),
    Case(
        "mark_pending_migration",
        lambda store, own, id_: store.mark_pending_migration(id_, [own.session_id], PENDING),
        1,
    ),
    Case("delete_many", lambda store, own, id_: store.delete_many(id_, [own.session_id]), 1),
]

MUTATIONS: tuple[Domain[Any, Any], ...] = (
    replace(config.DOMAIN, cases=CONFIG),
    replace(memory.DOMAIN, cases=MEMORY),
    replace(audit.DOMAIN, cases=AUDIT),
    replace(profiles.DOMAIN, cases=PROFILES),
    replace(runs.DOMAIN, cases=RUNS),
    replace(vectors.DOMAIN, cases=VECTORS),
    replace(sessions.DOMAIN, cases=SESSIONS),
)
"""The stores, each with its calls; `expected` is what a call returns to the owner."""
