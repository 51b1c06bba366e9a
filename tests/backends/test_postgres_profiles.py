"""What `PostgresProfileStore` does beyond the contract: round trips, plans, lost replies."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest

from soldier_data.base.models import new_id, utcnow
from soldier_data.postgres.database import Database
from soldier_data.postgres.engine import driver_url, open_connection
from soldier_data.postgres.queries import of_tenant
from soldier_data.postgres.statements import Statement
from soldier_data.profiles import (
    Channel,
    ChannelIdentity,
    CustomerProfile,
    PostgresProfileStore,
    merge_statements,
    statements,
    write_statements,
)
from tests.backends.round_trips import Proxy
from tests.conftest import settings_for
from tests.factories.profiles import (
    ChannelIdentityFactory,
    ConsentFactory,
    FullProfileFactory,
    ProfileAssetFactory,
    ProfileFieldFactory,
)


@pytest.fixture
def store(database: Database) -> PostgresProfileStore:
    """A store whose calls stand alone."""
    return PostgresProfileStore(database)


@pytest.fixture
def behind(behind: tuple[Proxy, Database]) -> tuple[Proxy, PostgresProfileStore]:
    """A store that reaches the server by way of a proxy."""
    passing, database = behind
    return passing, PostgresProfileStore(database)


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
    assert counted == {"create": 2, "merge": 17, "purge": 9}


# -- plans -----------------------------------------------------------------------------------------------------


async def _fill(connection: Any, profile: CustomerProfile) -> None:
    """Multiply what is stored: 2 tenants with 2,000 profiles each, every tenth of them deleted."""
    tenant = "CASE WHEN t = 1 THEN tenant_id ELSE md5('tenant')::uuid END"
    of_profile = "CASE WHEN n = 1 THEN {} ELSE md5('profile' || n)::uuid END"
    for table in (
        statements.PROFILES,
        statements.IDENTITIES,
        statements.FORMER,
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
        if table is statements.FORMER:
            changed["value"] = "value || n"
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
    # What it has no longer is kept elsewhere.
    await store.link_channel(profile.tenant_id, profile.id, ChannelIdentityFactory())
    await store.save(profile)
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
        "lost_external_id": "former",
        "kinds": ["email"],
        "values": ["ada@example.com"],
    }
    every = [
        statement
        for module in (statements, write_statements, merge_statements)
        for found in vars(module).values()
        for statement in (found if isinstance(found, tuple) else [found])
        # Whom a profile was merged into is asked so rarely that no index serves it.
        if isinstance(statement, Statement) and statement is not merge_statements.find_merged
    ]
    assert len(every) == 4 + 4 + 7 + 4 + 11 + 7 + 6
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
    stored = Statement("counting", statements.PROFILES.select().where(of_tenant(statements.PROFILES)))
    rows = await database.fetch_all(stored, {"tenant_id": tenant_id})
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
