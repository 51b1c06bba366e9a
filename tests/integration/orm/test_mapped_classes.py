"""The mapped classes in SQLAlchemy sessions of a service's own."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import pytest
from pydantic import BaseModel
from sqlalchemy import (
    Column,
    insert,
    select,
    text,
)
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm.exc import StaleDataError

from soldier_data import ConflictError, DataLayer, orm
from soldier_data.audit import AuditEvent, TurnRecord
from soldier_data.base.models import utcnow
from soldier_data.config import (
    Agent,
    MigrationPlan,
    Rule,
    Scenario,
    Template,
    ToolActivation,
    Variable,
)
from soldier_data.memory import Entity, Episode, Relationship
from soldier_data.orm import AgentRow, EmbeddingRow, EpisodeRow, StepRow, ToolActivationRow
from soldier_data.postgres.orm import Document
from soldier_data.profiles import (
    ChannelIdentity,
    Consent,
    CustomerProfile,
    FormerIdentifier,
    ProfileAsset,
    ProfileField,
)
from soldier_data.runs import Artifact, LLMCall, Run, Step
from soldier_data.vectors import Embedding
from tests.conftest import DIMENSIONS
from tests.factories.config import (
    MigrationPlanFactory,
    ScenarioFactory,
)
from tests.factories.memory import EntityFactory
from tests.factories.profiles import CustomerProfileFactory
from tests.factories.runs import RunFactory
from tests.integration.orm.conftest import ROWS, saved_agent

VECTOR = [1.0, *[0.0] * (DIMENSIONS - 1)]

# A session is written by its store: the document of its row is compressed.
WRITABLE = [row for row in ROWS if row is not orm.SessionRow]


# -- what can be imported ----------------------------------------------------------------------------------------


def test_every_mapped_class_is_exported_and_documented() -> None:
    assert set(ROWS) == {mapper.class_ for mapper in orm.Base.registry.mappers}
    assert [row for row in ROWS if not row.__doc__] == []


# -- defaults ----------------------------------------------------------------------------------------------------

ENTITIES: dict[Any, type[BaseModel]] = {
    orm.AgentRow: Agent,
    orm.ArtifactRow: Artifact,
    orm.AuditEventRow: AuditEvent,
    orm.ChannelIdentityRow: ChannelIdentity,
    orm.CustomerProfileRow: CustomerProfile,
    orm.EmbeddingRow: Embedding,
    orm.EntityRow: Entity,
    orm.EpisodeRow: Episode,
    orm.FormerIdentifierRow: FormerIdentifier,
    orm.LLMCallRow: LLMCall,
    orm.MigrationPlanRow: MigrationPlan,
    orm.ProfileAssetRow: ProfileAsset,
    orm.ProfileConsentRow: Consent,
    orm.ProfileFieldRow: ProfileField,
    orm.RelationshipRow: Relationship,
    orm.RuleRow: Rule,
    orm.RunRow: Run,
    orm.ScenarioArchiveRow: Scenario,
    orm.ScenarioRow: Scenario,
    orm.StepRow: Step,
    orm.TemplateRow: Template,
    orm.ToolActivationRow: ToolActivation,
    orm.TurnRecordRow: TurnRecord,
    orm.VariableRow: Variable,
}

# Values of required columns that not every text, number or document is right for.
VALUES: dict[str, Any] = {
    "channel": "email",
    "embedding": VECTOR,
    "granted": True,
    "kind": "external_id",
}

OF_TYPE: dict[type[Any], Callable[[], Any]] = {
    str: lambda: "x",
    int: lambda: 1,
    float: lambda: 1.0,
    bool: lambda: True,
    Decimal: lambda: Decimal("0.1"),
    UUID: uuid4,
    datetime: utcnow,
}


def _is_required(column: Column[Any]) -> bool:
    return not column.nullable and column.default is None


def _made(column: Column[Any]) -> Any:
    return {"any": ["JSON", 1]} if isinstance(column.type, Document) else OF_TYPE[column.type.python_type]()


def _attributes(row: Any) -> dict[str, Column[Any]]:
    return {each.key: each.columns[0] for each in row.__mapper__.column_attrs}


async def _required(data: DataLayer, row: Any, tenant_id: UUID) -> dict[str, Any]:
    """A value for every required column of a mapped class. What it refers to is stored first."""
    entities = [EntityFactory(tenant_id=tenant_id) for _ in range(2)]
    for entity in entities:
        await data.memory.add_entity(entity)
    run = RunFactory(tenant_id=tenant_id)
    await data.runs.save_run(run)
    profile = CustomerProfileFactory(tenant_id=tenant_id, channel_identities=[], fields={})
    await data.profiles.save(profile)
    values = {
        **VALUES,
        "tenant_id": tenant_id,
        "agent_id": (await saved_agent(data, tenant_id)).id,
        "run_id": run.id,
        "profile_id": profile.id,
        "from_entity_id": entities[0].id,
        "to_entity_id": entities[1].id,
        "source": "user_provided" if row is orm.ProfileFieldRow else "user",
    }
    if row in DOCUMENTS:
        name, factory = DOCUMENTS[row]
        document = factory(tenant_id=tenant_id)
        values |= dict(document) | {name: document.model_dump(mode="json")}
    return {
        key: values[key] if key in values else _made(column)
        for key, column in _attributes(row).items()
        if _is_required(column)
    }


DOCUMENTS: dict[Any, tuple[str, Any]] = {
    orm.MigrationPlanRow: ("plan", MigrationPlanFactory),
    orm.ScenarioArchiveRow: ("scenario", ScenarioFactory),
}
"""Classes with a column that holds the whole entity."""

Reading = Callable[[DataLayer, Any], Awaitable[Any]]


def _by_key(store: str, method: str, *key: str) -> Reading:
    return lambda data, row: getattr(getattr(data, store), method)(*(getattr(row, name) for name in key))


def _only(reading: Reading, part: str | None = None) -> Reading:
    """Read a list, which is the result or a part of it, with one item."""

    async def read(data: DataLayer, row: Any) -> Any:
        found = await reading(data, row)
        items = found if part is None else getattr(found, part)
        [item] = items.values() if isinstance(items, dict) else items
        return item

    return read


async def _search(data: DataLayer, row: Any) -> Any:
    [hit] = await data.vectors.search(row.embedding, row.tenant_id)
    return hit.embedding


_ID = ("tenant_id", "id")
_profile_of = _by_key("profiles", "get_by_id", "tenant_id", "profile_id")

READINGS: dict[Any, Reading] = {
    orm.AgentRow: _by_key("config", "get_agent", *_ID),
    orm.ArtifactRow: _only(_by_key("runs", "get_artifacts", "tenant_id", "run_id")),
    orm.AuditEventRow: _by_key("audit", "get_event", *_ID),
    orm.ChannelIdentityRow: _only(_profile_of, "channel_identities"),
    orm.CustomerProfileRow: _by_key("profiles", "get_by_id", *_ID),
    orm.EmbeddingRow: _search,
    orm.EntityRow: _by_key("memory", "get_entity", *_ID),
    orm.EpisodeRow: _by_key("memory", "get_episode", *_ID),
    orm.FormerIdentifierRow: _only(
        lambda data, row: data.export_customer(row.tenant_id, row.profile_id), "former_identifiers"
    ),
    orm.LLMCallRow: _only(_by_key("runs", "get_llm_calls", "tenant_id", "run_id")),
    orm.MigrationPlanRow: _by_key("config", "get_migration_plan", *_ID),
    orm.ProfileAssetRow: _only(_profile_of, "assets"),
    orm.ProfileConsentRow: _only(_profile_of, "consents"),
    orm.ProfileFieldRow: _only(_profile_of, "fields"),
    orm.RelationshipRow: _by_key("memory", "get_relationship", *_ID),
    orm.RuleRow: _by_key("config", "get_rule", *_ID),
    orm.RunRow: _by_key("runs", "get_run", *_ID),
    orm.ScenarioArchiveRow: _by_key("config", "get_archived_scenario", *_ID, "version"),
    orm.ScenarioRow: _by_key("config", "get_scenario", *_ID),
    orm.StepRow: _only(_by_key("runs", "get_steps", "tenant_id", "run_id")),
    orm.TemplateRow: _by_key("config", "get_template", *_ID),
    orm.ToolActivationRow: _by_key("config", "get_tool_activation", "tenant_id", "agent_id", "tool_id"),
    orm.TurnRecordRow: _by_key("audit", "get_turn", *_ID),
    orm.VariableRow: _by_key("config", "get_variable", *_ID),
}
"""How the entity of a row is read through its store."""


@pytest.mark.parametrize("row", WRITABLE, ids=lambda row: row.__name__)
def test_a_field_with_a_default_is_a_column_with_the_same(row: Any) -> None:
    fields = ENTITIES[row].model_fields
    if row in DOCUMENTS:
        # The document has the fields. The key repeats what it holds.
        fields = {name: fields[name] for name in fields if name in ("status", "created_at", "updated_at")}
    for key, column in _attributes(row).items():
        name = "turn_id" if row is orm.TurnRecordRow and key == "id" else column.name
        field = fields.get(name)
        if field is None or name == "revision":
            continue
        assert _is_required(column) == field.is_required(), f"{row.__name__}.{key}"
        if column.default is None:
            assert field.is_required() or field.default is None, f"{row.__name__}.{key}"
            continue
        default: Any = column.default
        made, expected = default.arg, field.get_default(call_default_factory=True)
        made = made(None) if callable(made) else made
        if isinstance(expected, BaseModel):
            expected = expected.model_dump()
        assert made == expected or type(expected) in (UUID, datetime), f"{row.__name__}.{key}"
        assert isinstance(made, type(expected)), f"{row.__name__}.{key}"


@pytest.mark.parametrize("row", WRITABLE, ids=lambda row: row.__name__)
async def test_a_row_of_its_required_columns_is_a_valid_entity(
    data: DataLayer, session: AsyncSession, row: Any, tenant_id: UUID
) -> None:
    values = await _required(data, row, tenant_id)
    added = row(**values)
    session.add(added)
    await session.commit()
    await session.refresh(added)
    entity = await READINGS[row](data, added)
    model = ENTITIES[row]
    assert model.model_validate(entity.model_dump()) == entity
    for key, value in values.items():
        if key in model.model_fields:
            assert getattr(entity, key) == value
    if row.__mapper__.version_id_col is not None:
        assert entity.revision == 1


async def test_rows_of_an_insert_statement_have_the_defaults_too(
    data: DataLayer, session: AsyncSession, tenant_id: UUID
) -> None:
    await session.execute(insert(AgentRow), [{"tenant_id": tenant_id, "name": f"A{n}"} for n in range(3)])
    contents = {"tenant_id": tenant_id, "group_id": "g", "content": "STRASSE", "source": "user"}
    await session.execute(insert(EpisodeRow), [contents])
    await session.commit()
    agents, total = await data.config.get_agents(tenant_id)
    assert total == len({agent.id for agent in agents}) == 3
    [episode] = await data.memory.text_search_episodes("straße", tenant_id)
    assert episode.content == "STRASSE"


async def test_documents_that_are_null_are_stored_as_the_stores_do(
    data: DataLayer, session: AsyncSession, tenant_id: UUID
) -> None:
    run = RunFactory(tenant_id=tenant_id)
    await data.runs.save_run(run)
    agent = await saved_agent(data, tenant_id)
    keys = {"tenant_id": tenant_id, "run_id": run.id, "node_name": "n"}
    session.add_all(
        [
            StepRow(**keys, step_number=1),
            StepRow(**keys, step_number=2, input_data=None, output_data=[None]),
            ToolActivationRow(tenant_id=tenant_id, agent_id=agent.id, tool_id="t", policy_override=None),
        ]
    )
    await session.commit()
    first, second = await data.runs.get_steps(tenant_id, run.id)
    assert (first.input_data, second.input_data, second.output_data) == (None, None, [None])
    tool = select(ToolActivationRow.tool_id).where(
        ToolActivationRow.tenant_id == tenant_id, text("policy_override IS NULL")
    )
    assert (await session.scalars(tool)).all() == ["t"]


async def test_what_searches_read_follows_the_object(
    data: DataLayer, session: AsyncSession, tenant_id: UUID
) -> None:
    episode = EpisodeRow(tenant_id=tenant_id, group_id="g", content="apples", source="user")
    embedding = EmbeddingRow(
        tenant_id=tenant_id, content="c", embedding=VECTOR, source_type="t", source_id="1", metadata_={"a": 1}
    )
    session.add_all([episode, embedding])
    await session.commit()
    assert [
        hit.embedding.id for hit in await data.vectors.search(VECTOR, tenant_id, metadata_filter={"a": 1})
    ]
    await session.refresh(episode)
    await session.refresh(embedding)
    episode.content, embedding.metadata_ = "PEARS", {"a": 2}
    await session.commit()
    [found] = await data.memory.text_search_episodes("pears", tenant_id)
    assert found.content == "PEARS"
    assert await data.memory.text_search_episodes("apples", tenant_id) == []
    assert await data.vectors.search(VECTOR, tenant_id, metadata_filter={"a": 1}) == []
    [hit] = await data.vectors.search(VECTOR, tenant_id, metadata_filter={"a": 2})
    assert hit.embedding.metadata == {"a": 2}


# -- revisions ---------------------------------------------------------------------------------------------------


async def test_a_changed_object_gets_the_next_revision(
    data: DataLayer, session: AsyncSession, tenant_id: UUID
) -> None:
    agent = await saved_agent(data, tenant_id)
    row = await session.get_one(AgentRow, (tenant_id, agent.id))
    written = row.write_id
    row.name = row.name
    await session.flush()
    assert (row.revision, row.write_id, row.updated_at) == (1, written, agent.updated_at)
    row.name = "renamed"
    await session.commit()
    await session.refresh(row)
    assert (row.revision, row.write_id != written, row.updated_at > agent.updated_at) == (2, True, True)
    with pytest.raises(ConflictError, match="revision 1 was expected, but 2 is stored"):
        await data.config.save_agent(agent, if_revision=1)


async def test_an_object_that_a_store_changed_meanwhile_is_stale(
    data: DataLayer, session: AsyncSession, tenant_id: UUID
) -> None:
    agent = await saved_agent(data, tenant_id)
    row = await session.get_one(AgentRow, (tenant_id, agent.id))
    await data.config.save_agent(agent)
    row.name = "renamed"
    with pytest.raises(StaleDataError):
        await session.flush()
