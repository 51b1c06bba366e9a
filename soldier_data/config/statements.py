"""The SQL of the config store, one group for each table."""

from __future__ import annotations

from functools import cache
from typing import Any

from sqlalchemy import (
    Column,
    ColumnElement,
    Select,
    Table,
    and_,
    collate,
    delete,
    func,
    literal_column,
    select,
    true,
)
from sqlalchemy.dialects.postgresql import Insert

from soldier_data.config.orm import (
    AgentRow,
    MigrationPlanRow,
    RuleRow,
    ScenarioArchiveRow,
    ScenarioRow,
    TemplateRow,
    ToolActivationRow,
    VariableRow,
)
from soldier_data.postgres.missing_embeddings import EmbeddedText
from soldier_data.postgres.queries import (
    LIMIT,
    OFFSET,
    columns_except,
    equals,
    has_key,
    insert_row,
    is_living,
    living,
    nearest_first,
    newest_first,
    of_tenant,
)
from soldier_data.postgres.revisioned import RevisionedTable
from soldier_data.postgres.revisioned_statements import mark_deleted
from soldier_data.postgres.statements import Statement, column_param, param, table_of
from soldier_data.postgres.vector_search import IndexedSearch, nearest

AGENTS = table_of(AgentRow)
RULES = table_of(RuleRow)
SCENARIOS = table_of(ScenarioRow)
ARCHIVES = table_of(ScenarioArchiveRow)
TEMPLATES = table_of(TemplateRow)
VARIABLES = table_of(VariableRow)
ACTIVATIONS = table_of(ToolActivationRow)
PLANS = table_of(MigrationPlanRow)

PARTS = (RULES, SCENARIOS, TEMPLATES, VARIABLES, ACTIVATIONS)
"""The tables whose rows are deleted with their agent."""


def _parts_table(name: str, table: Table, *, unique: bool = False) -> RevisionedTable:
    return RevisionedTable(
        name,
        table,
        parent=and_(living(AGENTS), AGENTS.c.id == column_param(table.c.agent_id)),
        missing_parent="agent_id is not the id of an agent of the tenant: save the agent first",
        unique=unique,
    )


agents = RevisionedTable("agent", AGENTS, unique=True)
rules = _parts_table("rule", RULES)
scenarios = _parts_table("scenario", SCENARIOS)
templates = _parts_table("template", TEMPLATES)
variables = _parts_table("variable", VARIABLES, unique=True)
activations = _parts_table("tool activation", ACTIVATIONS, unique=True)
plans = RevisionedTable("migration plan", PLANS)


def _has_living_agent(agent_id: ColumnElement[Any]) -> ColumnElement[bool]:
    """A condition: the agent of the row exists and is not deleted.

    A conditional save does not lock the agent, so it can restore a deleted rule that a concurrent `delete_agent` has
    already processed. This condition hides such a rule.
    """
    return select(literal_column("1")).where(living(AGENTS), AGENTS.c.id == agent_id).exists()


def _in_agent(table: Table) -> ColumnElement[bool]:
    return and_(living(table), equals(table.c.agent_id), _has_living_agent(column_param(table.c.agent_id)))


def _entities(table: Table) -> Select[Any]:
    return select(*columns_except(table, "write_id"))


def _of_agent(table: Table) -> Select[Any]:
    return _entities(table).where(_in_agent(table))


def _by_character(column: ColumnElement[str]) -> ColumnElement[str]:
    # The same order regardless of the database's collation.
    return collate(column, "C")


def _get(name: str, table: Table) -> Statement:
    def build() -> Select[Any]:
        found = _entities(table).where(living(table), equals(table.c.id))
        return found if table is AGENTS else found.where(_has_living_agent(table.c.agent_id))

    return Statement(f"reading the {name}", build)


get_agent = _get("agent", AGENTS)
get_rule = _get("rule", RULES)
get_scenario = _get("scenario", SCENARIOS)
get_template = _get("template", TEMPLATES)
get_variable = _get("variable", VARIABLES)


@cache
def get_agents(*, enabled_only: bool) -> Statement:
    """One page of agents, with the total in every row; an empty page is a single row with the total."""
    matching = _entities(AGENTS).where(living(AGENTS))
    if enabled_only:
        matching = matching.where(AGENTS.c.enabled)
    total = select(func.count().label("total")).select_from(matching.subquery()).subquery("counted")
    page = matching.order_by(AGENTS.c.created_at, AGENTS.c.id).limit(LIMIT).offset(OFFSET).subquery("page")
    return Statement(
        "listing the agents",
        select(total.c.total, page)
        .select_from(total.outerjoin(page, true()))
        .order_by(page.c.created_at, page.c.id),
    )


def _delete_agent() -> Select[Any]:
    agent = mark_deleted(AGENTS, has_key(AGENTS)).returning(AGENTS.c.id).cte("agent")
    statement = select(agent.c.id)
    for table in PARTS:
        parts = mark_deleted(table, and_(living(table), table.c.agent_id == agent.c.id))
        statement = statement.add_cte(parts.cte(f"deleted_{table.name}"))
    return statement


delete_agent = Statement("deleting the agent", _delete_agent)


