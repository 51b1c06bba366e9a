"""The contract of the profile store."""

from __future__ import annotations

from abc import abstractmethod
from datetime import timedelta
from uuid import UUID

from soldier_data.base.channels import Channel
from soldier_data.base.subjects import DataSubject, SubjectStore
from soldier_data.profiles.models import ChannelIdentity, CustomerProfile, ProfileAsset, ProfileField


class ProfileStore(SubjectStore):
    """Customer profiles, each with its channel identities, fields, assets and consents.

    Reads return whole profiles: identities, assets and consents in the order in which they were saved or added,
    fields by name. They return copies, which the caller may change.

    Every change of a profile or one of its parts increases the revision by one and sets `updated_at`, which never
    goes back. Simultaneous changes of one profile are applied one after the other.

    Among the living profiles of a tenant, each identity (channel and channel_user_id), customer_id and external_id
    belongs to one profile.

    Deletions are soft: reads no longer return the profile or its history, its identities and external_id are free
    again, and `purge_deleted` removes it later.

    Calls are repeated after a lost connection and take effect once, with one exception: if another caller changes
    the same profile between two attempts, a `save` without `if_revision` overwrites that change and increases the
    revision twice, and a `save` with it raises ConflictError although it took effect first.

    The records of a data subject (see `SubjectStore`) are their profiles with all parts, and, listed by an export as
    tables of their own:

    - "profile_fields": the former values of fields;
    - "former_identifiers": the identities and external ids that the profiles no longer have, because a profile was
      deleted or saved without them. They are kept until the profile is purged, because sessions and runs are found
      by them.

    An identity or external id that several customers have had belonged to each of them until they lost it, from the
    moment when the previous one lost it, or for the first one from the beginning. If nobody has it now, it still
    belongs to the last one.

    Raises (every method):
        StoreConnectionError: The server cannot be reached or does not respond in time.
        ValidationError: An argument, or an item of a list, has the wrong type; a field of an entity has an invalid
            value; a text contains NUL or an unpaired surrogate; a value is not valid JSON; an external_id, a
            channel_user_id or the name of a field is longer than 2,000 bytes. Names the field.
    """

    @abstractmethod
    async def get_by_id(self, tenant_id: UUID, profile_id: UUID) -> CustomerProfile | None:
        """Return the profile, or None if the tenant has no profile with this id."""

    @abstractmethod
    async def get_by_customer_id(self, tenant_id: UUID, customer_id: UUID) -> CustomerProfile | None:
        """Return the profile with this customer_id, or None if the tenant has none."""

    @abstractmethod
    async def get_by_channel_identity(
        self, tenant_id: UUID, channel: Channel, channel_user_id: str
    ) -> CustomerProfile | None:
        """Return the profile that has this identity, or None if the tenant has none."""

    @abstractmethod
    async def get_or_create(self, tenant_id: UUID, channel: Channel, channel_user_id: str) -> CustomerProfile:
        """Return the profile that has this identity, and create one if there is none.

        A new profile has a new customer_id, and the identity as its only one, unverified and primary. Simultaneous
        calls return the same profile; calls in other units of work wait for the one that creates it.
        """

    @abstractmethod
    async def save(self, profile: CustomerProfile, *, if_revision: int | None = None) -> UUID:
        """Insert a profile, or replace the one with the same tenant and id, with all parts; return its id.

        Identities, assets and consents that are not in `profile` are removed. A stored field that `profile` lacks,
        or has with any difference, is moved to the history of the field. Saving over a deleted profile restores it;
        saving with `deleted_at` set deletes it.

        Sets `updated_at` and `revision` on `profile`; on an error it leaves `profile` unchanged.

        Args:
            profile: The profile.
            if_revision: Save the profile only if this is the stored revision; 0 means that nothing is stored. By
                default the profile is saved in any case.

        Raises:
            ConflictError: The customer_id, the external_id or one of the channel_identities belongs to another
                profile; or `if_revision` is not the stored revision.
            ValidationError: The key of a field in `fields` is not its name; or an identity, or the id of an asset,
                is in the profile twice.
        """

    @abstractmethod
    async def delete(self, tenant_id: UUID, profile_id: UUID) -> bool:
        """Delete a profile; return whether it existed."""

    @abstractmethod
    async def update_field(self, tenant_id: UUID, profile_id: UUID, field: ProfileField) -> bool:
        """Set one field, and move its former value to the history; return whether the profile exists.

        A field that equals the stored one changes nothing.
        """

    @abstractmethod
    async def get_field_history(self, tenant_id: UUID, profile_id: UUID, name: str) -> list[ProfileField]:
        """Return the present and all former values of a field, newest first.

        The present value comes first, with `replaced_at` None, unless the profile no longer has the field. The list
        is empty if there is no such profile, or it never had the field.
        """

    @abstractmethod
    async def add_asset(self, tenant_id: UUID, profile_id: UUID, asset: ProfileAsset) -> bool:
        """Append an asset, or replace the one with its id in its place; return whether the profile exists."""

    @abstractmethod
    async def link_channel(self, tenant_id: UUID, profile_id: UUID, identity: ChannelIdentity) -> bool:
        """Append an identity to a profile; return whether the profile has it now.

        Returns:
            True if the identity was added, or if the profile had its channel and channel_user_id already, in which
            case nothing changes. False if another profile has them, or there is no such profile.
        """

    @abstractmethod
    async def merge_profiles(self, tenant_id: UUID, source_profile_id: UUID, target_profile_id: UUID) -> bool:
        """Merge two profiles of one customer into the target, and delete the source (softly).

        The target keeps its customer_id and verification_level. It gets:

        - the source's identities and consents, after its own;
        - the source's assets, after its own, without those whose id it has;
        - the source's fields with their history. If both have a field, the one with the later `updated_at` stays, or
          the target's if they are equal, and the other one is moved to the history;
        - the source's external_id, if it has none;
        - the later `last_interaction_at`.

        Returns:
            False if one of the profiles does not exist.

        Raises:
            ValidationError: Source and target are the same profile.
        """

    @abstractmethod
    async def purge_deleted(self, tenant_id: UUID, older_than: timedelta) -> int:
        """Remove for good the profiles that were deleted longer ago than `older_than`; return their number.

        A profile is removed with its parts, its history, and its former identities and external ids. Outside of a
        unit of work, profiles are removed in several transactions: after an error, call it again for the rest.
        """

    @abstractmethod
    async def get_data_subject(self, tenant_id: UUID, profile_id: UUID) -> DataSubject:
        """Describe the customer of a profile by everything that their profiles tell.

        These are the profile, and all that were merged with it, directly or through others, including deleted and
        purged ones. If the profile is unknown, its id is all that is returned.
        """
