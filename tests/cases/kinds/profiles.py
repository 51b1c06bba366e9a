"""The one kind of entity that the profile store keeps, with its parts."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

from soldier_data.profiles import (
    Channel,
    ChannelIdentity,
    Consent,
    CustomerProfile,
    ProfileAsset,
    ProfileField,
    ProfileFieldSource,
    VerificationLevel,
)
from tests.cases.kind import Kind
from tests.cases.values import BEFORE_1970, DOCUMENT, EARLIEST, LATER, LATEST, LEAP_DAY, NOON, TEXT
from tests.factories.profiles import (
    ChannelIdentityFactory,
    ConsentFactory,
    CustomerProfileFactory,
    ProfileAssetFactory,
    ProfileFieldFactory,
)


def _full_profile() -> dict[str, Any]:
    identity = ChannelIdentity(
        channel=Channel.EMAIL, channel_user_id=TEXT, verified=True, verified_at=NOON, primary=True
    )
    known = ProfileField(
        name=TEXT,
        value=DOCUMENT,
        value_type=TEXT,
        source=ProfileFieldSource.DOCUMENT_EXTRACTED,
        source_session_id=uuid4(),
        source_scenario_id=uuid4(),
        source_step_id=uuid4(),
        verified=True,
        verification_method=TEXT,
        verified_at=EARLIEST,
        verified_by=TEXT,
        confidence=0.1 + 0.2,
        requires_confirmation=True,
        collected_at=BEFORE_1970,
        updated_at=EARLIEST,
        expires_at=LATEST,
    )
    asset = ProfileAsset(
        id=uuid4(),
        name=TEXT,
        asset_type=TEXT,
        storage_provider=TEXT,
        storage_path=TEXT,
        mime_type=TEXT,
        size_bytes=2**63 - 1,
        checksum=TEXT,
        uploaded_at=LEAP_DAY,
        uploaded_in_session_id=uuid4(),
        uploaded_in_scenario_id=uuid4(),
        verified=True,
        verification_result=DOCUMENT,
        retention_policy=TEXT,
        expires_at=LATEST,
    )
    consent = Consent(
        consent_type=TEXT,
        granted=True,
        granted_at=NOON,
        revoked_at=LATER,
        source_session_id=uuid4(),
        ip_address=TEXT,
    )
    return {
        "customer_id": uuid4(),
        "external_id": TEXT,
        "channel_identities": [identity, ChannelIdentityFactory()],
        # Sorted by name, as stores return them.
        "fields": {"": ProfileFieldFactory(name="", value=None), TEXT: known},
        "assets": [asset, ProfileAssetFactory(verification_result={})],
        "verification_level": VerificationLevel.KYC_COMPLETE,
        "consents": [ConsentFactory(), consent, ConsentFactory()],
        "last_interaction_at": LATER,
        "created_at": LEAP_DAY,
    }


PROFILE = Kind(
    name="profile",
    store="profiles",
    model=CustomerProfile,
    make=CustomerProfileFactory,
    full=_full_profile,
    tables=(
        "customer_profiles",
        "channel_identities",
        "profile_fields",
        "profile_assets",
        "profile_consents",
    ),
    changed=("external_id", "changed"),
    counter=("external_id", "0"),
    adds="save",
    updates="save",
    gets="get_by_id",
    deletes="delete",
)

KINDS = (PROFILE,)
