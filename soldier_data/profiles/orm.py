"""The tables of the profiles domain."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ForeignKeyConstraint, Index, literal_column
from sqlalchemy.orm import Mapped, Relationship, mapped_column

from soldier_data.base.models import new_id, utcnow
from soldier_data.postgres.orm import (
    LIVING,
    Base,
    Document,
    Revisioned,
    SoftDeleted,
    TenantKey,
    listed,
    purge_index,
)
from soldier_data.profiles.models import VerificationLevel


def _parts(row: str, order_by: str, condition: str = "") -> Relationship[Any]:
    key = f"CustomerProfileRow.tenant_id == {row}.tenant_id, CustomerProfileRow.id == {row}.profile_id"
    return listed(f"and_({key}, {condition})", order_by)


class CustomerProfileRow(TenantKey, Revisioned, SoftDeleted, Base):
    """A customer (`CustomerProfile`).

    Attributes:
        fields: The present values.
        merged_profile_ids: All profiles that were merged with this one, itself included. It is stored with each of
            them, because a purge removes rows.
    """

    __tablename__ = "customer_profiles"
    __table_args__ = (
        Index(
            "uq_customer_profiles_customer_id",
            "tenant_id",
            "customer_id",
            unique=True,
            postgresql_where=LIVING,
            info={"conflict": "customer_id: another profile of the tenant has it: change that one"},
        ),
        Index(
            "uq_customer_profiles_external_id",
            "tenant_id",
            "external_id",
            unique=True,
            postgresql_where=LIVING,
            info={"conflict": "external_id: another profile of the tenant has it: change or merge that one"},
        ),
        purge_index("customer_profiles"),
    )

    customer_id: Mapped[UUID]
    external_id: Mapped[str | None]
    verification_level: Mapped[str] = mapped_column(default=VerificationLevel.UNVERIFIED)
    last_interaction_at: Mapped[datetime | None]
    merged_profile_ids: Mapped[list[UUID] | None]

    channel_identities: Mapped[list[ChannelIdentityRow]] = _parts(
        "ChannelIdentityRow", "ChannelIdentityRow.position"
    )
    fields: Mapped[list[ProfileFieldRow]] = _parts(
        "ProfileFieldRow", "ProfileFieldRow.name.collate('C')", "ProfileFieldRow.replaced_at == None"
    )
    assets: Mapped[list[ProfileAssetRow]] = _parts("ProfileAssetRow", "ProfileAssetRow.position")
    consents: Mapped[list[ProfileConsentRow]] = _parts("ProfileConsentRow", "ProfileConsentRow.position")


class ProfilePartRow:
    """Columns of the parts of profiles, whose further keys are unique within the profile."""

    tenant_id: Mapped[UUID] = mapped_column(primary_key=True, sort_order=-2)
    profile_id: Mapped[UUID] = mapped_column(primary_key=True, sort_order=-1)


def _profile_key() -> ForeignKeyConstraint:
    return ForeignKeyConstraint(
        ["tenant_id", "profile_id"], ["customer_profiles.tenant_id", "customer_profiles.id"]
    )


class ChannelIdentityRow(ProfilePartRow, Base):
    """An address of a customer on a channel (`ChannelIdentity`).

    Deleting a profile moves its rows to `FormerIdentifierRow`, so that others can have them.

    Attributes:
        position: The place in the profile's list, from 0.
    """

    __tablename__ = "channel_identities"
    __table_args__ = (
        _profile_key(),
        Index(
            "uq_channel_identities_channel_channel_user_id",
            "tenant_id",
            "channel",
            "channel_user_id",
            unique=True,
            info={
                "conflict": "channel_identities: another profile has one of them: leave it out, or merge the profiles"
            },
        ),
    )

    channel: Mapped[str] = mapped_column(primary_key=True)
    channel_user_id: Mapped[str] = mapped_column(primary_key=True)
    verified: Mapped[bool] = mapped_column(default=False)
    verified_at: Mapped[datetime | None]
    primary: Mapped[bool] = mapped_column(default=False)
    position: Mapped[int]


class FormerIdentifierRow(ProfilePartRow, Base):
    """A channel identity or external id that a profile no longer has (`FormerIdentifier`)."""

    __tablename__ = "former_identifiers"
    __table_args__ = (
        _profile_key(),
        Index("ix_former_identifiers_value", "tenant_id", "kind", "value"),
    )

    kind: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[str] = mapped_column(primary_key=True)
    freed_at: Mapped[datetime] = mapped_column(primary_key=True)


class ProfileFieldRow(TenantKey, Base):
    """A fact about a customer (`ProfileField`): the present value, whose `replaced_at` is NULL, and the former ones.

    Attributes:
        revision: The profile's revision when the value was written. It orders values replaced at the same moment.
    """

    __tablename__ = "profile_fields"
    __table_args__ = (
        _profile_key(),
        Index("ix_profile_fields_history", "tenant_id", "profile_id", "name"),
        Index(
            "ix_profile_fields_present",
            "tenant_id",
            "profile_id",
            postgresql_where=literal_column("replaced_at IS NULL"),
        ),
    )

    profile_id: Mapped[UUID]
    name: Mapped[str]
    value: Mapped[Any] = mapped_column(Document)
    value_type: Mapped[str]
    source: Mapped[str]
    source_session_id: Mapped[UUID | None]
    source_scenario_id: Mapped[UUID | None]
    source_step_id: Mapped[UUID | None]
    verified: Mapped[bool] = mapped_column(default=False)
    verification_method: Mapped[str | None]
    verified_at: Mapped[datetime | None]
    verified_by: Mapped[str | None]
    confidence: Mapped[float] = mapped_column(default=1.0)
    requires_confirmation: Mapped[bool] = mapped_column(default=False)
    collected_at: Mapped[datetime] = mapped_column(default=utcnow)
    updated_at: Mapped[datetime] = mapped_column(default=utcnow)
    expires_at: Mapped[datetime | None]
    replaced_at: Mapped[datetime | None]
    revision: Mapped[int] = mapped_column(default=1)


class ProfileAssetRow(ProfilePartRow, Base):
    """A file of a customer (`ProfileAsset`). Its id is unique within its profile only, so that profiles cannot collide.

    Attributes:
        position: The place in the profile's list, from 0.
    """

    __tablename__ = "profile_assets"
    __table_args__ = (_profile_key(),)

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    name: Mapped[str]
    asset_type: Mapped[str]
    storage_provider: Mapped[str]
    storage_path: Mapped[str]
    mime_type: Mapped[str]
    size_bytes: Mapped[int]
    checksum: Mapped[str]
    uploaded_at: Mapped[datetime] = mapped_column(default=utcnow)
    uploaded_in_session_id: Mapped[UUID | None]
    uploaded_in_scenario_id: Mapped[UUID | None]
    verified: Mapped[bool] = mapped_column(default=False)
    verification_result: Mapped[dict[str, Any] | None] = mapped_column(Document(none_as_null=True))
    retention_policy: Mapped[str] = mapped_column(default="permanent")
    expires_at: Mapped[datetime | None]
    position: Mapped[int]


class ProfileConsentRow(ProfilePartRow, Base):
    """A consent of a customer (`Consent`). A profile may hold several of one type, so the position identifies them."""

    __tablename__ = "profile_consents"
    __table_args__ = (_profile_key(),)

    position: Mapped[int] = mapped_column(primary_key=True)
    consent_type: Mapped[str]
    granted: Mapped[bool]
    granted_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]
    source_session_id: Mapped[UUID | None]
    ip_address: Mapped[str | None]
