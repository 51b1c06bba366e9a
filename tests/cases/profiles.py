"""The profile store with another tenant's ids."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from soldier_data.base.subjects import DataSubject
from soldier_data.profiles import (
    ChannelIdentity,
    CustomerProfile,
    InMemoryProfileStore,
    PostgresProfileStore,
    ProfileStore,
)
from tests.cases.case import Case, Domain, as_of, deletions, reads
from tests.cases.kinds.profiles import KINDS
from tests.factories.profiles import (
    ChannelIdentityFactory,
    CustomerProfileFactory,
    FullProfileFactory,
    ProfileAssetFactory,
    ProfileFieldFactory,
)


@dataclass(frozen=True)
class Stored:
    """What the owner has stored: a profile with two of everything and a history, another one, and a deleted one."""

    profile: CustomerProfile
    second: CustomerProfile
    deleted: CustomerProfile

    @property
    def identity(self) -> ChannelIdentity:
        return self.profile.channel_identities[0]


async def seed(store: ProfileStore, tenant_id: UUID) -> Stored:
    stored = Stored(
        FullProfileFactory(tenant_id=tenant_id),
        CustomerProfileFactory(tenant_id=tenant_id),
        FullProfileFactory(tenant_id=tenant_id),
    )
    for profile in (stored.profile, stored.second, stored.deleted):
        await store.save(profile)
    await store.update_field(tenant_id, stored.profile.id, ProfileFieldFactory(name="city", value="Bonn"))
    await store.delete(tenant_id, stored.deleted.id)
    return stored


async def saved(store: ProfileStore, other: UUID) -> CustomerProfile:
    """A profile of the intruder's own."""
    profile: CustomerProfile = CustomerProfileFactory(tenant_id=other)
    await store.save(profile)
    return profile


async def get_by_channel_identity(store: ProfileStore, own: Stored, other: UUID) -> object:
    return await store.get_by_channel_identity(other, own.identity.channel, own.identity.channel_user_id)


async def get_or_create(store: ProfileStore, own: Stored, other: UUID) -> object:
    profile = await store.get_or_create(other, own.identity.channel, own.identity.channel_user_id)
    return (
        profile.tenant_id == other,
        profile.id == own.profile.id,
        profile.customer_id == own.profile.customer_id,
        profile.fields | {asset.name: asset for asset in profile.assets},
    )


async def save(store: ProfileStore, own: Stored, other: UUID) -> object:
    profile = as_of(own.profile, other, fields={}, assets=[], consents=[])
    await store.save(profile)
    return await store.get_by_id(other, profile.id) == profile


async def save_over_deleted(store: ProfileStore, own: Stored, other: UUID) -> object:
    return await store.save(as_of(own.deleted, other), if_revision=0) == own.deleted.id


async def merge_from_owner(store: ProfileStore, own: Stored, other: UUID) -> object:
    return await store.merge_profiles(other, own.profile.id, (await saved(store, other)).id)


async def merge_into_owner(store: ProfileStore, own: Stored, other: UUID) -> object:
    return await store.merge_profiles(other, (await saved(store, other)).id, own.profile.id)


async def link_same_channel(store: ProfileStore, own: Stored, other: UUID) -> object:
    return await store.link_channel(other, (await saved(store, other)).id, own.identity)


async def get_data_subject(store: ProfileStore, own: Stored, other: UUID) -> object:
    """Nothing but what the caller knew."""
    return await store.get_data_subject(other, own.profile.id) == subject(own, other)


def subject(own: Stored, other: UUID) -> DataSubject:
    return DataSubject(other, frozenset([own.profile.id]))


DOMAIN: Domain[ProfileStore, Stored] = Domain(
    store="profiles",
    contract=ProfileStore,
    backends={"inmemory": InMemoryProfileStore, "postgres": PostgresProfileStore},
    seed=seed,
    cases=[
        *reads(KINDS),
        *deletions(KINDS),
        Case(
            "get_by_customer_id",
            lambda store, own, other: store.get_by_customer_id(other, own.profile.customer_id),
            None,
        ),
        Case("get_by_channel_identity", get_by_channel_identity, None),
        Case("get_or_create", get_or_create, (True, False, False, {})),
        Case("save", save, expected=True),
        Case("save", save_over_deleted, expected=True),
        Case("get_data_subject", get_data_subject, expected=True),
        Case(
            "export_subject",
            lambda store, own, other: store.export_subject(subject(own, other)),
            {"customer_profiles": [], "profile_fields": [], "former_identifiers": []},
        ),
        Case(
            "erase_subject",
            lambda store, own, other: store.erase_subject(subject(own, other)),
            {"customer_profiles": []},
        ),
        Case(
            "update_field",
            lambda store, own, other: store.update_field(
                other, own.profile.id, ProfileFieldFactory(name="city", value="Rome")
            ),
            False,
        ),
        Case(
            "get_field_history",
            lambda store, own, other: store.get_field_history(other, own.profile.id, "city"),
            [],
        ),
        Case(
            "add_asset",
            lambda store, own, other: store.add_asset(other, own.profile.id, ProfileAssetFactory()),
            False,
        ),
        Case(
            "add_asset",
            lambda store, own, other: store.add_asset(
                other, own.profile.id, own.profile.assets[0].model_copy(update={"storage_path": "elsewhere"})
            ),
            False,
        ),
        Case(
            "link_channel",
            lambda store, own, other: store.link_channel(other, own.profile.id, ChannelIdentityFactory()),
            False,
        ),
        Case("link_channel", link_same_channel, expected=True),
        Case(
            "merge_profiles",
            lambda store, own, other: store.merge_profiles(other, own.second.id, own.profile.id),
            False,
        ),
        Case("merge_profiles", merge_from_owner, expected=False),
        Case("merge_profiles", merge_into_owner, expected=False),
        Case(
            "purge_deleted", lambda store, _own, other: store.purge_deleted(other, older_than=timedelta(0)), 0
        ),
    ],
)
