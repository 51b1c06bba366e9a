"""Every statement filters every table that it reads by tenant: each arm of a recursion, each subquery, each join.

That keeps a query to one shard where tables are distributed by tenant, and to one tenant's part of each index.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any
from uuid import uuid4

import pytest

from soldier_data.postgres.database import Database
from soldier_data.postgres.engine import open_connection
from soldier_data.postgres.statements import Statement
from soldier_data.schema import metadata
from tests.cases.case import Domain
from tests.cases.stores import DOMAINS, outcome

_DOMAINS = [domain for domain in DOMAINS if "postgres" in domain.backends]


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", ()):
        yield from _nodes(child)


def _conditions(scan: dict[str, Any]) -> str:
    """What rows must meet to be read by the scan, or by the index scans that make up its bitmap."""
    return " ".join(str(node.get(name)) for node in _nodes(scan) for name in ("Index Cond", "Filter"))


@pytest.mark.parametrize("domain", _DOMAINS, ids=lambda domain: domain.contract.__name__)
async def test_every_scan_of_every_statement_is_filtered_by_tenant(
    database: Database, domain: Domain[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    executed: dict[str, list[Any]] = {}
    arguments_of = Statement.arguments

    def recorded(statement: Statement, values: Mapping[str, Any]) -> list[Any]:
        arguments = arguments_of(statement, values)
        executed[statement.sql] = arguments
        return arguments

    store = domain.backends["postgres"](database)
    for case in domain.cases:
        # As the owner, who gets through to every statement of a call, and as an intruder.
        for intrudes in (False, True):
            tenant_id = uuid4()
            own = await domain.seed(store, tenant_id)
            with monkeypatch.context() as patched:
                patched.setattr(Statement, "arguments", recorded)
                await outcome(case, store, own, uuid4() if intrudes else tenant_id)

    connection = await open_connection(database.settings)
    scanned = 0
    for sql, arguments in executed.items():
        plan = json.loads(await connection.fetchval(f"EXPLAIN (FORMAT JSON) {sql}", *arguments))
        for node in _nodes(plan[0]["Plan"]):
            if node["Node Type"] != "ModifyTable" and node.get("Relation Name") in metadata.tables:
                scanned += 1
                assert "tenant_id = " in _conditions(node), (sql, node)
    await connection.close()
    assert scanned >= len(domain.cases) / 2
