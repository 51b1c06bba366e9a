"""What a customer had once is theirs, erasures share the work, and an export comes in lines."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from datetime import timedelta
from time import monotonic
from typing import Any
from uuid import UUID, uuid4

import pytest
from pydantic import BaseModel

from soldier_data.audit import AuditEvent
from soldier_data.base.models import utcnow
from soldier_data.base.subjects import BATCH
from soldier_data.data_layer import DataLayer
from soldier_data.postgres.database import Database
from soldier_data.profiles import CustomerProfile
from soldier_data.sessions import Session
from soldier_data.settings import Settings
from tests.conftest import DIMENSIONS
from tests.factories.audit import TurnRecordFactory
from tests.factories.memory import EpisodeFactory
from tests.factories.profiles import CustomerProfileFactory
from tests.factories.runs import RunFactory
from tests.factories.sessions import SessionFactory
from tests.reliability.conftest import Counts, Found
from tests.reliability.planted import everything_held, plant


async def _conversation(layer: DataLayer, profile: CustomerProfile, text: str) -> Session:
    """A conversation that is known to be the customer's by their address alone, and a run that is, too."""
    [identity] = profile.channel_identities
    session: Session = SessionFactory(
        tenant_id=profile.tenant_id,
        channel=identity.channel,
        user_channel_id=identity.channel_user_id,
        customer_profile_id=None,
        variables={"said": text},
        created_at=utcnow(),
    )
    await layer.sessions.save(session)
    of_session = {"tenant_id": profile.tenant_id, "session_id": session.session_id}
    await layer.audit.save_turn(TurnRecordFactory(**of_session, user_message=text))
    await layer.memory.add_episode(EpisodeFactory(**of_session, content=text))
    run = RunFactory(
        tenant_id=profile.tenant_id, actor=identity.channel_user_id, error_message=text, created_at=utcnow()
    )
    await layer.runs.save_run(run)
    return session


async def _saved_profile(layer: DataLayer, tenant_id: UUID) -> CustomerProfile:
    profile: CustomerProfile = CustomerProfileFactory(tenant_id=tenant_id)
    await layer.profiles.save(profile)
    return profile


@pytest.mark.parametrize("how", ["deleted", "saved without", "merged, the target deleted"])
async def test_an_erasure_after_a_deletion_leaves_no_text(
    layer: DataLayer, tenant_id: UUID, how: str
) -> None:
    profile, text = await _saved_profile(layer, tenant_id), f"canary{uuid4().hex}"
    await _conversation(layer, profile, text)
    if how == "deleted":
        await layer.profiles.delete(tenant_id, profile.id)
    elif how == "saved without":
        await layer.profiles.save(profile.model_copy(update={"channel_identities": []}))
    else:
        target = await _saved_profile(layer, tenant_id)
        await layer.profiles.merge_profiles(tenant_id, profile.id, target.id)
        await layer.profiles.delete(tenant_id, target.id)
    exported = await layer.export_customer(tenant_id, profile.id)
    held = (exported.sessions, exported.turn_records, exported.episodes, exported.runs)
    assert [len(records) for records in held] == [1, 1, 1, 1]
    assert exported.former_identifiers
    await layer.erase_customer(tenant_id, profile.id)
    left = await everything_held(layer)
    assert text not in left
    assert profile.channel_identities[0].channel_user_id not in left


async def test_what_the_next_holder_of_an_address_says_is_theirs(layer: DataLayer, tenant_id: UUID) -> None:
    first, texts = await _saved_profile(layer, tenant_id), [f"canary{uuid4().hex}" for _ in range(2)]
    before = await _conversation(layer, first, texts[0])
    await layer.profiles.delete(tenant_id, first.id)
    second = CustomerProfileFactory(tenant_id=tenant_id, channel_identities=first.channel_identities)
    await layer.profiles.save(second)
    after = await _conversation(layer, second, texts[1])
    for profile, session, (own, others) in (
        (first, before, texts),
        (second, after, texts[::-1]),
    ):
        exported = (await layer.export_customer(tenant_id, profile.id)).model_dump_json()
        assert own in exported
        assert str(session.session_id) in exported
        assert others not in exported
    await layer.erase_customer(tenant_id, first.id)
    held = await everything_held(layer)
    assert texts[0] not in held
    assert held.count(texts[1]) >= 4


async def test_sessions_that_a_lower_age_limit_hides_are_erased_too(
    settings: Settings, tenant_id: UUID
) -> None:
    older = settings.model_copy(update={"session_max_age": timedelta(days=40)})
    younger = settings.model_copy(update={"session_max_age": timedelta(days=10)})
    text = f"canary{uuid4().hex}"
    async with DataLayer.open(older) as before, DataLayer.open(younger) as after:
        profile = await _saved_profile(before, tenant_id)
        [identity] = profile.channel_identities
        for customer in (profile.id, None):
            session = SessionFactory(
                tenant_id=tenant_id,
                channel=identity.channel,
                user_channel_id=identity.channel_user_id,
                customer_profile_id=customer,
                variables={"said": text},
                created_at=utcnow() - timedelta(days=20),
            )
            await before.sessions.save(session)
        assert await after.sessions.list_by_customer(tenant_id, profile.id) == []
        report = await after.erase_customer(tenant_id, profile.id)
        assert report.removed["sessions"] == 2
        assert text not in await everything_held(before)


