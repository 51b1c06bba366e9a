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

    A profile comes back whole: identities, assets and consents in the order in which they were saved or added,
    fields by name. What is returned is the caller's own copy.

    Every change of a profile, or of a part of it, adds one to its revision and sets its `updated_at`, which never
    goes back. Changes of one profile that are made at the same time happen one after the other.

    A call whose reply is lost with the connection is repeated, and has one effect. Only if somebody else changes
    the profile between the two attempts, a `save` without `if_revision` wins over that and counts twice, and one
    with it raises ConflictError though it took effect first.

    An identity (channel and channel_user_id) belongs to one living profile of the tenant; so do a customer_id and
    an external_id.

    Deletions are soft: the profile is gone from every read at once, with its history, and its identities and
    external_id are free for others. `purge_deleted` removes it for good later.

    Of a person (`SubjectStore`) are their profiles with all parts; the former values of fields, which an export lists
    as "profile_fields"; and, as "former_identifiers", the identities and external ids that the profiles lost, by a
    deletion or by a save without them. These are kept until the profile is purged, because conversations and runs are
    found by them. One that several customers have had was each one's from the moment when the one before lost it (the
    first one's from the beginning) until it was lost; after that it is the next one's, or still that customer's while
    nobody else has it.

    Raises (every method):
        StoreConnectionError: The server is unreachable or does not answer in time.
        ValidationError: An argument, or something in a list, is of a wrong type; a text holds NUL or half of a
            surrogate pair, a JSON value is no JSON, or an external_id, channel_user_id or name of a field is
            longer than 2,000 bytes. Names the field.
    """

    @abstractmethod
    async def get_by_id(self, tenant_id: UUID, profile_id: UUID) -> CustomerProfile | None:
        """The profile, or None if the tenant has none of that id."""

    @abstractmethod
    async def get_by_customer_id(self, tenant_id: UUID, customer_id: UUID) -> CustomerProfile | None:
        """The customer's profile, or None."""

    @abstractmethod
    async def get_by_channel_identity(
        self, tenant_id: UUID, channel: Channel, channel_user_id: str
    ) -> CustomerProfile | None:
        """The profile that the identity belongs to, or None."""

    @abstractmethod
    async def get_or_create(self, tenant_id: UUID, channel: Channel, channel_user_id: str) -> CustomerProfile:
        """The profile that the identity belongs to; if there is none, a new one.

        A new profile has a customer_id of its own and that identity, unverified and primary. Any number of calls
        at the same time get the same profile; calls in other units of work wait for the one that creates it.
        """

    @abstractmethod
    async def save(self, profile: CustomerProfile, *, if_revision: int | None = None) -> UUID:
        """Insert the profile or replace the one with its tenant and id, all parts included; returns the id.

        Identities, assets and consents that are not in `profile` are removed. A field that differs from the
        stored one in anything, or is not in `profile`, goes to the field's history.

        `updated_at` and `revision` are set on `profile`, once the store has it; on any error it stays as it was.
        With `if_revision=n` the save succeeds only while the stored revision is n (0: while nothing is stored).
        Saving a profile over a deleted one brings it back; saving one with `deleted_at` set deletes it.

        Raises:
            ConflictError: The customer_id, the external_id or one of the channel_identities is another profile's,
                or `if_revision` is not the stored revision.
            ValidationError: A field is not under its own name in `fields`, or an identity or the id of an asset is
                in the profile twice.
        """

    @abstractmethod
    async def delete(self, tenant_id: UUID, profile_id: UUID) -> bool:
        """Delete the profile.

        Returns True the first time, and False if there is no such profile.
        """

    @abstractmethod
    async def update_field(self, tenant_id: UUID, profile_id: UUID, field: ProfileField) -> bool:
        """Set one field; what it replaces goes to the history. A field equal to the stored one changes nothing.

        Returns False if there is no such profile.
        """

    @abstractmethod
    async def get_field_history(self, tenant_id: UUID, profile_id: UUID, name: str) -> list[ProfileField]:
        """What the field is and was, newest first.

        The present field comes first, with `replaced_at` None, if the profile has it (still); then what was
        replaced, each with `replaced_at`. Empty if there is no such profile or it never had the field.
        """

    @abstractmethod
    async def add_asset(self, tenant_id: UUID, profile_id: UUID, asset: ProfileAsset) -> bool:
        """Add an asset at the end, or replace the profile's asset of the same id in its place.

        Returns False if there is no such profile.
        """

    @abstractmethod
    async def link_channel(self, tenant_id: UUID, profile_id: UUID, identity: ChannelIdentity) -> bool:
        """Give the profile one more identity, at the end.

        Returns True, and changes nothing, if the profile has that channel and channel_user_id already. Returns
        False if another profile has them, or if there is no such profile.
        """

    @abstractmethod
    async def merge_profiles(self, tenant_id: UUID, source_profile_id: UUID, target_profile_id: UUID) -> bool:
        """Make one profile of two that turned out to be one customer, and delete the source (softly).

        The target gets the source's identities, assets and consents after its own, and its fields with their
        history. Of a field that both have, the one with the later `updated_at` stays (the target's, if they are
        equal) and the other one goes to the history; of an asset id that both have, the target's stays. The target
        keeps its customer_id and verification_level; it takes the source's external_id if it has none, and the
        later `last_interaction_at`.

        Returns False if either profile does not exist.

        Raises:
            ValidationError: Source and target are the same.
        """

    @abstractmethod
    async def purge_deleted(self, tenant_id: UUID, older_than: timedelta) -> int:
        """Remove for good the profiles deleted longer ago than `older_than`; returns how many went.

        With a profile go its parts, its history, and the identities and external ids that it had once. Outside of a
        unit of work profiles go some at a time, each time kept: if it fails, call it again for the rest.
        """

    @abstractmethod
    async def get_data_subject(self, tenant_id: UUID, profile_id: UUID) -> DataSubject:
        """Who the customer of a profile is, by all that their profiles tell.

        Their profiles are this one, those that it was merged with, on whichever side, and those that were merged
        with these; deleted and purged ones too. Of an unknown profile nothing is known but its id.
        """
