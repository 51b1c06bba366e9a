"""The contract of `ProfileStore`, run against every backend: merging two profiles."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from soldier_data.base.models import utcnow
from soldier_data.errors import ValidationError
from soldier_data.profiles import (
    Channel,
    CustomerProfile,
    ProfileStore,
    VerificationLevel,
)
from tests.factories.profiles import (
    ChannelIdentityFactory,
    ConsentFactory,
    CustomerProfileFactory,
    FullProfileFactory,
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


async def test_a_merge_moves_identities_assets_and_consents_behind_the_target_s(
    profile_store: ProfileStore, profile: CustomerProfile
) -> None:
    source = FullProfileFactory(
        tenant_id=profile.tenant_id, fields={}, consents=[ConsentFactory(), ConsentFactory(granted=False)]
    )
    await profile_store.save(source)

    assert await profile_store.merge_profiles(profile.tenant_id, source.id, profile.id) is True

    merged = await _read(profile_store, profile)
    assert merged.channel_identities == profile.channel_identities + source.channel_identities
    assert merged.assets == profile.assets + source.assets
    assert merged.consents == profile.consents + source.consents
    assert merged.fields == profile.fields
    assert merged.revision == 2
    assert profile.updated_at <= merged.updated_at <= utcnow()
    assert await profile_store.get_by_id(profile.tenant_id, source.id) is None
    assert await profile_store.get_by_customer_id(profile.tenant_id, source.customer_id) is None
    for identity in source.channel_identities:
        key = (identity.channel, identity.channel_user_id)
        assert await profile_store.get_by_channel_identity(profile.tenant_id, *key) == merged
    assert await profile_store.link_channel(profile.tenant_id, profile.id, ChannelIdentityFactory()) is True


async def test_a_merge_keeps_of_each_field_the_later_one_and_sends_the_other_to_the_history(
    profile_store: ProfileStore, tenant_id: UUID
) -> None:
    at = datetime(2026, 5, 1, tzinfo=UTC)
    ages = {"target_later": (0, 1), "source_later": (1, 0), "equal": (0, 0)}
    source = CustomerProfileFactory(tenant_id=tenant_id, fields={})
    target = CustomerProfileFactory(tenant_id=tenant_id, fields={})
    for name, (of_source, of_target) in ages.items():
        for holder, hours in ((source, of_source), (target, of_target)):
            holder.fields[name] = ProfileFieldFactory(
                name=name,
                value="source" if holder is source else "target",
                updated_at=at + timedelta(hours=hours),
            )
    source.fields["source_only"] = ProfileFieldFactory(name="source_only", value="source")
    target.fields["target_only"] = ProfileFieldFactory(name="target_only", value="target")
    await profile_store.save(source)
    await profile_store.save(target)

    before = utcnow()
    assert await profile_store.merge_profiles(tenant_id, source.id, target.id) is True

    assert (await _read(profile_store, target)).fields == {
        "equal": target.fields["equal"],
        "source_later": source.fields["source_later"],
        "source_only": source.fields["source_only"],
        "target_later": target.fields["target_later"],
        "target_only": target.fields["target_only"],
    }
    assert await _history(profile_store, target, "target_later") == ["target", "source"]
    assert await _history(profile_store, target, "source_later") == ["source", "target"]
    assert await _history(profile_store, target, "equal") == ["target", "source"]
    assert await _history(profile_store, target, "source_only") == ["source"]
    replaced = (await profile_store.get_field_history(tenant_id, target.id, "equal"))[1]
    assert replaced.replaced_at is not None
    assert before <= replaced.replaced_at <= utcnow()


async def test_a_merge_joins_the_histories(profile_store: ProfileStore, tenant_id: UUID) -> None:
    source = CustomerProfileFactory(tenant_id=tenant_id, fields={})
    target = CustomerProfileFactory(tenant_id=tenant_id, fields={})
    await profile_store.save(source)
    await profile_store.save(target)
    for number in range(6):
        holder = (source, target)[number % 2]
        await profile_store.update_field(tenant_id, holder.id, ProfileFieldFactory(name="x", value=number))
    await profile_store.update_field(tenant_id, source.id, ProfileFieldFactory(name="y", value="old"))
    await profile_store.update_field(tenant_id, source.id, ProfileFieldFactory(name="y", value="new"))

    await profile_store.merge_profiles(tenant_id, source.id, target.id)

    assert await _history(profile_store, target, "x") == [5, 4, 3, 2, 1, 0]
    assert await _history(profile_store, target, "y") == ["new", "old"]
    assert await _history(profile_store, source, "x") == []
    await profile_store.update_field(tenant_id, target.id, ProfileFieldFactory(name="x", value=6))
    assert await _history(profile_store, target, "x") == [6, 5, 4, 3, 2, 1, 0]


async def test_of_an_asset_that_both_have_the_target_s_stays(
    profile_store: ProfileStore, profile: CustomerProfile
) -> None:
    double, other = ProfileAssetFactory(id=profile.assets[1].id), ProfileAssetFactory()
    source = CustomerProfileFactory(tenant_id=profile.tenant_id, assets=[double, other])
    await profile_store.save(source)
    await profile_store.merge_profiles(profile.tenant_id, source.id, profile.id)
    assert (await _read(profile_store, profile)).assets == [*profile.assets, other]


@pytest.mark.parametrize("of_target", [None, "", "crm-target"])
async def test_a_merge_gives_the_external_id_to_a_target_without_one(
    profile_store: ProfileStore, tenant_id: UUID, of_target: str | None
) -> None:
    source = FullProfileFactory(tenant_id=tenant_id, external_id="crm-source")
    target = FullProfileFactory(tenant_id=tenant_id, external_id=of_target)
    await profile_store.save(source)
    await profile_store.save(target)
    await profile_store.merge_profiles(tenant_id, source.id, target.id)
    merged = await _read(profile_store, target)
    assert merged.external_id == ("crm-source" if of_target is None else of_target)
    assert merged.customer_id == target.customer_id


@pytest.mark.parametrize(
    ("of_source", "of_target", "expected"), [(1, 2, 2), (2, 1, 2), (1, None, 1), (None, 1, 1)]
)
async def test_a_merge_takes_the_later_interaction_and_keeps_the_verification_level(
    profile_store: ProfileStore,
    tenant_id: UUID,
    of_source: int | None,
    of_target: int | None,
    expected: int,
) -> None:
    def at(day: int | None) -> datetime | None:
        return None if day is None else datetime(2026, 1, day, tzinfo=UTC)

    source = FullProfileFactory(
        tenant_id=tenant_id,
        last_interaction_at=at(of_source),
        verification_level=VerificationLevel.KYC_COMPLETE,
    )
    target = FullProfileFactory(tenant_id=tenant_id, last_interaction_at=at(of_target))
    await profile_store.save(source)
    await profile_store.save(target)
    await profile_store.merge_profiles(tenant_id, source.id, target.id)
    merged = await _read(profile_store, target)
    assert merged.last_interaction_at == at(expected)
    assert merged.verification_level is VerificationLevel.UNVERIFIED


async def test_a_profile_cannot_be_merged_into_itself(
    profile_store: ProfileStore, profile: CustomerProfile
) -> None:
    with pytest.raises(ValidationError) as refused:
        await profile_store.merge_profiles(profile.tenant_id, profile.id, profile.id)
    assert refused.value.field == "target_profile_id"
    assert await _read(profile_store, profile) == profile


async def test_only_living_profiles_of_the_tenant_are_merged(
    profile_store: ProfileStore, profile: CustomerProfile
) -> None:
    deleted = FullProfileFactory(tenant_id=profile.tenant_id)
    foreign = FullProfileFactory()
    await profile_store.save(deleted)
    await profile_store.save(foreign)
    await profile_store.delete(profile.tenant_id, deleted.id)
    for other in (uuid4(), deleted.id, foreign.id):
        assert await profile_store.merge_profiles(profile.tenant_id, other, profile.id) is False
        assert await profile_store.merge_profiles(profile.tenant_id, profile.id, other) is False
    assert await _read(profile_store, profile) == profile
    assert await _read(profile_store, foreign) == foreign


async def test_merges_in_opposite_directions_leave_one_profile_with_all_identities(
    profile_store: ProfileStore, tenant_id: UUID
) -> None:
    for _ in range(5):
        one, other = [FullProfileFactory(tenant_id=tenant_id) for _ in range(2)]
        await profile_store.save(one)
        await profile_store.save(other)
        done = await asyncio.gather(
            profile_store.merge_profiles(tenant_id, one.id, other.id),
            profile_store.merge_profiles(tenant_id, other.id, one.id),
        )
        assert sorted(done) == [False, True]
        source, target = (one, other) if done[0] else (other, one)
        assert await profile_store.get_by_id(tenant_id, source.id) is None
        merged = await _read(profile_store, target)
        assert merged.channel_identities == target.channel_identities + source.channel_identities
        assert merged.assets == target.assets + source.assets
        assert merged.consents == target.consents + source.consents


async def test_changes_during_a_merge_are_refused_or_kept(
    profile_store: ProfileStore, tenant_id: UUID
) -> None:
    source, target = [FullProfileFactory(tenant_id=tenant_id) for _ in range(2)]
    await profile_store.save(source)
    await profile_store.save(target)
    identities = [ChannelIdentityFactory(channel=Channel.API) for _ in range(20)]
    fields = [ProfileFieldFactory(name=f"f{number}") for number in range(20)]
    calls: list[Any] = [profile_store.link_channel(tenant_id, source.id, one) for one in identities]
    calls += [profile_store.update_field(tenant_id, source.id, one) for one in fields]
    calls.insert(10, profile_store.merge_profiles(tenant_id, source.id, target.id))
    done = await asyncio.gather(*calls)
    merged = await _read(profile_store, target)
    assert done.pop(10) is True
    linked = {one.channel_user_id for one, kept in zip(identities, done[:20], strict=True) if kept}
    updated = {one.name for one, kept in zip(fields, done[20:], strict=True) if kept}
    found = {one.channel_user_id for one in merged.channel_identities if one.channel is Channel.API}
    assert found == linked
    assert set(merged.fields) == {"city", "address"} | updated
