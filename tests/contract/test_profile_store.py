"""The contract of `ProfileStore`, run against every backend: saving and reading whole profiles."""

from __future__ import annotations

from uuid import UUID, uuid4

import pytest

from soldier_data.base.models import utcnow
from soldier_data.errors import ConflictError
from soldier_data.profiles import (
    Channel,
    CustomerProfile,
    ProfileStore,
    VerificationLevel,
)
from tests.cases.kinds.profiles import PROFILE
from tests.cases.values import TEXT
from tests.factories.profiles import (
    ChannelIdentityFactory,
    ConsentFactory,
    CustomerProfileFactory,
    FullProfileFactory,
    ProfileAssetFactory,
    ProfileFieldFactory,
)


async def _saved(store: ProfileStore, profile: CustomerProfile) -> CustomerProfile:
    await store.save(profile)
    return profile


# -- saving and reading ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [None, True, False, 0, -1, 2**1999, 0.5, 1e-7, "", "null", '"', TEXT, [], [None], {}, {"a": None}],
)
async def test_a_field_holds_any_json_value(
    profile_store: ProfileStore, tenant_id: UUID, value: object
) -> None:
    field = ProfileFieldFactory(name="x", value=value)
    profile = CustomerProfileFactory(tenant_id=tenant_id, fields={"x": field})
    await profile_store.save(profile)
    found = await profile_store.get_by_id(tenant_id, profile.id)
    assert found is not None
    assert repr(found.fields["x"].value) == repr(value)


async def test_parts_keep_their_order_and_fields_are_sorted_by_name(
    profile_store: ProfileStore, tenant_id: UUID
) -> None:
    names = ["b", "a", "B", "ä", "_", "漢", "\U0001f600", "\uffee", ""]
    profile = CustomerProfileFactory(
        tenant_id=tenant_id,
        channel_identities=[ChannelIdentityFactory(channel_user_id=f"{n:02}") for n in (3, 1, 2)],
        assets=[ProfileAssetFactory(id=UUID(int=n)) for n in (3, 1, 2)],
        consents=[ConsentFactory(consent_type=f"{n}") for n in (3, 1, 2)],
        fields={name: ProfileFieldFactory(name=name) for name in names},
    )
    await profile_store.save(profile)
    found = await profile_store.get_by_id(tenant_id, profile.id)
    assert found == profile
    assert list(found.fields) == sorted(names)


async def test_a_profile_is_found_by_id_customer_and_identity(
    profile_store: ProfileStore, tenant_id: UUID
) -> None:
    profile = await _saved(profile_store, FullProfileFactory(tenant_id=tenant_id))
    await _saved(profile_store, FullProfileFactory(tenant_id=tenant_id))

    assert await profile_store.get_by_id(tenant_id, profile.id) == profile
    assert await profile_store.get_by_customer_id(tenant_id, profile.customer_id) == profile
    for identity in profile.channel_identities:
        key = (identity.channel, identity.channel_user_id)
        assert await profile_store.get_by_channel_identity(tenant_id, *key) == profile


async def test_what_does_not_exist_is_none(profile_store: ProfileStore, tenant_id: UUID) -> None:
    profile = await _saved(profile_store, CustomerProfileFactory(tenant_id=tenant_id))
    user_id = profile.channel_identities[0].channel_user_id

    assert await profile_store.get_by_id(tenant_id, uuid4()) is None
    assert await profile_store.get_by_id(tenant_id, profile.customer_id) is None
    assert await profile_store.get_by_customer_id(tenant_id, profile.id) is None
    assert await profile_store.get_by_channel_identity(tenant_id, Channel.WHATSAPP, "nobody") is None
    assert await profile_store.get_by_channel_identity(tenant_id, Channel.API, user_id) is None


async def test_what_is_returned_is_a_copy(profile_store: ProfileStore, tenant_id: UUID) -> None:
    profile = await _saved(profile_store, FullProfileFactory(tenant_id=tenant_id))
    before = profile.model_copy(deep=True)
    profile.fields["address"].value["number"] = 8
    profile.assets.clear()
    found = await profile_store.get_by_id(tenant_id, profile.id)
    assert found == before
    found.consents.clear()
    found.fields["address"].value["number"] = 9
    history = await profile_store.get_field_history(tenant_id, profile.id, "address")
    history[0].value["number"] = 10
    assert await profile_store.get_by_id(tenant_id, profile.id) == before


