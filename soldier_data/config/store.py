"""The contract of the config store."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from datetime import timedelta
from uuid import UUID

from soldier_data.base.embedded_texts import EmbeddedTextStore
from soldier_data.config.kinds import ConfigEntity
from soldier_data.config.models import (
    Agent,
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


class ConfigStore(EmbeddedTextStore):
    """Agents and what belongs to them.

    Saving inserts the entity or replaces the one with its tenant and id. It sets `updated_at` and `revision` on
    the entity that was passed, once the store has it, and leaves the entity as it was on any error. With
    `if_revision=n` it succeeds only while the stored revision is n (0: while nothing is stored). Saving an entity
    over a deleted one brings it back.

    Deletions are soft (but for migration plans): the row is invisible to every read and search at once, its name
    is free again, and `purge_deleted` removes it for good later.

    What is returned is the caller's own copy. Lists come in a fixed order; ties go by id.

    A call whose reply is lost with the connection is repeated, and has one effect. Only if somebody else saves the
    entity between the two attempts, a save without `if_revision` wins over that and counts twice, and one with it
    raises ConflictError though it took effect first.

    Raises (every method):
        StoreConnectionError: The server is unreachable or does not answer in time.
        ValidationError: An argument, or something in a list, is of a wrong type; a field of an entity does not take
            what it holds, or a derived class adds one; a text holds NUL or half of a
            surrogate pair, a JSON value is no JSON, an embedding has the wrong length, is not finite or is the
            zero vector; a limit or offset is negative. Names the field.

    Raises (every save):
        NotFoundError: The agent that the entity belongs to does not exist in the tenant, or is deleted.
        ConflictError: The name (or tool_id) is taken, or `if_revision` is not the stored revision.
    """

    # -- agents ----------------------------------------------------------------------------------------------

    @abstractmethod
    async def get_agent(self, tenant_id: UUID, agent_id: UUID) -> Agent | None:
        """The agent, or None if the tenant has none of that id."""

    @abstractmethod
    async def get_agents(
        self, tenant_id: UUID, *, enabled_only: bool = False, limit: int = 20, offset: int = 0
    ) -> tuple[list[Agent], int]:
        """One page of the tenant's agents by created_at, and how many there are in all."""

    @abstractmethod
    async def save_agent(self, agent: Agent, *, if_revision: int | None = None) -> UUID:
        """Insert or replace; returns the id."""

    @abstractmethod
    async def delete_agent(self, tenant_id: UUID, agent_id: UUID) -> bool:
        """Delete the agent with its rules, scenarios, templates, variables and tool activations.

        Returns True the first time, and False if there is no such agent.
        """

    # -- rules -----------------------------------------------------------------------------------------------

    @abstractmethod
    async def get_rule(self, tenant_id: UUID, rule_id: UUID) -> Rule | None:
        """The rule, or None."""

    @abstractmethod
    async def get_rules(
        self,
        tenant_id: UUID,
        agent_id: UUID,
        *,
        scope: Scope | None = None,
        scope_id: UUID | None = None,
        enabled_only: bool = True,
    ) -> list[Rule]:
        """The agent's rules, highest priority first, then by created_at."""

    @abstractmethod
    async def save_rule(self, rule: Rule, *, if_revision: int | None = None) -> UUID:
        """Insert or replace; returns the id."""

    @abstractmethod
    async def delete_rule(self, tenant_id: UUID, rule_id: UUID) -> bool:
        """Delete the rule; True the first time."""

    @abstractmethod
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
        """The enabled rules whose embedding is closest to the query.

        Each comes with its score, the cosine similarity (-1 to 1), best first. Rules without an embedding, or
        that score below `min_score`, are left out, and so are those whose embedding is by another model than
        `embedding_model`: by default the one in SOLDIER_EMBEDDING_MODEL, and where that is not set either, any.
        """

    # -- scenarios -------------------------------------------------------------------------------------------

    @abstractmethod
    async def get_scenario(self, tenant_id: UUID, scenario_id: UUID) -> Scenario | None:
        """The scenario with its steps, or None."""

    @abstractmethod
    async def get_scenarios(
        self, tenant_id: UUID, agent_id: UUID, *, enabled_only: bool = True
    ) -> list[Scenario]:
        """The agent's scenarios by created_at."""

    @abstractmethod
    async def save_scenario(self, scenario: Scenario, *, if_revision: int | None = None) -> UUID:
        """Insert or replace; returns the id."""

    @abstractmethod
    async def delete_scenario(self, tenant_id: UUID, scenario_id: UUID) -> bool:
        """Delete the scenario; True the first time. Its archived versions stay until it is purged."""

    @abstractmethod
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
        """As `vector_search_rules`, by the embedding of the entry condition."""

    @abstractmethod
    async def archive_scenario_version(self, tenant_id: UUID, scenario: Scenario) -> None:
        """Keep the scenario as it is under its version. The same version again replaces what was kept.

        Raises:
            ValidationError: The scenario is another tenant's.
        """

    @abstractmethod
    async def get_archived_scenario(
        self, tenant_id: UUID, scenario_id: UUID, version: int
    ) -> Scenario | None:
        """The scenario as it was when that version was archived, or None."""

    # -- templates -------------------------------------------------------------------------------------------

    @abstractmethod
    async def get_template(self, tenant_id: UUID, template_id: UUID) -> Template | None:
        """The template, or None."""

    @abstractmethod
    async def get_templates(
        self, tenant_id: UUID, agent_id: UUID, *, scope: Scope | None = None, scope_id: UUID | None = None
    ) -> list[Template]:
        """The agent's templates by created_at."""

    @abstractmethod
    async def save_template(self, template: Template, *, if_revision: int | None = None) -> UUID:
        """Insert or replace; returns the id."""

    @abstractmethod
    async def delete_template(self, tenant_id: UUID, template_id: UUID) -> bool:
        """Delete the template; True the first time."""

    # -- variables -------------------------------------------------------------------------------------------

    @abstractmethod
    async def get_variable(self, tenant_id: UUID, variable_id: UUID) -> Variable | None:
        """The variable, or None."""

    @abstractmethod
    async def get_variables(self, tenant_id: UUID, agent_id: UUID) -> list[Variable]:
        """The agent's variables by name."""

    @abstractmethod
    async def get_variable_by_name(self, tenant_id: UUID, agent_id: UUID, name: str) -> Variable | None:
        """The agent's variable of that name, or None."""

    @abstractmethod
    async def save_variable(self, variable: Variable, *, if_revision: int | None = None) -> UUID:
        """Insert or replace; returns the id."""

    @abstractmethod
    async def delete_variable(self, tenant_id: UUID, variable_id: UUID) -> bool:
        """Delete the variable; True the first time."""

    # -- tool activations ------------------------------------------------------------------------------------

    @abstractmethod
    async def get_tool_activation(
        self, tenant_id: UUID, agent_id: UUID, tool_id: str
    ) -> ToolActivation | None:
        """The agent's activation of the tool, or None."""

    @abstractmethod
    async def get_tool_activations(self, tenant_id: UUID, agent_id: UUID) -> list[ToolActivation]:
        """The agent's activations by tool_id."""

    @abstractmethod
    async def save_tool_activation(
        self, activation: ToolActivation, *, if_revision: int | None = None
    ) -> UUID:
        """Insert or replace; returns the id."""

    @abstractmethod
    async def delete_tool_activation(self, tenant_id: UUID, agent_id: UUID, tool_id: str) -> bool:
        """Delete the agent's activation of the tool; True the first time."""

    # -- migration plans -------------------------------------------------------------------------------------

    @abstractmethod
    async def get_migration_plan(self, tenant_id: UUID, plan_id: UUID) -> MigrationPlan | None:
        """The plan, or None."""

    @abstractmethod
    async def get_migration_plan_for_versions(
        self, tenant_id: UUID, scenario_id: UUID, from_version: int, to_version: int
    ) -> MigrationPlan | None:
        """The plan between these versions, the newest if there are several, or None."""

    @abstractmethod
    async def list_migration_plans(
        self,
        tenant_id: UUID,
        scenario_id: UUID | None = None,
        status: MigrationPlanStatus | None = None,
        limit: int = 50,
    ) -> list[MigrationPlan]:
        """The tenant's plans, newest first."""

    @abstractmethod
    async def save_migration_plan(self, plan: MigrationPlan, *, if_revision: int | None = None) -> UUID:
        """Insert or replace; returns the id. The scenario need not exist."""

    @abstractmethod
    async def delete_migration_plan(self, tenant_id: UUID, plan_id: UUID) -> bool:
        """Remove the plan for good; True the first time.

        A removal leaves nothing to know it by: repeated because its reply was lost, it returns False.
        """

    # -- all together ----------------------------------------------------------------------------------------

    @abstractmethod
    async def save_many(self, entities: Iterable[ConfigEntity]) -> int:
        """Save a mixed list, all or nothing, in a few round trips whatever its length; returns how many.

        Agents may come in the same list as what belongs to them, in any order. The same entity twice in a list
        is a ValidationError.
        """

    @abstractmethod
    async def purge_deleted(self, tenant_id: UUID, older_than: timedelta) -> int:
        """Remove for good what was deleted longer ago than `older_than`; returns how many entities went.

        With a scenario go its archived versions and migration plans, with an agent all that belongs to it. Outside of
        a unit of work it goes part by part, each kept: if it fails, call it again for the rest.
        """
