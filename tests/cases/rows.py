"""Everything that a tenant has stored, as the backends themselves keep it."""

from __future__ import annotations

from typing import Any, TypeAlias
from uuid import UUID

from soldier_data.base.inmemory import InMemoryStore, MemoryTable
from soldier_data.postgres.transaction import Transaction
from soldier_data.schema import metadata
from soldier_data.sessions import InMemorySessionStore, RedisSessionStore
from soldier_data.sessions.durable import DurableSessionStore
from tests.backends.connections import administrator

Dump: TypeAlias = dict[str, list[str]]
"""The rows of each table, or the values of each key."""


async def dump(store: Any, tenant_id: UUID) -> Dump:
    """What the store holds of the tenant; of a Redis store, which tests have for themselves, all it holds."""
    if isinstance(store, DurableSessionStore):
        rows = await dump_database(store._database.settings.database_url, tenant_id)
        return {**await _dump_redis(store), **rows}
    if isinstance(store, RedisSessionStore):
        return await _dump_redis(store)
    if isinstance(store, InMemorySessionStore):
        records = store._tables.sessions.rows(None)
        kept = [record.session for record in records if record.session.tenant_id == tenant_id]
        return {"sessions": [session.model_dump_json() for session in kept]}
    if isinstance(store, InMemoryStore):
        tables = _memory_tables(store)
        found = {
            name: [row.model_dump_json() for row in tables[name].of_tenant(tenant_id)] for name in tables
        }
        return {name: rows for name, rows in found.items() if rows}
    if isinstance(store._db, Transaction):
        return await _dump_rows(store._db._connection, tenant_id, "public")
    return await dump_database(store._db.settings.database_url, tenant_id)


async def dump_database(url: str, tenant_id: UUID, schema: str = "public") -> Dump:
    """The tenant's rows in all tables, by way of a role that row-level security does not bind."""
    async with administrator(url) as connection:
        return await _dump_rows(connection, tenant_id, schema)


async def _dump_rows(connection: Any, tenant_id: UUID, schema: str) -> Dump:
    selects = [
        f"SELECT '{name}' AS name, row::text FROM {schema}.{name} AS row WHERE tenant_id = $1"  # noqa: S608 - our tables.
        for name in metadata.tables
    ]
    rows = await connection.fetch(" UNION ALL ".join(selects) + " ORDER BY 1, 2", tenant_id)
    found: Dump = {}
    for row in rows:
        found.setdefault(row["name"], []).append(row["row"])
    return found


def _memory_tables(store: InMemoryStore) -> dict[str, MemoryTable[Any]]:
    holder = getattr(store, "_tables", store)
    tables = {name: table for name, table in vars(holder).items() if isinstance(table, MemoryTable)}
    assert tables, f"the tables of {type(store).__name__} are not where the dump looks for them"
    return tables


async def _dump_redis(store: RedisSessionStore) -> Dump:
    """Every key of the store, with when it expires: a mere look must not keep a session alive."""
    redis: Any = store.client
    found: Dump = {}
    async for key in redis.scan_iter(match=f"{store.config.key_prefix}:*"):
        found[key.decode()] = [(await redis.dump(key)).hex(), str(await redis.pexpiretime(key))]
    return found
