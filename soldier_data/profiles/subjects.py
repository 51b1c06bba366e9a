"""The data subject that profiles describe: the ids by which all stores find the records of a person."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple
from uuid import UUID

from soldier_data.base.channels import Channel
from soldier_data.base.subject_rules import SubjectSearch
from soldier_data.base.subjects import EXTERNAL_ID, DataSubject, Tenure
from soldier_data.profiles.models import CustomerProfile, FormerIdentifier, ProfileField

TABLES = ("customer_profiles", "profile_fields", "former_identifiers")
"""The tables that an export lists. The records of all of them are found by the ids of profiles."""

_NEVER = datetime.max.replace(tzinfo=UTC)


class Holding(NamedTuple):
    """A present or former identity or external id of a profile.

    Attributes:
        kind: The channel, or `EXTERNAL_ID`.
        value: The channel_user_id, or the external_id.
        profile_id: The profile.
        freed_at: The time at which the profile lost it; None if it still has it.
    """

    kind: str
    value: str
    profile_id: UUID
    freed_at: datetime | None = None


@dataclass(frozen=True)
class Held:
    """The stored records of some profiles.

    Attributes:
        profiles: The profiles, including softly deleted ones.
        history: The former values of their fields.
        former: Their former identities and external ids.
    """

    profiles: list[CustomerProfile]
    history: list[ProfileField]
    former: list[FormerIdentifier]

    def by_table(self) -> Mapping[str, list[CustomerProfile] | list[ProfileField] | list[FormerIdentifier]]:
        """The records by table."""
        return dict(zip(TABLES, (self.profiles, self.history, self.former), strict=True))

    def holdings(self) -> list[Holding]:
        """The present and former identities and external ids of the profiles."""
        return [
            *(Holding(each.kind, each.value, each.profile_id, each.freed_at) for each in self.former),
            *(
                Holding(*name, profile.id, profile.deleted_at)
                for profile in self.profiles
                for name in names_of(profile)
            ),
        ]


async def find(search: SubjectSearch) -> dict[str, list[UUID]]:
    """The ids of the person's profiles, under each table: their history and former identifiers are found by them."""
    ids = await search.look_up("customer_profiles", "id", search.subject.profile_ids)
    return dict.fromkeys(TABLES, ids)


def names_of(profile: CustomerProfile) -> set[tuple[str, str]]:
    """The kinds and values of the identities and the external id that a profile has."""
    names = {(str(each.channel), each.channel_user_id) for each in profile.channel_identities}
    return names if profile.external_id is None else names | {(EXTERNAL_ID, profile.external_id)}


def tenures_of(holdings: Iterable[Holding], profile_ids: frozenset[UUID]) -> Iterator[Tenure]:
    """The periods in which identities and external ids were the person's that other customers have had, too.

    Each holder's period begins when the previous holder lost it, because the time at which they got it is not known.
    If nobody has it now, the last holder's period continues.
    """
    by_name: dict[tuple[str, str], list[Holding]] = defaultdict(list)
    for holding in holdings:
        by_name[holding.kind, holding.value].append(holding)
    for (kind, value), held in by_name.items():
        if all(holding.profile_id in profile_ids for holding in held):
            continue
        held.sort(key=lambda holding: holding.freed_at or _NEVER)
        after = None
        for holding in held:
            until = None if holding is held[-1] else holding.freed_at
            if holding.profile_id in profile_ids:
                yield Tenure(kind, value, after, until)
            after = holding.freed_at


def subject_of(
    tenant_id: UUID, profile_ids: Iterable[UUID], held: Held, holdings: Iterable[Holding]
) -> DataSubject:
    """Describe the person who has these profiles.

    Args:
        tenant_id: The tenant.
        profile_ids: The ids of the profiles, including purged ones.
        held: The stored records of the profiles.
        holdings: The holdings, by any profile, of the identities and external ids that the profiles have or had.
    """
    profiles, theirs = held.profiles, frozenset(profile_ids)
    assets = [asset for profile in profiles for asset in profile.assets]
    consents = [consent for profile in profiles for consent in profile.consents]
    fields = [field for profile in profiles for field in profile.fields.values()]
    sessions = {
        *(field.source_session_id for field in (*fields, *held.history)),
        *(asset.uploaded_in_session_id for asset in assets),
        *(consent.source_session_id for consent in consents),
    }
    own = held.holdings()
    return DataSubject(
        tenant_id=tenant_id,
        profile_ids=theirs,
        related_ids=frozenset(
            [*(profile.customer_id for profile in profiles), *(asset.id for asset in assets)]
        ),
        session_ids=frozenset(session_id for session_id in sessions if session_id is not None),
        identities=frozenset((Channel(each.kind), each.value) for each in own if each.kind != EXTERNAL_ID),
        external_ids=frozenset(each.value for each in own if each.kind == EXTERNAL_ID),
        tenures=frozenset(tenures_of({*own, *holdings}, theirs)),
    )
