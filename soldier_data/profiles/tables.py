"""The tables of the in-memory profile store."""

from __future__ import annotations

from uuid import UUID

from pydantic import BaseModel

from soldier_data.base.inmemory import MemoryTable, TableSet
from soldier_data.profiles.models import CustomerProfile, FormerIdentifier, ProfileField


class History(BaseModel):
    """The former values of one field of a profile, oldest first."""

    tenant_id: UUID
    profile_id: UUID
    name: str
    replaced: list[ProfileField] = []


class Merger(BaseModel):
    """All profiles that a profile was merged with, itself included."""

    profile_id: UUID
    merged_profile_ids: set[UUID] = set()


class Tables(TableSet):
    """The tables of the store, or of one unit of work on it."""

    def __init__(self) -> None:
        self.customer_profiles = MemoryTable[CustomerProfile]()
        self.histories = MemoryTable[History]()
        self.mergers = MemoryTable[Merger]()
        self.former_identifiers = MemoryTable[FormerIdentifier]()
