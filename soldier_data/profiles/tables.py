"""What the profile store in memory keeps."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from pydantic import BaseModel

from soldier_data.base.inmemory import MemoryTable, TableSet
from soldier_data.profiles.models import CustomerProfile, FormerIdentifier, ProfileField


class History(BaseModel):
    """What one field of a profile was, oldest first."""

    tenant_id: UUID
    profile_id: UUID
    name: str
    replaced: list[ProfileField] = []


class Merger(BaseModel):
    """All profiles of a customer, as one of them knows them."""

    profile_id: UUID
    merged_profile_ids: set[UUID] = set()


class Tables(TableSet):
    """The tables of the store, or of one unit of work on them."""

    def __init__(
        self,
        profiles: MemoryTable[CustomerProfile] | None = None,
        histories: MemoryTable[History] | None = None,
        mergers: MemoryTable[Merger] | None = None,
        former: MemoryTable[FormerIdentifier] | None = None,
    ) -> None:
        self.profiles = profiles or MemoryTable[CustomerProfile]()
        self.histories = histories or MemoryTable[History]()
        self.mergers = mergers or MemoryTable[Merger]()
        self.former = former or MemoryTable[FormerIdentifier]()

    def begin(self) -> Tables:
        """The tables of a unit of work on these."""
        return Tables(
            self.profiles.begin(), self.histories.begin(), self.mergers.begin(), self.former.begin()
        )

    def all(self) -> tuple[MemoryTable[Any], ...]:
        """Every table."""
        return (self.profiles, self.histories, self.mergers, self.former)
