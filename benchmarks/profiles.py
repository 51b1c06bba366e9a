"""The profile store compared with handwritten asyncpg code."""

from __future__ import annotations

import json
from itertools import cycle
from typing import Any
from uuid import UUID

from benchmarks import by_hand, samples, trips
from benchmarks.harness import LIMIT, OURS, Bar, Bench, Case
from soldier_data import Channel, CustomerProfile, DataLayer
from soldier_data.base.models import new_id, utcnow
from soldier_data.profiles import ChannelIdentity, Consent, ProfileAsset, ProfileField, ProfileFieldSource

GET = Bar(1.5)
SAVE = Bar(1.6)

GET_PROFILE = "get whole profile"
GET_BY_IDENTITY = "get whole profile by channel identity"
GET_OR_CREATE = "get_or_create, known"
SAVE_PROFILE = "save profile, one field changed"
UPDATE_FIELD = "update_field"
LINK_CHANNEL = "link_channel"

BY_HAND = "by hand in one transaction"
"""The obvious implementation has several statements. A single one would be a different design, not a lower limit."""

_FIELDS = 10
_KEY = "tenant_id = $1 AND profile_id = $2"
_PART = "WHERE part.tenant_id = profile.tenant_id AND part.profile_id = profile.id"

SELECT_PROFILE = f"""
SELECT row_to_json(whole)::text FROM (
    SELECT profile.*,
        (SELECT coalesce(json_agg(part ORDER BY part.position), '[]') FROM channel_identities part {_PART})
            AS channel_identities,
        (SELECT coalesce(json_object_agg(part.name, part), '{{}}') FROM profile_fields part
            {_PART} AND part.replaced_at IS NULL) AS fields,
        (SELECT coalesce(json_agg(part ORDER BY part.position), '[]') FROM profile_assets part {_PART}) AS assets,
        (SELECT coalesce(json_agg(part ORDER BY part.position), '[]') FROM profile_consents part {_PART})
            AS consents
    FROM customer_profiles profile
    WHERE profile.tenant_id = $1 AND profile.id = $2 AND profile.deleted_at IS NULL
) whole
"""  # noqa: S608 - constants.


def profile(tenant_id: UUID) -> CustomerProfile:
    """Return a customer with ten fields, two identities, two assets and three consents."""
    fields = [field(f"field_{number}") for number in range(_FIELDS)]
    return CustomerProfile(
        tenant_id=tenant_id,
        customer_id=new_id(),
        external_id=f"crm-{new_id()}",
        channel_identities=[
            ChannelIdentity(channel=channel, channel_user_id=str(new_id()))
            for channel in (Channel.WHATSAPP, Channel.EMAIL)
        ],
        fields={one.name: one for one in fields},
        assets=[
            ProfileAsset(
                name="passport.jpg",
                asset_type="identity_document",
                storage_provider="s3",
                storage_path=f"documents/{new_id()}",
                mime_type="image/jpeg",
                size_bytes=123_456,
                checksum="sha256:00ff",
            )
            for _ in range(2)
        ],
        consents=[
            Consent(consent_type=name, granted=True, granted_at=utcnow())
            for name in ("marketing", "recording", "research")
        ],
    )


def field(name: str) -> ProfileField:
    """Return a field with a new value."""
    return ProfileField(
        name=name,
        value=samples.sentence(5),
        value_type="string",
        source=ProfileFieldSource.LLM_EXTRACTED,
        source_session_id=new_id(),
        confidence=0.87,
    )


class Sample:
    """Stored data for the measurements. Each way of writing has its own profiles, so that none waits for locks."""

    def __init__(self) -> None:
        self.tenant_id = new_id()
        self.read, self.ours, self.by_hand = ([profile(self.tenant_id) for _ in range(50)] for _ in range(3))

    async def store(self, data: DataLayer) -> None:
        for one in (*self.read, *self.ours, *self.by_hand):
            await data.profiles.save(one)


