"""Which records of the stores are a person's, and which are somebody else's although they lie beside them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from soldier_data.base.models import utcnow
from soldier_data.base.subjects import DataSubject
from soldier_data.data_layer import DataLayer
from soldier_data.memory import MemoryStore
from soldier_data.profiles import CustomerProfile, ProfileStore
from soldier_data.runs import RunStore
from soldier_data.settings import Settings
from soldier_data.vectors import VectorStore
from tests.conftest import DIMENSIONS
from tests.factories.memory import EntityFactory, EpisodeFactory, RelationshipFactory
from tests.factories.profiles import CustomerProfileFactory, FullProfileFactory
from tests.factories.runs import RunFactory
from tests.factories.sessions import SessionFactory
from tests.factories.vectors import EmbeddingFactory


@pytest.fixture
def person(tenant_id: UUID) -> DataSubject:
    return DataSubject(tenant_id, frozenset([uuid4()]), session_ids=frozenset([uuid4()]))


def only(ids: frozenset[UUID]) -> UUID:
    [id_] = ids
    return id_


async def test_an_episode_that_names_another_customer_is_theirs(
    memory_store: MemoryStore, person: DataSubject
) -> None:
    of_tenant = {"tenant_id": person.tenant_id}
    in_session = {"session_id": only(person.session_ids), "group_id": f"customer {only(person.profile_ids)}"}
    own = EpisodeFactory(**of_tenant, **in_session)
    theirs = EpisodeFactory(**of_tenant, **in_session, customer_profile_id=uuid4())
    unrelated = EpisodeFactory(**of_tenant, session_id=uuid4())
    await memory_store.add_episodes([own, theirs, unrelated])
    assert await memory_store.list_subject_sessions(person) == list(person.session_ids)
    assert (await memory_store.export_subject(person))["episodes"] == [own]
    assert (await memory_store.erase_subject(person))["episodes"] == [own.id]
    for kept in (theirs, unrelated):
        assert await memory_store.get_episode(person.tenant_id, kept.id) == kept


async def test_entities_that_others_share_stay_and_those_of_the_person_alone_go(
    memory_store: MemoryStore, person: DataSubject
) -> None:
    of_tenant = {"tenant_id": person.tenant_id}
    shared, private, in_own_group, unmentioned = (
        EntityFactory(**of_tenant, group_id=group) for group in ("both", "both", "own", "both")
    )
    for entity in (shared, private, in_own_group, unmentioned):
        await memory_store.add_entity(entity)
    between, gone = (
        RelationshipFactory(**of_tenant, group_id="both", from_entity_id=shared.id, to_entity_id=to.id)
        for to in (unmentioned, private)
    )
    for relationship in (between, gone):
        await memory_store.add_relationship(relationship)
    customer = {**of_tenant, "customer_profile_id": only(person.profile_ids)}
    await memory_store.add_episodes(
        [
            EpisodeFactory(**customer, group_id="own"),
            EpisodeFactory(**customer, group_id="both", entity_ids=[shared.id, private.id]),
            EpisodeFactory(**of_tenant, group_id="both", entity_ids=[shared.id]),
        ]
    )
    erased = await memory_store.erase_subject(person)
    assert set(erased["entities"]) == {private.id, in_own_group.id}
    assert erased["relationships"] == [gone.id]
    for kept in (shared, unmentioned):
        assert await memory_store.get_entity(person.tenant_id, kept.id) == kept
    assert await memory_store.get_relationship(person.tenant_id, between.id) == between


@pytest.mark.parametrize("spelling", [str, str.upper, lambda text: UUID(text).hex])
async def test_an_id_is_found_in_every_spelling(
    run_store: RunStore, vector_store: VectorStore, person: DataSubject, spelling: Any
) -> None:
    text = spelling(str(only(person.profile_ids)))
    run = RunFactory(tenant_id=person.tenant_id, request_payload={"a": [{"b": text}]})
    other = RunFactory(tenant_id=person.tenant_id, request_payload={"a": text[:-1]})
    for each in (run, other):
        await run_store.save_run(each)
    assert (await run_store.erase_subject(person))["runs"] == [run.id]
    assert await run_store.get_run(person.tenant_id, other.id) == other
    embedding = EmbeddingFactory(tenant_id=person.tenant_id, metadata={"of": text})
    await vector_store.add_embedding(embedding)
    assert await vector_store.erase_subject(person) == {"embeddings": [embedding.id]}


async def test_all_profiles_of_a_chain_of_mergers_are_one_person(
    profile_store: ProfileStore, tenant_id: UUID
) -> None:
    first, second, third = (CustomerProfileFactory(tenant_id=tenant_id) for _ in range(3))
    other = FullProfileFactory(tenant_id=tenant_id)
    for profile in (first, second, third, other):
        await profile_store.save(profile)
    await profile_store.merge_profiles(tenant_id, first.id, second.id)
    await profile_store.merge_profiles(tenant_id, second.id, third.id)
    whole = {first.id, second.id, third.id}
    for profile in (first, second, third):
        subject = await profile_store.get_data_subject(tenant_id, profile.id)
        assert subject.profile_ids == whole
        assert subject.identities == {
            (identity.channel, identity.channel_user_id)
            for each in (first, second, third)
            for identity in each.channel_identities
        }
    # Saving the whole profile leaves what was merged into it known.
    stored = await profile_store.get_by_id(tenant_id, third.id)
    assert stored is not None
    await profile_store.save(stored)
    subject = await profile_store.get_data_subject(tenant_id, first.id)
    assert subject.profile_ids == whole
    assert set((await profile_store.erase_subject(subject))["customer_profiles"]) == whole
    assert await profile_store.get_by_id(tenant_id, other.id) == other
    assert (await profile_store.get_data_subject(tenant_id, first.id)).profile_ids == {first.id}


async def test_a_session_of_another_customer_is_not_taken_for_the_persons(tenant_id: UUID) -> None:
    async with DataLayer.in_memory(Settings(embedding_dimensions=DIMENSIONS)) as data:
        theirs = SessionFactory(tenant_id=tenant_id)
        await data.sessions.save(theirs)
        profile = CustomerProfileFactory(tenant_id=tenant_id)
        profile.fields["city"].source_session_id = theirs.session_id
        await data.profiles.save(profile)
        report = await data.erase_customer(tenant_id, profile.id, session_ids=[ended := uuid4()])
        assert report.session_ids == [ended]
        assert await data.sessions.get(theirs.session_id) == theirs


async def test_an_id_is_found_wherever_it_stands_in_a_text(run_store: RunStore, person: DataSubject) -> None:
    spelled, other = str(only(person.profile_ids)), str(uuid4())
    run_of_digits = other.replace("-", "")
    around = [
        f"{text}{{}}{text}" for text in ("", "customer ", "a", "-", "f" * 40, f"{other}-", run_of_digits)
    ]
    found = [
        RunFactory(tenant_id=person.tenant_id, request_payload={template.format(text): 1})
        for template in around
        for text in (spelled, spelled.upper(), spelled.replace("-", ""))
    ]
    cut = [
        spelled[1:],
        spelled[:-1],
        spelled.replace("-", "", 1),
        spelled.replace("-", "_"),
        f"{spelled[:20]} {spelled[20:]}",
        spelled[::-1],
    ]
    missed = [RunFactory(tenant_id=person.tenant_id, request_payload={text: [text]}) for text in cut]
    # The two texts of one run do not make an id together.
    half = spelled.replace("-", "")
    missed.append(
        RunFactory(tenant_id=person.tenant_id, actor=half[:16], trace_id=f"{half[16:]}{uuid4().hex[:4]}")
    )
    for run in (*found, *missed):
        await run_store.save_run(run)
    assert set((await run_store.erase_subject(person))["runs"]) == {run.id for run in found}


async def _lose_by_deleting(store: ProfileStore, profile: CustomerProfile) -> None:
    await store.delete(profile.tenant_id, profile.id)


async def _lose_by_saving_it_deleted(store: ProfileStore, profile: CustomerProfile) -> None:
    await store.save(profile.model_copy(update={"deleted_at": utcnow()}))


async def _lose_by_saving_without(store: ProfileStore, profile: CustomerProfile) -> None:
    await store.save(profile.model_copy(update={"channel_identities": [], "external_id": None}))


async def _lose_by_deleting_what_it_was_merged_into(store: ProfileStore, profile: CustomerProfile) -> None:
    target = CustomerProfileFactory(tenant_id=profile.tenant_id)
    await store.save(target)
    await store.merge_profiles(profile.tenant_id, profile.id, target.id)
    await store.delete(profile.tenant_id, target.id)


every_loss = pytest.mark.parametrize(
    "lose",
    [
        _lose_by_deleting,
        _lose_by_saving_it_deleted,
        _lose_by_saving_without,
        _lose_by_deleting_what_it_was_merged_into,
    ],
)


@every_loss
async def test_what_a_profile_has_lost_is_known_until_it_is_purged(
    profile_store: ProfileStore, tenant_id: UUID, lose: Callable[..., Awaitable[None]]
) -> None:
    profile = FullProfileFactory(tenant_id=tenant_id)
    await profile_store.save(profile)
    before = await profile_store.get_data_subject(tenant_id, profile.id)
    await lose(profile_store, profile)
    after = await profile_store.get_data_subject(tenant_id, profile.id)
    assert before.identities <= after.identities
    assert before.external_ids <= after.external_ids
    assert not after.tenures
    former = (await profile_store.export_subject(after))["former_identifiers"]
    assert {(each.kind, each.value) for each in former} >= {
        (str(channel), address) for channel, address in before.identities
    }
    for profile_id in after.profile_ids:
        await profile_store.delete(tenant_id, profile_id)
    await profile_store.purge_deleted(tenant_id, timedelta(seconds=-60))
    purged = await profile_store.get_data_subject(tenant_id, profile.id)
    assert not purged.identities
    assert (await profile_store.export_subject(after))["former_identifiers"] == []


@every_loss
async def test_what_another_has_got_since_is_each_ones_for_a_time(
    profile_store: ProfileStore, tenant_id: UUID, lose: Callable[..., Awaitable[None]]
) -> None:
    profile = CustomerProfileFactory(tenant_id=tenant_id, external_id="crm-1")
    await profile_store.save(profile)
    await lose(profile_store, profile)
    next_one = CustomerProfileFactory(
        tenant_id=tenant_id, external_id="crm-1", channel_identities=profile.channel_identities
    )
    await profile_store.save(next_one)
    first = await profile_store.get_data_subject(tenant_id, profile.id)
    second = await profile_store.get_data_subject(tenant_id, next_one.id)
    early, late = utcnow() - timedelta(days=1), utcnow() + timedelta(days=1)
    for channel, address in second.identities:
        assert [first.held(address, at, kind=channel) for at in (early, late)] == [True, False]
        assert [second.held(address, at, kind=channel) for at in (early, late)] == [False, True]
        assert [first.held(address, at) for at in (early, late)] == [True, False]
    assert [second.held("crm-1", at) for at in (early, late)] == [False, True]
    # Back again, it has both times.
    await profile_store.delete(tenant_id, next_one.id)
    again = await profile_store.get_by_id(tenant_id, profile.id) or profile
    await profile_store.save(profile.model_copy(update={"deleted_at": None, "revision": again.revision}))
    first = await profile_store.get_data_subject(tenant_id, profile.id)
    identity = next_one.channel_identities[0]
    channel, address = identity.channel, identity.channel_user_id
    assert [first.held(address, at, kind=channel) for at in (early, late)] == [True, True]


async def test_a_profile_that_comes_back_is_still_merged_with_all_others(
    profile_store: ProfileStore, tenant_id: UUID
) -> None:
    b, c, d, e = (CustomerProfileFactory(tenant_id=tenant_id) for _ in range(4))
    for profile in (b, c, d, e):
        await profile_store.save(profile)
    await profile_store.merge_profiles(tenant_id, b.id, c.id)
    await profile_store.save(b.model_copy(update={"channel_identities": []}))
    await profile_store.merge_profiles(tenant_id, d.id, b.id)
    whole = {b.id, c.id, d.id}
    for profile in (b, c, d):
        assert (await profile_store.get_data_subject(tenant_id, profile.id)).profile_ids == whole
    assert (await profile_store.get_data_subject(tenant_id, e.id)).profile_ids == {e.id}
    # The one in the middle is purged.
    await profile_store.delete(tenant_id, b.id)
    await profile_store.purge_deleted(tenant_id, timedelta(seconds=-60))
    assert (await profile_store.get_data_subject(tenant_id, c.id)).profile_ids == whole
