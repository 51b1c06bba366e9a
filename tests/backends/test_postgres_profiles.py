"""What `PostgresProfileStore` does beyond the contract: round trips, plans, races, units of work, lost replies."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest

from soldier_data.base.database import Database, Transaction
from soldier_data.base.engine import driver_url, open_connection
from soldier_data.base.models import new_id, utcnow
from soldier_data.base.statements import Statement
from soldier_data.errors import ConflictError
from soldier_data.profiles import (
    Channel,
    ChannelIdentity,
    CustomerProfile,
    PostgresProfileStore,
    merge_statements,
    statements,
    write_statements,
)
from tests.backends.round_trips import Proxy, proxy
from tests.conftest import settings_for
from tests.factories.profiles import (
    ChannelIdentityFactory,
    ConsentFactory,
    CustomerProfileFactory,
    FullProfileFactory,
    ProfileAssetFactory,
    ProfileFieldFactory,
)


@pytest.fixture(scope="module")
async def database(shared_database_url: str) -> AsyncIterator[Database]:
    """Connections of this module's own."""
    opened = Database(settings_for(shared_database_url))
    yield opened
    await opened.close()


@pytest.fixture
def store(database: Database) -> PostgresProfileStore:
    """A store whose calls stand alone."""
    return PostgresProfileStore(database)


@pytest.fixture
async def behind(shared_database_url: str) -> AsyncIterator[tuple[Proxy, PostgresProfileStore]]:
    """A store that reaches the server by way of a proxy."""
    async with proxy(shared_database_url) as passing:
        opened = Database(settings_for(passing.url))
        yield passing, PostgresProfileStore(opened)
        await opened.close()


async def _saved(store: PostgresProfileStore, tenant_id: UUID, **values: Any) -> CustomerProfile:
    profile: CustomerProfile = FullProfileFactory(tenant_id=tenant_id, **values)
    await store.save(profile)
    return profile


async def _read(store: PostgresProfileStore, profile: CustomerProfile) -> CustomerProfile:
    found = await store.get_by_id(profile.tenant_id, profile.id)
    assert found is not None
    return found


# -- round trips -----------------------------------------------------------------------------------------------


def _calls(
    store: PostgresProfileStore, profile: CustomerProfile
) -> list[tuple[str, Callable[[], Awaitable[Any]]]]:
    tenant_id, identity = profile.tenant_id, profile.channel_identities[0]
    key, user = (tenant_id, profile.id), (tenant_id, identity.channel, identity.channel_user_id)
    field, asset, linked = ProfileFieldFactory(), ProfileAssetFactory(), ChannelIdentityFactory()
    return [
        ("save, new", lambda: store.save(profile)),
        ("save", lambda: store.save(profile)),
        ("save, conditional", lambda: store.save(profile, if_revision=2)),
        ("update_field, new", lambda: store.update_field(*key, field)),
        ("update_field", lambda: store.update_field(*key, ProfileFieldFactory(name=field.name))),
        ("add_asset", lambda: store.add_asset(*key, asset)),
        ("link_channel", lambda: store.link_channel(*key, linked)),
        ("link_channel, known", lambda: store.link_channel(*key, linked)),
        ("get_by_id", lambda: store.get_by_id(*key)),
        ("get_by_customer_id", lambda: store.get_by_customer_id(tenant_id, profile.customer_id)),
        ("get_by_channel_identity", lambda: store.get_by_channel_identity(*user)),
        ("get_or_create, known", lambda: store.get_or_create(*user)),
        ("get_field_history", lambda: store.get_field_history(*key, "city")),
        ("delete", lambda: store.delete(*key)),
    ]


def _large(tenant_id: UUID) -> CustomerProfile:
    profile: CustomerProfile = FullProfileFactory(tenant_id=tenant_id)
    profile.channel_identities += [ChannelIdentityFactory() for _ in range(50)]
    profile.assets += [ProfileAssetFactory() for _ in range(50)]
    profile.consents += [ConsentFactory() for _ in range(50)]
    profile.fields |= {field.name: field for field in [ProfileFieldFactory() for _ in range(200)]}
    return profile


async def test_each_call_takes_one_round_trip_whatever_the_profile_holds(
    behind: tuple[Proxy, PostgresProfileStore], tenant_id: UUID
) -> None:
    passing, store = behind
    # The first time, statements are prepared.
    for _, call in _calls(store, FullProfileFactory(tenant_id=tenant_id)):
        await call()
    counted = {name: await passing.count(call) for name, call in _calls(store, _large(tenant_id))}
    assert counted == dict.fromkeys(counted, 1)
    assert len(counted) == 14


async def test_creating_takes_two_round_trips_and_merging_and_purging_a_few(
    behind: tuple[Proxy, PostgresProfileStore], tenant_id: UUID
) -> None:
    passing, store = behind
    source, target = _large(tenant_id), _large(tenant_id)
    counted: dict[str, int] = {}

    async def create() -> None:
        await store.get_or_create(tenant_id, Channel.API, uuid4().hex)

    async def merge() -> None:
        assert await store.merge_profiles(tenant_id, source.id, target.id)

    async def purge() -> None:
        assert await store.purge_deleted(tenant_id, timedelta(seconds=-60)) == 1

    for _ in range(2):
        # The first time, statements are prepared.
        source, target = _large(tenant_id), _large(tenant_id)
        await store.save(source)
        await store.save(target)
        counted = {call.__name__: await passing.count(call) for call in (create, merge, purge)}
    assert counted == {"create": 2, "merge": 12, "purge": 8}


