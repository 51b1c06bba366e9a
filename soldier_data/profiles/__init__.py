"""Customer profiles: who customers are on which channel, what is known of them, and what they agreed to."""

from soldier_data.base.channels import Channel
from soldier_data.profiles.inmemory import InMemoryProfileStore
from soldier_data.profiles.models import (
    ChannelIdentity,
    Consent,
    CustomerProfile,
    FormerIdentifier,
    ProfileAsset,
    ProfileField,
    ProfileFieldSource,
    VerificationLevel,
)
from soldier_data.profiles.postgres import PostgresProfileStore
from soldier_data.profiles.store import ProfileStore

__all__ = [
    "Channel",
    "ChannelIdentity",
    "Consent",
    "CustomerProfile",
    "FormerIdentifier",
    "InMemoryProfileStore",
    "PostgresProfileStore",
    "ProfileAsset",
    "ProfileField",
    "ProfileFieldSource",
    "ProfileStore",
    "VerificationLevel",
]
