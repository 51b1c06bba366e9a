"""The SQL of the config store, one group a table."""

from __future__ import annotations

from functools import cache
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    Float,
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
from sqlalchemy.dialects.postgresql import insert

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
from soldier_data.postgres.revisioned import RevisionedTable, mark_deleted
from soldier_data.postgres.statements import Statement, column_param, has_key, param, table_of
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
"""The tables whose rows go with their agent."""

LIMIT = param("limit", BigInteger())
OFFSET = param("offset", BigInteger())


def _parts_table(name: str, table: Table, *, unique: bool = False) -> RevisionedTable:
    return RevisionedTable(
        name,
        table,
        parent=and_(
            AGENTS.c.tenant_id == column_param(table.c.tenant_id),
            AGENTS.c.id == column_param(table.c.agent_id),
            AGENTS.c.deleted_at.is_(None),
        ),
        missing_parent="its agent_id names no agent of the tenant: save the agent first",
        unique=unique,
    )


agents = RevisionedTable("agent", AGENTS, unique=True)
rules = _parts_table("rule", RULES)
scenarios = _parts_table("scenario", SCENARIOS)
templates = _parts_table("template", TEMPLATES)
variables = _parts_table("variable", VARIABLES, unique=True)
activations = _parts_table("tool activation", ACTIVATIONS, unique=True)
plans = RevisionedTable("migration plan", PLANS)


def of_tenant(table: Table) -> ColumnElement[bool]:
    """The rows of the tenant."""
    return table.c.tenant_id == column_param(table.c.tenant_id)


def _living(table: Table) -> ColumnElement[bool]:
    return and_(of_tenant(table), table.c.deleted_at.is_(None))


def _agent_lives(agent_id: ColumnElement[Any]) -> ColumnElement[bool]:
    """Whether the agent that a row belongs to lives.

    A conditional save takes no lock on the agent: one that brings a deleted rule back while `delete_agent` is at
    work can escape it. Asking for the agent hides that rule all the same.
    """
    agent: Select[Any] = select(literal_column("1")).where(_living(AGENTS), AGENTS.c.id == agent_id)
    return agent.exists()


def _in_agent(table: Table) -> ColumnElement[bool]:
    agent_id = column_param(table.c.agent_id)
    return and_(_living(table), table.c.agent_id == agent_id, _agent_lives(agent_id))


def _entities(table: Table) -> Select[Any]:
    return select(*(column for column in table.columns if column.name != "write_id"))


def _of_agent(table: Table) -> Select[Any]:
    return _entities(table).where(_in_agent(table))


def _by_character(column: ColumnElement[str]) -> ColumnElement[str]:
    # Whatever language the database sorts by, the order is the same everywhere.
    return collate(column, "C")


def _get(name: str, table: Table) -> Statement:
    found = and_(_living(table), table.c.id == column_param(table.c.id))
    if table is not AGENTS:
        found = and_(found, _agent_lives(table.c.agent_id))
    return Statement(f"reading the {name}", _entities(table).where(found))


get_agent = _get("agent", AGENTS)
get_rule = _get("rule", RULES)
get_scenario = _get("scenario", SCENARIOS)
get_template = _get("template", TEMPLATES)
get_variable = _get("variable", VARIABLES)


@cache
def get_agents(*, enabled_only: bool) -> Statement:
    """One page and, in every row of it, the total; an empty page is one row of the total alone."""
    matching = _entities(AGENTS).where(_living(AGENTS))
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


def _delete_agent() -> Statement:
    agent = mark_deleted(AGENTS, has_key(AGENTS)).returning(AGENTS.c.id).cte("agent")
    statement = select(agent.c.id)
    for table in PARTS:
        its = and_(_living(table), table.c.agent_id == agent.c.id)
        statement = statement.add_cte(mark_deleted(table, its).cte(f"its_{table.name}"))
    return Statement("deleting the agent", statement)


delete_agent = _delete_agent()


@cache
def get_scoped(table: Table, *, scope: bool, scope_id: bool, enabled_only: bool = False) -> Statement:
    """The rules or templates of an agent, optionally those of one scope."""
    statement = _of_agent(table)
    if scope:
        statement = statement.where(table.c.scope == column_param(table.c.scope))
    if scope_id:
        statement = statement.where(table.c.scope_id == column_param(table.c.scope_id))
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
    """The rules or scenarios nearest to a vector; with `embedding_model`, of those whose vector is by that one."""
    table = embedding.table
    assert isinstance(table, Table)
    matching = and_(_in_agent(table), table.c.enabled)
    if embedding_model:
        model = table.c[f"{embedding.name}_model"]
        matching = and_(matching, model == param("embedding_model", model.type))
    # The index that lists the rules of an agent counts them.
    scope = and_(_living(table), table.c.agent_id == column_param(table.c.agent_id))
    nearest_rows = nearest(embedding, matching, scope, LIMIT, search)
    return Statement(
        f"searching the {table.name}",
        _entities(table)
        .add_columns(nearest_rows.c.distance)
        .join(nearest_rows, and_(of_tenant(table), table.c.id == nearest_rows.c.id))
        .where(nearest_rows.c.distance <= param("max_distance", Float(53)))
        .order_by(nearest_rows.c.distance, table.c.id),
    )