async def measure(bench: Bench) -> None:
    """Fill the tables, then measure every operation."""
    sample = Sample()
    await sample.store(bench.data)
    connection = await by_hand.connect(bench.data.settings.database_url)
    await connection.execute("VACUUM ANALYZE")
    bench.note(
        f"A profile has {_FIELDS} fields, 2 channel identities, 2 assets and 3 consents: "
        f"{len(sample.read[0].model_dump_json()):,} bytes of JSON."
    )
    async with trips.counting(bench.data.settings) as counted:
        bench.round_trips |= await counted.count(ours(counted.data, sample))
    others = await limit(connection, sample)
    bars = {GET_PROFILE: GET, UPDATE_FIELD: SAVE, SAVE_PROFILE: SAVE}
    for operation, case in ours(bench.data, sample).items():
        await bench.compare(
            operation,
            {OURS: case} | others.get(operation, {}),
            bar=bars.get(operation),
            same=operation == GET_PROFILE,
        )
    await connection.close()


def ours(data: DataLayer, sample: Sample) -> dict[str, Case]:
    """Return the operations with the store."""
    store, tenant_id = data.profiles, sample.tenant_id
    by_id, by_identity, known = (cycle(sample.read) for _ in range(3))
    saved, updated, linked = (cycle(sample.ours) for _ in range(3))
    numbers = cycle(range(_FIELDS))

    def identity(of: CustomerProfile) -> tuple[Channel, str]:
        first = of.channel_identities[0]
        return first.channel, first.channel_user_id

    async def save() -> None:
        one, name = next(saved), f"field_{next(numbers)}"
        one.fields[name] = field(name)
        await store.save(one)

    return {
        GET_PROFILE: Case(lambda: store.get_by_id(tenant_id, next(by_id).id)),
        GET_BY_IDENTITY: Case(lambda: store.get_by_channel_identity(tenant_id, *identity(next(by_identity)))),
        GET_OR_CREATE: Case(lambda: store.get_or_create(tenant_id, *identity(next(known)))),
        SAVE_PROFILE: Case(save),
        UPDATE_FIELD: Case(
            lambda: store.update_field(tenant_id, next(updated).id, field(f"field_{next(numbers)}"))
        ),
        LINK_CHANNEL: Case(
            lambda: store.link_channel(
                tenant_id,
                next(linked).id,
                ChannelIdentity(channel=Channel.WEBCHAT, channel_user_id=str(new_id())),
            )
        ),
    }


async def limit(connection: Any, sample: Sample) -> dict[str, dict[str, Case]]:
    """The same operations with prepared statements."""
    tenant_id = sample.tenant_id
    select = await connection.prepare(SELECT_PROFILE)
    touch = await connection.prepare(
        "UPDATE customer_profiles SET revision = revision + 1, updated_at = $3, write_id = $4 "
        "WHERE tenant_id = $1 AND id = $2 AND deleted_at IS NULL RETURNING revision"
    )
    retire = await connection.prepare(
        f"UPDATE profile_fields SET replaced_at = $4 WHERE {_KEY} AND name = $3 AND replaced_at IS NULL"  # noqa: S608 - constants.
    )
    columns = ["tenant_id", "profile_id", "id", "revision", *(n for n in ProfileField.model_fields)]
    insert = await connection.prepare(by_hand.insert("profile_fields", columns))
    read, updated, saved = cycle(sample.read), cycle(sample.by_hand), cycle(sample.by_hand)
    numbers = cycle(range(_FIELDS))

    async def get() -> CustomerProfile:
        return CustomerProfile.model_validate_json(await select.fetchval(tenant_id, next(read).id))

    async def write_field(profile_id: UUID, one: ProfileField) -> None:
        now = utcnow()
        revision = await touch.fetchval(tenant_id, profile_id, now, new_id())
        await retire.fetch(tenant_id, profile_id, one.name, now)
        values = {**one.__dict__, "value": json.dumps(one.value)}
        await insert.fetchval(tenant_id, profile_id, new_id(), revision, *values.values())

    async def update_field() -> None:
        async with connection.transaction():
            await write_field(next(updated).id, field(f"field_{next(numbers)}"))

    async def save() -> None:
        """Do the minimum: read the profile, find the one field that differs, and write it."""
        async with connection.transaction():
            stored = CustomerProfile.model_validate_json(await select.fetchval(tenant_id, next(saved).id))
            name = f"field_{next(numbers)}"
            await write_field(stored.id, field(name))

    return {
        GET_PROFILE: {LIMIT: Case(get)},
        SAVE_PROFILE: {BY_HAND: Case(save)},
        UPDATE_FIELD: {BY_HAND: Case(update_field)},
    }