# -- plans -----------------------------------------------------------------------------------------------------


async def _fill(connection: Any, profile: CustomerProfile) -> None:
    """Multiply what is stored: 2 tenants with 2,000 profiles each, every tenth of them deleted."""
    tenant = "CASE WHEN t = 1 THEN tenant_id ELSE md5('tenant')::uuid END"
    of_profile = "CASE WHEN n = 1 THEN {} ELSE md5('profile' || n)::uuid END"
    for table in (
        statements.PROFILES,
        statements.IDENTITIES,
        statements.FIELDS,
        statements.ASSETS,
        statements.CONSENTS,
    ):
        changed = {
            "tenant_id": tenant,
            "id": "gen_random_uuid()",
            "profile_id": of_profile.format("profile_id"),
        }
        if table is statements.PROFILES:
            changed |= {
                "id": of_profile.format("id"),
                "customer_id": "gen_random_uuid()",
                "external_id": "'crm-' || n",
                "deleted_at": "CASE WHEN n % 10 = 0 THEN now() END",
            }
        if table is statements.IDENTITIES:
            changed["channel_user_id"] = "channel_user_id || n"
        columns = [column.name for column in table.columns]
        values = ", ".join(changed.get(name, f'"{name}"') for name in columns)
        names = ", ".join(f'"{name}"' for name in columns)
        await connection.execute(
            f"INSERT INTO {table.name} ({names}) SELECT {values} FROM {table.name}, "  # noqa: S608
            f"generate_series(1, 2) t, generate_series(1, 2000) n ON CONFLICT DO NOTHING"
        )
    await connection.execute("ANALYZE")


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", ()):
        yield from _nodes(child)


async def test_every_statement_reads_a_large_tenant_through_indexes(database_url: str) -> None:
    database = Database(settings_for(database_url))
    store = PostgresProfileStore(database)
    profile = await _saved(store, uuid4())
    await database.close()
    identity = profile.channel_identities[0]
    part = {"position": 0, **identity.model_dump(mode="json")}
    field = {**ProfileFieldFactory(name="city").model_dump(mode="json"), "id": str(new_id())}
    values = {
        **profile.__dict__,
        "now": utcnow(),
        "write_id": new_id(),
        "if_revision": None,
        "channel": identity.channel,
        "channel_user_id": identity.channel_user_id,
        "name": "city",
        "channel_identities": json.dumps([part]),
        "profile_fields": json.dumps([field]),
        "profile_assets": json.dumps([profile.assets[0].model_dump(mode="json")]),
        "profile_consents": "[]",
        "source_id": profile.id,
        "target_id": new_id(),
        "before": datetime(2026, 1, 1, tzinfo=UTC),
        "ids": [profile.id],
    }
    every = [
        statement
        for module in (statements, write_statements, merge_statements)
        for found in vars(module).values()
        for statement in (found if isinstance(found, tuple) else [found])
        if isinstance(statement, Statement)
    ]
    assert len(every) == 4 + 7 + 2 + 9 + 5
    connection = await open_connection(settings_for(database_url))
    try:
        await _fill(connection, profile)
        for statement in every:
            rows = await connection.fetch(
                f"EXPLAIN (FORMAT JSON) {statement.sql}", *statement.arguments(values)
            )
            nodes = list(_nodes(json.loads(rows[0][0])[0]["Plan"]))
            assert "Seq Scan" not in {node["Node Type"] for node in nodes}, (statement.sql, nodes)
    finally:
        await connection.close()


async def test_the_length_of_a_history_does_not_weigh_on_reading_the_profile(database_url: str) -> None:
    database = Database(settings_for(database_url))
    profile = await _saved(PostgresProfileStore(database), uuid4())
    await database.close()
    connection = await open_connection(settings_for(database_url))
    try:
        table = statements.FIELDS
        changed = {"id": "gen_random_uuid()", "replaced_at": "now()", "revision": "0"}
        values = ", ".join(changed.get(column.name, column.name) for column in table.columns)
        await connection.execute(
            f"INSERT INTO {table.name} SELECT {values} FROM {table.name}, generate_series(1, 5000)"  # noqa: S608
        )
        await connection.execute("ANALYZE")
        rows = await connection.fetch(
            f"EXPLAIN (FORMAT JSON, ANALYZE) {statements.get_by_id.sql}", profile.tenant_id, profile.id
        )
        nodes = list(_nodes(json.loads(rows[0][0])[0]["Plan"]))
        assert max(node["Actual Rows"] for node in nodes) == 2
        assert "ix_profile_fields_present" in {node.get("Index Name") for node in nodes}
    finally:
        await connection.close()


