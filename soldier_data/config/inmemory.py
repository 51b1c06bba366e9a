"""The in-memory config store: the reference implementation, and a fake for the tests of services."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import timedelta
from typing import Any, ClassVar, TypeVar
from uuid import UUID

from soldier_data.base.embeddings import check_search
from soldier_data.base.inmemory import (
    InMemoryEmbeddedTexts,
    InMemoryStore,
    MemoryTable,
    copies,
    rank_by_similarity,
)
from soldier_data.base.models import mark_saved, utcnow
from soldier_data.base.paging import check_page
from soldier_data.base.values import check_integer, check_revision, check_text, moment_before
from soldier_data.config.checks import check_entity, check_list, check_scenario_tenant
from soldier_data.config.kinds import TABLES, ConfigEntity, kind_of
from soldier_data.config.models import (
    Agent,
    AgentPart,
    Rule,
    RuleHit,
    Scenario,
    ScenarioHit,
    Scope,
    Template,
    ToolActivation,
    Variable,
)
from soldier_data.config.scenario_migrations import MigrationPlan, MigrationPlanStatus
from soldier_data.config.store import ConfigStore
from soldier_data.config.tables import Tables
from soldier_data.errors import ConflictError, NotFoundError
from soldier_data.settings import Settings

P = TypeVar("P", bound=AgentPart)


class InMemoryConfigStore(InMemoryEmbeddedTexts, ConfigStore, InMemoryStore):
    """A `ConfigStore` without a database.

    Args:
        embedding_dimensions: Length of embeddings; defaults to SOLDIER_EMBEDDING_DIMENSIONS.
        embedding_model: The model for searches that name none; by default they compare embeddings of all models.
    """

    _embedded_texts: ClassVar = {
        "rule": ("rules", "condition_text"),
        "scenario": ("scenarios", "entry_condition_text"),
    }
    _tables: Tables

    def __init__(self, embedding_dimensions: int | None = None, embedding_model: str | None = None) -> None:
        self._dimensions = embedding_dimensions or Settings().embedding_dimensions
        self._model = embedding_model
        self._tables = Tables()

    def check_unique(self, entity: Any) -> None:
        self._tables.check_unique(entity)

    async def get_agent(self, tenant_id: UUID, agent_id: UUID) -> Agent | None:
        agent = self._tables.agents.get((tenant_id, agent_id))
        return None if agent is None or agent.is_deleted else agent

    async def get_agents(
        self, tenant_id: UUID, *, enabled_only: bool = False, limit: int = 20, offset: int = 0
    ) -> tuple[list[Agent], int]:
        check_page(limit, offset)
        matching = [
            agent for agent in self._tables.agents.living(tenant_id) if agent.enabled or not enabled_only
        ]
        matching.sort(key=_by_creation)
        return copies(matching[offset : offset + limit]), len(matching)

    async def save_agent(self, agent: Agent, *, if_revision: int | None = None) -> UUID:
        return self._save(agent, if_revision)

    async def delete_agent(self, tenant_id: UUID, agent_id: UUID) -> bool:
        if not self._delete(self._tables.agents, tenant_id, agent_id):
            return False
        for table in self._tables.parts():
            for part in list(table.of_tenant(tenant_id)):
                if part.agent_id == agent_id:
                    self._delete(table, tenant_id, part.id)
        return True

    async def get_rule(self, tenant_id: UUID, rule_id: UUID) -> Rule | None:
        return self._get(self._tables.rules, tenant_id, rule_id)

    async def get_rules(
        self,
        tenant_id: UUID,
        agent_id: UUID,
        *,
        scope: Scope | None = None,
        scope_id: UUID | None = None,
        enabled_only: bool = True,
    ) -> list[Rule]:
        rules = self._of_agent(self._tables.rules, tenant_id, agent_id)
        found = [
            rule for rule in rules if _in_scope(rule, scope, scope_id) and (rule.enabled or not enabled_only)
        ]
        return copies(sorted(found, key=lambda rule: (-rule.priority, *_by_creation(rule))))

    async def save_rule(self, rule: Rule, *, if_revision: int | None = None) -> UUID:
        return self._save(rule, if_revision)

    async def delete_rule(self, tenant_id: UUID, rule_id: UUID) -> bool:
        return self._delete(self._tables.rules, tenant_id, rule_id)

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
        model = check_search(
            query_embedding, limit, min_score, embedding_model, self._dimensions, self._model
        )
        rules = self._of_agent(self._tables.rules, tenant_id, agent_id, enabled_only=True)
        found = rank_by_similarity(rules, query_embedding, model, min_score=min_score)[:limit]
        return [RuleHit(rule.model_copy(deep=True), score) for rule, score in found]

    async def get_scenario(self, tenant_id: UUID, scenario_id: UUID) -> Scenario | None:
        return self._get(self._tables.scenarios, tenant_id, scenario_id)

    async def get_scenarios(
        self, tenant_id: UUID, agent_id: UUID, *, enabled_only: bool = True
    ) -> list[Scenario]:
        scenarios = self._of_agent(self._tables.scenarios, tenant_id, agent_id)
        found = [scenario for scenario in scenarios if scenario.enabled or not enabled_only]
        return copies(sorted(found, key=_by_creation))

    async def save_scenario(self, scenario: Scenario, *, if_revision: int | None = None) -> UUID:
        return self._save(scenario, if_revision)

    async def delete_scenario(self, tenant_id: UUID, scenario_id: UUID) -> bool:
        return self._delete(self._tables.scenarios, tenant_id, scenario_id)

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
        model = check_search(
            query_embedding, limit, min_score, embedding_model, self._dimensions, self._model
        )
        scenarios = self._of_agent(self._tables.scenarios, tenant_id, agent_id, enabled_only=True)
        found = rank_by_similarity(
            scenarios, query_embedding, model, field="entry_condition_embedding", min_score=min_score
        )
        return [ScenarioHit(scenario.model_copy(deep=True), score) for scenario, score in found[:limit]]

    async def archive_scenario_version(self, tenant_id: UUID, scenario: Scenario) -> None:
        check_scenario_tenant(tenant_id, scenario)
        check_entity(scenario, self._dimensions)
        self._tables.scenario_archives.put((tenant_id, scenario.id, scenario.version), scenario)

    async def get_archived_scenario(
        self, tenant_id: UUID, scenario_id: UUID, version: int
    ) -> Scenario | None:
        check_integer(version, "version")
        return self._tables.scenario_archives.get((tenant_id, scenario_id, version))

    async def get_template(self, tenant_id: UUID, template_id: UUID) -> Template | None:
        return self._get(self._tables.templates, tenant_id, template_id)

    async def get_templates(
        self, tenant_id: UUID, agent_id: UUID, *, scope: Scope | None = None, scope_id: UUID | None = None
    ) -> list[Template]:
        templates = self._of_agent(self._tables.templates, tenant_id, agent_id)
        found = [template for template in templates if _in_scope(template, scope, scope_id)]
        return copies(sorted(found, key=_by_creation))

    async def save_template(self, template: Template, *, if_revision: int | None = None) -> UUID:
        return self._save(template, if_revision)

    async def delete_template(self, tenant_id: UUID, template_id: UUID) -> bool:
        return self._delete(self._tables.templates, tenant_id, template_id)

    async def get_variable(self, tenant_id: UUID, variable_id: UUID) -> Variable | None:
        return self._get(self._tables.variables, tenant_id, variable_id)

    async def get_variables(self, tenant_id: UUID, agent_id: UUID) -> list[Variable]:
        variables = self._of_agent(self._tables.variables, tenant_id, agent_id)
        return copies(sorted(variables, key=lambda variable: variable.name))

    async def get_variable_by_name(self, tenant_id: UUID, agent_id: UUID, name: str) -> Variable | None:
        check_text(name, "name")
        variables = self._of_agent(self._tables.variables, tenant_id, agent_id)
        return next(iter(copies(variable for variable in variables if variable.name == name)), None)

    async def save_variable(self, variable: Variable, *, if_revision: int | None = None) -> UUID:
        return self._save(variable, if_revision)

    async def delete_variable(self, tenant_id: UUID, variable_id: UUID) -> bool:
        return self._delete(self._tables.variables, tenant_id, variable_id)

    async def get_tool_activation(
        self, tenant_id: UUID, agent_id: UUID, tool_id: str
    ) -> ToolActivation | None:
        check_text(tool_id, "tool_id")
        activations = self._of_agent(self._tables.tool_activations, tenant_id, agent_id)
        return next(iter(copies(found for found in activations if found.tool_id == tool_id)), None)

    async def get_tool_activations(self, tenant_id: UUID, agent_id: UUID) -> list[ToolActivation]:
        activations = self._of_agent(self._tables.tool_activations, tenant_id, agent_id)
        return copies(sorted(activations, key=lambda found: found.tool_id))

    async def save_tool_activation(
        self, activation: ToolActivation, *, if_revision: int | None = None
    ) -> UUID:
        return self._save(activation, if_revision)

    async def delete_tool_activation(self, tenant_id: UUID, agent_id: UUID, tool_id: str) -> bool:
        check_text(tool_id, "tool_id")
        return any(
            self._delete(self._tables.tool_activations, tenant_id, found.id)
            for found in list(self._tables.tool_activations.of_tenant(tenant_id))
            if (found.agent_id, found.tool_id) == (agent_id, tool_id)
        )

    async def get_migration_plan(self, tenant_id: UUID, plan_id: UUID) -> MigrationPlan | None:
        return self._tables.migration_plans.get((tenant_id, plan_id))

    async def get_migration_plan_for_versions(
        self, tenant_id: UUID, scenario_id: UUID, from_version: int, to_version: int
    ) -> MigrationPlan | None:
        check_integer(from_version, "from_version")
        check_integer(to_version, "to_version")
        wanted = (scenario_id, from_version, to_version)
        found = [
            plan
            for plan in self._tables.migration_plans.of_tenant(tenant_id)
            if (plan.scenario_id, plan.from_version, plan.to_version) == wanted
        ]
        return max(found, key=_by_creation).model_copy(deep=True) if found else None

    async def list_migration_plans(
        self,
        tenant_id: UUID,
        scenario_id: UUID | None = None,
        status: MigrationPlanStatus | None = None,
        limit: int = 50,
    ) -> list[MigrationPlan]:
        check_page(limit)
        found = [
            plan
            for plan in self._tables.migration_plans.of_tenant(tenant_id)
            if scenario_id in (None, plan.scenario_id) and status in (None, plan.status)
        ]
        return copies(sorted(found, key=_by_creation, reverse=True)[:limit])

    async def save_migration_plan(self, plan: MigrationPlan, *, if_revision: int | None = None) -> UUID:
        return self._save(plan, if_revision)

    async def delete_migration_plan(self, tenant_id: UUID, plan_id: UUID) -> bool:
        return self._tables.migration_plans.remove((tenant_id, plan_id))

    async def save_many(self, entities: Iterable[ConfigEntity]) -> int:
        listed = list(entities)
        check_list(listed, self._dimensions)
        unit, order = self.begin(), list(TABLES)
        saved = copies(listed)
        # In the order of the PostgreSQL store, so that the same one of several errors is raised.
        for entity in sorted(saved, key=lambda entity: order.index(kind_of(entity))):
            unit._save(entity, None)
        unit.commit()
        for entity, copy in zip(listed, saved, strict=True):
            mark_saved(entity, copy.updated_at, copy.revision)
        return len(listed)

    async def purge_deleted(self, tenant_id: UUID, older_than: timedelta) -> int:
        tables = self._tables
        before = moment_before(older_than)

        def is_old(entity: Agent | AgentPart) -> bool:
            return entity.deleted_at is not None and entity.deleted_at < before

        old_agents = {agent.id for agent in tables.agents.of_tenant(tenant_id) if is_old(agent)}
        purged = 0
        for table in tables.parts():
            for part in list(table.of_tenant(tenant_id)):
                if is_old(part) or part.agent_id in old_agents:
                    purged += table.remove((tenant_id, part.id))
                    if isinstance(part, Scenario):
                        tables.remove_of_scenario(tenant_id, part.id)
        return purged + sum(tables.agents.remove((tenant_id, agent_id)) for agent_id in old_agents)

    def _get(self, table: MemoryTable[P], tenant_id: UUID, id_: UUID) -> P | None:
        found = table.get((tenant_id, id_))
        return found if found is not None and self._is_readable(found) else None

    def _of_agent(
        self, table: MemoryTable[P], tenant_id: UUID, agent_id: UUID, *, enabled_only: bool = False
    ) -> Iterator[P]:
        for part in table.living(tenant_id):
            enabled = not enabled_only or getattr(part, "enabled", True)
            if enabled and part.agent_id == agent_id and self._is_readable(part):
                yield part

    def _is_readable(self, entity: Any) -> bool:
        return not entity.is_deleted and self._tables.has_agent(entity)

    def _save(self, entity: ConfigEntity, if_revision: int | None) -> UUID:
        check_entity(entity, self._dimensions)
        check_revision(if_revision)
        operation = f"saving the {type(entity).__name__} {entity.id}"
        if not isinstance(entity, Agent | MigrationPlan) and not self._tables.has_agent(entity):
            raise NotFoundError(
                f"{operation}: agent_id is not the id of an agent of the tenant: save the agent first"
            )
        table = self._tables.of(entity)
        key = (entity.tenant_id, entity.id)
        stored = table.peek(key)
        revision = 0 if stored is None else stored.revision
        if if_revision is not None and if_revision != revision:
            raise ConflictError(
                f"{operation}: revision {if_revision} was expected, but {revision} is stored: "
                "read it again and repeat the change"
            )
        self.check_unique(entity)
        kind = kind_of(entity)
        # Of a derived class only the fields of its kind are stored, as in PostgreSQL.
        fields = entity if type(entity) is kind else kind.model_validate(entity.model_dump())
        now = utcnow()
        table.put(key, fields.model_copy(update={"updated_at": now, "revision": revision + 1}))
        mark_saved(entity, now, revision + 1)
        return entity.id

    def _delete(self, table: MemoryTable[Any], tenant_id: UUID, id_: UUID) -> bool:
        stored = table.get((tenant_id, id_))
        if stored is None or stored.is_deleted:
            return False
        stored.soft_delete()
        stored.revision += 1
        table.put((tenant_id, id_), stored)
        return True


def _by_creation(entity: ConfigEntity) -> tuple[Any, UUID]:
    return (entity.created_at, entity.id)


def _in_scope(entity: Rule | Template, scope: Scope | None, scope_id: UUID | None) -> bool:
    return scope in (None, entity.scope) and scope_id in (None, entity.scope_id)
