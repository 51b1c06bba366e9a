"""A call of every method that changes something, on what the seeds of tests/cases store."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

from soldier_data.audit import TurnRecord
from soldier_data.base.embeddings import TextToEmbed
from soldier_data.base.subjects import DataSubject
from soldier_data.profiles import Channel
from soldier_data.sessions import PendingMigration
from tests.cases import audit, config, memory, profiles, runs, sessions, vectors
from tests.cases.case import Case, Domain, public_methods
from tests.conftest import DIMENSIONS
from tests.factories.audit import AuditEventFactory, TurnRecordFactory
from tests.factories.config import (
    AgentFactory,
    MigrationPlanFactory,
    RuleFactory,
    ScenarioFactory,
    TemplateFactory,
    ToolActivationFactory,
    VariableFactory,
)
from tests.factories.memory import EntityFactory, EpisodeFactory, RelationshipFactory
from tests.factories.profiles import (
    ChannelIdentityFactory,
    CustomerProfileFactory,
    ProfileAssetFactory,
    ProfileFieldFactory,
)
from tests.factories.runs import ArtifactFactory, LLMCallFactory, RunFactory, StepFactory
from tests.factories.sessions import SessionFactory
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


async def added(add: Callable[..., Awaitable[object]], entity: Any) -> object:
    """Whether the id comes back."""
    return await add(entity) == (entity.turn_id if isinstance(entity, TurnRecord) else entity.id)


def _saves(method: str, attribute: str, factory: Any) -> list[Case[Any, Any]]:
    """Saves of an entity that is stored, with and without a condition, and of a new one."""

    async def replacing(store: Any, own: config.Stored, _tenant_id: UUID) -> object:
        return await revision(getattr(store, method), getattr(own, attribute))

    async def conditional(store: Any, own: config.Stored, _tenant_id: UUID) -> object:
        entity = getattr(own, attribute)
        return await revision(getattr(store, method), entity, if_revision=entity.revision)

    async def new(store: Any, own: config.Stored, tenant_id: UUID) -> object:
        return await revision(getattr(store, method), _of_agent(factory, own, tenant_id), if_revision=0)

    return [Case(method, replacing, 2), Case(method, conditional, 2), Case(method, new, 1)]


def _of_agent(factory: Any, own: config.Stored, tenant_id: UUID) -> Any:
    owner = {} if factory in {AgentFactory, MigrationPlanFactory} else {"agent_id": own.agent.id}
    return factory(tenant_id=tenant_id, **owner)


async def _archive(store: Any, own: config.Stored, tenant_id: UUID) -> object:
    return await store.archive_scenario_version(tenant_id, own.scenario.model_copy(update={"version": 7}))


async def _save_many(store: Any, own: config.Stored, tenant_id: UUID) -> object:
    new = [_of_agent(factory, own, tenant_id) for factory in (RuleFactory, TemplateFactory, VariableFactory)]
    entities = [own.agent, own.rule, own.plan, *new]
    await store.save_many(entities)
    return [entity.revision for entity in entities]


CONFIG: list[Case[Any, Any]] = [
    *_saves("save_agent", "agent", AgentFactory),
    *_saves("save_rule", "rule", RuleFactory),
    *_saves("save_scenario", "scenario", ScenarioFactory),
    *_saves("save_template", "template", TemplateFactory),
    *_saves("save_variable", "variable", VariableFactory),
    *_saves("save_tool_activation", "activation", ToolActivationFactory),
    *_saves("save_migration_plan", "plan", MigrationPlanFactory),
    Case("archive_scenario_version", _archive, None),
    Case("save_many", _save_many, [2, 2, 2, 1, 1, 1]),
    Case("delete_agent", lambda store, own, id_: store.delete_agent(id_, own.agent.id), True),
    Case("delete_rule", lambda store, own, id_: store.delete_rule(id_, own.rule.id), True),
    Case("delete_scenario", lambda store, own, id_: store.delete_scenario(id_, own.scenario.id), True),
    Case("delete_template", lambda store, own, id_: store.delete_template(id_, own.template.id), True),
    Case("delete_variable", lambda store, own, id_: store.delete_variable(id_, own.variable.id), True),
    Case(
        "delete_tool_activation",
        lambda store, own, id_: store.delete_tool_activation(id_, own.agent.id, own.activation.tool_id),
        True,
    ),
    Case(
        "delete_migration_plan", lambda store, own, id_: store.delete_migration_plan(id_, own.plan.id), True
    ),
    Case(
        "set_embeddings",
        lambda store, own, id_: store.set_embeddings(
            [(TextToEmbed("rule", id_, own.rule.id, "x", own.rule.revision), VECTOR)], MODEL
        ),
        1,
    ),
    Case("purge_deleted", lambda store, _, id_: store.purge_deleted(id_, timedelta(0)), 1),
]


async def _add_relationship(store: Any, own: memory.Stored, tenant_id: UUID) -> object:
    ends = {"from_entity_id": own.neighbour.id, "to_entity_id": own.entity.id}
    relationship = RelationshipFactory(tenant_id=tenant_id, **ends)
    return await store.add_relationship(relationship) == relationship.id


MEMORY: list[Case[Any, Any]] = [
    Case("add_episode", lambda store, _, id_: added(store.add_episode, EpisodeFactory(tenant_id=id_)), True),
    Case(
        "add_episodes",
        lambda store, _, id_: store.add_episodes([EpisodeFactory(tenant_id=id_) for _ in range(3)]),
        3,
    ),
    Case("add_entity", lambda store, _, id_: added(store.add_entity, EntityFactory(tenant_id=id_)), True),
    Case("update_entity", lambda store, own, _: store.update_entity(own.entity), True),
    Case("add_relationship", _add_relationship, True),
    Case("update_relationship", lambda store, own, _: store.update_relationship(own.relationship), True),
    Case("delete_episode", lambda store, own, id_: store.delete_episode(id_, own.episode.id), True),
    Case("delete_entity", lambda store, own, id_: store.delete_entity(id_, own.entity.id), True),
    Case(
        "delete_relationship",
        lambda store, own, id_: store.delete_relationship(id_, own.relationship.id),
        True,
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
    Case("save_turn", lambda store, _, id_: added(store.save_turn, TurnRecordFactory(tenant_id=id_)), True),
    Case("save_event", lambda store, _, id_: added(store.save_event, AuditEventFactory(tenant_id=id_)), True),
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


def _of_run(factory: Any, own: runs.Stored, **values: Any) -> Any:
    return factory(tenant_id=own.run.tenant_id, run_id=own.run.id, **values)


RUNS: list[Case[Any, Any]] = [
    Case("save_run", lambda store, own, _: revision(store.save_run, own.run), 2),
    Case("save_run", lambda store, own, _: revision(store.save_run, own.run, if_revision=1), 2),
    Case("save_run", lambda store, _, id_: revision(store.save_run, RunFactory(tenant_id=id_)), 1),
    Case("save_step", lambda store, own, _: added(store.save_step, _of_run(StepFactory, own)), True),
    Case(
        "save_artifact", lambda store, own, _: added(store.save_artifact, _of_run(ArtifactFactory, own)), True
    ),
    Case(
        "save_llm_call",
        lambda store, own, _: added(store.save_llm_call, _of_run(LLMCallFactory, own, step_id=own.step.id)),
        True,
    ),
    Case("delete_step", lambda store, own, id_: store.delete_step(id_, own.step.id), True),
    Case("delete_run", lambda store, own, id_: store.delete_run(id_, own.run.id), True),
    Case("erase_subject", lambda store, own, id_: erased(store, runs.subject(own, id_)), 5),
]

VECTORS: list[Case[Any, Any]] = [
    Case(
        "add_embedding",
        lambda store, _, id_: added(store.add_embedding, EmbeddingFactory(tenant_id=id_)),
        True,
    ),
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
    Case("save", lambda store, own, _: revision(store.save, own), 2),
    Case("save", lambda store, own, _: revision(store.save, own, if_revision=1), 2),
    Case(
        "save",
        lambda store, _, id_: revision(store.save, SessionFactory(tenant_id=id_), if_revision=0),
        1,
    ),
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
