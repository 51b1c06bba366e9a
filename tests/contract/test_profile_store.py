"""The contract of `ProfileStore`, run against every backend: saving and reading whole profiles."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from uuid import UUID, uuid4

import pytest
from pydantic import BaseModel

from soldier_data.base.models import utcnow
from soldier_data.errors import ConflictError
from soldier_data.profiles import (
    Channel,
    ChannelIdentity,
    Consent,
    CustomerProfile,
    ProfileAsset,
    ProfileField,
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

TEXT = 'Größe "5\'" 100% _\\ \n\t; DROP TABLE customer_profiles; -- $1 {0} 漢字 👩‍👩‍👧 \u202e\u0001\ufffe'
"""Text with everything that a badly written store trips over."""

_INDIA = timezone(timedelta(hours=5, minutes=30))
_EARLIER = datetime(1, 1, 2, 0, 0, 0, 1, tzinfo=UTC)
_CREATED = datetime(2024, 2, 29, 23, 59, 59, 999_999, tzinfo=_INDIA)
_LATER = datetime(9999, 12, 30, tzinfo=UTC)


def _everything() -> dict[str, dict[str, Any]]:
    """Values for every part, none of them the default."""
    return {
        "identity": {
            "channel": "voice",
            "channel_user_id": TEXT,
            "verified": True,
            "verified_at": _CREATED,
            "primary": True,
        },
        "field": {
            "name": TEXT,
            "value": {TEXT: [TEXT, None, True, 1, 1.0, -0.0, 1e22, 1e308, 5e-324, 2**200, {"": {}}, []]},
            "value_type": TEXT,
            "source": "document_extracted",
            "source_session_id": uuid4(),
            "source_scenario_id": uuid4(),
            "source_step_id": uuid4(),
            "verified": True,
            "verification_method": TEXT,
            "verified_at": _EARLIER,
            "verified_by": TEXT,
            "confidence": 0.1 + 0.2,
            "requires_confirmation": True,
            "collected_at": _CREATED,
            "updated_at": _EARLIER,
            "expires_at": _LATER,
        },
        "asset": {
            "id": uuid4(),
            "name": TEXT,
            "asset_type": TEXT,
            "storage_provider": TEXT,
            "storage_path": TEXT,
            "mime_type": TEXT,
            "size_bytes": 2**63 - 1,
            "checksum": TEXT,
            "uploaded_at": _CREATED,
            "uploaded_in_session_id": uuid4(),
            "uploaded_in_scenario_id": uuid4(),
            "verified": True,
            "verification_result": {"b": None, "a": [1.0, 2**70, TEXT]},
            "retention_policy": TEXT,
            "expires_at": _LATER,
        },
        "consent": {
            "consent_type": TEXT,
            "granted": True,
            "granted_at": _CREATED,
            "revoked_at": _LATER,
            "source_session_id": uuid4(),
            "ip_address": "2001:db8::1",
        },
    }


_PARTS: dict[str, type[BaseModel]] = {
    "identity": ChannelIdentity,
    "field": ProfileField,
    "asset": ProfileAsset,
    "consent": Consent,
}


def _full(tenant_id: UUID) -> CustomerProfile:
    values = _everything()
    return CustomerProfile(
        tenant_id=tenant_id,
        customer_id=uuid4(),
        external_id=TEXT,
        channel_identities=[ChannelIdentity(**values["identity"]), ChannelIdentityFactory()],
        fields={TEXT: ProfileField(**values["field"]), "": ProfileFieldFactory(name="", value=None)},
        assets=[ProfileAsset(**values["asset"]), ProfileAssetFactory(verification_result={})],
        verification_level=VerificationLevel.KYC_COMPLETE,
        consents=[ConsentFactory(), Consent(**values["consent"]), ConsentFactory()],
        last_interaction_at=_LATER,
        created_at=_CREATED,
    )


async def _saved(store: ProfileStore, profile: CustomerProfile) -> CustomerProfile:
    await store.save(profile)
    return profile


# -- saving and reading ----------------------------------------------------------------------------------------


async def test_every_field_comes_back_as_it_was_saved(profile_store: ProfileStore, tenant_id: UUID) -> None:
    profile = _full(tenant_id)

    assert await profile_store.save(profile) == profile.id

    found = await profile_store.get_by_id(tenant_id, profile.id)
    assert found == profile
    # 1 and 1.0 are equal, and so are 0.0 and -0.0.
    value = found.fields[TEXT].value
    assert repr(value) == repr(profile.fields[TEXT].value)


@pytest.mark.parametrize("part", _PARTS)
def test_the_round_trip_leaves_no_field_of_a_part_at_its_default(part: str) -> None:
    values = _everything()[part]
    model = _PARTS[part]
    entity = model(**values)
    for name, field in model.model_fields.items():
        if name != "replaced_at":
            assert name in values
            if not field.is_required():
                default = field.get_default(call_default_factory=True, validated_data={})
                assert getattr(entity, name) != default


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


async def test_a_profile_without_parts_comes_back(profile_store: ProfileStore, tenant_id: UUID) -> None:
    profile = CustomerProfile(tenant_id=tenant_id, customer_id=uuid4())
    await profile_store.save(profile)
    assert await profile_store.get_by_id(tenant_id, profile.id) == profile


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
    first = await _saved(profile_store, _full(tenant_id))
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
    profile = await _saved(profile_store, _full(uuid4()))
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
