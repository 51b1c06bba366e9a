"""What PostgreSQL's own catalogue says of every table, policy, index and role that keep tenants apart."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest
from sqlalchemy import make_url

from soldier_data.data_layer import DataLayer
from soldier_data.migrations import run_grants
from soldier_data.schema import metadata
from tests.backends.connections import administrator
from tests.cases import sessions
from tests.cases.stores import DOMAINS
from tests.conftest import settings_for
from tests.reliability.conftest import Found

TENANT = "(tenant_id = (NULLIF(current_setting('app.tenant_id'::text, true), ''::text))::uuid)"

# What extensions bring is not ours; nor is Alembic's table, which holds the schema's version.
_OURS = """c.relnamespace = 'public'::regnamespace AND c.relname <> 'alembic_version'
    AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = c.oid AND d.deptype = 'e')"""


@pytest.fixture
async def owner(database_url: str) -> AsyncIterator[Any]:
    async with administrator(database_url) as connection:
        yield connection


@pytest.fixture
async def services_url(database_url: str, owner: Any) -> AsyncIterator[str]:
    """By way of a role that was made and granted as docs/operations.md says."""
    role = f"services_{uuid4().hex}"
    await owner.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'x'")
    await run_grants(settings_for(database_url), role)
    by_role = make_url(database_url).set(username=role, password="x")  # noqa: S106 - of a test role.
    yield by_role.render_as_string(hide_password=False)
    await owner.execute(f"DROP OWNED BY {role}")
    await owner.execute(f"DROP ROLE {role}")


async def test_every_table_is_secured_by_one_policy_for_all_roles_and_commands(
    owner: Any, report: Found
) -> None:
    tables = await owner.fetch(
        f"SELECT c.relname, c.relrowsecurity, c.relforcerowsecurity FROM pg_class c "  # noqa: S608 - ours.
        f"WHERE c.relkind IN ('r', 'p') AND {_OURS}"
    )
    assert {row["relname"] for row in tables} == set(metadata.tables)
    assert all(row["relrowsecurity"] and row["relforcerowsecurity"] for row in tables)
    policies = await owner.fetch(
        "SELECT polrelid::regclass::text AS table, polname, polcmd::text, polpermissive, polroles, "
        "pg_get_expr(polqual, polrelid) AS using, pg_get_expr(polwithcheck, polrelid) AS checked FROM pg_policy"
    )
    assert {row["table"] for row in policies} == set(metadata.tables)
    assert len(policies) == len(tables)
    for row in policies:
        assert (row["polcmd"], row["polpermissive"], row["polroles"]) == ("*", True, [0]), row["table"]
        assert (row["using"], row["checked"]) == (TENANT, TENANT), row["table"]
    report(
        "every tenant table in the catalogue",
        bar="row-level security enabled and forced",
        found=f"enabled and forced on {len(tables)} of {len(metadata.tables)} tables, one policy each",
    )


async def test_the_tenant_leads_every_key_and_is_part_of_every_reference(owner: Any, report: Found) -> None:
    indexes = await owner.fetch(
        "SELECT i.indexrelid::regclass::text AS index, c.relname, i.indisvalid, i.indisprimary, a.attname, "  # noqa: S608 - ours.
        "a.attnotnull, a.atttypid::regtype::text AS type FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid "
        "LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = i.indkey[0] "
        f"WHERE i.indisunique AND {_OURS}"
    )
    assert {row["relname"] for row in indexes if row["indisprimary"]} == set(metadata.tables)
    for row in indexes:
        assert row["indisvalid"], row["index"]
        assert (row["attname"], row["attnotnull"], row["type"]) == ("tenant_id", True, "uuid"), row["index"]
    references = await owner.fetch(
        "SELECT k.conname, k.confdeltype::text AS on_delete, "  # noqa: S608 - ours.
        "array(SELECT attname::text FROM pg_attribute WHERE attrelid = k.conrelid AND attnum = ANY(k.conkey)) "
        "AS columns, (SELECT attnum FROM pg_attribute WHERE attrelid = k.conrelid AND attname = 'tenant_id') "
        "= k.conkey[1] AND (SELECT attnum FROM pg_attribute WHERE attrelid = k.confrelid AND attname = 'tenant_id') "
        "= k.confkey[1] AS by_tenant FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid "
        f"WHERE k.contype = 'f' AND {_OURS}"
    )
    assert references
    for row in references:
        assert row["by_tenant"], row["conname"]
        # n and d would set the tenant_id to NULL or a default, too.
        assert row["on_delete"] in {"a", "c", "r"}, row["conname"]
    report(
        "every unique index and foreign key in the catalogue",
        bar="tenant_id leads every unique index",
        found=f"leads {len(indexes)} unique indexes, is part of {len(references)} foreign keys",
    )


async def test_nothing_else_in_the_schema_goes_round_the_policies(owner: Any) -> None:
    # Views and functions with their owner's rights would show what the policies hide; sequences tell counts.
    others = await owner.fetch(
        f"SELECT c.relname FROM pg_class c WHERE c.relkind NOT IN ('r', 'p', 'i', 'I', 't') AND {_OURS}"  # noqa: S608 - ours.
    )
    functions = await owner.fetch(
        "SELECT p.proname FROM pg_proc p WHERE p.pronamespace = 'public'::regnamespace "
        "AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = p.oid AND d.deptype = 'e')"
    )
    triggers = await owner.fetch("SELECT tgname FROM pg_trigger WHERE NOT tgisinternal")
    assert [others, functions, triggers] == [[], [], []]


async def test_the_role_of_the_services_can_not_get_round_the_policies(
    owner: Any, services_url: str, report: Found
) -> None:
    role = make_url(services_url).username
    found = await owner.fetchrow("SELECT * FROM pg_roles WHERE rolname = $1", role)
    unsafe = ("rolsuper", "rolbypassrls", "rolcreaterole", "rolcreatedb", "rolreplication")
    assert not any(found[name] for name in unsafe)
    assert await owner.fetchval("SELECT count(*) FROM pg_auth_members WHERE member = $1", found["oid"]) == 0
    assert await owner.fetchval("SELECT count(*) FROM pg_class WHERE relowner = $1", found["oid"]) == 0
    assert not await owner.fetchval("SELECT has_schema_privilege($1, 'public', 'CREATE')", role)
    append_only = {name for name, table in metadata.tables.items() if table.info.get("append_only")}
    for table in metadata.tables:
        # TRUNCATE heeds no policy, REFERENCES tells which rows exist, TRIGGER runs code of the role's own.
        privileges = {
            privilege
            for privilege in ("SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE", "REFERENCES", "TRIGGER")
            if await owner.fetchval("SELECT has_table_privilege($1, $2, $3)", role, table, privilege)
        }
        columns = await owner.fetchval("SELECT has_any_column_privilege($1, $2, 'UPDATE')", role, table)
        allowed = {"SELECT", "INSERT"} if table in append_only else {"SELECT", "INSERT", "UPDATE", "DELETE"}
        assert privileges == allowed, table
        assert columns == ("UPDATE" in allowed), table
    report(
        "the services' role in the catalogue, as `soldier-data db grants` leaves it",
        bar="neither superuser nor BYPASSRLS nor owner",
        found=f"none of these; rows of {len(metadata.tables)} tables, append-only on {len(append_only)}",
    )


async def test_without_a_tenant_that_role_sees_nothing_of_any_table(
    database_url: str, services_url: str, report: Found
) -> None:
    tenant_id = uuid4()
    async with DataLayer.open(settings_for(database_url)) as data:
        stores = {type(store): store for store in vars(data).values()}
        for domain in DOMAINS:
            if "postgres" in domain.backends:
                await domain.seed(stores[domain.backends["postgres"]], tenant_id)
        assert data._database is not None
        await sessions.seed_row(data._database, tenant_id)
    async with administrator(database_url) as connection:
        await connection.execute("ANALYZE")
        held = await _counts(connection)
        assert all(held.values())
    async with administrator(services_url) as connection:
        assert not any((await _counts(connection)).values())
        # Samples of the values, which the planner keeps.
        sampled = "SELECT count(*) FROM pg_stats WHERE tablename = ANY($1)"
        assert await connection.fetchval(sampled, list(held)) == 0
        for unset in ("", str(uuid4())):
            async with connection.transaction():
                await connection.execute(f"SET LOCAL app.tenant_id = '{unset}'")
                assert not any((await _counts(connection)).values())
        async with connection.transaction():
            await connection.execute(f"SET LOCAL app.tenant_id = '{tenant_id}'")
            assert await _counts(connection) == held
        # What is no tenant is refused, not taken for all of them.
        for wrong in ("*", "%", "' OR true --", f"{UUID(int=0)}x"):
            async with connection.transaction():
                await connection.execute("SELECT set_config('app.tenant_id', $1, true)", wrong)
                with pytest.raises(asyncpg.DataError):
                    await connection.fetchval("SELECT count(*) FROM agents")
    report(
        "the services' role with no tenant set, or another one",
        bar="nothing returned",
        found=f"0 of {sum(held.values())} rows in {len(held)} tables",
    )


async def _counts(connection: Any) -> dict[str, int]:
    return {
        table: await connection.fetchval(f"SELECT count(*) FROM {table}")  # noqa: S608 - ours.
        for table in metadata.tables
    }