async def test_saving_again_replaces_the_profile_and_all_its_parts(
    profile_store: ProfileStore, tenant_id: UUID
) -> None:
    first = await _saved(profile_store, CustomerProfileFactory(tenant_id=tenant_id, **PROFILE.full()))
    second = FullProfileFactory(tenant_id=tenant_id, id=first.id)
    await profile_store.save(second)
    assert await profile_store.get_by_id(tenant_id, first.id) == second
    assert await profile_store.get_by_customer_id(tenant_id, first.customer_id) is None
    key = (first.channel_identities[0].channel, first.channel_identities[0].channel_user_id)
    assert await profile_store.get_by_channel_identity(tenant_id, *key) is None


async def test_parts_are_changed_moved_added_and_removed_by_a_save(
    profile_store: ProfileStore, tenant_id: UUID
) -> None:
    profile = await _saved(profile_store, FullProfileFactory(tenant_id=tenant_id))
    profile.channel_identities.reverse()
    profile.channel_identities[0].verified = False
    profile.channel_identities.insert(1, ChannelIdentityFactory(channel=Channel.SLACK))
    profile.assets[0].verification_result = {"ok": 1}
    profile.assets[1].size_bytes += 1
    profile.assets.reverse()
    del profile.consents[0]
    profile.fields["city"].verified = True
    del profile.fields["address"]
    profile.fields["language"] = ProfileFieldFactory(name="language")
    await profile_store.save(profile)
    assert await profile_store.get_by_id(tenant_id, profile.id) == profile


async def test_saving_sets_updated_at_and_counts_revisions(
    profile_store: ProfileStore, tenant_id: UUID
) -> None:
    profile = CustomerProfileFactory(tenant_id=tenant_id, revision=41)
    for revision in (1, 2, 3):
        before = utcnow()
        await profile_store.save(profile)
        assert profile.revision == revision
        assert before <= profile.updated_at <= utcnow()
        assert await profile_store.get_by_id(tenant_id, profile.id) == profile


async def test_one_id_may_be_saved_in_two_tenants(profile_store: ProfileStore) -> None:
    profile = await _saved(profile_store, CustomerProfileFactory(**PROFILE.full()))
    other = profile.model_copy(deep=True, update={"tenant_id": uuid4()})
    other.verification_level = VerificationLevel.UNVERIFIED
    other.fields[TEXT].value = 7
    await profile_store.save(other)
    assert await profile_store.get_by_id(profile.tenant_id, profile.id) == profile
    assert await profile_store.get_by_id(other.tenant_id, profile.id) == other
    assert len(await profile_store.get_field_history(profile.tenant_id, profile.id, TEXT)) == 1


# -- revisions -------------------------------------------------------------------------------------------------


async def test_a_conditional_save_succeeds_only_on_the_stored_revision(
    profile_store: ProfileStore, tenant_id: UUID
) -> None:
    profile = CustomerProfileFactory(tenant_id=tenant_id)
    await profile_store.save(profile, if_revision=0)
    await profile_store.save(profile, if_revision=1)
    before = profile.model_copy(deep=True)
    for stale in (0, 1, 3):
        profile.fields["city"].value = f"{stale}"
        with pytest.raises(ConflictError, match="revision"):
            await profile_store.save(profile, if_revision=stale)
        assert (profile.revision, profile.updated_at) == (2, before.updated_at)
    assert await profile_store.get_by_id(tenant_id, profile.id) == before
    assert len(await profile_store.get_field_history(tenant_id, profile.id, "city")) == 1
    with pytest.raises(ConflictError, match="revision"):
        await profile_store.save(CustomerProfileFactory(tenant_id=tenant_id), if_revision=1)


async def test_every_change_of_a_part_counts_as_a_revision(
    profile_store: ProfileStore, tenant_id: UUID
) -> None:
    profile = await _saved(profile_store, CustomerProfileFactory(tenant_id=tenant_id))
    await profile_store.update_field(tenant_id, profile.id, ProfileFieldFactory(name="city"))
    await profile_store.add_asset(tenant_id, profile.id, ProfileAssetFactory())
    await profile_store.link_channel(tenant_id, profile.id, ChannelIdentityFactory())
    found = await profile_store.get_by_id(tenant_id, profile.id)
    assert found is not None
    assert found.revision == 4
    assert profile.updated_at <= found.updated_at <= utcnow()
    with pytest.raises(ConflictError):
        await profile_store.save(profile, if_revision=1)


async def test_updated_at_never_goes_back(profile_store: ProfileStore, tenant_id: UUID) -> None:
    profile = CustomerProfileFactory(tenant_id=tenant_id)
    moments = []
    for change in range(6):
        if change % 2:
            await profile_store.update_field(tenant_id, profile.id, ProfileFieldFactory(name="city"))
        else:
            await profile_store.save(profile)
        found = await profile_store.get_by_id(tenant_id, profile.id)
        assert found is not None
        moments.append(found.updated_at)
    assert moments == sorted(moments)
