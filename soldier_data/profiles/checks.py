"""The checks that both profile stores make before they write."""

from __future__ import annotations

from uuid import UUID

from soldier_data.base.channels import Channel
from soldier_data.base.values import check_key, check_storable
from soldier_data.errors import ValidationError
from soldier_data.profiles.models import ChannelIdentity, CustomerProfile, ProfileField


def check_profile(profile: CustomerProfile) -> None:
    """Check that `profile` can be stored with all its parts.

    Raises:
        ValidationError: It cannot. Names the field.
    """
    check_storable(profile)
    if profile.external_id is not None:
        check_key(profile.external_id, "external_id")
    for key, field in profile.fields.items():
        if key != field.name:
            raise ValidationError(
                "fields[...].name differs from the key in fields: use the name as the key",
                field="fields",
            )
        check_key(field.name, "fields[...].name")
    identities = set()
    for place, identity in enumerate(profile.channel_identities):
        check_key(identity.channel_user_id, f"channel_identities[{place}].channel_user_id")
        identities.add((identity.channel, identity.channel_user_id))
    if len(identities) < len(profile.channel_identities):
        raise ValidationError(
            "channel_identities contains a channel and channel_user_id twice: keep one of them",
            field="channel_identities",
        )
    if len({asset.id for asset in profile.assets}) < len(profile.assets):
        raise ValidationError("assets contains an id twice: keep one of them", field="assets")


def check_field(field: ProfileField) -> None:
    """Check that `field` can be stored.

    Raises:
        ValidationError: It cannot. Names the field of the model.
    """
    check_storable(field)
    check_key(field.name, "name")


def check_identity(identity: ChannelIdentity) -> None:
    """Check that `identity` can be stored.

    Raises:
        ValidationError: It cannot. Names the field.
    """
    check_storable(identity)
    check_key(identity.channel_user_id, "channel_user_id")


def new_identity(channel: Channel, channel_user_id: str) -> ChannelIdentity:
    """Return the identity of a profile that `get_or_create` creates.

    Raises:
        ValidationError: `channel` is not a channel, or `channel_user_id` cannot be stored.
    """
    check_key(channel_user_id, "channel_user_id")
    if channel not in list(Channel):
        raise ValidationError(
            "channel is not a member of soldier_data.profiles.Channel: use one of them", field="channel"
        )
    return ChannelIdentity(channel=channel, channel_user_id=channel_user_id, primary=True)


def check_merge(source_profile_id: UUID, target_profile_id: UUID) -> None:
    """Check that two profiles can be merged.

    Raises:
        ValidationError: They are the same profile.
    """
    if source_profile_id == target_profile_id:
        raise ValidationError(
            "target_profile_id equals source_profile_id: a profile cannot be merged into itself",
            field="target_profile_id",
        )
