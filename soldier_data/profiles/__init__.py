"""Customer profiles: channel identities, known facts, files and consents of customers."""

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
