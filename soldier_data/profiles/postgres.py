"""The profile store on PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from functools import partial
from typing import Any
from uuid import UUID

from pydantic_core import to_json

from soldier_data.base.channels import Channel
from soldier_data.base.models import Model, mark_saved, new_id, utcnow
from soldier_data.base.subjects import DataSubject, SubjectRecords
from soldier_data.base.values import check_revision, check_storable, check_text, moment_before
from soldier_data.errors import ConflictError, StoreError
from soldier_data.postgres.base_store import PostgresStore
from soldier_data.postgres.executor import Executor
from soldier_data.postgres.purging import ROWS_AT_A_TIME
from soldier_data.postgres.statements import Row, Statement, Values
from soldier_data.postgres.subjects import PostgresSearch, erase_in_batches
from soldier_data.postgres.transaction import Transaction
from soldier_data.profiles import merge_statements, statements, write_statements
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
from soldier_data.profiles.subjects import TABLES, Held, Holding, find, subject_of

_MOST_ATTEMPTS = 100
"""The number of times that `get_or_create` looks for a profile that others create and delete meanwhile."""


class PostgresProfileStore(ProfileStore, PostgresStore, SubjectRecords):
    """`ProfileStore` on a `Database`, or on the `Transaction` of a unit of work."""

    def __init__(self, database: Executor) -> None:
        self._db = database

    async def get_by_id(self, tenant_id: UUID, profile_id: UUID) -> CustomerProfile | None:
        return await self._read(statements.get_by_id, {"tenant_id": tenant_id, "id": profile_id})

    async def get_by_customer_id(self, tenant_id: UUID, customer_id: UUID) -> CustomerProfile | None:
        values = {"tenant_id": tenant_id, "customer_id": customer_id}
        return await self._read(statements.get_by_customer_id, values)

    async def get_by_channel_identity(
        self, tenant_id: UUID, channel: Channel, channel_user_id: str
    ) -> CustomerProfile | None:
        check_text(channel_user_id, "channel_user_id")
        values = {"tenant_id": tenant_id, "channel": channel, "channel_user_id": channel_user_id}
        return await self._read(statements.get_by_channel_identity, values)

    async def get_or_create(self, tenant_id: UUID, channel: Channel, channel_user_id: str) -> CustomerProfile:
        identity = new_identity(channel, channel_user_id)
        for _ in range(_MOST_ATTEMPTS):
            found = await self.get_by_channel_identity(tenant_id, channel, channel_user_id)
            if found is not None:
                return found
            profile = CustomerProfile(
                tenant_id=tenant_id, customer_id=new_id(), channel_identities=[identity], revision=1
            )
            row = await self._db.fetch_one(write_statements.create, _values(profile, profile.updated_at))
            if row is not None:
                return profile
        raise StoreError("creating the profile: other callers keep creating and deleting it: try again later")

    async def save(self, profile: CustomerProfile, *, if_revision: int | None = None) -> UUID:
        check_profile(profile)
        check_revision(if_revision)
        values = {**_values(profile, utcnow()), "if_revision": if_revision}
        if profile.is_deleted:
            values["channel_identities"] = "[]"
        row = await self._write(write_statements.save, values, may_conflict=True)
        if row["revision"] is None:
            raise ConflictError(
                f"saving the profile {profile.id}: revision {if_revision} was expected, but {row['stored']} is "
                "stored (0: nothing): read it again and repeat the change"
            )
        mark_saved(profile, row["updated_at"], row["revision"])
        return profile.id

    async def delete(self, tenant_id: UUID, profile_id: UUID) -> bool:
        return await self._change(write_statements.delete_profile, tenant_id, profile_id)

    async def update_field(self, tenant_id: UUID, profile_id: UUID, field: ProfileField) -> bool:
        check_field(field)
        fields = _fields([field])
        return await self._change(write_statements.update_field, tenant_id, profile_id, profile_fields=fields)

    async def get_field_history(self, tenant_id: UUID, profile_id: UUID, name: str) -> list[ProfileField]:
        check_text(name, "name")
        rows = await self._db.fetch_all(
            statements.get_field_history, {"tenant_id": tenant_id, "id": profile_id, "name": name}
        )
        return [ProfileField.model_validate_json(row["field"]) for row in rows]

    async def add_asset(self, tenant_id: UUID, profile_id: UUID, asset: ProfileAsset) -> bool:
        check_storable(asset)
        assets = _in_order([asset])
        return await self._change(write_statements.add_asset, tenant_id, profile_id, profile_assets=assets)

    async def link_channel(self, tenant_id: UUID, profile_id: UUID, identity: ChannelIdentity) -> bool:
        check_identity(identity)
        identities = _in_order([identity])
        try:
            return await self._change(
                write_statements.link_channel,
                tenant_id,
                profile_id,
                may_conflict=True,
                channel_identities=identities,
            )
        except ConflictError:
            return False

    async def merge_profiles(self, tenant_id: UUID, source_profile_id: UUID, target_profile_id: UUID) -> bool:
        check_merge(source_profile_id, target_profile_id)
        key = {"tenant_id": tenant_id, "source_id": source_profile_id, "target_id": target_profile_id}
        both = {"tenant_id": tenant_id, "ids": [source_profile_id, target_profile_id]}
        write_id, now = new_id(), utcnow()

        async def work(transaction: Transaction) -> bool:
            found = await transaction.fetch_all(merge_statements.find_merged, both)
            every = {"tenant_id": tenant_id, "ids": [row["id"] for row in found]}
            locked = await transaction.fetch_all(merge_statements.lock_all, every)
            rows = {row["id"]: row for row in locked}
            source, target = rows.get(source_profile_id), rows.get(target_profile_id)
            if source is None or target is None or target["deleted_at"] is not None:
                return False
            if source["deleted_at"] is not None:
                # If an earlier attempt of this call did it, its reply was lost.
                return bool(source["write_id"] == write_id)
            values = {**key, **_merged(source, target), "write_id": write_id}
            values["now"] = max(now, source["updated_at"], target["updated_at"])
            for statement in merge_statements.merge:
                await transaction.fetch_all(statement, values)
            if source["external_id"] not in (None, values["external_id"]):
                lost = {**values, "lost_external_id": source["external_id"]}
                await transaction.fetch_all(merge_statements.remember_external_id, lost)
            await transaction.fetch_all(merge_statements.mark_merged, every)
            return True

        return await self._db.atomically(work, "merging the profiles")

    async def purge_deleted(self, tenant_id: UUID, older_than: timedelta) -> int:
        values = {"tenant_id": tenant_id, "before": moment_before(older_than)}
        how_many, more = 0, True
        while more:
            # A set, because an attempt is repeated after a lost reply to its COMMIT.
            removed: set[UUID] = set()
            work = partial(_purge_some, values=values, removed=removed)
            more = await self._db.atomically(work, "purging deleted profiles")
            how_many += len(removed)
        return how_many

    async def get_data_subject(self, tenant_id: UUID, profile_id: UUID) -> DataSubject:
        values = {"tenant_id": tenant_id, "ids": [profile_id]}
        profile_ids = [row["id"] for row in await self._db.fetch_all(merge_statements.find_merged, values)]
        held = await self._held(tenant_id, profile_ids)
        names = {(holding.kind, holding.value) for holding in held.holdings()}
        asked = {
            "tenant_id": tenant_id,
            "kinds": [kind for kind, _ in names],
            "values": [value for _, value in names],
        }
        rows = await self._db.fetch_all(statements.find_holdings, asked)
        return subject_of(tenant_id, profile_ids, held, [Holding(**row) for row in rows])

    async def find_subject(self, subject: DataSubject) -> dict[str, list[UUID]]:
        return await find(PostgresSearch(subject, self._db, "looking for the customer's profiles"))

    async def read_found(
        self,
        tenant_id: UUID,
        table: str,
        ids: Sequence[UUID],
        *,
        with_embeddings: bool = True,  # noqa: ARG002 - there are none.
    ) -> list[Any]:
        statement, to_entity = _READING[table]
        values = {"tenant_id": tenant_id, "ids": ids}
        return [to_entity(row) for row in await self._db.fetch_all(statement, values)]

    async def erase_found(
        self, tenant_id: UUID, found: Mapping[str, Sequence[UUID]]
    ) -> dict[str, list[UUID]]:
        profiles = {"customer_profiles": found["customer_profiles"]}
        operation = "erasing the customer's profiles"
        return await erase_in_batches(self._db, tenant_id, profiles, _erase, operation)

    async def _held(self, tenant_id: UUID, profile_ids: list[UUID]) -> Held:
        profiles, history, former = [await self.read_found(tenant_id, table, profile_ids) for table in TABLES]
        return Held(profiles, history, former)

    async def _read(self, statement: Statement, values: Values) -> CustomerProfile | None:
        row = await self._db.fetch_one(statement, values)
        return CustomerProfile.model_validate_json(row["profile"]) if row else None

    async def _change(
        self,
        statement: Statement,
        tenant_id: UUID,
        profile_id: UUID,
        *,
        may_conflict: bool = False,
        **parts: str,
    ) -> bool:
        """Change a living profile; return False if there is none, or if the statement refuses."""
        values = {"tenant_id": tenant_id, "id": profile_id, "now": utcnow(), "write_id": new_id(), **parts}
        row = await self._write(statement, values, may_conflict=may_conflict)
        return bool(row["found"])

    async def _write(self, statement: Statement, values: Values, *, may_conflict: bool) -> Row:
        """Run a statement of `write_statements`; repeat it with the row locked if others changed it meanwhile."""
        run = self._db.write_one if may_conflict else self._db.fetch_one
        row = await run(statement, values)

        async def locked(transaction: Transaction) -> Row | None:
            await transaction.fetch_one(write_statements.lock, values)
            return await transaction.fetch_one(statement, values)

        while row is None or not row["done"]:
            row = await self._db.atomically(locked, statement.operation)
        return row


def _values(profile: CustomerProfile, now: Any) -> dict[str, Any]:
    """The parameters of a save: columns by name, and parts by the name of their table, as JSON."""
    return {
        **profile.__dict__,
        "now": now,
        "write_id": new_id(),
        "channel_identities": _in_order(profile.channel_identities),
        "profile_fields": _fields(profile.fields.values()),
        "profile_assets": _in_order(profile.assets),
        "profile_consents": _in_order(profile.consents),
    }


def _in_order(parts: Iterable[Model]) -> str:
    rows = [{**part.__dict__, "position": position} for position, part in enumerate(parts)]
    return to_json(rows).decode()


def _fields(fields: Iterable[ProfileField]) -> str:
    return to_json([{**field.__dict__, "id": new_id()} for field in fields]).decode()


def _merged(source: Row, target: Row) -> dict[str, Any]:
    """The columns of the target's row that the source's row may change."""
    interactions = [row["last_interaction_at"] for row in (source, target) if row["last_interaction_at"]]
    return {
        "external_id": source["external_id"] if target["external_id"] is None else target["external_id"],
        "last_interaction_at": max(interactions, default=None),
    }


async def _purge_some(transaction: Transaction, values: Values, removed: set[UUID]) -> bool:
    """Remove some old profiles and add their ids to `removed`; return whether there may be more."""
    ids = [row["id"] for row in await transaction.fetch_all(merge_statements.lock_old, values)]
    if ids:
        for statement in merge_statements.purge:
            await transaction.fetch_all(statement, {**values, "ids": ids})
    removed.update(ids)
    return len(ids) >= ROWS_AT_A_TIME


async def _erase(
    transaction: Transaction, tenant_id: UUID, table: str, ids: Sequence[UUID]
) -> dict[str, list[UUID]]:
    values = {"tenant_id": tenant_id, "ids": ids}
    locked = [row["id"] for row in await transaction.fetch_all(merge_statements.lock_listed, values)]
    for statement in merge_statements.erase:
        await transaction.fetch_all(statement, {"tenant_id": tenant_id, "ids": locked})
    return {table: locked}


_READING: dict[str, tuple[Statement, Callable[[Row], Any]]] = {
    "customer_profiles": (
        statements.read_profiles,
        lambda row: CustomerProfile.model_validate_json(row["profile"]),
    ),
    "profile_fields": (
        statements.read_history,
        lambda row: ProfileField.model_validate_json(row["field"]),
    ),
    "former_identifiers": (
        statements.read_former,
        lambda row: FormerIdentifier.model_validate(dict(row)),
    ),
}
