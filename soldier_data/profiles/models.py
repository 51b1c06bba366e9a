"""Customer profiles and their parts."""

from __future__ import annotations

from enum import StrEnum
from typing import Any
from uuid import UUID

from pydantic import Field

from soldier_data.base.channels import Channel
from soldier_data.base.models import Model, Moment, TenantScoped, new_id, utcnow


class ProfileFieldSource(StrEnum):
    """The source of the value of a field."""

    USER_PROVIDED = "user_provided"
    LLM_EXTRACTED = "llm_extracted"
    TOOL_RESULT = "tool_result"
    DOCUMENT_EXTRACTED = "document_extracted"
    HUMAN_ENTERED = "human_entered"
    SYSTEM_INFERRED = "system_inferred"


class VerificationLevel(StrEnum):
    """The degree to which a customer's identity is verified."""

    UNVERIFIED = "unverified"
    EMAIL_VERIFIED = "email_verified"
    PHONE_VERIFIED = "phone_verified"
    DOCUMENT_VERIFIED = "document_verified"
    KYC_COMPLETE = "kyc_complete"


class ChannelIdentity(Model):
    """An address of a customer on a channel. It belongs to one living profile of the tenant.

    Attributes:
        channel_user_id: The address: a phone number, an e-mail address or a user id.
        primary: Whether the customer prefers to be contacted here. Stores neither check nor change it.
    """

    channel: Channel
    channel_user_id: str
    verified: bool = False
    verified_at: Moment | None = None
    primary: bool = False


class FormerIdentifier(Model):
    """A channel identity or external id that a profile no longer has. It is kept until the profile is purged.

    Attributes:
        profile_id: The profile, or the one that it was merged into.
        kind: The channel, or "external_id".
        value: The channel_user_id, or the external_id.
        freed_at: The time at which the profile lost it.
    """

    profile_id: UUID
    kind: str
    value: str
    freed_at: Moment


class ProfileField(Model):
    """A fact about a customer, and its source.

    Attributes:
        value: Any JSON value.
        confidence: 0 to 1.
        updated_at: The time at which the value was learned; a merge keeps the later one of two fields.
        replaced_at: The time at which another value replaced this one. The store sets it on the former values that
            `get_field_history` returns; the fields of a profile have None, whatever was saved.
    """

    name: str
    value: Any
    value_type: str
    source: ProfileFieldSource
    source_session_id: UUID | None = None
    source_scenario_id: UUID | None = None
    source_step_id: UUID | None = None
    verified: bool = False
    verification_method: str | None = None
    verified_at: Moment | None = None
    verified_by: str | None = None
    confidence: float = Field(default=1.0, ge=0, le=1)
    requires_confirmation: bool = False
    collected_at: Moment = Field(default_factory=utcnow)
    updated_at: Moment = Field(default_factory=utcnow)
    expires_at: Moment | None = None
    replaced_at: Moment | None = None


class ProfileAsset(Model):
    """A file of a customer. The file itself is held by a storage provider."""

    id: UUID = Field(default_factory=new_id)
    name: str
    asset_type: str
    storage_provider: str
    storage_path: str
    mime_type: str
    size_bytes: int = Field(ge=0)
    checksum: str
    uploaded_at: Moment = Field(default_factory=utcnow)
    uploaded_in_session_id: UUID | None = None
    uploaded_in_scenario_id: UUID | None = None
    verified: bool = False
    verification_result: dict[str, Any] | None = None
    retention_policy: str = "permanent"
    expires_at: Moment | None = None


class Consent(Model):
    """A consent that a customer gave, refused or withdrew. A profile may hold several of one type."""

    consent_type: str
    granted: bool
    granted_at: Moment | None = None
    revoked_at: Moment | None = None
    source_session_id: UUID | None = None
    ip_address: str | None = None


class CustomerProfile(TenantScoped):
    """A customer of a tenant.

    Attributes:
        customer_id: Unique among the living profiles of the tenant.
        external_id: The customer's id in another system; unique among the living profiles of the tenant.
        fields: The fields, by name.
    """

    id: UUID = Field(default_factory=new_id)
    customer_id: UUID
    external_id: str | None = None
    channel_identities: list[ChannelIdentity] = Field(default_factory=list)
    fields: dict[str, ProfileField] = Field(default_factory=dict)
    assets: list[ProfileAsset] = Field(default_factory=list)
    verification_level: VerificationLevel = VerificationLevel.UNVERIFIED
    consents: list[Consent] = Field(default_factory=list)
    last_interaction_at: Moment | None = None
