"""A customer whose unique texts stand in every place that a store keeps texts in, and a search for them."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

from soldier_data.base.models import utcnow
from soldier_data.data_layer import DataLayer
from soldier_data.profiles import (
    Channel,
    ChannelIdentity,
    Consent,
    CustomerProfile,
    ProfileAsset,
    ProfileField,
)
from soldier_data.profiles import ProfileFieldSource as FieldSource
from soldier_data.schema import metadata
from soldier_data.sessions import (
    InMemorySessionStore,
    PendingMigration,
    RedisSessionStore,
    Session,
    SessionStatus,
)
from tests.backends.connections import administrator
from tests.conftest import DIMENSIONS
from tests.factories.audit import AuditEventFactory, ToolCallFactory, TurnRecordFactory
from tests.factories.memory import EntityFactory, EpisodeFactory, RelationshipFactory
from tests.factories.runs import ArtifactFactory, LLMCallFactory, RunFactory, StepFactory
from tests.factories.sessions import SessionFactory, StepVisitFactory
from tests.factories.vectors import EmbeddingFactory

VECTOR = [1.0] * DIMENSIONS


@dataclass
class Planted:
    """A customer: two profiles that were merged, and what was said in three conversations.

    Attributes:
        texts: Every text that was planted, each in one place.
        session_ids: One conversation that is hot, one that is not, and one that Redis has forgotten.
    """

    tenant_id: UUID
    mark: str = field(default_factory=lambda: f"canary{uuid4().hex}")
    profile_id: UUID = field(default_factory=uuid4)
    merged_id: UUID = field(default_factory=uuid4)
    session_ids: list[UUID] = field(default_factory=lambda: [uuid4() for _ in range(3)])
    turn_ids: list[UUID] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)

    def text(self) -> str:
        """A text that stands nowhere else."""
        self.texts.append(f"{self.mark}x{len(self.texts)}x")
        return self.texts[-1]

    def document(self) -> dict[str, Any]:
        """A JSON object with such texts in its keys and values."""
        return {self.text(): [self.text(), {"deep": self.text()}]}


async def plant(data: DataLayer, tenant_id: UUID) -> Planted:
    """Store the customer, in every store."""
    person = Planted(tenant_id)
    await _plant_profiles(data, person)
    for number, session_id in enumerate(person.session_ids):
        await _plant_turns(data, person, session_id)
        if number < 2:
            await _plant_session(data, person, session_id)
    await _plant_memory(data, person)
    await _plant_runs(data, person)
    return person


def _profile(person: Planted, profile_id: UUID, **values: Any) -> CustomerProfile:
    text = person.text
    identity = ChannelIdentity(channel=Channel.EMAIL, channel_user_id=text())
    asset = ProfileAsset(
        name=text(),
        asset_type=text(),
        storage_provider=text(),
        storage_path=text(),
        mime_type=text(),
        size_bytes=1,
        checksum=text(),
        verification_result=person.document(),
        retention_policy=text(),
    )
    return CustomerProfile(
        id=profile_id,
        tenant_id=person.tenant_id,
        customer_id=uuid4(),
        external_id=text(),
        channel_identities=[identity],
        assets=[asset],
        consents=[Consent(consent_type=text(), granted=True, ip_address=text())],
        fields={"city": _field(person, "city"), **values},
    )


def _field(person: Planted, name: str, **values: Any) -> ProfileField:
    return ProfileField(
        name=name,
        value=person.document(),
        value_type=person.text(),
        source=FieldSource.USER_PROVIDED,
        verification_method=person.text(),
        verified_by=person.text(),
        **values,
    )


async def _plant_profiles(data: DataLayer, person: Planted) -> None:
    named = person.text()
    # The conversation that Redis has forgotten is named by a field alone.
    fields = {named: _field(person, named, source_session_id=person.session_ids[2])}
    profile = _profile(person, person.profile_id, **fields)
    # The first external id is lost by a save without it.
    await data.profiles.save(profile.model_copy(update={"external_id": person.text()}))
    await data.profiles.save(profile)
    # The first value goes to the history, and so do fields of the other profile.
    await data.profiles.update_field(person.tenant_id, person.profile_id, _field(person, "city"))
    await data.profiles.save(_profile(person, person.merged_id))
    assert await data.profiles.merge_profiles(person.tenant_id, person.merged_id, person.profile_id)


async def _plant_session(data: DataLayer, person: Planted, session_id: UUID) -> None:
    hot = session_id == person.session_ids[0]
    address = (await _profile_of(data, person)).channel_identities[0].channel_user_id
    visit = StepVisitFactory(
        step_name=person.text(),
        transition_reason=person.text(),
        checkpoint_description=person.text(),
        step_content_hash=person.text(),
    )
    session: Session = SessionFactory(
        session_id=session_id,
        tenant_id=person.tenant_id,
        # The hot one is found by the address alone, the other one by the profile that was merged alone.
        channel=Channel.EMAIL,
        user_channel_id=address if hot else person.text(),
        customer_profile_id=None if hot else person.merged_id,
        step_history=[visit],
        rule_fires={person.text(): 1},
        rule_last_fire_turn={person.text(): 1},
        variables=person.document(),
        variable_updated_at={person.text(): utcnow()},
        pending_migration=PendingMigration(
            target_version=2, anchor_content_hash=person.text(), migration_plan_id=uuid4()
        ),
        scenario_checksum=person.text(),
    )
    # A later save leaves an entry behind in the index of the first status.
    for status in (SessionStatus.PROCESSING, SessionStatus.ACTIVE):
        session.status = status
        await data.sessions.save(session)
    if not hot and isinstance(data.sessions, RedisSessionStore):
        assert await data.sessions.demote_to_persistent(session_id)


async def _profile_of(data: DataLayer, person: Planted) -> CustomerProfile:
    profile = await data.profiles.get_by_id(person.tenant_id, person.profile_id)
    assert profile is not None
    return profile


async def _plant_turns(data: DataLayer, person: Planted, session_id: UUID) -> None:
    call = ToolCallFactory(
        input=person.document(), output=person.document(), success=False, error=person.text()
    )
    turn = TurnRecordFactory(
        tenant_id=person.tenant_id,
        session_id=session_id,
        user_message=person.text(),
        agent_response=person.text(),
        tool_calls=[call, ToolCallFactory(input={}, output=[person.text()])],
    )
    await data.audit.save_turn(turn)
    person.turn_ids.append(turn.turn_id)
    about = {"tenant_id": person.tenant_id, "session_id": None}
    await data.audit.save_events(
        [
            AuditEventFactory(**{**about, "session_id": session_id}, event_data=person.document()),
            AuditEventFactory(**about, turn_id=turn.turn_id, event_data=person.document()),
            AuditEventFactory(
                **about, event_data={"profile": str(person.profile_id).upper(), **person.document()}
            ),
        ]
    )


async def _plant_memory(data: DataLayer, person: Planted) -> None:
    text, of_tenant = person.text, {"tenant_id": person.tenant_id}
    own_group = text()
    mentioned = EntityFactory(
        **of_tenant, group_id="shared", name=text(), entity_type=text(), attributes=person.document()
    )
    in_group = EntityFactory(
        **of_tenant, group_id=own_group, name=text(), attributes=person.document(), embedding=VECTOR
    )
    about = EntityFactory(
        **of_tenant, group_id="shared", name=text(), attributes={"customer": person.merged_id.hex}
    )
    for entity in (mentioned, in_group, about):
        await data.memory.add_entity(entity)
    await data.memory.add_relationship(
        RelationshipFactory(
            **of_tenant,
            group_id="shared",
            from_entity_id=mentioned.id,
            to_entity_id=in_group.id,
            relation_type=text(),
            attributes=person.document(),
        )
    )
    await data.memory.add_relationship(
        RelationshipFactory(
            **of_tenant, group_id=own_group, from_entity_id=about.id, to_entity_id=mentioned.id
        )
    )
    of_customer = {
        "customer_profile_id": person.profile_id,
        "entity_ids": [mentioned.id],
        "embedding": VECTOR,
    }
    # What belongs to the customer in one way only, one for each way; the last one is deleted softly.
    ways: list[dict[str, Any]] = [
        {"group_id": own_group, **of_customer, "embedding_model": text()},
        {"group_id": "shared", "customer_profile_id": person.merged_id},
        {"group_id": "shared", "session_id": person.session_ids[2]},
        {"group_id": f"customer:{person.profile_id}"},
        {"group_id": "shared", "source_metadata": {"about": str(person.profile_id), **person.document()}},
        {"group_id": own_group, **of_customer, "session_id": person.session_ids[0]},
    ]
    episodes = [EpisodeFactory(**of_tenant, content=text(), **way) for way in ways]
    await data.memory.add_episodes(episodes)
    assert await data.memory.delete_episode(person.tenant_id, episodes[-1].id)
    sources = [
        str(person.profile_id),
        person.session_ids[0].hex,
        str(episodes[0].id),
        str(person.turn_ids[0]),
    ]
    await data.vectors.add_embeddings(
        [
            EmbeddingFactory(
                **of_tenant, content=text(), metadata=person.document(), source_type=text(), source_id=source
            )
            for source in sources
        ]
        + [EmbeddingFactory(**of_tenant, content=text(), metadata={"customer": str(person.merged_id)})]
    )


async def _plant_runs(data: DataLayer, person: Planted) -> None:
    text, of_tenant = person.text, {"tenant_id": person.tenant_id}
    external_id = (await _profile_of(data, person)).external_id
    ways: list[dict[str, Any]] = [
        {"actor": external_id},
        {"actor": f"customer {person.profile_id}"},
        {"trace_id": person.session_ids[0].hex},
        {"idempotency_key": f"{person.session_ids[2]}-1"},
        {"request_payload": {"session": str(person.session_ids[1]), **person.document()}},
        {},
    ]
    runs = [RunFactory(**of_tenant, autonomy_level=text(), error_message=text(), **way) for way in ways]
    for run in runs:
        await data.runs.save_run(run)
        in_run = {**of_tenant, "run_id": run.id}
        step = StepFactory(
            **in_run,
            node_name=text(),
            # The last run is known to be the customer's by its step alone.
            input_data={"profile": str(person.merged_id), **person.document()},
            output_data=person.document(),
            error_message=text(),
        )
        await data.runs.save_step(step)
        await data.runs.save_artifact(
            ArtifactFactory(**in_run, artifact_type=text(), url=text(), metadata=person.document())
        )
        await data.runs.save_llm_call(
            LLMCallFactory(**in_run, step_id=step.id, model=text(), provider=text())
        )
    # A run that is softly deleted is still held.
    runs[-1].deleted_at = utcnow() - timedelta(days=1)
    await data.runs.save_run(runs[-1])


# -- the search ------------------------------------------------------------------------------------------------


async def everything_held(data: DataLayer) -> str:
    """All that the servers hold: every column of every table, every key of Redis with its value."""
    return "\n".join([*await _rows(data), *await _redis_values(data)])


async def _rows(data: DataLayer) -> list[str]:
    if not data.settings.uses_postgres:
        stores: tuple[Any, ...] = (data.profiles, data.memory, data.audit, data.runs, data.vectors)
        tables = [table for store in stores for table in store.tables()]
        return [row.model_dump_json() for table in tables for row in table.rows(None)]
    async with administrator(data.settings.database_url) as connection:
        names = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        assert {row["tablename"] for row in names} >= set(metadata.tables)
        documents = await connection.fetch("SELECT document FROM sessions")
        inflated = [zlib.decompress(row["document"]).decode() for row in documents]
        return inflated + [
            row[0]
            for name in names
            for row in await connection.fetch(f"SELECT row::text FROM {name[0]} AS row")  # noqa: S608 - ours.
        ]


async def _redis_values(data: DataLayer) -> list[str]:
    if not isinstance(data.sessions, RedisSessionStore):
        assert isinstance(data.sessions, InMemorySessionStore)
        return [one.session.model_dump_json() for one in data.sessions._tables.sessions.rows(None)]
    redis: Any = data.sessions.client
    found: list[str] = []
    async for key in redis.scan_iter(match=f"{data.settings.session_key_prefix}:*"):
        found.append(key.decode())
        if await redis.type(key) == b"zset":
            found += [member.decode() for member in await redis.zrange(key, 0, -1)]
        else:
            found.append(_inflated(await redis.get(key)))
    return found


def _inflated(value: bytes) -> str:
    head, _, packed = value.partition(b"\n")
    return f"{head!r}{zlib.decompress(packed).decode()}" if packed else value.decode()