def _anywhere(table: Table) -> ColumnElement[bool]:
    """The living rows of living agents, of all tenants."""
    its_agent = and_(AGENTS.c.tenant_id == table.c.tenant_id, AGENTS.c.id == table.c.agent_id)
    agent: Select[Any] = select(literal_column("1")).where(its_agent, AGENTS.c.deleted_at.is_(None))
    return and_(table.c.deleted_at.is_(None), agent.exists())


embedded_texts = (
    EmbeddedText(
        "rule",
        RULES,
        text=RULES.c.condition_text,
        embedding=RULES.c.embedding,
        model=RULES.c.embedding_model,
        in_tenant=and_(_living(RULES), _agent_lives(RULES.c.agent_id)),
        anywhere=_anywhere(RULES),
    ),
    EmbeddedText(
        "scenario",
        SCENARIOS,
        text=SCENARIOS.c.entry_condition_text,
        embedding=SCENARIOS.c.entry_condition_embedding,
        model=SCENARIOS.c.entry_condition_embedding_model,
        in_tenant=and_(_living(SCENARIOS), _agent_lives(SCENARIOS.c.agent_id)),
        anywhere=_anywhere(SCENARIOS),
    ),
)

get_variables = Statement(
    "listing the variables", _of_agent(VARIABLES).order_by(_by_character(VARIABLES.c.name))
)
get_variable_by_name = Statement(
    "reading the variable", _of_agent(VARIABLES).where(VARIABLES.c.name == column_param(VARIABLES.c.name))
)

get_activations = Statement(
    "listing the tool activations", _of_agent(ACTIVATIONS).order_by(_by_character(ACTIVATIONS.c.tool_id))
)
get_activation = Statement(
    "reading the tool activation",
    _of_agent(ACTIVATIONS).where(ACTIVATIONS.c.tool_id == column_param(ACTIVATIONS.c.tool_id)),
)
delete_activation = Statement(
    "deleting the tool activation",
    mark_deleted(
        ACTIVATIONS,
        and_(
            of_tenant(ACTIVATIONS),
            ACTIVATIONS.c.agent_id == column_param(ACTIVATIONS.c.agent_id),
            ACTIVATIONS.c.tool_id == column_param(ACTIVATIONS.c.tool_id),
        ),
    ).returning(ACTIVATIONS.c.id),
)


def _archive_key() -> ColumnElement[bool]:
    return and_(has_key(ARCHIVES), ARCHIVES.c.version == column_param(ARCHIVES.c.version))


def _archive_scenario() -> Statement:
    statement = insert(ARCHIVES).values({column.name: column_param(column) for column in ARCHIVES.columns})
    return Statement(
        "archiving the scenario",
        statement.on_conflict_do_update(
            index_elements=["tenant_id", "id", "version"],
            set_={"archived_at": statement.excluded.archived_at, "scenario": statement.excluded.scenario},
        ),
    )


archive_scenario = _archive_scenario()
get_archived_scenario = Statement(
    "reading the archived scenario", select(ARCHIVES.c.scenario).where(_archive_key())
)


def _plans() -> Select[Any]:
    # The document was made before the save that set these two.
    return select(PLANS.c.plan, PLANS.c.updated_at, PLANS.c.revision).where(of_tenant(PLANS))


get_plan = Statement("reading the migration plan", _plans().where(PLANS.c.id == column_param(PLANS.c.id)))
get_plan_for_versions = Statement(
    "reading the migration plan",
    _plans()
    .where(
        PLANS.c.scenario_id == column_param(PLANS.c.scenario_id),
        PLANS.c.from_version == column_param(PLANS.c.from_version),
        PLANS.c.to_version == column_param(PLANS.c.to_version),
    )
    .order_by(PLANS.c.created_at.desc(), PLANS.c.id.desc())
    .limit(1),
)
delete_plan = Statement(
    "deleting the migration plan", delete(PLANS).where(has_key(PLANS)).returning(PLANS.c.id)
)


@cache
def list_plans(*, scenario: bool, status: bool) -> Statement:
    """The plans of a tenant, optionally those of a scenario or in a status."""
    statement = _plans()
    if scenario:
        statement = statement.where(PLANS.c.scenario_id == column_param(PLANS.c.scenario_id))
    if status:
        statement = statement.where(PLANS.c.status == column_param(PLANS.c.status))
    return Statement(
        "listing the migration plans",
        statement.order_by(PLANS.c.created_at.desc(), PLANS.c.id.desc()).limit(LIMIT),
    )