async def test_erasures_of_one_customer_at_once_share_the_work(
    layer: DataLayer, tenant_id: UUID, count: Counts, report: Found
) -> None:
    rounds = count(4, 60)
    for _ in range(rounds):
        person = await plant(layer, tenant_id)
        reports = await asyncio.gather(
            *(layer.erase_customer(tenant_id, id_) for id_ in (person.profile_id,) * 2 + (person.merged_id,))
        )
        assert person.mark not in await everything_held(layer)
        removed = [report.removed["customer_profiles"] for report in reports]
        assert sum(removed) == 2
    report(
        "three erasures of one customer at once",
        bar="all succeed, 0 texts left",
        found=f"{3 * rounds} of {3 * rounds} succeeded, 0 texts left",
    )


def _parsed(lines: list[bytes]) -> list[tuple[str, dict[str, Any]]]:
    assert all(line.endswith(b"\n") and line.count(b"\n") == 1 for line in lines)
    return [(each["type"], each["data"]) for each in map(json.loads, lines)]


async def test_an_export_in_lines_holds_what_the_whole_one_does(layer: DataLayer, tenant_id: UUID) -> None:
    person = await plant(layer, tenant_id)
    whole = await layer.export_customer(tenant_id, person.profile_id)
    (first, header), *records, (last, trailer) = _parsed(
        [line async for line in layer.export_customer_lines(tenant_id, person.profile_id)]
    )
    assert (first, last) == ("header", "trailer")
    assert header["profile_ids"] == [str(id_) for id_ in whole.profile_ids]
    found = [data for _, data in records]
    for entities in whole.__dict__.values():
        for entity in entities if isinstance(entities, list) else ():
            if isinstance(entity, BaseModel):
                assert entity.model_dump(mode="json", exclude={"embedding"}) in found
    assert trailer["counts"] == Counter(kind for kind, _ in records)
    assert sum(trailer["counts"].values()) == len(records)


async def test_an_export_has_vectors_only_if_they_are_asked_for(layer: DataLayer, tenant_id: UUID) -> None:
    person = await plant(layer, tenant_id)
    whole = await layer.export_customer(tenant_id, person.profile_id)
    assert not any(each.embedding for each in whole.episodes)
    assert not any(each.embedding for each in whole.entities)
    assert not any(each.embedding for each in whole.embeddings)
    lines = _parsed([line async for line in layer.export_customer_lines(tenant_id, person.profile_id)])
    assert not any("embedding" in data for _, data in lines)
    whole = await layer.export_customer(tenant_id, person.profile_id, with_embeddings=True)
    assert {len(each.embedding) for each in whole.embeddings} == {DIMENSIONS}
    assert any(each.embedding for each in whole.episodes)
    asked = layer.export_customer_lines(tenant_id, person.profile_id, with_embeddings=True)
    lines = _parsed([line async for line in asked])
    assert all(len(data["embedding"]) == DIMENSIONS for kind, data in lines if kind == "embedding")


async def test_an_export_in_lines_reads_a_page_at_a_time(
    data: DataLayer, tenant_id: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    profile = await _saved_profile(data, tenant_id)
    session_id = uuid4()
    turns = [TurnRecordFactory(tenant_id=tenant_id, session_id=session_id) for _ in range(BATCH * 2 + 1)]
    await data.audit.save_turns(turns)
    documents: list[int] = []
    fetch_all = Database.fetch_all

    async def counting(database: Database, statement: Any, values: Any) -> list[Any]:
        rows = await fetch_all(database, statement, values)
        documents.append(sum("user_message" in row for row in rows))
        return rows

    monkeypatch.setattr(Database, "fetch_all", counting)
    lines = [
        line async for line in data.export_customer_lines(tenant_id, profile.id, session_ids=[session_id])
    ]
    assert len(lines) == len(turns) + 3
    assert max(documents) == BATCH


async def test_an_erasure_costs_as_much_for_many_sessions_as_for_few(
    data: DataLayer, tenant_id: UUID, count: Counts, report: Found
) -> None:
    events = count(3_000, 100_000)
    details = [{"step": str(uuid4()), "trace": uuid4().hex, "note": "on its way " * 10} for _ in range(8)]
    for start in range(0, events, 3_000):
        await data.audit.save_events(
            AuditEvent(tenant_id=tenant_id, event_type="tool_called", event_data={"all": details, "n": n})
            for n in range(start, min(start + 3_000, events))
        )
    took: list[float] = []
    for sessions in (10, 200, 800):
        profile = await _saved_profile(data, tenant_id)
        session_ids = [uuid4() for _ in range(sessions)]
        of_person = {"tenant_id": tenant_id, "event_type": "tool_called"}
        await data.audit.save_events(
            AuditEvent(**of_person, event_data={"of": str(session_id)}) for session_id in session_ids
        )
        started = monotonic()
        erased = await data.erase_customer(tenant_id, profile.id, session_ids=session_ids)
        took.append(monotonic() - started)
        assert erased.removed["audit_events"] == sessions
    if count.soak:
        assert took[1] < 3 * took[0]
    report(
        f"a customer erased who has 10, 200 and 800 sessions, beside {events:,} audit events of 1 to 2 kB",
        bar="200 sessions take less than three times as long as 10",
        found=f"{took[0]:.1f} s, {took[1]:.1f} s and {took[2]:.1f} s",
    )
