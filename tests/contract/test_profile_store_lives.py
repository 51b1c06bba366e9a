"""The contract of `ProfileStore`, run against every backend: what is unique, creating and deleting."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from uuid import UUID, uuid4

import pytest

from soldier_data.base.models import utcnow
from soldier_data.errors import ConflictError
from soldier_data.profiles import (
    Channel,
    ChannelIdentity,
    CustomerProfile,
    ProfileStore,
)
from tests.cases.values import TEXT
from tests.factories.profiles import (
    ChannelIdentityFactory,
    CustomerProfileFactory,
    FullProfileFactory,
    ProfileAssetFactory,
    ProfileFieldFactory,
)


async def _saved(store: ProfileStore, profile: CustomerProfile) -> CustomerProfile:
    await store.save(profile)
    return profile


# -- what is unique --------------------------------------------------------------------------------------------


async def test_customer_id_external_id_and_identities_belong_to_one_profile(
    profile_store: ProfileStore, tenant_id: UUID
) -> None:
    first = await _saved(profile_store, FullProfileFactory(tenant_id=tenant_id))
    taken = {
        "customer_id": first.customer_id,
        "external_id": first.external_id,
        "channel_identities": [ChannelIdentityFactory(), first.channel_identities[1]],
    }
    for name, value in taken.items():
        fresh = FullProfileFactory(tenant_id=tenant_id, **{name: value})
        known = await _saved(profile_store, FullProfileFactory(tenant_id=tenant_id))
        before = known.model_copy(deep=True)
        setattr(known, name, value)
        known.fields["city"].value = "elsewhere"
        for profile in (fresh, known):
            revision = profile.revision
            with pytest.raises(ConflictError, match=name):
                await profile_store.save(profile)
            assert profile.revision == revision
        # Nothing of a refused save is kept.
        assert await profile_store.get_by_id(tenant_id, fresh.id) is None
        assert await profile_store.get_by_id(tenant_id, known.id) == before
        assert len(await profile_store.get_field_history(tenant_id, known.id, "city")) == 1
    assert await profile_store.get_by_id(tenant_id, first.id) == first


async def test_what_one_profile_gives_up_another_may_have(
    profile_store: ProfileStore, tenant_id: UUID
) -> None:
    first = await _saved(profile_store, FullProfileFactory(tenant_id=tenant_id))
    freed = first.model_copy(deep=True)
    first.customer_id, first.external_id, first.channel_identities = uuid4(), None, []
    await profile_store.save(first)
    second = await _saved(
        profile_store,
        FullProfileFactory(
            tenant_id=tenant_id,
            customer_id=freed.customer_id,
            external_id=freed.external_id,
            channel_identities=freed.channel_identities,
        ),
    )
    assert await profile_store.get_by_customer_id(tenant_id, freed.customer_id) == second


async def test_what_is_taken_in_one_tenant_is_free_in_another(profile_store: ProfileStore) -> None:
    first = await _saved(profile_store, FullProfileFactory())
    second = first.model_copy(deep=True, update={"tenant_id": uuid4(), "id": uuid4()})
    await profile_store.save(second)
    key = (first.channel_identities[0].channel, first.channel_identities[0].channel_user_id)
    assert await profile_store.get_by_channel_identity(first.tenant_id, *key) == first
    assert await profile_store.get_by_channel_identity(second.tenant_id, *key) == second


async def test_many_profiles_may_have_no_external_id(profile_store: ProfileStore, tenant_id: UUID) -> None:
    for _ in range(3):
        await profile_store.save(CustomerProfileFactory(tenant_id=tenant_id, external_id=None))


# -- deleting --------------------------------------------------------------------------------------------------


async def test_a_deleted_profile_is_gone_from_every_read(
    profile_store: ProfileStore, tenant_id: UUID
) -> None:
    profile = await _saved(profile_store, FullProfileFactory(tenant_id=tenant_id))
    identity = profile.channel_identities[0]

    assert await profile_store.delete(tenant_id, profile.id) is True

    assert await profile_store.get_by_id(tenant_id, profile.id) is None
    assert await profile_store.get_by_customer_id(tenant_id, profile.customer_id) is None
    key = (identity.channel, identity.channel_user_id)
    assert await profile_store.get_by_channel_identity(tenant_id, *key) is None
    assert await profile_store.get_field_history(tenant_id, profile.id, "city") == []


async def test_a_deletion_is_true_the_first_time(profile_store: ProfileStore, tenant_id: UUID) -> None:
    profile = await _saved(profile_store, CustomerProfileFactory(tenant_id=tenant_id))
    assert await profile_store.delete(tenant_id, uuid4()) is False
    assert await profile_store.delete(tenant_id, profile.id) is True
    assert await profile_store.delete(tenant_id, profile.id) is False


async def test_nothing_of_a_deleted_profile_can_be_changed(
    profile_store: ProfileStore, tenant_id: UUID
) -> None:
    profile = await _saved(profile_store, FullProfileFactory(tenant_id=tenant_id))
    await profile_store.delete(tenant_id, profile.id)
    identity = ChannelIdentityFactory()
    assert await profile_store.update_field(tenant_id, profile.id, ProfileFieldFactory()) is False
    assert await profile_store.add_asset(tenant_id, profile.id, ProfileAssetFactory()) is False
    assert await profile_store.link_channel(tenant_id, profile.id, identity) is False
    assert (
        await profile_store.get_by_channel_identity(tenant_id, identity.channel, identity.channel_user_id)
        is None
    )


async def test_what_a_deleted_profile_had_is_free_at_once(
    profile_store: ProfileStore, tenant_id: UUID
) -> None:
    first = await _saved(profile_store, FullProfileFactory(tenant_id=tenant_id))
    await profile_store.delete(tenant_id, first.id)
    second = first.model_copy(deep=True, update={"id": uuid4()})
    await profile_store.save(second)
    assert await profile_store.get_by_customer_id(tenant_id, first.customer_id) == second
    # The first one cannot come back beside it.
    with pytest.raises(ConflictError):
        await profile_store.save(first)


async def test_saving_over_a_deleted_profile_brings_it_back_with_its_history(
    profile_store: ProfileStore, tenant_id: UUID
) -> None:
    profile = await _saved(profile_store, FullProfileFactory(tenant_id=tenant_id))
    await profile_store.update_field(tenant_id, profile.id, ProfileFieldFactory(name="city", value="Bonn"))
    await profile_store.delete(tenant_id, profile.id)
    with pytest.raises(ConflictError):
        await profile_store.save(profile, if_revision=0)
    await profile_store.save(profile, if_revision=3)
    assert profile.revision == 4
    assert await profile_store.get_by_id(tenant_id, profile.id) == profile
    history = await profile_store.get_field_history(tenant_id, profile.id, "city")
    assert [field.value for field in history] == ["Köln", "Bonn", "Köln"]


async def test_saving_a_profile_with_deleted_at_deletes_it(
    profile_store: ProfileStore, tenant_id: UUID
) -> None:
    profile = await _saved(profile_store, FullProfileFactory(tenant_id=tenant_id))
    other = profile.model_copy(deep=True, update={"id": uuid4()})
    profile.soft_delete()
    await profile_store.save(profile)
    assert await profile_store.get_by_id(tenant_id, profile.id) is None
    await profile_store.save(other)
    assert await profile_store.delete(tenant_id, profile.id) is False
    profile.deleted_at = None
    with pytest.raises(ConflictError):
        await profile_store.save(profile)


async def test_a_purge_removes_what_was_deleted_long_enough_ago(
    profile_store: ProfileStore, tenant_id: UUID
) -> None:
    living, recent, old = [
        await _saved(profile_store, FullProfileFactory(tenant_id=tenant_id)) for _ in range(3)
    ]
    old.fields["city"].value = "replaced"
    old.deleted_at = utcnow() - timedelta(days=8)
    await profile_store.save(old)
    await profile_store.delete(tenant_id, recent.id)

    assert await profile_store.purge_deleted(uuid4(), timedelta(days=7)) == 0
    assert await profile_store.purge_deleted(tenant_id, timedelta(days=7)) == 1
    assert await profile_store.purge_deleted(tenant_id, timedelta(days=7)) == 0

    assert await profile_store.get_by_id(tenant_id, living.id) == living
    # What is purged starts anew, what is merely deleted goes on.
    old.deleted_at = None
    await profile_store.save(old)
    assert old.revision == 1
    assert await profile_store.get_by_id(tenant_id, old.id) == old
    assert len(await profile_store.get_field_history(tenant_id, old.id, "city")) == 1
    await profile_store.save(recent)
    assert recent.revision == 3
    assert await profile_store.purge_deleted(tenant_id, timedelta(0)) == 0


# -- get or create ---------------------------------------------------------------------------------------------


async def test_a_profile_is_created_for_a_new_identity(profile_store: ProfileStore, tenant_id: UUID) -> None:
    created = await profile_store.get_or_create(tenant_id, Channel.SLACK, TEXT)
    assert created.tenant_id == tenant_id
    assert created.revision == 1
    assert created.channel_identities == [
        ChannelIdentity(channel=Channel.SLACK, channel_user_id=TEXT, primary=True)
    ]
    assert await profile_store.get_by_id(tenant_id, created.id) == created
    assert await profile_store.get_by_customer_id(tenant_id, created.customer_id) == created
    await profile_store.save(created, if_revision=1)


async def test_a_known_identity_gives_its_profile(profile_store: ProfileStore, tenant_id: UUID) -> None:
    profile = await _saved(profile_store, FullProfileFactory(tenant_id=tenant_id))
    for identity in profile.channel_identities:
        found = await profile_store.get_or_create(tenant_id, identity.channel, identity.channel_user_id)
        assert found == profile


async def test_each_identity_and_each_tenant_gets_a_profile_of_its_own(
    profile_store: ProfileStore, tenant_id: UUID
) -> None:
    keys = [(tenant_id, Channel.SLACK, "a"), (tenant_id, Channel.API, "a"), (tenant_id, Channel.SLACK, "b")]
    keys.append((uuid4(), Channel.SLACK, "a"))
    profiles = [await profile_store.get_or_create(*key) for key in keys]
    assert len({profile.id for profile in profiles}) == 4
    assert len({profile.customer_id for profile in profiles}) == 4


async def test_an_identity_of_a_deleted_profile_gets_a_new_one(
    profile_store: ProfileStore, tenant_id: UUID
) -> None:
    first = await profile_store.get_or_create(tenant_id, Channel.VOICE, "1")
    await profile_store.delete(tenant_id, first.id)
    second = await profile_store.get_or_create(tenant_id, Channel.VOICE, "1")
    assert second.id != first.id
    assert second.customer_id != first.customer_id
    assert await profile_store.get_or_create(tenant_id, Channel.VOICE, "1") == second


async def test_a_hundred_callers_at_once_get_one_profile(
    profile_store: ProfileStore, tenant_id: UUID
) -> None:
    found = await asyncio.gather(
        *(profile_store.get_or_create(tenant_id, Channel.WEBCHAT, "visitor") for _ in range(100))
    )
    assert len({profile.id for profile in found}) == 1
    assert found == [found[0]] * 100
    # No profile without an identity is left behind.
    await profile_store.delete(tenant_id, found[0].id)
    assert await profile_store.purge_deleted(tenant_id, timedelta(seconds=-60)) == 1
