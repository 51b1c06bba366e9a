"""The in-memory profile store: a reference implementation of the contract, and a fake for tests of services."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from pydantic import BaseModel
from pydantic_core import to_json

from soldier_data.base.channels import Channel
from soldier_data.base.inmemory import InMemoryStore
from soldier_data.base.models import mark_saved, new_id, utcnow
from soldier_data.base.subject_rules import InMemorySearch
from soldier_data.base.subjects import EXTERNAL_ID, DataSubject, SubjectRecords
from soldier_data.base.values import check_revision, check_storable, check_text, moment_before
from soldier_data.errors import ConflictError
from soldier_data.profiles.checks import (
    check_field,
    check_identity,
    check_merge,
    check_profile,
    new_identity,
)
from soldier_data.profiles.models import (
    ChannelIdentity,
    CustomerProfile,
    FormerIdentifier,
    ProfileAsset,
    ProfileField,
)
from soldier_data.profiles.store import ProfileStore
from soldier_data.profiles.subjects import Held, find, names_of, subject_of
from soldier_data.profiles.tables import History, Merger, Tables


class InMemoryProfileStore(ProfileStore, SubjectRecords, InMemoryStore):
    """`ProfileStore` without a database."""

    _tables: Tables

    def __init__(self) -> None:
        self._tables = Tables()

    def check_unique(self, entity: Any) -> None:
        if isinstance(entity, CustomerProfile) and not entity.is_deleted:
            self._refuse_taken(entity)

    async def get_by_id(self, tenant_id: UUID, profile_id: UUID) -> CustomerProfile | None:
        return self._get(tenant_id, profile_id)

    async def get_by_customer_id(self, tenant_id: UUID, customer_id: UUID) -> CustomerProfile | None:
        return self._find(tenant_id, lambda profile: profile.customer_id == customer_id)

    async def get_by_channel_identity(
        self, tenant_id: UUID, channel: Channel, channel_user_id: str
    ) -> CustomerProfile | None:
        check_text(channel_user_id, "channel_user_id")
        return self._find(tenant_id, lambda profile: _has_identity(profile, channel, channel_user_id))

    async def get_or_create(self, tenant_id: UUID, channel: Channel, channel_user_id: str) -> CustomerProfile:
        identity = new_identity(channel, channel_user_id)
        found = await self.get_by_channel_identity(tenant_id, channel, channel_user_id)
        if found is not None:
            return found
        profile = CustomerProfile(tenant_id=tenant_id, customer_id=new_id(), channel_identities=[identity])
        await self.save(profile)
        return profile

    async def save(self, profile: CustomerProfile, *, if_revision: int | None = None) -> UUID:
        check_profile(profile)
        check_revision(if_revision)
        stored = self._tables.customer_profiles.peek((profile.tenant_id, profile.id))
        revision = 0 if stored is None else stored.revision
        if if_revision not in (None, revision):
            raise ConflictError(
                f"saving the profile {profile.id}: revision {if_revision} was expected, but {revision} is stored"
            )
        self.check_unique(profile)
        saved = profile.model_copy(deep=True)
        saved.revision = revision
        saved.fields = {name: _present(field) for name, field in sorted(saved.fields.items())}
        moment = utcnow() if stored is None else _moment(stored)
        for name, field in stored.fields.items() if stored is not None else ():
            if name not in saved.fields or not _same(saved.fields[name], field):
                self._retire(profile.tenant_id, profile.id, field, moment)
        if saved.is_deleted:
            saved.channel_identities = []
        self._put(saved, moment)
        if stored is not None:
            self._remember_lost(stored, saved, moment)
        mark_saved(profile, saved.updated_at, saved.revision)
        return profile.id

    async def delete(self, tenant_id: UUID, profile_id: UUID) -> bool:
        profile = self._get(tenant_id, profile_id)
        if profile is None:
            return False
        living, moment = profile.model_copy(), _moment(profile)
        profile.deleted_at, profile.channel_identities = utcnow(), []
        self._put(profile, moment)
        self._remember_lost(living, profile, moment)
        return True

    async def update_field(self, tenant_id: UUID, profile_id: UUID, field: ProfileField) -> bool:
        check_field(field)
        profile = self._get(tenant_id, profile_id)
        if profile is None:
            return False
        replaced = profile.fields.get(field.name)
        if replaced is not None and _same(field, replaced):
            return True
        moment = _moment(profile)
        if replaced is not None:
            self._retire(tenant_id, profile_id, replaced, moment)
        profile.fields = dict(sorted({**profile.fields, field.name: _present(field)}.items()))
        self._put(profile, moment)
        return True

    async def get_field_history(self, tenant_id: UUID, profile_id: UUID, name: str) -> list[ProfileField]:
        check_text(name, "name")
        profile = self._get(tenant_id, profile_id)
        if profile is None:
            return []
        present = [profile.fields[name]] if name in profile.fields else []
        history = self._tables.histories.get((tenant_id, profile_id, name))
        return present + (history.replaced[::-1] if history is not None else [])

    async def add_asset(self, tenant_id: UUID, profile_id: UUID, asset: ProfileAsset) -> bool:
        check_storable(asset)
        profile = self._get(tenant_id, profile_id)
        if profile is None:
            return False
        for place, known in enumerate(profile.assets):
            if known.id == asset.id:
                if _same(known, asset):
                    return True
                profile.assets[place] = asset
                break
        else:
            profile.assets.append(asset)
        self._put(profile, _moment(profile))
        return True

    async def link_channel(self, tenant_id: UUID, profile_id: UUID, identity: ChannelIdentity) -> bool:
        check_identity(identity)
        profile = self._get(tenant_id, profile_id)
        if profile is None:
            return False
        owner = await self.get_by_channel_identity(tenant_id, identity.channel, identity.channel_user_id)
        if owner is not None:
            return owner.id == profile_id
        profile.channel_identities.append(identity)
        self._put(profile, _moment(profile))
        return True

    async def merge_profiles(self, tenant_id: UUID, source_profile_id: UUID, target_profile_id: UUID) -> bool:
        check_merge(source_profile_id, target_profile_id)
        source, target = self._get(tenant_id, source_profile_id), self._get(tenant_id, target_profile_id)
        if source is None or target is None:
            return False
        moment = max(_moment(source), _moment(target))
        target.channel_identities += source.channel_identities
        known = {asset.id for asset in target.assets}
        target.assets += [asset for asset in source.assets if asset.id not in known]
        target.consents += source.consents
        if target.external_id is None:
            target.external_id = source.external_id
        elif source.external_id not in (None, target.external_id):
            self._keep_former(target, (EXTERNAL_ID, source.external_id), moment)
        interactions = (target.last_interaction_at, source.last_interaction_at)
        target.last_interaction_at = max((at for at in interactions if at is not None), default=None)
        self._merge_fields(source, target, moment)
        source.channel_identities, source.fields, source.assets, source.consents = [], {}, [], []
        source.deleted_at = moment
        self._put(source, moment)
        self._put(target, moment)
        self._move_former(source, target)
        self._mark_merged(target.tenant_id, [source.id, target.id])
        return True

    async def purge_deleted(self, tenant_id: UUID, older_than: timedelta) -> int:
        before = moment_before(older_than)
        purged = [
            profile.id
            for profile in self._tables.customer_profiles.of_tenant(tenant_id)
            if profile.deleted_at is not None and profile.deleted_at < before
        ]
        for profile_id in purged:
            self._remove(tenant_id, profile_id)
        return len(purged)

    async def get_data_subject(self, tenant_id: UUID, profile_id: UUID) -> DataSubject:
        profile_ids = self._merged(tenant_id, [profile_id])
        everybody = [profile.id for profile in self._tables.customer_profiles.of_tenant(tenant_id)]
        held = self._held(tenant_id, profile_ids)
        return subject_of(tenant_id, profile_ids, held, self._held(tenant_id, everybody).holdings())

    async def find_subject(self, subject: DataSubject) -> dict[str, list[UUID]]:
        return await find(InMemorySearch(subject, self._tables))

    async def read_found(
        self,
        tenant_id: UUID,
        table: str,
        ids: Sequence[UUID],
        *,
        with_embeddings: bool = True,  # noqa: ARG002 - there are none.
    ) -> list[Any]:
        return list(self._held(tenant_id, ids).by_table()[table])

    async def erase_found(
        self, tenant_id: UUID, found: Mapping[str, Sequence[UUID]]
    ) -> dict[str, list[UUID]]:
        return {
            "customer_profiles": [id_ for id_ in found["customer_profiles"] if self._remove(tenant_id, id_)]
        }

    def _held(self, tenant_id: UUID, profile_ids: Iterable[UUID]) -> Held:
        ids = sorted(profile_ids)
        history = [
            field.model_copy(deep=True)
            for profile_id in ids
            for each in sorted(self._histories(tenant_id, profile_id), key=lambda each: each.name)
            for field in each.replaced
        ]
        former = [
            each for each in self._tables.former_identifiers.of_tenant(tenant_id) if each.profile_id in ids
        ]
        former.sort(key=lambda each: (each.profile_id, each.kind, each.value, each.freed_at))
        profiles = self._tables.customer_profiles.get_all(tenant_id, ids)
        return Held(profiles, history, [each.model_copy() for each in former])

    def _merged(self, tenant_id: UUID, profile_ids: Iterable[UUID]) -> set[UUID]:
        """All profiles that were merged with these, directly or through others, themselves included."""
        found = set(profile_ids)
        mergers = [
            {each.profile_id, *each.merged_profile_ids} for each in self._tables.mergers.of_tenant(tenant_id)
        ]
        while further := {id_ for ids in mergers if not found.isdisjoint(ids) for id_ in ids} - found:
            found |= further
        return found

    def _mark_merged(self, tenant_id: UUID, profile_ids: Iterable[UUID]) -> None:
        every = self._merged(tenant_id, profile_ids)
        for profile in self._tables.customer_profiles.get_all(tenant_id, every):
            merger = Merger(profile_id=profile.id, merged_profile_ids=every)
            self._tables.mergers.put((tenant_id, profile.id), merger)

    def _remember_lost(self, before: CustomerProfile, after: CustomerProfile, moment: datetime) -> None:
        """Store the identities and the external id that a change takes from the profile."""
        if not before.is_deleted:
            kept = set() if after.is_deleted else names_of(after)
            for name in names_of(before) - kept:
                self._keep_former(after, name, moment)

    def _keep_former(self, profile: CustomerProfile, name: tuple[str, str], moment: datetime) -> None:
        former = FormerIdentifier(profile_id=profile.id, kind=name[0], value=name[1], freed_at=moment)
        self._tables.former_identifiers.put((profile.tenant_id, profile.id, *name, moment), former)

    def _move_former(self, source: CustomerProfile, target: CustomerProfile) -> None:
        for each in list(self._tables.former_identifiers.of_tenant(source.tenant_id)):
            if each.profile_id == source.id:
                self._tables.former_identifiers.remove((source.tenant_id, *_former_key(each)))
                self._keep_former(target, (each.kind, each.value), each.freed_at)

    def _remove(self, tenant_id: UUID, profile_id: UUID) -> bool:
        self._tables.mergers.remove((tenant_id, profile_id))
        for history in self._histories(tenant_id, profile_id):
            self._tables.histories.remove((tenant_id, profile_id, history.name))
        for former in list(self._tables.former_identifiers.of_tenant(tenant_id)):
            if former.profile_id == profile_id:
                self._tables.former_identifiers.remove((tenant_id, *_former_key(former)))
        return self._tables.customer_profiles.remove((tenant_id, profile_id))

    def _get(self, tenant_id: UUID, profile_id: UUID) -> CustomerProfile | None:
        profile = self._tables.customer_profiles.get((tenant_id, profile_id))
        return None if profile is None or profile.is_deleted else profile

    def _find(self, tenant_id: UUID, is_wanted: Callable[[CustomerProfile], bool]) -> CustomerProfile | None:
        for profile in self._tables.customer_profiles.living(tenant_id):
            if is_wanted(profile):
                return profile.model_copy(deep=True)
        return None

    def _put(self, profile: CustomerProfile, moment: datetime) -> None:
        profile.updated_at = moment
        profile.revision += 1
        self._tables.customer_profiles.put((profile.tenant_id, profile.id), profile)

    def _refuse_taken(self, profile: CustomerProfile) -> None:
        operation = f"saving the profile {profile.id}"
        for other in self._tables.customer_profiles.living(profile.tenant_id):
            if other.id == profile.id:
                continue
            if other.customer_id == profile.customer_id:
                raise ConflictError(f"{operation}: customer_id: another profile of the tenant has it")
            if profile.external_id is not None and other.external_id == profile.external_id:
                raise ConflictError(f"{operation}: external_id: another profile of the tenant has it")
            for identity in profile.channel_identities:
                if _has_identity(other, identity.channel, identity.channel_user_id):
                    raise ConflictError(f"{operation}: channel_identities: another profile has one of them")

    def _merge_fields(self, source: CustomerProfile, target: CustomerProfile, moment: datetime) -> None:
        for history in self._histories(source.tenant_id, source.id):
            for field in history.replaced:
                self._retire(target.tenant_id, target.id, field, field.replaced_at)
            self._tables.histories.remove((source.tenant_id, source.id, history.name))
        for name, field in source.fields.items():
            own = target.fields.get(name)
            if own is None:
                target.fields[name] = field
            elif field.updated_at > own.updated_at:
                target.fields[name] = field
                self._retire(target.tenant_id, target.id, own, moment)
            else:
                self._retire(target.tenant_id, target.id, field, moment)
        target.fields = dict(sorted(target.fields.items()))

    def _histories(self, tenant_id: UUID, profile_id: UUID) -> Iterator[History]:
        for history in list(self._tables.histories.of_tenant(tenant_id)):
            if history.profile_id == profile_id:
                yield history

    def _retire(
        self, tenant_id: UUID, profile_id: UUID, field: ProfileField, replaced_at: datetime | None
    ) -> None:
        key = (tenant_id, profile_id, field.name)
        history = self._tables.histories.get(key) or History(
            tenant_id=tenant_id, profile_id=profile_id, name=field.name
        )
        history.replaced.append(field.model_copy(update={"replaced_at": replaced_at}))
        history.replaced.sort(key=_by_replacement)
        self._tables.histories.put(key, history)


def _has_identity(profile: CustomerProfile, channel: Channel, channel_user_id: str) -> bool:
    key = (channel, channel_user_id)
    return any((known.channel, known.channel_user_id) == key for known in profile.channel_identities)


def _former_key(former: FormerIdentifier) -> tuple[UUID, str, str, datetime]:
    return former.profile_id, former.kind, former.value, former.freed_at


def _moment(profile: CustomerProfile) -> datetime:
    """The current time, or the profile's `updated_at` if that is ahead of the clock."""
    return max(utcnow(), profile.updated_at)


def _present(field: ProfileField) -> ProfileField:
    return field.model_copy(update={"replaced_at": None})


def _same(one: BaseModel, other: BaseModel) -> bool:
    """Compare all fields; JSON values as text, because in Python 1 == 1.0 == True."""
    json_values = {"value", "verification_result"}
    return all(
        to_json(value) == to_json(getattr(other, name))
        if name in json_values
        else value == getattr(other, name)
        for name, value in one.__dict__.items()
        if name != "replaced_at"
    )


def _by_replacement(field: ProfileField) -> datetime:
    assert field.replaced_at is not None
    return field.replaced_at
