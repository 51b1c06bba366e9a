"""The config store on PostgreSQL."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Any, ClassVar
from uuid import UUID

from pydantic import ConfigDict, TypeAdapter
from sqlalchemy import Column

from soldier_data.base.models import mark_saved, new_id, utcnow
from soldier_data.base.paging import check_page
from soldier_data.base.values import check_integer, check_text, moment_before
from soldier_data.config import statements as sql
from soldier_data.config.checks import check_entity, check_list, check_scenario_tenant
from soldier_data.config.kinds import ConfigEntity, kind_of
from soldier_data.config.models import (
    Agent,
    AgentSettings,
    Rule,
    RuleHit,
    Scenario,
    ScenarioHit,
    ScenarioStep,
    Scope,
    Template,
    ToolActivation,
    Variable,
)
from soldier_data.config.purging import purge
from soldier_data.config.scenario_migrations import MigrationPlan, MigrationPlanStatus
from soldier_data.config.store import ConfigStore
from soldier_data.postgres.base_store import PostgresStore
from soldier_data.postgres.executor import Executor
from soldier_data.postgres.missing_embeddings import PostgresEmbeddedTexts
from soldier_data.postgres.revisioned import RevisionedTable, delete_row
from soldier_data.postgres.statements import Row, Values
from soldier_data.postgres.transaction import Transaction
from soldier_data.postgres.vector_search import IndexedSearch, search_values

_STEPS = TypeAdapter(list[ScenarioStep], config=ConfigDict(defer_build=True))


class PostgresConfigStore(PostgresEmbeddedTexts, ConfigStore, PostgresStore):
    """A `ConfigStore` on a `Database`, or on the `Transaction` of a unit of work."""

    _embedded_texts: ClassVar = sql.embedded_texts

    def __init__(self, database: Executor) -> None:
        self._db = database
        self._search = IndexedSearch.of(database.settings)

    @property
    def _dimensions(self) -> int:
        return self._db.settings.embedding_dimensions

    async def get_agent(self, tenant_id: UUID, agent_id: UUID) -> Agent | None:
        row = await self._db.fetch_one(sql.get_agent, {"tenant_id": tenant_id, "id": agent_id})
        return _agent(row) if row else None

    async def get_agents(
        self, tenant_id: UUID, *, enabled_only: bool = False, limit: int = 20, offset: int = 0
    ) -> tuple[list[Agent], int]:
        check_page(limit, offset)
        rows = await self._db.fetch_all(
            sql.get_agents(enabled_only=enabled_only),
            {"tenant_id": tenant_id, "limit": limit, "offset": offset},
        )
        return [_agent(row) for row in rows if row["id"] is not None], rows[0]["total"]

    async def save_agent(self, agent: Agent, *, if_revision: int | None = None) -> UUID:
        check_entity(agent, self._dimensions)
        return await sql.agents.save(self._db, agent, _values(agent), if_revision)

    async def delete_agent(self, tenant_id: UUID, agent_id: UUID) -> bool:
        values = {"tenant_id": tenant_id, "id": agent_id, "now": utcnow(), "write_id": new_id()}
        # The first run waits for concurrent saves of the agent's parts; only the second run sees the parts they saved.
        return bool(await self._db.fetch_many(sql.delete_agent, [values, values]))

    async def get_rule(self, tenant_id: UUID, rule_id: UUID) -> Rule | None:
        row = await self._db.fetch_one(sql.get_rule, {"tenant_id": tenant_id, "id": rule_id})
        return _rule(row) if row else None

    async def get_rules(
        self,
        tenant_id: UUID,
        agent_id: UUID,
        *,
        scope: Scope | None = None,
        scope_id: UUID | None = None,
        enabled_only: bool = True,
    ) -> list[Rule]:
        statement = sql.get_scoped(
            sql.RULES, scope=scope is not None, scope_id=scope_id is not None, enabled_only=enabled_only
        )
        values = {"tenant_id": tenant_id, "agent_id": agent_id, "scope": scope, "scope_id": scope_id}
        return [_rule(row) for row in await self._db.fetch_all(statement, values)]

    async def save_rule(self, rule: Rule, *, if_revision: int | None = None) -> UUID:
        check_entity(rule, self._dimensions)
        return await sql.rules.save(self._db, rule, _values(rule), if_revision)

    async def delete_rule(self, tenant_id: UUID, rule_id: UUID) -> bool:
        return await sql.rules.delete(self._db, tenant_id, rule_id)

    async def vector_search_rules(
        self,
        query_embedding: Sequence[float],
        tenant_id: UUID,
        agent_id: UUID,
        *,
        limit: int = 10,
        min_score: float = 0.0,
        embedding_model: str | None = None,
    ) -> list[RuleHit]:
        values = search_values(self._db.settings, query_embedding, limit, min_score, embedding_model)
        rows = await self._vector_search(sql.RULES.c.embedding, tenant_id, agent_id, values)
        return [RuleHit(_rule(row), 1.0 - row["distance"]) for row in rows]

    async def get_scenario(self, tenant_id: UUID, scenario_id: UUID) -> Scenario | None:
        row = await self._db.fetch_one(sql.get_scenario, {"tenant_id": tenant_id, "id": scenario_id})
        return _scenario(row) if row else None

    async def get_scenarios(
        self, tenant_id: UUID, agent_id: UUID, *, enabled_only: bool = True
    ) -> list[Scenario]:
        rows = await self._db.fetch_all(
            sql.get_scenarios(enabled_only=enabled_only), {"tenant_id": tenant_id, "agent_id": agent_id}
        )
        return [_scenario(row) for row in rows]

    async def save_scenario(self, scenario: Scenario, *, if_revision: int | None = None) -> UUID:
        check_entity(scenario, self._dimensions)
        return await sql.scenarios.save(self._db, scenario, _values(scenario), if_revision)

    async def delete_scenario(self, tenant_id: UUID, scenario_id: UUID) -> bool:
        return await sql.scenarios.delete(self._db, tenant_id, scenario_id)

    async def vector_search_scenarios(
        self,
        query_embedding: Sequence[float],
        tenant_id: UUID,
        agent_id: UUID,
        *,
        limit: int = 10,
        min_score: float = 0.0,
        embedding_model: str | None = None,
    ) -> list[ScenarioHit]:
        values = search_values(self._db.settings, query_embedding, limit, min_score, embedding_model)
        rows = await self._vector_search(
            sql.SCENARIOS.c.entry_condition_embedding, tenant_id, agent_id, values
        )
        return [ScenarioHit(_scenario(row), 1.0 - row["distance"]) for row in rows]

    async def archive_scenario_version(self, tenant_id: UUID, scenario: Scenario) -> None:
        check_scenario_tenant(tenant_id, scenario)
        check_entity(scenario, self._dimensions)
        values = {
            "tenant_id": tenant_id,
            "id": scenario.id,
            "version": scenario.version,
            "archived_at": utcnow(),
            "scenario": scenario.model_dump_json(),
        }
        await self._db.fetch_one(sql.archive_scenario, values)

    async def get_archived_scenario(
        self, tenant_id: UUID, scenario_id: UUID, version: int
    ) -> Scenario | None:
        check_integer(version, "version")
        row = await self._db.fetch_one(
            sql.get_archived_scenario, {"tenant_id": tenant_id, "id": scenario_id, "version": version}
        )
        return Scenario.model_validate_json(row["scenario"]) if row else None

    async def get_template(self, tenant_id: UUID, template_id: UUID) -> Template | None:
        row = await self._db.fetch_one(sql.get_template, {"tenant_id": tenant_id, "id": template_id})
        return Template.model_validate(dict(row)) if row else None

    async def get_templates(
        self, tenant_id: UUID, agent_id: UUID, *, scope: Scope | None = None, scope_id: UUID | None = None
    ) -> list[Template]:
        statement = sql.get_scoped(sql.TEMPLATES, scope=scope is not None, scope_id=scope_id is not None)
        values = {"tenant_id": tenant_id, "agent_id": agent_id, "scope": scope, "scope_id": scope_id}
        return [Template.model_validate(dict(row)) for row in await self._db.fetch_all(statement, values)]

    async def save_template(self, template: Template, *, if_revision: int | None = None) -> UUID:
        check_entity(template, self._dimensions)
        return await sql.templates.save(self._db, template, _values(template), if_revision)

    async def delete_template(self, tenant_id: UUID, template_id: UUID) -> bool:
        return await sql.templates.delete(self._db, tenant_id, template_id)

    async def get_variable(self, tenant_id: UUID, variable_id: UUID) -> Variable | None:
        row = await self._db.fetch_one(sql.get_variable, {"tenant_id": tenant_id, "id": variable_id})
        return Variable.model_validate(dict(row)) if row else None

    async def get_variables(self, tenant_id: UUID, agent_id: UUID) -> list[Variable]:
        rows = await self._db.fetch_all(sql.get_variables, {"tenant_id": tenant_id, "agent_id": agent_id})
        return [Variable.model_validate(dict(row)) for row in rows]

    async def get_variable_by_name(self, tenant_id: UUID, agent_id: UUID, name: str) -> Variable | None:
        check_text(name, "name")
        row = await self._db.fetch_one(
            sql.get_variable_by_name, {"tenant_id": tenant_id, "agent_id": agent_id, "name": name}
        )
        return Variable.model_validate(dict(row)) if row else None

    async def save_variable(self, variable: Variable, *, if_revision: int | None = None) -> UUID:
        check_entity(variable, self._dimensions)
        return await sql.variables.save(self._db, variable, _values(variable), if_revision)

    async def delete_variable(self, tenant_id: UUID, variable_id: UUID) -> bool:
        return await sql.variables.delete(self._db, tenant_id, variable_id)

    async def get_tool_activation(
        self, tenant_id: UUID, agent_id: UUID, tool_id: str
    ) -> ToolActivation | None:
        check_text(tool_id, "tool_id")
        row = await self._db.fetch_one(
            sql.get_activation, {"tenant_id": tenant_id, "agent_id": agent_id, "tool_id": tool_id}
        )
        return _activation(row) if row else None

    async def get_tool_activations(self, tenant_id: UUID, agent_id: UUID) -> list[ToolActivation]:
        rows = await self._db.fetch_all(sql.get_activations, {"tenant_id": tenant_id, "agent_id": agent_id})
        return [_activation(row) for row in rows]

    async def save_tool_activation(
        self, activation: ToolActivation, *, if_revision: int | None = None
    ) -> UUID:
        check_entity(activation, self._dimensions)
        return await sql.activations.save(self._db, activation, _values(activation), if_revision)

    async def delete_tool_activation(self, tenant_id: UUID, agent_id: UUID, tool_id: str) -> bool:
        check_text(tool_id, "tool_id")
        key = {"tenant_id": tenant_id, "agent_id": agent_id, "tool_id": tool_id}
        return await delete_row(self._db, sql.delete_activation, key)

    async def get_migration_plan(self, tenant_id: UUID, plan_id: UUID) -> MigrationPlan | None:
        row = await self._db.fetch_one(sql.get_plan, {"tenant_id": tenant_id, "id": plan_id})
        return _plan(row) if row else None

    async def get_migration_plan_for_versions(
        self, tenant_id: UUID, scenario_id: UUID, from_version: int, to_version: int
    ) -> MigrationPlan | None:
        check_integer(from_version, "from_version")
        check_integer(to_version, "to_version")
        values = {
            "tenant_id": tenant_id,
            "scenario_id": scenario_id,
            "from_version": from_version,
            "to_version": to_version,
        }
        row = await self._db.fetch_one(sql.get_plan_for_versions, values)
        return _plan(row) if row else None

    async def list_migration_plans(
        self,
        tenant_id: UUID,
        scenario_id: UUID | None = None,
        status: MigrationPlanStatus | None = None,
        limit: int = 50,
    ) -> list[MigrationPlan]:
        check_page(limit)
        statement = sql.list_plans(scenario=scenario_id is not None, status=status is not None)
        values = {"tenant_id": tenant_id, "scenario_id": scenario_id, "status": status, "limit": limit}
        return [_plan(row) for row in await self._db.fetch_all(statement, values)]

    async def save_migration_plan(self, plan: MigrationPlan, *, if_revision: int | None = None) -> UUID:
        check_entity(plan, self._dimensions)
        return await sql.plans.save(self._db, plan, _values(plan), if_revision)

    async def delete_migration_plan(self, tenant_id: UUID, plan_id: UUID) -> bool:
        return await self._db.fetch_one(sql.delete_plan, {"tenant_id": tenant_id, "id": plan_id}) is not None

    async def save_many(self, entities: Iterable[ConfigEntity]) -> int:
        listed = list(entities)
        check_list(listed, self._dimensions)
        if not listed:
            return 0
        now = utcnow()
        written = {"updated_at": now, "write_id": new_id()}
        kinds = [kind_of(entity) for entity in listed]
        rows = [{**_values(entity), **written} for entity in listed]

        async def work(transaction: Transaction) -> dict[tuple[type, UUID], int]:
            revisions: dict[tuple[type, UUID], int] = {}
            for kind, table in _TABLES.items():
                of_kind = [row for row, found in zip(rows, kinds, strict=True) if found is kind]
                if of_kind:
                    saved = await table.save_many(transaction, of_kind)
                    revisions |= {(kind, id_): revision for id_, revision in saved.items()}
            return revisions

        revisions = await self._db.atomically(work, "saving many entities")
        for kind, entity in zip(kinds, listed, strict=True):
            mark_saved(entity, now, revisions[kind, entity.id])
        return len(listed)

    async def purge_deleted(self, tenant_id: UUID, older_than: timedelta) -> int:
        return await purge(self._db, {"tenant_id": tenant_id, "before": moment_before(older_than)})

    async def _vector_search(
        self, embedding: Column[Any], tenant_id: UUID, agent_id: UUID, values: dict[str, Any]
    ) -> list[Row]:
        statement = sql.vector_search(
            embedding, self._search, embedding_model=values["embedding_model"] is not None
        )
        return await self._db.fetch_all(statement, values | {"tenant_id": tenant_id, "agent_id": agent_id})


# In the order of saving.
_TABLES: dict[type, RevisionedTable] = {
    Agent: sql.agents,
    Rule: sql.rules,
    Scenario: sql.scenarios,
    Template: sql.templates,
    Variable: sql.variables,
    ToolActivation: sql.activations,
    MigrationPlan: sql.plans,
}


def _values(entity: ConfigEntity) -> Values:
    """The columns of the entity's row: fields by column name, JSON documents as text."""
    values = dict(entity.__dict__)
    match entity:
        case Agent():
            values["settings"] = entity.settings.model_dump_json()
        case Scenario():
            values["steps"] = _STEPS.dump_json(entity.steps).decode()
        case ToolActivation(policy_override=dict()):
            values["policy_override"] = json.dumps(entity.policy_override)
        case MigrationPlan():
            values["plan"] = entity.model_dump_json()
    return values


def _agent(row: Row) -> Agent:
    return Agent.model_validate({**row, "settings": AgentSettings.model_validate_json(row["settings"])})


def _rule(row: Row) -> Rule:
    return Rule.model_validate(dict(row))


def _scenario(row: Row) -> Scenario:
    return Scenario.model_validate({**row, "steps": _STEPS.validate_json(row["steps"], extra="ignore")})


def _activation(row: Row) -> ToolActivation:
    override = row["policy_override"]
    return ToolActivation.model_validate(
        {**row, "policy_override": None if override is None else json.loads(override)}
    )


def _plan(row: Row) -> MigrationPlan:
    plan = MigrationPlan.model_validate_json(row["plan"])
    plan.updated_at = row["updated_at"]
    plan.revision = row["revision"]
    return plan
