"""What `PostgresProfileStore` does beyond the contract: races and units of work."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from soldier_data.errors import ConflictError
from soldier_data.postgres.database import Database
from soldier_data.postgres.queries import of_tenant
from soldier_data.postgres.statements import Statement
from soldier_data.postgres.transaction import Transaction
from soldier_data.profiles import (
    Channel,
    CustomerProfile,
    PostgresProfileStore,
    statements,
)
from tests.factories.profiles import (
    ChannelIdentityFactory,
    CustomerProfileFactory,
    FullProfileFactory,
    ProfileAssetFactory,
    ProfileFieldFactory,
)


@pytest.fixture
def store(database: Database) -> PostgresProfileStore:
    """A store whose calls stand alone."""
    return PostgresProfileStore(database)


async def _saved(store: PostgresProfileStore, tenant_id: UUID, **values: Any) -> CustomerProfile:
    profile: CustomerProfile = FullProfileFactory(tenant_id=tenant_id, **values)
    await store.save(profile)
    return profile


async def _read(store: PostgresProfileStore, profile: CustomerProfile) -> CustomerProfile:
    found = await store.get_by_id(profile.tenant_id, profile.id)
    assert found is not None
    return found


# -- races -----------------------------------------------------------------------------------------------------


async def test_a_change_that_waited_for_another_builds_on_it(
    database: Database, store: PostgresProfileStore, tenant_id: UUID
) -> None:
    """Each call waits for an open transaction, and must not overlook what that has added to the profile."""

    async def race(call: Callable[[CustomerProfile], Awaitable[Any]]) -> tuple[CustomerProfile, Any]:
        profile = await _saved(store, tenant_id)
        async with database.transaction() as transaction:
            inner = PostgresProfileStore(transaction)
            key = (tenant_id, profile.id)
            assert await inner.update_field(*key, ProfileFieldFactory(name="city", value="Bonn"))
            assert await inner.link_channel(*key, ChannelIdentityFactory(channel=Channel.SLACK))
            assert await inner.add_asset(*key, ProfileAssetFactory(name="late"))
            waiting = asyncio.create_task(asyncio.wait_for(call(profile), 20))
            await asyncio.sleep(0.1)
            assert not waiting.done()
        return profile, await waiting

    city = ProfileFieldFactory(name="city", value="Ulm")
    profile, done = await race(lambda one: store.update_field(tenant_id, one.id, city))
    history = await store.get_field_history(tenant_id, profile.id, "city")
    assert done is True
    assert [field.value for field in history] == ["Ulm", "Bonn", "Köln"]

    asset = ProfileAssetFactory()
    profile, _ = await race(lambda one: store.add_asset(tenant_id, one.id, asset))
    assert [one.name for one in (await _read(store, profile)).assets[2:]] == ["late", asset.name]

    identity = ChannelIdentityFactory(channel=Channel.VOICE)
    profile, _ = await race(lambda one: store.link_channel(tenant_id, one.id, identity))
    assert (await _read(store, profile)).channel_identities[3:] == [identity]

    profile, _ = await race(store.save)
    assert await _read(store, profile) == profile
    assert profile.revision == 5
    history = await store.get_field_history(tenant_id, profile.id, "city")
    assert [field.value for field in history] == ["Köln", "Bonn", "Köln"]

    profile, done = await race(lambda one: store.delete(tenant_id, one.id))
    assert done is True
    assert await store.get_by_id(tenant_id, profile.id) is None
    # Its identities are free, the one linked at the last moment included.
    owners = await database.fetch_all(
        Statement("counting", statements.IDENTITIES.select().where(of_tenant(statements.IDENTITIES))),
        {"tenant_id": tenant_id},
    )
    assert profile.id not in {row["profile_id"] for row in owners}

    target = await _saved(store, tenant_id)
    profile, done = await race(lambda one: store.merge_profiles(tenant_id, one.id, target.id))
    assert done is True
    merged = await _read(store, target)
    assert len(merged.channel_identities) == 5
    assert len(merged.assets) == 5
    assert merged.fields["city"].value == "Bonn"


async def test_a_conditional_save_that_waited_for_another_is_refused(
    database: Database, store: PostgresProfileStore, tenant_id: UUID
) -> None:
    profile = await _saved(store, tenant_id)
    async with database.transaction() as transaction:
        await PostgresProfileStore(transaction).add_asset(tenant_id, profile.id, ProfileAssetFactory())
        saving = asyncio.create_task(store.save(profile, if_revision=1))
        await asyncio.sleep(0.1)
        assert not saving.done()
    with pytest.raises(ConflictError, match="2 is stored"):
        await saving
    assert profile.revision == 1


async def test_two_that_insert_one_new_profile_take_turns(
    database: Database, store: PostgresProfileStore, tenant_id: UUID
) -> None:
    for if_revision in (None, 0):
        first = FullProfileFactory(tenant_id=tenant_id)
        second = FullProfileFactory(tenant_id=tenant_id, id=first.id)
        async with database.transaction() as transaction:
            await PostgresProfileStore(transaction).save(first)
            saving = asyncio.create_task(store.save(second, if_revision=if_revision))
            await asyncio.sleep(0.1)
            assert not saving.done()
        if if_revision is None:
            await saving
            assert second.revision == 2
            assert await _read(store, first) == second
        else:
            with pytest.raises(ConflictError, match="1 is stored"):
                await saving
            assert await _read(store, first) == first


async def test_concurrent_conditional_saves_lose_no_increment(
    store: PostgresProfileStore, tenant_id: UUID
) -> None:
    profile = await _saved(store, tenant_id, fields={"n": ProfileFieldFactory(name="n", value=0)})

    async def increment(times: int) -> None:
        while times:
            found = await _read(store, profile)
            found.fields["n"].value += 1
            try:
                await store.save(found, if_revision=found.revision)
            except ConflictError:
                continue
            times -= 1

    await asyncio.gather(*(increment(5) for _ in range(8)))
    found = await _read(store, profile)
    assert (found.fields["n"].value, found.revision) == (40, 41)
    history = await store.get_field_history(tenant_id, profile.id, "n")
    assert [field.value for field in history] == list(range(40, -1, -1))


async def test_a_caller_waits_for_the_unit_of_work_that_creates_the_profile(
    database: Database, store: PostgresProfileStore, tenant_id: UUID
) -> None:
    key = (tenant_id, Channel.API, "customer")
    async with database.transaction() as transaction:
        given_up = await PostgresProfileStore(transaction).get_or_create(*key)
        waiting = asyncio.create_task(store.get_or_create(*key))
        await asyncio.sleep(0.1)
        assert not waiting.done()
        await transaction.rollback()
    created = await waiting
    assert created.id != given_up.id
    assert await store.get_by_channel_identity(*key) == created


async def test_callers_in_units_of_work_of_their_own_get_one_profile(
    database: Database, store: PostgresProfileStore, tenant_id: UUID
) -> None:
    async def in_unit(number: int) -> CustomerProfile:
        async with database.transaction() as transaction:
            inner = PostgresProfileStore(transaction)
            found = await inner.get_or_create(tenant_id, Channel.API, "customer")
            # The unit is usable: nothing has aborted its transaction.
            assert await inner.update_field(tenant_id, found.id, ProfileFieldFactory(name=f"f{number}"))
            return found

    found = await asyncio.gather(
        *(in_unit(number) for number in range(30)),
        *(store.get_or_create(tenant_id, Channel.API, "customer") for _ in range(30)),
    )
    assert len({profile.id for profile in found}) == 1
    assert len((await _read(store, found[0])).fields) == 30


async def test_callers_get_living_profiles_while_others_delete_them(
    store: PostgresProfileStore, tenant_id: UUID
) -> None:
    async def call(number: int) -> UUID:
        profile = await store.get_or_create(tenant_id, Channel.API, "customer")
        if number % 2:
            await store.delete(tenant_id, profile.id)
        return profile.id

    await asyncio.gather(*(call(number) for number in range(60)))
    last = await store.get_or_create(tenant_id, Channel.API, "customer")
    assert await store.get_by_channel_identity(tenant_id, Channel.API, "customer") == last


async def test_a_channel_claimed_by_an_open_transaction_goes_to_one_profile(
    database: Database, store: PostgresProfileStore, tenant_id: UUID
) -> None:
    one, other = await _saved(store, tenant_id), await _saved(store, tenant_id)
    identity = ChannelIdentityFactory(channel=Channel.VOICE)
    async with database.transaction() as transaction:
        assert await PostgresProfileStore(transaction).link_channel(tenant_id, one.id, identity)
        linking = asyncio.create_task(store.link_channel(tenant_id, other.id, identity))
        await asyncio.sleep(0.1)
        assert not linking.done()
    assert await linking is False
    assert await _read(store, other) == other


async def test_profiles_that_want_the_same_identities_do_not_fail_by_deadlock(
    store: PostgresProfileStore, tenant_id: UUID
) -> None:
    for _ in range(5):
        identities = [ChannelIdentityFactory() for _ in range(200)]
        one, other = (
            FullProfileFactory(tenant_id=tenant_id, channel_identities=wanted)
            for wanted in (identities, identities[::-1])
        )
        done = await asyncio.gather(store.save(one), store.save(other), return_exceptions=True)
        assert {type(result) for result in done} == {UUID, ConflictError}


async def test_a_profile_restored_while_it_is_purged_has_all_its_parts(
    database: Database, store: PostgresProfileStore, tenant_id: UUID
) -> None:
    profile = await _saved(store, tenant_id)
    await store.delete(tenant_id, profile.id)
    async with database.transaction() as transaction:
        assert await PostgresProfileStore(transaction).purge_deleted(tenant_id, timedelta(seconds=-60)) == 1
        saving = asyncio.create_task(store.save(profile))
        await asyncio.sleep(0.1)
        assert not saving.done()
    await saving
    assert profile.revision == 1
    assert await _read(store, profile) == profile


async def test_many_merges_into_each_other_keep_every_identity(
    store: PostgresProfileStore, tenant_id: UUID
) -> None:
    profiles = [await _saved(store, tenant_id) for _ in range(6)]
    done = await asyncio.gather(
        *(
            store.merge_profiles(tenant_id, source.id, target.id)
            for source in profiles
            for target in profiles
            if source is not target
        )
    )
    assert sum(done) == 5
    [left] = [one for profile in profiles if (one := await store.get_by_id(tenant_id, profile.id))]
    assert len(left.channel_identities) == 12
    assert len(left.assets) == 12
    assert len(left.consents) == 12
    history = await store.get_field_history(tenant_id, left.id, "city")
    assert len(history) == 6
    assert [field.replaced_at is None for field in history] == [True] + [False] * 5


# -- units of work ---------------------------------------------------------------------------------------------


async def test_a_refused_call_leaves_the_unit_of_work_usable(
    database: Database, store: PostgresProfileStore, tenant_id: UUID
) -> None:
    taken = await _saved(store, tenant_id)
    async with database.transaction() as transaction:
        inner = PostgresProfileStore(transaction)
        mine = await _saved(inner, tenant_id)
        for name in ("customer_id", "external_id", "channel_identities"):
            clash = FullProfileFactory(tenant_id=tenant_id, **{name: getattr(taken, name)})
            with pytest.raises(ConflictError, match=name):
                await inner.save(clash)
        with pytest.raises(ConflictError, match="revision"):
            await inner.save(mine, if_revision=7)
        assert await inner.link_channel(tenant_id, mine.id, taken.channel_identities[0]) is False
        assert await inner.merge_profiles(tenant_id, mine.id, uuid4()) is False
        assert await inner.update_field(tenant_id, mine.id, ProfileFieldFactory(name="city", value="Bonn"))
    assert (await _read(store, mine)).fields["city"].value == "Bonn"


async def test_a_unit_of_work_that_fails_leaves_nothing(
    database: Database, store: PostgresProfileStore, tenant_id: UUID
) -> None:
    source, target = await _saved(store, tenant_id), await _saved(store, tenant_id)

    async def work(transaction: Transaction) -> None:
        inner = PostgresProfileStore(transaction)
        await inner.merge_profiles(tenant_id, source.id, target.id)
        await inner.save(CustomerProfileFactory(tenant_id=tenant_id, customer_id=source.customer_id))
        raise LookupError

    with pytest.raises(LookupError):
        async with database.transaction() as transaction:
            await work(transaction)
    assert await _read(store, source) == source
    assert await _read(store, target) == target
