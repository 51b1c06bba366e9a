"""How PostgreSQL runs the statements of the config store: through which index, and in which order."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest

from soldier_data.config import Agent, PostgresConfigStore
from soldier_data.config import statements as sql
from soldier_data.migrations import upgrade
from soldier_data.postgres.database import Database
from soldier_data.postgres.engine import driver_url, open_connection
from soldier_data.postgres.statements import Statement
from tests.conftest import DIMENSIONS, settings_for, with_database
from tests.factories.config import (
    AgentFactory,
    MigrationPlanFactory,
    RuleFactory,
    ScenarioFactory,
    TemplateFactory,
    ToolActivationFactory,
    VariableFactory,
)

QUERY = [1.0] * DIMENSIONS


def _parts(agent: Agent) -> list[Any]:
    owner = {"tenant_id": agent.tenant_id, "agent_id": agent.id}
    return [
        RuleFactory(**owner, embedding=QUERY),
        ScenarioFactory(**owner, entry_condition_embedding=QUERY),
        TemplateFactory(**owner),
        VariableFactory(**owner),
        ToolActivationFactory(**owner),
    ]


def _listing() -> Iterator[tuple[Statement, set[str]]]:
    """Every statement that looks for more than one row, or not by id, and the indexes that it may use."""
    both = (False, True)
    pages = {f"ix_{name}_page" for name in ("agents", "rules", "scenarios", "templates", "migration_plans")}
    for enabled_only in both:
        yield sql.get_agents(enabled_only=enabled_only), pages
        yield sql.get_scenarios(enabled_only=enabled_only), pages
    for scope in both:
        for scope_id in both:
            yield sql.get_scoped(sql.TEMPLATES, scope=scope, scope_id=scope_id), pages
            for enabled_only in both:
                yield (
                    sql.get_scoped(sql.RULES, scope=scope, scope_id=scope_id, enabled_only=enabled_only),
                    pages,
                )
    for embedding in (sql.RULES.c.embedding, sql.SCENARIOS.c.entry_condition_embedding):
        yield sql.vector_search(embedding, None, embedding_model=False), pages
    yield sql.get_variables, {"uq_variables_name"}
    yield sql.get_variable_by_name, {"uq_variables_name"}
    yield sql.get_activations, {"uq_tool_activations_tool_id"}
    yield sql.get_activation, {"uq_tool_activations_tool_id"}
    versions = {"ix_migration_plans_versions"}
    for status in both:
        yield sql.list_plans(scenario=False, status=status), pages
        yield sql.list_plans(scenario=True, status=status), versions | pages
    yield sql.get_plan_for_versions, versions


async def _fill(connection: Any, agent: Agent, plan: Any) -> None:
    """Multiply what is stored: 10 tenants with 500 agents each, 30 parts for some of these agents."""
    tenant = "CASE WHEN {t} = 1 THEN tenant_id ELSE md5('tenant' || {t})::uuid END"
    of_tenant = tenant.format(t="t")
    an_agent = "CASE WHEN a = 1 THEN {id} ELSE md5('agent' || t || '/' || a)::uuid END"
    moment = "created_at + (random() * 1000) * interval '1 hour'"
    for table in (sql.AGENTS, *sql.PARTS, sql.PLANS):
        changed = {"tenant_id": of_tenant, "created_at": moment, "id": "gen_random_uuid()"}
        series = "generate_series(1, 10) t, generate_series(1, 20) a, generate_series(1, 30) n"
        if table is sql.AGENTS:
            changed |= {"id": an_agent.format(id="id"), "name": "'agent ' || a"}
            series = "generate_series(1, 10) t, generate_series(1, 500) a"
        elif table is not sql.PLANS:
            changed |= {"agent_id": an_agent.format(id="agent_id")}
        if table is sql.PLANS:
            changed |= {"scenario_id": an_agent.format(id="scenario_id")}
        for name in ("name", "tool_id"):
            if table in (sql.VARIABLES, sql.ACTIVATIONS) and name in table.c:
                changed[name] = "'name_' || n"
        columns = [column.name for column in table.columns]
        values = ", ".join(changed.get(name, name) for name in columns)
        await connection.execute(
            f"INSERT INTO {table.name} ({', '.join(columns)}) SELECT {values} FROM {table.name}, {series} "  # noqa: S608
            "ON CONFLICT DO NOTHING"
        )
    await connection.execute("ANALYZE")


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", ()):
        yield from _nodes(child)


async def test_every_list_of_a_large_tenant_is_read_through_an_index(database_url: str) -> None:
    database = Database(settings_for(database_url))
    agent: Agent = AgentFactory(created_at=datetime(2026, 1, 1, tzinfo=UTC))
    plan = MigrationPlanFactory(tenant_id=agent.tenant_id)
    await PostgresConfigStore(database).save_many([agent, *_parts(agent), plan])
    await database.close()
    values = {
        "tenant_id": agent.tenant_id,
        "agent_id": agent.id,
        "scope": "global",
        "scope_id": uuid4(),
        "name": "name_7",
        "tool_id": "name_7",
        "query": QUERY,
        "max_distance": 0.5,
        "limit": 20,
        "offset": 40,
        "scenario_id": plan.scenario_id,
        "status": "pending",
        "from_version": 1,
        "to_version": 2,
    }
    connection = await open_connection(settings_for(database_url))
    try:
        await _fill(connection, agent, plan)
        for statement, expected in _listing():
            rows = await connection.fetch(
                f"EXPLAIN (FORMAT JSON) {statement.sql}", *statement.arguments(values)
            )
            nodes = list(_nodes(json.loads(rows[0][0])[0]["Plan"]))
            used = {node["Index Name"] for node in nodes if "Index Name" in node}
            assert "Seq Scan" not in {node["Node Type"] for node in nodes}, statement.sql
            assert used & expected, (statement.sql, used)
    finally:
        await connection.close()


async def test_names_are_listed_by_character_whatever_language_the_database_sorts_by(
    server_url: str, tenant_id: UUID
) -> None:
    name = f"soldier_test_{uuid4().hex}"
    administrator = await asyncpg.connect(driver_url(server_url))
    url = with_database(server_url, name)
    try:
        try:
            await administrator.execute(
                f"CREATE DATABASE {name} TEMPLATE template0 LOCALE_PROVIDER icu ICU_LOCALE 'en-US'"
            )
        except asyncpg.FeatureNotSupportedError:
            pytest.skip("this server was built without ICU and sorts by character only")
        await upgrade(settings_for(url))
        database = Database(settings_for(url))
        store = PostgresConfigStore(database)
        agent: Agent = AgentFactory(tenant_id=tenant_id)
        tools = [
            ToolActivationFactory(tenant_id=tenant_id, agent_id=agent.id, tool_id=tool_id)
            for tool_id in ("B", "a", "b_a", "ba")
        ]
        await store.save_many([agent, *tools[::-1]])
        assert await store.get_tool_activations(tenant_id, agent.id) == tools
        await database.close()
    finally:
        await administrator.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        await administrator.close()
