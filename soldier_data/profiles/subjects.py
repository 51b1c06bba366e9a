"""Who a person is to the other stores, taken from their profiles."""

from __future__ import annotations

from collections.abc import Iterable
from uuid import UUID

from soldier_data.base.subjects import DataSubject
from soldier_data.profiles.models import CustomerProfile, ProfileField


def subject_of(
    tenant_id: UUID,
    profile_ids: Iterable[UUID],
    profiles: Iterable[CustomerProfile],
    history: Iterable[ProfileField],
) -> DataSubject:
    """The person with these profiles; `history` holds their former fields."""
    profiles = list(profiles)
    assets = [asset for profile in profiles for asset in profile.assets]
    consents = [consent for profile in profiles for consent in profile.consents]
    fields = [field for profile in profiles for field in profile.fields.values()]
    sessions = {
        *(field.source_session_id for field in (*fields, *history)),
        *(asset.uploaded_in_session_id for asset in assets),
        *(consent.source_session_id for consent in consents),
    }
    return DataSubject(
        tenant_id=tenant_id,
        profile_ids=frozenset(profile_ids),
        related_ids=frozenset(
            [*(profile.customer_id for profile in profiles), *(asset.id for asset in assets)]
        ),
        session_ids=frozenset(session_id for session_id in sessions if session_id is not None),
        identities=frozenset(
            (identity.channel, identity.channel_user_id)
            for profile in profiles
            for identity in profile.channel_identities
        ),
        external_ids=frozenset(
            profile.external_id for profile in profiles if profile.external_id is not None
        ),
    )
