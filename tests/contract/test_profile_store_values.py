"""The contract of `ProfileStore`, run against every backend: arbitrary values, and those that are refused."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from soldier_data.errors import ValidationError
from soldier_data.profiles import (
    Channel,
    ChannelIdentity,
    Consent,
    CustomerProfile,
    ProfileAsset,
    ProfileField,
    ProfileFieldSource,
    ProfileStore,
    VerificationLevel,
)
from tests.factories.profiles import (
    ChannelIdentityFactory,
    CustomerProfileFactory,
    ProfileAssetFactory,
    ProfileFieldFactory,
)

# -- arbitrary values ------------------------------------------------------------------------------------------

texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)
moments = st.datetimes(
    datetime(1, 1, 3),  # noqa: DTZ001 - the strategy adds the time zone.
    datetime(9999, 12, 29),  # noqa: DTZ001 - as above.
    timezones=st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes))),
)
numbers = st.one_of(
    st.integers(),
    st.integers(-(2**1999), 2**1999),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from([1e308, -1e308, 5e-324, -0.0, 1e22, 0.1, 2**53 + 1]),
)
documents = st.recursive(
    st.one_of(st.none(), st.booleans(), numbers, texts),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
flags = st.booleans()
ids = st.uuids()
maybe_ids, maybe_texts, maybe_moments = (st.none() | values for values in (ids, texts, moments))

identities = st.builds(
    ChannelIdentity,
    channel=st.sampled_from(Channel),
    channel_user_id=texts,
    verified=flags,
    verified_at=maybe_moments,
    primary=flags,
)
fields = st.builds(
    ProfileField,
    name=texts,
    value=documents,
    value_type=texts,
    source=st.sampled_from(ProfileFieldSource),
    source_session_id=maybe_ids,
    source_scenario_id=maybe_ids,
    source_step_id=maybe_ids,
    verified=flags,
    verification_method=maybe_texts,
    verified_at=maybe_moments,
    verified_by=maybe_texts,
    confidence=st.floats(0, 1),
    requires_confirmation=flags,
    collected_at=moments,
    updated_at=moments,
    expires_at=maybe_moments,
)
assets = st.builds(
    ProfileAsset,
    id=ids,
    name=texts,
    asset_type=texts,
    storage_provider=texts,
    storage_path=texts,
    mime_type=texts,
    size_bytes=st.integers(0, 2**63 - 1),
    checksum=texts,
    uploaded_at=moments,
    uploaded_in_session_id=maybe_ids,
    uploaded_in_scenario_id=maybe_ids,
    verified=flags,
    verification_result=st.none() | st.dictionaries(texts, documents, max_size=3),
    retention_policy=texts,
    expires_at=maybe_moments,
)
consents = st.builds(
    Consent,
    consent_type=texts,
    granted=flags,
    granted_at=maybe_moments,
    revoked_at=maybe_moments,
    source_session_id=maybe_ids,
    ip_address=maybe_texts,
)
profiles = st.builds(
    CustomerProfile,
    id=ids,
    # Hypothesis reuses values, and these are unique in a tenant.
    tenant_id=st.builds(uuid4),
    customer_id=ids,
    external_id=maybe_texts,
    channel_identities=st.lists(
        identities, max_size=3, unique_by=lambda one: (one.channel, one.channel_user_id)
    ),
    fields=st.lists(fields, max_size=3).map(lambda listed: {field.name: field for field in listed}),
    assets=st.lists(assets, max_size=3, unique_by=lambda asset: asset.id),
    verification_level=st.sampled_from(VerificationLevel),
    consents=st.lists(consents, max_size=3),
    last_interaction_at=maybe_moments,
    created_at=moments,
)


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(profile=profiles, later=profiles, added=fields)
async def test_whatever_is_legal_comes_back_equal(
    profile_store: ProfileStore, profile: CustomerProfile, later: CustomerProfile, added: ProfileField
) -> None:
    await profile_store.save(profile)
    found = await profile_store.get_by_id(profile.tenant_id, profile.id)
    assert found == profile
    # Tells 1 from 1.0 and True, and 0.0 from -0.0, where equality does not.
    for name, field in profile.fields.items():
        assert repr(found.fields[name].value) == repr(field.value)

    replaced = later.model_copy(update={"tenant_id": profile.tenant_id, "id": profile.id}, deep=True)
    await profile_store.save(replaced)
    assert await profile_store.get_by_id(profile.tenant_id, profile.id) == replaced

    await profile_store.update_field(profile.tenant_id, profile.id, added)
    history = await profile_store.get_field_history(profile.tenant_id, profile.id, added.name)
    assert history[0] == added
    found = await profile_store.get_by_id(profile.tenant_id, profile.id)
    assert found is not None
    assert found.fields == {**replaced.fields, added.name: added}


# -- refused values --------------------------------------------------------------------------------------------

BAD_TEXTS = ["a\0b", "\ud800", "x\udfffy"]
BAD_DOCUMENTS: dict[str, Any] = {
    "NUL": {"a": "b\0"},
    "surrogate in a key": {"a": {"\udfff": 1}},
    "NaN": [float("nan")],
    "infinity": float("inf"),
    "set": {1},
    "tuple": (1, 2),
    "bytes": b"x",
    "integer key": {"a": {1: 2}},
    "huge integer": 10**5_000,
    "datetime": datetime(2026, 1, 1, tzinfo=UTC),
}


async def _refused(call: Awaitable[Any]) -> ValidationError:
    with pytest.raises(ValidationError) as caught:
        await call
    return caught.value


@pytest.mark.parametrize("text", BAD_TEXTS, ids=ascii)
async def test_a_text_that_cannot_be_stored_is_refused_wherever_it_is(
    profile_store: ProfileStore, profile: CustomerProfile, text: str
) -> None:
    key = (profile.tenant_id, profile.id)
    before = profile.model_copy(deep=True)
    places: list[tuple[str, Callable[[CustomerProfile], Any]]] = [
        ("external_id", lambda one: one),
        ("channel_user_id", lambda one: one.channel_identities[1]),
        ("value_type", lambda one: one.fields["city"]),
        ("checksum", lambda one: one.assets[0]),
        ("consent_type", lambda one: one.consents[1]),
    ]
    for name, part_of in places:
        broken = profile.model_copy(deep=True)
        part_of(broken).__dict__[name] = text
        refused = await _refused(profile_store.save(broken))
        assert refused.field is not None
        assert refused.field.endswith(name)
        assert broken.revision == 1
    broken = profile.model_copy(deep=True)
    broken.fields[text] = ProfileFieldFactory(name=text)
    assert (await _refused(profile_store.save(broken))).field == "fields[...]"

    field, asset = ProfileFieldFactory(name=text), ProfileAssetFactory(name=text)
    assert (await _refused(profile_store.update_field(*key, field))).field == "name"
    assert (await _refused(profile_store.add_asset(*key, asset))).field == "name"
    identity = ChannelIdentityFactory(channel_user_id=text)
    assert (await _refused(profile_store.link_channel(*key, identity))).field == "channel_user_id"
    assert (await _refused(profile_store.get_field_history(*key, text))).field == "name"
    for look_up in (profile_store.get_by_channel_identity, profile_store.get_or_create):
        refused = await _refused(look_up(profile.tenant_id, Channel.API, text))
        assert refused.field == "channel_user_id"
    assert await profile_store.get_by_id(*key) == before


@pytest.mark.parametrize("document", BAD_DOCUMENTS.values(), ids=BAD_DOCUMENTS)
async def test_a_value_that_is_no_json_is_refused(
    profile_store: ProfileStore, profile: CustomerProfile, document: Any
) -> None:
    key = (profile.tenant_id, profile.id)
    before = profile.model_copy(deep=True)
    field = ProfileFieldFactory(name="city", value=document)
    assert (await _refused(profile_store.update_field(*key, field))).field == "value"
    profile.fields["city"] = field
    assert (await _refused(profile_store.save(profile))).field == "fields[...].value"
    asset = ProfileAssetFactory()
    asset.__dict__["verification_result"] = {"a": document}
    assert (await _refused(profile_store.add_asset(*key, asset))).field == "verification_result"
    assert await profile_store.get_by_id(*key) == before


async def test_what_is_too_long_for_an_index_is_refused_and_what_just_fits_is_not(
    profile_store: ProfileStore, tenant_id: UUID
) -> None:
    fits, too_long = "ä" * 1_000, "ä" * 1_000 + "a"

    def profile(text: str, **values: Any) -> CustomerProfile:
        made: CustomerProfile = CustomerProfileFactory(tenant_id=tenant_id, **values)
        made.external_id = text
        made.fields = {text: ProfileFieldFactory(name=text)}
        made.channel_identities = [ChannelIdentityFactory(channel_user_id=text)]
        return made

    stored = profile(fits)
    await profile_store.save(stored)
    assert await profile_store.get_by_id(tenant_id, stored.id) == stored

    broken = profile(too_long)
    assert (await _refused(profile_store.save(broken))).field == "external_id"
    broken.external_id = None
    assert (await _refused(profile_store.save(broken))).field == "fields[...].name"
    broken.fields = {}
    refused = await _refused(profile_store.save(broken))
    assert refused.field == "channel_identities[0].channel_user_id"
    key = (tenant_id, stored.id)
    field = ProfileFieldFactory(name=too_long)
    assert (await _refused(profile_store.update_field(*key, field))).field == "name"
    identity = broken.channel_identities[0]
    assert (await _refused(profile_store.link_channel(*key, identity))).field == "channel_user_id"
    refused = await _refused(profile_store.get_or_create(tenant_id, Channel.API, too_long))
    assert refused.field == "channel_user_id"
    assert await profile_store.get_by_channel_identity(tenant_id, Channel.API, too_long) is None


async def test_a_channel_that_is_none_is_refused(profile_store: ProfileStore, tenant_id: UUID) -> None:
    channel: Any = "telegraph"
    assert (await _refused(profile_store.get_or_create(tenant_id, channel, "x"))).field == "channel"
    assert await profile_store.get_by_channel_identity(tenant_id, channel, "x") is None


async def test_a_field_under_another_name_is_refused(
    profile_store: ProfileStore, profile: CustomerProfile
) -> None:
    profile.fields["town"] = profile.fields.pop("city")
    assert (await _refused(profile_store.save(profile))).field == "fields"


async def test_a_part_that_is_there_twice_is_refused(
    profile_store: ProfileStore, profile: CustomerProfile
) -> None:
    double = profile.model_copy(deep=True)
    double.channel_identities.append(double.channel_identities[0].model_copy(update={"verified": True}))
    assert (await _refused(profile_store.save(double))).field == "channel_identities"
    double = profile.model_copy(deep=True)
    double.assets.append(ProfileAssetFactory(id=double.assets[0].id))
    assert (await _refused(profile_store.save(double))).field == "assets"
    assert await profile_store.get_by_id(profile.tenant_id, profile.id) == profile


@pytest.mark.parametrize("if_revision", [-1, 2**63 - 1])
async def test_an_impossible_revision_is_refused(
    profile_store: ProfileStore, profile: CustomerProfile, if_revision: int
) -> None:
    assert (await _refused(profile_store.save(profile, if_revision=if_revision))).field == "if_revision"


async def test_an_age_without_end_is_refused(profile_store: ProfileStore, tenant_id: UUID) -> None:
    assert (await _refused(profile_store.purge_deleted(tenant_id, timedelta.max))).field == "older_than"
