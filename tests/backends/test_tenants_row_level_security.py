"""Row-level security alone keeps tenants apart: the same cases as in tests/contract/test_tenants.py.

The filters by tenant_id are taken out of every statement, so that nothing but the policies is left. That the cases
would show or change something without either is proven beside it.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest

from soldier_data.postgres.database import Database
from soldier_data.postgres.statements import Schemas, Statement
from soldier_data.profiles import CustomerProfile, PostgresProfileStore
from soldier_data.schema import metadata
from tests.backends.connections import administrator, bound_role
from tests.cases import sessions
from tests.cases.case import Case, Domain
from tests.cases.rows import dump_database
from tests.cases.stores import DOMAINS, outcome
from tests.conftest import settings_for
from tests.factories.profiles import FullProfileFactory

_DOMAINS = [domain for domain in DOMAINS if "postgres" in domain.backends]

_CASES = [
    (case, domain, f"{domain.contract.__name__}.{case.method}-{number}")
    for domain in _DOMAINS
    for number, case in enumerate(domain.cases)
]
EVERY_CASE = [pytest.param(case, domain, id=name) for case, domain, name in _CASES]
THOSE_THAT_REACH = [pytest.param(case, domain, id=name) for case, domain, name in _CASES if case.reaches]

_TENANT_FILTER = re.compile(
    r"\b(?:\w+\.){0,2}tenant_id = (?:(?P<parameter>\$\d+::UUID)|(?:\w+\.){1,2}tenant_id\b)"
)
_SQL_IN = Statement.sql_in


@pytest.fixture(scope="module")
async def owner(module_database_url: str) -> AsyncIterator[Database]:
    """By way of a role that no policy binds."""
    database = Database(settings_for(module_database_url))
    yield database
    await database.close()


@pytest.fixture(scope="module")
async def bound(module_database_url: str) -> AsyncIterator[Database]:
    """By way of a role that the policies bind, each transaction choosing its tenant."""
    async with bound_role(module_database_url) as url:
        database = Database(settings_for(url, row_level_security=True))
        yield database
        await database.close()


@pytest.fixture
def owner_store(owner: Database, domain: Domain[Any, Any]) -> Any:
    return domain.backends["postgres"](owner)


def _truth(found: re.Match[str]) -> str:
    # The parameter stays, so that the others keep their numbers.
    return f"{found['parameter']} IS NOT NULL" if found["parameter"] else "TRUE"


def _without_filter(statement: Statement, schemas: Schemas) -> str:
    text = _TENANT_FILTER.sub(_truth, _SQL_IN(statement, schemas))
    assert not re.search(r"\btenant_id\s*(=|<|>|IN\b|IS\b)", text), f"still filtered: {text}"
    return text


def take_out_tenant_filters(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every statement that is run from here on is one without tenant filters."""
    monkeypatch.setattr(Statement, "sql_in", _without_filter)


@pytest.mark.parametrize(("case", "domain"), EVERY_CASE)
async def test_policies_alone_show_nothing_and_change_nothing(
    owner_store: Any,
    bound: Database,
    case: Case[Any, Any],
    domain: Domain[Any, Any],
    tenant_id: UUID,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    own = await domain.seed(owner_store, tenant_id)
    url = owner_store._db.settings.database_url
    before = await dump_database(url, tenant_id)
    take_out_tenant_filters(monkeypatch)
    assert await outcome(case, domain.backends["postgres"](bound), own, uuid4()) == case.expected
    assert await dump_database(url, tenant_id) == before


@pytest.mark.parametrize(("case", "domain"), THOSE_THAT_REACH)
async def test_without_policies_and_filters_the_call_would_reach_the_owner(
    owner_store: Any,
    owner: Database,
    case: Case[Any, Any],
    domain: Domain[Any, Any],
    tenant_id: UUID,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    own = await domain.seed(owner_store, tenant_id)
    before = await dump_database(owner.settings.database_url, tenant_id)
    take_out_tenant_filters(monkeypatch)
    came_back = await outcome(case, owner_store, own, uuid4())
    after = await dump_database(owner.settings.database_url, tenant_id)
    assert came_back != case.expected or after != before


@pytest.fixture(scope="module")
async def filled(owner: Database) -> UUID:
    """A tenant with rows in every table."""
    tenant_id = uuid4()
    for domain in _DOMAINS:
        await domain.seed(domain.backends["postgres"](owner), tenant_id)
    await sessions.seed_row(owner, tenant_id)
    # Other tests purge what is deleted of every tenant: a living profile, too, has lost something.
    store = PostgresProfileStore(owner)
    profile: CustomerProfile = FullProfileFactory(tenant_id=tenant_id)
    await store.save(profile)
    profile.external_id = None
    await store.save(profile)
    return tenant_id


@pytest.mark.parametrize("table", list(metadata.tables))
async def test_no_table_shows_a_row_to_another_tenant_or_to_none(
    filled: UUID, bound: Database, table: str
) -> None:
    async with administrator(bound.settings.database_url) as connection:
        for tenant_id in (None, uuid4()):
            async with connection.transaction():
                if tenant_id is not None:
                    await connection.execute(f"SET LOCAL app.tenant_id = '{tenant_id}'")
                assert await connection.fetchval(f"SELECT count(*) FROM {table}") == 0  # noqa: S608 - ours.
                assert await connection.execute(f"UPDATE {table} SET tenant_id = tenant_id") == "UPDATE 0"  # noqa: S608 - ours.
                assert await connection.execute(f"DELETE FROM {table}") == "DELETE 0"  # noqa: S608 - ours.
        async with connection.transaction():
            await connection.execute(f"SET LOCAL app.tenant_id = '{filled}'")
            shown = await connection.fetch(f"SELECT DISTINCT tenant_id FROM {table}")  # noqa: S608 - ours.
    assert [row["tenant_id"] for row in shown] == [filled]


@pytest.mark.parametrize("table", list(metadata.tables))
@pytest.mark.parametrize("set_tenant", [True, False], ids=["another tenant", "no tenant"])
async def test_no_table_takes_a_row_for_another_tenant(
    filled: UUID, owner: Database, bound: Database, table: str, set_tenant: bool
) -> None:
    async with administrator(owner.settings.database_url) as connection:
        row = await connection.fetchval(
            f"SELECT row_to_json(row)::text FROM {table} AS row WHERE tenant_id = $1 LIMIT 1",  # noqa: S608 - ours.
            filled,
        )
    async with administrator(bound.settings.database_url) as connection, connection.transaction():
        if set_tenant:
            await connection.execute(f"SET LOCAL app.tenant_id = '{uuid4()}'")
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="row-level security"):
            async with connection.transaction():
                await connection.execute(
                    f"INSERT INTO {table} SELECT * FROM json_populate_record(NULL::{table}, $1::json)",  # noqa: S608 - ours.
                    row,
                )
