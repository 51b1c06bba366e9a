"""No store shows or changes anything of a tenant to a caller who has all its ids but not its tenant_id.

The cases are in tests/cases, one module a store. A store joins by a line in `tests.cases.stores.DOMAINS`.
"""

from __future__ import annotations

import re
from typing import Any
from uuid import UUID, uuid4

import pytest

from soldier_data.base.inmemory import InMemoryStore
from soldier_data.base.subjects import DataSubject, SubjectRecords
from soldier_data.postgres.base_store import PostgresStore
from tests.cases.case import Case, Domain, public_methods
from tests.cases.rows import dump
from tests.cases.stores import DOMAINS, outcome
from tests.contract.conftest import backends_of

_UUID = re.compile(r"\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b")

EVERY_CASE = [
    pytest.param(case, domain, backend, id=f"{backend}-{domain.contract.__name__}.{case.method}-{number}")
    for domain in DOMAINS
    for number, case in enumerate(domain.cases)
    for backend in backends_of(domain)
]

OPERATORS_METHODS = {
    # These take no tenant and are not of the contract: they serve whoever runs Redis for all tenants.
    "RedisSessionStore": {
        "cleanup_expired",
        "close",
        "demote_to_persistent",
        "peek",
        "ping",
        "promote_to_hot",
        "stats",
        "tier",
        "watch_demotions",
    },
}
OPERATORS_METHODS["DurableSessionStore"] = {*OPERATORS_METHODS["RedisSessionStore"], "repair"}


@pytest.mark.parametrize(("case", "domain", "backend"), EVERY_CASE)
async def test_another_tenants_ids_show_nothing_and_change_nothing(
    store: Any, case: Case[Any, Any], domain: Domain[Any, Any], tenant_id: UUID
) -> None:
    own = await domain.seed(store, tenant_id)
    before = await dump(store, tenant_id)
    assert before
    assert await outcome(case, store, own, uuid4()) == case.expected
    assert await dump(store, tenant_id) == before


WITH_RECORDS = [
    pytest.param(domain, backend, id=f"{backend}-{domain.contract.__name__}")
    for domain in DOMAINS
    for backend, class_ in domain.backends.items()
    if issubclass(class_, SubjectRecords)
]


@pytest.mark.parametrize(("domain", "backend"), WITH_RECORDS)
async def test_another_tenants_records_are_neither_read_nor_erased_by_their_ids(
    store: Any, domain: Domain[Any, Any], tenant_id: UUID
) -> None:
    await domain.seed(store, tenant_id)
    before = await dump(store, tenant_id)
    other = uuid4()
    every_id = {UUID(id_) for rows in before.values() for row in rows for id_ in _UUID.findall(row)}
    tables = await store.find_subject(DataSubject(tenant_id=other, profile_ids=frozenset(every_id)))
    assert tables
    assert not any(tables.values())
    owned = [await store.read_found(tenant_id, table, sorted(every_id)) for table in tables]
    assert any(owned)
    for table in tables:
        assert await store.read_found(other, table, sorted(every_id)) == []
    await store.erase_found(other, dict.fromkeys(tables, sorted(every_id)))
    assert await dump(store, tenant_id) == before


@pytest.mark.parametrize("domain", DOMAINS, ids=lambda domain: domain.contract.__name__)
def test_every_public_method_has_a_case(domain: Domain[Any, Any]) -> None:
    missing = public_methods(domain.contract) - {case.method for case in domain.cases}
    module = domain.seed.__module__.replace(".", "/")
    assert not missing, (
        f"{domain.contract.__name__} has methods that no test calls with another tenant's ids: add a Case for "
        f"{', '.join(sorted(missing))} to {module}.py"
    )


@pytest.mark.parametrize("domain", DOMAINS, ids=lambda domain: domain.contract.__name__)
def test_no_case_calls_another_method_than_it_says(domain: Domain[Any, Any]) -> None:
    assert {case.method for case in domain.cases} <= public_methods(domain.contract)


@pytest.mark.parametrize(
    "class_", [class_ for domain in DOMAINS for class_ in domain.backends.values()], ids=lambda c: c.__name__
)
def test_no_backend_has_a_method_for_tenants_that_its_contract_lacks(class_: type[Any]) -> None:
    contract = next(domain.contract for domain in DOMAINS if class_ in domain.backends.values())
    known = public_methods(contract) | public_methods(InMemoryStore) | public_methods(PostgresStore)
    known |= public_methods(SubjectRecords)
    extra = public_methods(class_) - known - OPERATORS_METHODS.get(class_.__name__, set())
    assert not extra, (
        f"{class_.__name__} has methods that its contract lacks, so that no tenant's case covers them: add "
        f"{', '.join(sorted(extra))} to {contract.__name__}, or to OPERATORS_METHODS if no tenant calls it"
    )
