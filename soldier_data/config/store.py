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
    """Agents and their parts: rules, scenarios, templates, variables and tool activations; and migration plans.

    Saving inserts an entity, or replaces the one with the same tenant and id; saving over a deleted one restores it.
    Once the entity is stored, saving sets `updated_at` and `revision` on the object that was passed; on an error it
    leaves the object unchanged. With `if_revision=n` the entity is saved only if the stored revision is n; 0 means
    that nothing is stored.

    Deletions are soft, except those of migration plans: reads and searches no longer return the entity, its name is
    free again, and `purge_deleted` removes it later. Reads return copies, which the caller may change.

    Calls are repeated after a lost connection and take effect once, with one exception: if another caller saves the
    same entity between two attempts, a save without `if_revision` overwrites that change and increases the revision
    twice, and a save with it raises ConflictError although it took effect first.

    `list_to_embed` lists the conditions of rules, then the entry conditions of scenarios, including disabled ones.

    Raises (every method):
        StoreConnectionError: The server cannot be reached or does not respond in time.
        ValidationError: An argument, or an item of a list, has the wrong type; a field of an entity has an invalid
            value, or a derived class adds a field; a text contains NUL or an unpaired surrogate; a value is not valid
            JSON; an embedding has the wrong number of dimensions, is not finite or is the zero vector; a limit or
            offset is negative. Names the field.
    """

    # -- agents ----------------------------------------------------------------------------------------------

    @abstractmethod
    async def get_agent(self, tenant_id: UUID, agent_id: UUID) -> Agent | None:
        """Return the agent, or None if the tenant has no agent with this id."""

    @abstractmethod
    async def get_agents(
        self, tenant_id: UUID, *, enabled_only: bool = False, limit: int = 20, offset: int = 0
    ) -> tuple[list[Agent], int]:
        """Return one page of the tenant's agents, by created_at and id, and the total number of agents.

        Args:
            tenant_id: The tenant.
            enabled_only: Whether to leave out disabled agents, in the page and in the total.
            limit: Maximum number of agents.
            offset: Number of agents to skip.
        """

    @abstractmethod
    async def save_agent(self, agent: Agent, *, if_revision: int | None = None) -> UUID:
        """Insert or replace an agent; return its id.

        Raises:
            ConflictError: The name is taken, or `if_revision` is not the stored revision.
        """

    @abstractmethod
    async def delete_agent(self, tenant_id: UUID, agent_id: UUID) -> bool:
        """Delete an agent and all its parts; return whether it existed."""

    # -- rules -----------------------------------------------------------------------------------------------

    @abstractmethod
    async def get_rule(self, tenant_id: UUID, rule_id: UUID) -> Rule | None:
        """Return the rule, or None if the tenant has no rule with this id."""

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
        """Return the agent's rules, by priority (highest first), created_at and id.

        Args:
            tenant_id: The tenant.
            agent_id: The agent.
            scope: Only rules of this scope; None for all.
            scope_id: Only rules of this scenario or step; None for all.
            enabled_only: Whether to leave out disabled rules.
        """

    @abstractmethod
    async def save_rule(self, rule: Rule, *, if_revision: int | None = None) -> UUID:
        """Insert or replace a rule; return its id.

        Raises:
            NotFoundError: The tenant has no such agent, or it is deleted.
            ConflictError: `if_revision` is not the stored revision.
        """

    @abstractmethod
    async def delete_rule(self, tenant_id: UUID, rule_id: UUID) -> bool:
        """Delete a rule; return whether it existed."""

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
        """Return the agent's enabled rules whose embeddings are most similar to the query, best first, ties by id.

        Args:
            query_embedding: The query, of SOLDIER_EMBEDDING_DIMENSIONS numbers.
            tenant_id: The tenant.
            agent_id: The agent.
            limit: Maximum number of rules.
            min_score: Minimum cosine similarity, -1 to 1.
            embedding_model: Only rules whose embedding this model made. Defaults to SOLDIER_EMBEDDING_MODEL; if that
                is not set, embeddings of all models are compared.

        Returns:
            Pairs of a rule and its score, the cosine similarity. Rules without an embedding are left out.
        """

    # -- scenarios -------------------------------------------------------------------------------------------

    @abstractmethod
    async def get_scenario(self, tenant_id: UUID, scenario_id: UUID) -> Scenario | None:
        """Return the scenario with its steps, or None if the tenant has no scenario with this id."""

    @abstractmethod
    async def get_scenarios(
        self, tenant_id: UUID, agent_id: UUID, *, enabled_only: bool = True
    ) -> list[Scenario]:
        """Return the agent's scenarios, by created_at and id.

        Args:
            tenant_id: The tenant.
            agent_id: The agent.
            enabled_only: Whether to leave out disabled scenarios.
        """

    @abstractmethod
    async def save_scenario(self, scenario: Scenario, *, if_revision: int | None = None) -> UUID:
        """Insert or replace a scenario; return its id.

        Raises:
            NotFoundError: The tenant has no such agent, or it is deleted.
            ConflictError: `if_revision` is not the stored revision.
        """

    @abstractmethod
    async def delete_scenario(self, tenant_id: UUID, scenario_id: UUID) -> bool:
        """Delete a scenario; return whether it existed. Archived versions are kept until the scenario is purged."""

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
        """Return the agent's enabled scenarios whose entry conditions are most similar to the query, best first.

        Arguments and result as in `vector_search_rules`, with scenarios in place of rules.
        """

    @abstractmethod
    async def archive_scenario_version(self, tenant_id: UUID, scenario: Scenario) -> None:
        """Archive the scenario as it is under its version, replacing an earlier archive of the same version.

        Raises:
            ValidationError: The scenario belongs to another tenant.
        """

    @abstractmethod
    async def get_archived_scenario(
        self, tenant_id: UUID, scenario_id: UUID, version: int
    ) -> Scenario | None:
        """Return the scenario as it was when the version was archived, or None."""

    # -- templates -------------------------------------------------------------------------------------------

    @abstractmethod
    async def get_template(self, tenant_id: UUID, template_id: UUID) -> Template | None:
        """Return the template, or None if the tenant has no template with this id."""

    @abstractmethod
    async def get_templates(
        self, tenant_id: UUID, agent_id: UUID, *, scope: Scope | None = None, scope_id: UUID | None = None
    ) -> list[Template]:
        """Return the agent's templates, by created_at and id.

        Args:
            tenant_id: The tenant.
            agent_id: The agent.
            scope: Only templates of this scope; None for all.
            scope_id: Only templates of this scenario or step; None for all.
        """

    @abstractmethod
    async def save_template(self, template: Template, *, if_revision: int | None = None) -> UUID:
        """Insert or replace a template; return its id.

        Raises:
            NotFoundError: The tenant has no such agent, or it is deleted.
            ConflictError: `if_revision` is not the stored revision.
        """

    @abstractmethod
    async def delete_template(self, tenant_id: UUID, template_id: UUID) -> bool:
        """Delete a template; return whether it existed."""

    # -- variables -------------------------------------------------------------------------------------------

    @abstractmethod
    async def get_variable(self, tenant_id: UUID, variable_id: UUID) -> Variable | None:
        """Return the variable, or None if the tenant has no variable with this id."""

    @abstractmethod
    async def get_variables(self, tenant_id: UUID, agent_id: UUID) -> list[Variable]:
        """Return the agent's variables, by name."""

    @abstractmethod
    async def get_variable_by_name(self, tenant_id: UUID, agent_id: UUID, name: str) -> Variable | None:
        """Return the agent's variable with this name, or None."""

    @abstractmethod
    async def save_variable(self, variable: Variable, *, if_revision: int | None = None) -> UUID:
        """Insert or replace a variable; return its id.

        Raises:
            NotFoundError: The tenant has no such agent, or it is deleted.
            ConflictError: The agent has another variable of this name, or `if_revision` is not the stored revision.
        """

    @abstractmethod
    async def delete_variable(self, tenant_id: UUID, variable_id: UUID) -> bool:
        """Delete a variable; return whether it existed."""

    # -- tool activations ------------------------------------------------------------------------------------

    @abstractmethod
    async def get_tool_activation(
        self, tenant_id: UUID, agent_id: UUID, tool_id: str
    ) -> ToolActivation | None:
        """Return the agent's activation of the tool, or None."""

    @abstractmethod
    async def get_tool_activations(self, tenant_id: UUID, agent_id: UUID) -> list[ToolActivation]:
        """Return the agent's tool activations, by tool_id."""

    @abstractmethod
    async def save_tool_activation(
        self, activation: ToolActivation, *, if_revision: int | None = None
    ) -> UUID:
        """Insert or replace a tool activation; return its id.

        Raises:
            NotFoundError: The tenant has no such agent, or it is deleted.
            ConflictError: The agent has another activation of this tool, or `if_revision` is not the stored revision.
        """

    @abstractmethod
    async def delete_tool_activation(self, tenant_id: UUID, agent_id: UUID, tool_id: str) -> bool:
        """Delete the agent's activation of the tool; return whether it existed."""

    # -- migration plans -------------------------------------------------------------------------------------

    @abstractmethod
    async def get_migration_plan(self, tenant_id: UUID, plan_id: UUID) -> MigrationPlan | None:
        """Return the migration plan, or None if the tenant has no plan with this id."""

    @abstractmethod
    async def get_migration_plan_for_versions(
        self, tenant_id: UUID, scenario_id: UUID, from_version: int, to_version: int
    ) -> MigrationPlan | None:
        """Return the newest migration plan of the scenario between two versions, or None."""

    @abstractmethod
    async def list_migration_plans(
        self,
        tenant_id: UUID,
        scenario_id: UUID | None = None,
        status: MigrationPlanStatus | None = None,
        limit: int = 50,
    ) -> list[MigrationPlan]:
        """Return the tenant's migration plans, newest first: by created_at and id, descending.

        Args:
            tenant_id: The tenant.
            scenario_id: Only plans of this scenario; None for all.
            status: Only plans with this status; None for all.
            limit: Maximum number of plans.
        """

    @abstractmethod
    async def save_migration_plan(self, plan: MigrationPlan, *, if_revision: int | None = None) -> UUID:
        """Insert or replace a migration plan; return its id. The scenario need not exist.

        Raises:
            ConflictError: `if_revision` is not the stored revision.
        """

    @abstractmethod
    async def delete_migration_plan(self, tenant_id: UUID, plan_id: UUID) -> bool:
        """Remove a migration plan permanently; return whether it existed.

        Returns False if the call was repeated because its reply was lost.
        """

    # -- all kinds -------------------------------------------------------------------------------------------

    @abstractmethod
    async def save_many(self, entities: Iterable[ConfigEntity]) -> int:
        """Save a list of entities, all or none, in a few round trips regardless of its length; return their number.

        Args:
            entities: Entities of one tenant, of any kinds and in any order. The list may contain agents and their
                parts.

        Raises:
            NotFoundError: The agent of an entity is neither stored nor in the list, or is deleted.
            ConflictError: A name or tool_id is taken.
            ValidationError: An entity is in the list twice, or they belong to several tenants. Names the place.
        """

    @abstractmethod
    async def purge_deleted(self, tenant_id: UUID, older_than: timedelta) -> int:
        """Permanently remove entities that were deleted longer ago than `older_than`; return their number.

        Removes the archived versions and migration plans of scenarios, and all parts of agents as well. Outside of a
        unit of work the entities are removed in batches, each in a transaction of its own: after an error, call it
        again.
        """
