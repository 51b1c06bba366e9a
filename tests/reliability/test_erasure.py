"""A customer's data can be handed out whole, and is erased from every store, others' untouched."""

from __future__ import annotations

import asyncio
import random
from time import monotonic
from uuid import UUID, uuid4

import pytest
from sqlalchemy import JSON, Text, make_url

from soldier_data.config import orm as config_orm
from soldier_data.data_layer import DataLayer
from soldier_data.errors import ConfigurationError
from soldier_data.migrations import run_grants
from soldier_data.privacy import ErasureReport
from soldier_data.schema import metadata
from soldier_data.settings import Settings
from tests.backends.connections import administrator
from tests.reliability.conftest import Counts, Found
from tests.reliability.faulty_proxy import faulty_proxy
from tests.reliability.planted import Planted, everything_held, plant


def _texts_in(held: str, person: Planted) -> set[str]:
    return {text for text in person.texts if text in held}


async def test_an_export_holds_every_text_and_an_erasure_leaves_none(
    layer: DataLayer, tenant_id: UUID, report: Found
) -> None:
    person = await plant(layer, tenant_id)
    others = [await plant(layer, tenant_id), await plant(layer, uuid4())]
    assert _texts_in(await everything_held(layer), person) == set(person.texts)

    exported = await layer.export_customer(tenant_id, person.profile_id)
    assert _texts_in(exported.model_dump_json(), person) == set(person.texts)
    before = [await layer.export_customer(other.tenant_id, other.profile_id) for other in others]

    erased = await layer.erase_customer(tenant_id, person.profile_id)
    held = await everything_held(layer)
    assert _texts_in(held, person) == set()
    assert person.mark not in held
    for other, export in zip(others, before, strict=True):
        assert _texts_in(held, other) == set(other.texts)
        after = await layer.export_customer(other.tenant_id, other.profile_id)
        assert after == export.model_copy(update={"exported_at": after.exported_at})

    assert erased.profile_ids == sorted([person.profile_id, person.merged_id])
    assert erased.session_ids == sorted(person.session_ids)
    assert all(erased.removed.values())
    report(
        "a customer planted in every text of every store, erased",
        bar="0 texts left",
        found=f"0 of {len(person.texts)} texts left, 2 other customers unchanged",
    )


