"""Entities of the profiles domain."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID, uuid4

import factory

from soldier_data.profiles import (
    Channel,
    ChannelIdentity,
    Consent,
    CustomerProfile,
    ProfileAsset,
    ProfileField,
    ProfileFieldSource,
)


class ChannelIdentityFactory(factory.Factory[ChannelIdentity]):  # factory-boy ships no types.
    class Meta:
        model = ChannelIdentity

    channel: Channel = Channel.WHATSAPP
    channel_user_id: str = factory.Sequence(lambda number: f"+49 30 {number:06}")


class ProfileFieldFactory(factory.Factory[ProfileField]):  # As above.
    class Meta:
        model = ProfileField

    name: str = factory.Sequence(lambda number: f"field_{number}")
    value: str = factory.Faker("city")
    value_type: str = "string"
    source: ProfileFieldSource = ProfileFieldSource.USER_PROVIDED


class ProfileAssetFactory(factory.Factory[ProfileAsset]):  # As above.
    class Meta:
        model = ProfileAsset

    name: str = factory.Sequence(lambda number: f"passport-{number}.jpg")
    asset_type: str = "identity_document"
    storage_provider: str = "s3"
    storage_path: str = factory.LazyAttribute(lambda asset: f"documents/{asset.name}")
    mime_type: str = "image/jpeg"
    size_bytes: int = 123_456
    checksum: str = "sha256:00ff"


class ConsentFactory(factory.Factory[Consent]):  # As above.
    class Meta:
        model = Consent

    consent_type: str = "marketing"
    granted: bool = True
    granted_at: datetime = datetime(2026, 1, 2, 3, 4, 5, 678_901, tzinfo=UTC)


class CustomerProfileFactory(factory.Factory[CustomerProfile]):  # As above.
    """A customer of whom nothing is known but the name of their city."""

    class Meta:
        model = CustomerProfile

    tenant_id: UUID = factory.LazyFunction(uuid4)
    customer_id: UUID = factory.LazyFunction(uuid4)
    channel_identities: list[ChannelIdentity] = factory.LazyFunction(lambda: [ChannelIdentityFactory()])
    fields: dict[str, ProfileField] = factory.LazyFunction(lambda: {"city": ProfileFieldFactory(name="city")})


class FullProfileFactory(CustomerProfileFactory):
    """A customer with two of everything."""

    external_id: str = factory.LazyFunction(lambda: f"crm-{uuid4().hex}")
    channel_identities: list[ChannelIdentity] = factory.LazyFunction(
        lambda: [
            ChannelIdentityFactory(primary=True),
            ChannelIdentityFactory(channel=Channel.EMAIL, verified=True),
        ]
    )
    fields: dict[str, ProfileField] = factory.LazyFunction(
        lambda: {
            "city": ProfileFieldFactory(name="city", value="Köln"),
            "address": ProfileFieldFactory(name="address", value={"street": "Am Markt", "number": 7}),
        }
    )
    assets: list[ProfileAsset] = factory.LazyFunction(lambda: [ProfileAssetFactory(), ProfileAssetFactory()])
    consents: list[Consent] = factory.LazyFunction(
        lambda: [ConsentFactory(), ConsentFactory(consent_type="recording", granted=False)]
    )