# -- what the server's settings must not change ------------------------------------------------------------------


async def test_old_moments_are_read_in_a_database_of_any_time_zone(database_url: str) -> None:
    connection = await asyncpg.connect(driver_url(database_url))
    name = await connection.fetchval("SELECT current_database()")
    await connection.execute(f"ALTER DATABASE {name} SET timezone = 'Africa/Monrovia'")
    await connection.close()
    database = Database(settings_for(database_url))
    store = PostgresProfileStore(database)
    # Monrovia was 44 minutes and 30 seconds behind Greenwich until 1972.
    profile = await _saved(store, uuid4(), last_interaction_at=datetime(1971, 1, 1, tzinfo=UTC))
    assert await _read(store, profile) == profile
    await database.close()


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
        Statement(
            "counting", statements.IDENTITIES.select().where(statements.of_tenant(statements.IDENTITIES))
        ),
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


# -- lost replies ----------------------------------------------------------------------------------------------


async def test_a_call_whose_reply_is_lost_takes_effect_once(
    behind: tuple[Proxy, PostgresProfileStore], tenant_id: UUID
) -> None:
    passing, store = behind
    lost = 0

    async def losing(call: Awaitable[Any], statement: str = "") -> Any:
        nonlocal lost
        passing.lose_next_reply(statement)
        result = await call
        lost += 1
        assert passing.lost == lost
        return result

    profile: CustomerProfile = FullProfileFactory(tenant_id=tenant_id)
    for revision, if_revision in enumerate([0, 1, None, None], start=1):
        profile.fields["city"].value = revision
        await losing(store.save(profile, if_revision=if_revision))
        assert profile.revision == revision
        assert await _read(store, profile) == profile
    key = (tenant_id, profile.id)
    assert await losing(store.update_field(*key, ProfileFieldFactory(name="city", value=5))) is True
    assert await losing(store.add_asset(*key, ProfileAssetFactory())) is True
    assert await losing(store.link_channel(*key, ChannelIdentityFactory())) is True
    found = await _read(store, profile)
    assert found.revision == 7
    assert (len(found.assets), len(found.channel_identities)) == (3, 3)
    history = await store.get_field_history(*key, "city")
    assert [field.value for field in history] == [5, 4, 3, 2, 1]

    source = await _saved(store, tenant_id)
    assert await losing(store.merge_profiles(tenant_id, source.id, profile.id), "COMMIT") is True
    merged = await _read(store, profile)
    assert merged.revision == 8
    assert (len(merged.assets), len(merged.channel_identities)) == (5, 5)

    assert await losing(store.delete(*key)) is True
    assert await store.delete(*key) is False
    await store.save(profile, if_revision=9)


async def test_a_creation_whose_reply_is_lost_creates_one_profile(
    behind: tuple[Proxy, PostgresProfileStore], tenant_id: UUID, database: Database
) -> None:
    passing, store = behind
    key = (tenant_id, Channel.API, "customer")
    await store.get_or_create(tenant_id, Channel.API, "prepared")
    passing.lose_next_reply()
    reading = await store.get_by_channel_identity(*key)
    assert reading is None
    created = await _created_with_lost_reply(passing, store, key)
    assert passing.lost == 2
    assert created == await store.get_by_channel_identity(*key)
    assert created.channel_identities == [
        ChannelIdentity(channel=Channel.API, channel_user_id="customer", primary=True)
    ]
    of_tenant = statements.PROFILES.select().where(statements.of_tenant(statements.PROFILES))
    rows = await database.fetch_all(Statement("counting", of_tenant), {"tenant_id": tenant_id})
    assert len(rows) == 2


async def _created_with_lost_reply(
    passing: Proxy, store: PostgresProfileStore, key: tuple[UUID, Channel, str]
) -> CustomerProfile:
    """Lose the answer of the second statement, which creates."""
    read = store.get_by_channel_identity

    async def read_and_lose(*arguments: Any) -> CustomerProfile | None:
        found = await read(*arguments)
        if found is None:
            passing.lose_next_reply()
        return found

    store.get_by_channel_identity = read_and_lose  # type: ignore[assignment, method-assign] # Only here.
    return await store.get_or_create(*key)


async def test_an_update_repeated_after_another_one_does_not_come_back(
    database: Database, store: PostgresProfileStore, tenant_id: UUID
) -> None:
    profile = await _saved(store, tenant_id)
    key = (tenant_id, profile.id)
    field = {**ProfileFieldFactory(name="city", value="first").model_dump(mode="json"), "id": str(new_id())}
    values = {
        "tenant_id": tenant_id,
        "id": profile.id,
        "now": utcnow(),
        "write_id": new_id(),
        "profile_fields": json.dumps([field]),
    }
    await database.fetch_one(write_statements.update_field, values)
    await store.update_field(*key, ProfileFieldFactory(name="city", value="second"))
    row = await database.fetch_one(write_statements.update_field, values)
    assert row is not None
    assert dict(row) == {"found": True, "done": True}
    history = await store.get_field_history(*key, "city")
    assert [found.value for found in history] == ["second", "first", "Köln"]