# What has a fixed vocabulary, or is filled with ids to be found by.
_NOT_FREE = {
    "channel_identities": {"channel"},
    "former_identifiers": {"kind"},
    "customer_profiles": {"verification_level"},
    "profile_fields": {"source"},
    "episodes": {"content_type", "source"},
    "audit_events": {"event_type"},
    "runs": {"status", "trace_id", "idempotency_key"},
    "steps": {"status"},
    "embeddings": {"source_id", "embedding_model"},
    "entities": {"embedding_model"},
    "sessions": {"channel", "status", "step_content_hash", "write_id"},
}


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Sessions are in PostgreSQL and in Redis."""
    return settings.model_copy(update={"session_durability": "postgres"})


async def test_every_column_that_takes_free_text_was_planted(data: DataLayer, tenant_id: UUID) -> None:
    person = await plant(data, tenant_id)
    of_configuration = {
        row.__tablename__ for row in vars(config_orm).values() if hasattr(row, "__tablename__")
    }
    async with administrator(data.settings.database_url) as connection:
        for table in metadata.tables.values():
            if table.name in of_configuration:
                continue
            texts = {column.name for column in table.columns if isinstance(column.type, Text | JSON)}
            for name in texts - _NOT_FREE.get(table.name, set()):
                rows = await connection.fetch(f'SELECT "{name}"::text AS value FROM {table.name}')  # noqa: S608 - ours.
                assert any(person.mark in (row["value"] or "") for row in rows), f"{table.name}.{name}"


async def test_audit_records_keep_their_shape_and_the_erasure_leaves_its_own(
    layer: DataLayer, tenant_id: UUID
) -> None:
    person = await plant(layer, tenant_id)
    kept = [await layer.audit.get_turn(tenant_id, turn_id) for turn_id in person.turn_ids]
    erased = await layer.erase_customer(tenant_id, person.profile_id)
    for before, turn_id in zip(kept, person.turn_ids, strict=True):
        turn = await layer.audit.get_turn(tenant_id, turn_id)
        assert before is not None
        assert turn is not None
        texts = {"user_message", "agent_response", "tool_calls"}
        assert turn.model_dump(exclude=texts) == before.model_dump(exclude=texts)
        assert (turn.user_message, turn.agent_response) == ("[erased]", "[erased]")
        assert [(call.tool_id, call.success) for call in turn.tool_calls] == [
            (call.tool_id, call.success) for call in before.tool_calls
        ]
    [event] = await layer.audit.list_events_by_session(tenant_id, person.session_ids[0])
    assert event.event_data == {"erased": True}
    assert erased.event_id is not None
    event_of_itself = await layer.audit.get_event(tenant_id, erased.event_id)
    assert event_of_itself is not None
    assert event_of_itself.event_type == "customer_erased"
    assert event_of_itself.event_data["profile_ids"] == [str(id_) for id_ in erased.profile_ids]
    assert event_of_itself.event_data["removed"] == erased.removed


@pytest.mark.parametrize("by_merged_profile", [False, True], ids=["by the profile", "by a merged one"])
async def test_a_repeated_erasure_finds_nothing_to_do(
    layer: DataLayer, tenant_id: UUID, by_merged_profile: bool
) -> None:
    person = await plant(layer, tenant_id)
    profile_id = person.merged_id if by_merged_profile else person.profile_id
    await layer.erase_customer(tenant_id, profile_id)
    held = await everything_held(layer)
    assert person.mark not in held
    again = await layer.erase_customer(tenant_id, profile_id)
    assert again.event_id is None
    assert not any(again.removed.values())
    assert await everything_held(layer) == held


async def test_an_unknown_customer_has_nothing_to_export_or_erase(layer: DataLayer, tenant_id: UUID) -> None:
    person = await plant(layer, tenant_id)
    held = await everything_held(layer)
    for tenant, profile_id in ((tenant_id, uuid4()), (uuid4(), person.profile_id)):
        exported = await layer.export_customer(tenant, profile_id)
        empty = exported.model_dump(exclude={"tenant_id", "profile_ids", "exported_at"})
        assert not any(empty.values())
        report: ErasureReport = await layer.erase_customer(tenant, profile_id)
        assert not any(report.removed.values())
    assert await everything_held(layer) == held


async def test_an_erasure_that_was_broken_off_is_finished_by_the_next_one(
    data: DataLayer, tenant_id: UUID, count: Counts, report: Found
) -> None:
    broken_off = 0
    chance = random.Random(9)  # noqa: S311 - no secret.
    rounds = count(6, 100)
    person = await plant(data, tenant_id)
    started = monotonic()
    await data.erase_customer(tenant_id, person.profile_id)
    as_long = monotonic() - started
    for _ in range(rounds):
        person = await plant(data, tenant_id)
        task = asyncio.create_task(data.erase_customer(tenant_id, person.profile_id))
        await asyncio.sleep(chance.uniform(0, as_long))
        broken_off += task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await data.erase_customer(tenant_id, person.profile_id)
        assert person.mark not in await everything_held(data)
    assert broken_off
    report(
        "an erasure cancelled at a random moment, then repeated",
        bar="0 texts left",
        found=f"0 texts left in {rounds} erasures, {broken_off} of them cut short",
    )


async def test_a_lost_reply_leaves_one_whole_erasure(
    settings: Settings, data: DataLayer, tenant_id: UUID, count: Counts, report: Found
) -> None:
    async with faulty_proxy(settings.database_url) as passing:
        far_settings = settings.model_copy(update={"database_url": passing.url, "pool_size": 1})
        async with DataLayer.open(far_settings) as far:
            before = passing.asked
            # The first time, statements are prepared.
            for _ in range(2):
                before, person = passing.asked, await plant(data, tenant_id)
                await far.erase_customer(tenant_id, person.profile_id)
            replies = passing.asked - before
            # Among the last ones are the commits of all three units of work.
            places = range(0, replies, count(5, 1))
            for place in places:
                person = await plant(data, tenant_id)
                passing.lose_reply(place)
                erased = await far.erase_customer(tenant_id, person.profile_id)
                assert person.mark not in await everything_held(data)
                assert all(erased.removed.values()), place
        assert passing.lost == len(places)
    async with administrator(settings.database_url) as connection:
        told = await connection.fetchval(
            "SELECT count(*) FROM audit_events WHERE event_type = 'customer_erased'"
        )
    assert told == 2 + len(places)
    report(
        "each reply of PostgreSQL lost during an erasure",
        bar="0 texts left, told of once",
        found=f"0 texts left, {len(places)} of {replies} replies lost, each erasure told of once",
    )


async def test_a_service_may_erase_with_the_grant_for_it_alone(
    settings: Settings, data: DataLayer, tenant_id: UUID
) -> None:
    role = f"eraser_{uuid4().hex}"
    person = await plant(data, tenant_id)
    async with administrator(settings.database_url) as owner:
        await owner.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'x'")
        url = make_url(settings.database_url).set(username=role, password="x")  # noqa: S106 - of a test role.
        by_role = url.render_as_string(hide_password=False)
        services = settings.model_copy(update={"database_url": by_role, "row_level_security": True})
        try:
            await run_grants(settings, role)
            async with DataLayer.open(services) as service:
                with pytest.raises(ConfigurationError, match="privilege"):
                    await service.erase_customer(tenant_id, person.profile_id)
                assert _texts_in(await everything_held(data), person) == set(person.texts)
                await run_grants(settings, role, erasure=True)
                await service.erase_customer(tenant_id, person.profile_id)
            assert person.mark not in await everything_held(data)
            async with administrator(by_role) as eraser:
                for statement in (
                    "UPDATE turn_records SET latency_ms = 0",
                    "UPDATE audit_events SET event_type = ''",
                    "DELETE FROM audit_events",
                ):
                    with pytest.raises(Exception, match="permission denied"):
                        await eraser.execute(statement)
            await run_grants(settings, role)
            async with administrator(by_role) as service_again:
                with pytest.raises(Exception, match="permission denied"):
                    await service_again.execute("UPDATE turn_records SET user_message = ''")
        finally:
            await owner.execute(f"DROP OWNED BY {role}")
            await owner.execute(f"DROP ROLE {role}")