@cache
def get_scoped(table: Table, *, scope: bool, scope_id: bool, enabled_only: bool = False) -> Statement:
    """The rules or templates of an agent, optionally of one scope."""
    statement = _of_agent(table)
    if scope:
        statement = statement.where(equals(table.c.scope))
    if scope_id:
        statement = statement.where(equals(table.c.scope_id))
    if enabled_only:
        statement = statement.where(table.c.enabled)
    if table is RULES:
        statement = statement.order_by(RULES.c.priority.desc())
    return Statement(f"listing the {table.name}", statement.order_by(table.c.created_at, table.c.id))


@cache
def get_scenarios(*, enabled_only: bool) -> Statement:
    """The scenarios of an agent."""
    statement = _of_agent(SCENARIOS)
    if enabled_only:
        statement = statement.where(SCENARIOS.c.enabled)
    return Statement("listing the scenarios", statement.order_by(SCENARIOS.c.created_at, SCENARIOS.c.id))


@cache
def vector_search(
    embedding: Column[Any], search: IndexedSearch | None, *, embedding_model: bool
) -> Statement:
    """The enabled rules or scenarios nearest to the parameter `query`, optionally of one embedding model."""
    table = embedding.table
    assert isinstance(table, Table)
    matching = and_(_in_agent(table), table.c.enabled)
    if embedding_model:
        model = table.c[f"{embedding.name}_model"]
        matching = and_(matching, model == param("embedding_model", model.type))
    # These rows can be counted in the index that lists an agent's rules.
    scope = and_(living(table), equals(table.c.agent_id))
    found = nearest(embedding, matching, scope, LIMIT, search)
    return Statement(f"searching the {table.name}", nearest_first(columns_except(table, "write_id"), found))


def _anywhere(table: Table) -> ColumnElement[bool]:
    """Rows of all tenants that are not deleted and whose agents are not deleted."""
    agent = and_(AGENTS.c.tenant_id == table.c.tenant_id, AGENTS.c.id == table.c.agent_id)
    return and_(is_living(table), select(literal_column("1")).where(agent, is_living(AGENTS)).exists())


embedded_texts = (
    EmbeddedText(
        "rule",
        RULES,
        text=RULES.c.condition_text,
        embedding=RULES.c.embedding,
        model=RULES.c.embedding_model,
        in_tenant=and_(living(RULES), _has_living_agent(RULES.c.agent_id)),
        anywhere=_anywhere(RULES),
    ),
    EmbeddedText(
        "scenario",
        SCENARIOS,
        text=SCENARIOS.c.entry_condition_text,
        embedding=SCENARIOS.c.entry_condition_embedding,
        model=SCENARIOS.c.entry_condition_embedding_model,
        in_tenant=and_(living(SCENARIOS), _has_living_agent(SCENARIOS.c.agent_id)),
        anywhere=_anywhere(SCENARIOS),
    ),
)

get_variables = Statement(
    "listing the variables", lambda: _of_agent(VARIABLES).order_by(_by_character(VARIABLES.c.name))
)
get_variable_by_name = Statement(
    "reading the variable", lambda: _of_agent(VARIABLES).where(equals(VARIABLES.c.name))
)

get_activations = Statement(
    "listing the tool activations",
    lambda: _of_agent(ACTIVATIONS).order_by(_by_character(ACTIVATIONS.c.tool_id)),
)
get_activation = Statement(
    "reading the tool activation",
    lambda: _of_agent(ACTIVATIONS).where(equals(ACTIVATIONS.c.tool_id)),
)
delete_activation = Statement(
    "deleting the tool activation",
    lambda: mark_deleted(
        ACTIVATIONS,
        and_(
            of_tenant(ACTIVATIONS),
            equals(ACTIVATIONS.c.agent_id),
            equals(ACTIVATIONS.c.tool_id),
        ),
    ).returning(ACTIVATIONS.c.id),
)


def _archive_key() -> ColumnElement[bool]:
    return and_(has_key(ARCHIVES), equals(ARCHIVES.c.version))


def _archive_scenario() -> Insert:
    statement = insert_row(ARCHIVES)
    return statement.on_conflict_do_update(
        index_elements=["tenant_id", "id", "version"],
        set_={"archived_at": statement.excluded.archived_at, "scenario": statement.excluded.scenario},
    )


archive_scenario = Statement("archiving the scenario", _archive_scenario)
get_archived_scenario = Statement(
    "reading the archived scenario", lambda: select(ARCHIVES.c.scenario).where(_archive_key())
)


def _plans() -> Select[Any]:
    # The document was serialized before the save set these two columns.
    return select(PLANS.c.plan, PLANS.c.updated_at, PLANS.c.revision).where(of_tenant(PLANS))


get_plan = Statement("reading the migration plan", lambda: _plans().where(equals(PLANS.c.id)))
get_plan_for_versions = Statement(
    "reading the migration plan",
    lambda: newest_first(
        _plans().where(equals(PLANS.c.scenario_id), equals(PLANS.c.from_version), equals(PLANS.c.to_version)),
        PLANS.c.created_at,
    ).limit(1),
)
delete_plan = Statement(
    "deleting the migration plan", lambda: delete(PLANS).where(has_key(PLANS)).returning(PLANS.c.id)
)


@cache
def list_plans(*, scenario: bool, status: bool) -> Statement:
    """The migration plans of a tenant, optionally of one scenario or status."""
    statement = _plans()
    if scenario:
        statement = statement.where(equals(PLANS.c.scenario_id))
    if status:
        statement = statement.where(equals(PLANS.c.status))
    return Statement(
        "listing the migration plans",
        newest_first(statement, PLANS.c.created_at).limit(LIMIT),
    )
