"""The contract of `ProfileStore`, run against every backend: fields and their history, assets, channels."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import pytest

from soldier_data.base.models import utcnow
from soldier_data.profiles import (
    Channel,
    ChannelIdentity,
    CustomerProfile,
    ProfileStore,
)
from tests.factories.profiles import (
    ChannelIdentityFactory,
    CustomerProfileFactory,
    ProfileAssetFactory,
    ProfileFieldFactory,
)


async def _read(store: ProfileStore, profile: CustomerProfile) -> CustomerProfile:
    found = await store.get_by_id(profile.tenant_id, profile.id)
    assert found is not None
    return found


async def _history(store: ProfileStore, profile: CustomerProfile, name: str) -> list[Any]:
    found = await store.get_field_history(profile.tenant_id, profile.id, name)
    return [field.value for field in found]


# -- fields ----------------------------------------------------------------------------------------------------


async def test_a_field_is_added_and_replaced(profile_store: ProfileStore, profile: CustomerProfile) -> None:
    key = (profile.tenant_id, profile.id)
    language = ProfileFieldFactory(name="language", value="de")
    city = ProfileFieldFactory(name="city", value={"name": "Bonn"}, confidence=0.5)
    assert await profile_store.update_field(*key, language) is True
    assert await profile_store.update_field(*key, city) is True
    found = await _read(profile_store, profile)
    assert found.fields == {"address": profile.fields["address"], "city": city, "language": language}
    assert list(found.fields) == ["address", "city", "language"]
    assert found.assets == profile.assets


async def test_the_history_is_newest_first_and_begins_with_the_present(
    profile_store: ProfileStore, profile: CustomerProfile
) -> None:
    key = (profile.tenant_id, profile.id)
    fields = [profile.fields["city"]]
    moments = []
    for value in ("Bonn", "Ulm", "Bonn"):
        fields.append(ProfileFieldFactory(name="city", value=value, source="llm_extracted", verified=True))
        before = utcnow()
        await profile_store.update_field(*key, fields[-1])
        moments.append((before, utcnow()))

    history = await profile_store.get_field_history(*key, "city")

    assert [field.model_copy(update={"replaced_at": None}) for field in history] == fields[::-1]
    assert history[0].replaced_at is None
    for field, (before, after) in zip(history[1:], reversed(moments), strict=True):
        assert field.replaced_at is not None
        assert before <= field.replaced_at <= after
    assert (await _read(profile_store, profile)).fields["city"].replaced_at is None


async def test_a_field_that_was_never_there_has_no_history(
    profile_store: ProfileStore, profile: CustomerProfile
) -> None:
    assert await profile_store.get_field_history(profile.tenant_id, profile.id, "shoe_size") == []
    assert await profile_store.get_field_history(profile.tenant_id, uuid4(), "city") == []


async def test_an_equal_field_changes_nothing(profile_store: ProfileStore, profile: CustomerProfile) -> None:
    field = profile.fields["address"].model_copy(deep=True, update={"replaced_at": utcnow()})
    assert await profile_store.update_field(profile.tenant_id, profile.id, field) is True
    assert await _read(profile_store, profile) == profile
    assert len(await _history(profile_store, profile, "address")) == 1


@pytest.mark.parametrize(
    ("one", "other"), [(1, 1.0), (1, True), (0, False), (0.0, -0.0), (None, "null"), ([], {}), ("1", 1)]
)
async def test_values_that_json_tells_apart_replace_each_other(
    profile_store: ProfileStore, tenant_id: UUID, one: object, other: object
) -> None:
    field = ProfileFieldFactory(name="x", value=one)
    profile = CustomerProfileFactory(tenant_id=tenant_id, fields={"x": field})
    await profile_store.save(profile)
    changed = field.model_copy(update={"value": other})
    await profile_store.update_field(tenant_id, profile.id, changed)
    assert list(map(repr, await _history(profile_store, profile, "x"))) == [repr(other), repr(one)]
    profile.fields["x"] = field
    await profile_store.save(profile)
    assert list(map(repr, await _history(profile_store, profile, "x"))) == [repr(one), repr(other), repr(one)]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("value_type", "text"),
        ("source", "human_entered"),
        ("source_session_id", uuid4()),
        ("source_scenario_id", uuid4()),
        ("source_step_id", uuid4()),
        ("verified", True),
        ("verification_method", "call"),
        ("verified_at", datetime(2026, 1, 1, tzinfo=UTC)),
        ("verified_by", "agent"),
        ("confidence", 0.99),
        ("requires_confirmation", True),
        ("collected_at", datetime(2026, 1, 1, tzinfo=UTC)),
        ("updated_at", datetime(2026, 1, 1, tzinfo=UTC)),
        ("expires_at", datetime(2026, 1, 1, tzinfo=UTC)),
    ],
)
async def test_a_field_that_differs_in_anything_replaces_the_stored_one(
    profile_store: ProfileStore, profile: CustomerProfile, name: str, value: object
) -> None:
    before = profile.fields["city"].model_copy()
    setattr(profile.fields["city"], name, value)
    await profile_store.update_field(profile.tenant_id, profile.id, profile.fields["city"])
    assert (await _read(profile_store, profile)).fields == profile.fields
    profile.fields["city"] = before
    await profile_store.save(profile)
    assert (await _read(profile_store, profile)).fields["city"] == before
    assert len(await _history(profile_store, profile, "city")) == 3


async def test_a_save_sends_replaced_and_removed_fields_to_the_history(
    profile_store: ProfileStore, profile: CustomerProfile
) -> None:
    profile.fields["language"] = ProfileFieldFactory(name="language", value="de")
    await profile_store.save(profile)
    profile.fields["city"].value = "Bonn"
    del profile.fields["language"]
    await profile_store.save(profile)
    await profile_store.save(profile)

    assert await _history(profile_store, profile, "city") == ["Bonn", "Köln"]
    assert await _history(profile_store, profile, "language") == ["de"]
    assert len(await _history(profile_store, profile, "address")) == 1
    [removed] = await profile_store.get_field_history(profile.tenant_id, profile.id, "language")
    assert removed.replaced_at is not None

    await profile_store.update_field(
        profile.tenant_id, profile.id, ProfileFieldFactory(name="language", value="en")
    )
    assert await _history(profile_store, profile, "language") == ["en", "de"]


async def test_what_the_history_gave_can_be_made_the_present_again(
    profile_store: ProfileStore, profile: CustomerProfile
) -> None:
    key = (profile.tenant_id, profile.id)
    await profile_store.update_field(*key, ProfileFieldFactory(name="city", value="Bonn"))
    past = (await profile_store.get_field_history(*key, "city"))[1]
    assert past.replaced_at is not None
    await profile_store.update_field(*key, past)
    found = await _read(profile_store, profile)
    assert found.fields["city"] == profile.fields["city"]
    found.fields["city"].replaced_at = utcnow()
    await profile_store.save(found)
    assert (await _read(profile_store, profile)).fields["city"].replaced_at is None


async def test_updates_at_the_same_time_lose_nothing(
    profile_store: ProfileStore, profile: CustomerProfile
) -> None:
    key = (profile.tenant_id, profile.id)
    fields = [ProfileFieldFactory(name="city", value=number) for number in range(40)]
    others = [ProfileFieldFactory(name=f"f{number}", value=number) for number in range(20)]
    done = await asyncio.gather(*(profile_store.update_field(*key, field) for field in [*fields, *others]))
    assert done == [True] * 60
    found = await _read(profile_store, profile)
    history = await profile_store.get_field_history(*key, "city")
    assert history[0] == found.fields["city"]
    assert sorted(field.value for field in history[:-1]) == list(range(40))
    assert history[-1].value == "Köln"
    replaced = [field.replaced_at for field in history[1:] if field.replaced_at is not None]
    assert len(replaced) == 40
    assert replaced == sorted(replaced, reverse=True)
    assert set(found.fields) == {"city", "address", *(field.name for field in others)}
    assert found.revision == 61


# -- assets ----------------------------------------------------------------------------------------------------


async def test_assets_are_added_at_the_end(profile_store: ProfileStore, profile: CustomerProfile) -> None:
    added = [ProfileAssetFactory(id=UUID(int=n), verification_result={"n": n}) for n in (2, 1)]
    for asset in added:
        assert await profile_store.add_asset(profile.tenant_id, profile.id, asset) is True
    assert (await _read(profile_store, profile)).assets == profile.assets + added


async def test_an_asset_of_a_known_id_replaces_that_one_in_its_place(
    profile_store: ProfileStore, profile: CustomerProfile
) -> None:
    first, second = profile.assets
    changed = ProfileAssetFactory(id=first.id, verified=True, verification_result={"score": 1.0})
    assert await profile_store.add_asset(profile.tenant_id, profile.id, changed) is True
    assert (await _read(profile_store, profile)).assets == [changed, second]
    changed.verification_result = {"score": 1}
    assert await profile_store.add_asset(profile.tenant_id, profile.id, changed) is True
    found = await _read(profile_store, profile)
    assert repr(found.assets[0].verification_result) == "{'score': 1}"
    assert await profile_store.add_asset(profile.tenant_id, profile.id, changed) is True
    assert await _read(profile_store, profile) == found


async def test_two_profiles_may_have_assets_of_one_id(
    profile_store: ProfileStore, profile: CustomerProfile
) -> None:
    other = CustomerProfileFactory(tenant_id=profile.tenant_id)
    await profile_store.save(other)
    asset = ProfileAssetFactory(id=profile.assets[0].id)
    assert await profile_store.add_asset(profile.tenant_id, other.id, asset) is True
    assert (await _read(profile_store, other)).assets == [asset]
    assert await _read(profile_store, profile) == profile


async def test_assets_added_at_the_same_time_are_all_kept(
    profile_store: ProfileStore, profile: CustomerProfile
) -> None:
    added = [ProfileAssetFactory() for _ in range(20)]
    await asyncio.gather(*(profile_store.add_asset(profile.tenant_id, profile.id, asset) for asset in added))
    found = (await _read(profile_store, profile)).assets
    assert found[:2] == profile.assets
    assert sorted(asset.id for asset in found[2:]) == [asset.id for asset in added]


# -- channels --------------------------------------------------------------------------------------------------


async def test_a_channel_is_linked_at_the_end(profile_store: ProfileStore, profile: CustomerProfile) -> None:
    identity = ChannelIdentityFactory(channel=Channel.API, verified=True, verified_at=utcnow(), primary=True)
    assert await profile_store.link_channel(profile.tenant_id, profile.id, identity) is True
    found = await _read(profile_store, profile)
    assert found.channel_identities == [*profile.channel_identities, identity]
    key = (identity.channel, identity.channel_user_id)
    assert await profile_store.get_by_channel_identity(profile.tenant_id, *key) == found


async def test_a_channel_that_the_profile_has_stays_as_it_is(
    profile_store: ProfileStore, profile: CustomerProfile
) -> None:
    known = profile.channel_identities[0]
    again = ChannelIdentity(channel=known.channel, channel_user_id=known.channel_user_id, verified=True)
    assert await profile_store.link_channel(profile.tenant_id, profile.id, again) is True
    assert await _read(profile_store, profile) == profile


async def test_a_channel_of_another_profile_is_not_linked(
    profile_store: ProfileStore, profile: CustomerProfile
) -> None:
    other = CustomerProfileFactory(tenant_id=profile.tenant_id)
    await profile_store.save(other)
    taken = profile.channel_identities[1]
    assert await profile_store.link_channel(profile.tenant_id, other.id, taken) is False
    assert await _read(profile_store, other) == other
    assert await _read(profile_store, profile) == profile


async def test_a_channel_of_a_deleted_profile_can_be_linked(
    profile_store: ProfileStore, profile: CustomerProfile
) -> None:
    other = CustomerProfileFactory(tenant_id=profile.tenant_id, channel_identities=[])
    await profile_store.save(other)
    await profile_store.delete(profile.tenant_id, profile.id)
    for identity in profile.channel_identities:
        assert await profile_store.link_channel(profile.tenant_id, other.id, identity) is True
    assert (await _read(profile_store, other)).channel_identities == profile.channel_identities


async def test_one_of_many_profiles_at_once_gets_the_channel(
    profile_store: ProfileStore, tenant_id: UUID
) -> None:
    profiles = [CustomerProfileFactory(tenant_id=tenant_id) for _ in range(10)]
    for profile in profiles:
        await profile_store.save(profile)
    identity = ChannelIdentityFactory(channel=Channel.SLACK)
    linked = await asyncio.gather(
        *(profile_store.link_channel(tenant_id, profile.id, identity) for profile in profiles * 3)
    )
    owner = await profile_store.get_by_channel_identity(tenant_id, identity.channel, identity.channel_user_id)
    assert owner is not None
    assert linked == [profile.id == owner.id for profile in profiles * 3]
    for profile in profiles:
        found = await _read(profile_store, profile)
        assert found.revision == (2 if profile.id == owner.id else 1)


@pytest.mark.parametrize("known_to_other_tenant", [True, False])
async def test_an_unknown_profile_gets_nothing(
    profile_store: ProfileStore, profile: CustomerProfile, *, known_to_other_tenant: bool
) -> None:
    key = (uuid4(), profile.id) if known_to_other_tenant else (profile.tenant_id, uuid4())
    identity = ChannelIdentityFactory()
    assert await profile_store.update_field(*key, ProfileFieldFactory(name="city")) is False
    assert await profile_store.add_asset(*key, ProfileAssetFactory()) is False
    assert await profile_store.link_channel(*key, identity) is False
    assert await profile_store.delete(*key) is False
    assert await profile_store.get_by_id(*key) is None
    assert await profile_store.get_field_history(*key, "city") == []
    assert await _read(profile_store, profile) == profile
