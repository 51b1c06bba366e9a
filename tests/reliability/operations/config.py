"""What the state machine does to the config store."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from soldier_data.base.embedded_texts import TextToEmbed
from soldier_data.config import (
    Agent,
    ConfigStore,
    MigrationPlan,
    MigrationPlanStatus,
    Rule,
    Scenario,
    ScenarioStep,
    Scope,
    Template,
    ToolActivation,
    Variable,
)
from tests.reliability.operations.values import (
    AGES,
    FLAGS,
    JSON,
    LIMITS,
    MOMENTS,
    NAMES,
    OFFSETS,
    OPTIONAL_VECTORS,
    OTHER,
    REVISIONS,
    SCORES,
    TENANT,
    TO_DELETE,
    VECTORS,
    certain,
    entities,
    ids,
    lists,
)
from tests.reliability.side_by_side import Calls, Operations, call

AGENT_IDS, PART_IDS = ids(10, 2), ids(20)
AGENT, PART = st.sampled_from(AGENT_IDS), st.sampled_from(PART_IDS)
SCOPE_ID = st.sampled_from(ids(30, 2))
VERSIONS = st.sampled_from([1, 2])
MODELS = st.sampled_from(["model-1", "model-2"])
STATUSES = st.sampled_from([MigrationPlanStatus.PENDING, MigrationPlanStatus.DEPLOYED])

OF_AGENT: dict[str, st.SearchStrategy[Any]] = {
    "agent_id": AGENT,
    "id": PART,
    "created_at": MOMENTS,
    "deleted_at": TO_DELETE,
}


def scoped(model: type[Any], **values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Entities with a scope."""
    narrow = entities(model, **OF_AGENT, **values, scope=st.just(Scope.STEP), scope_id=SCOPE_ID)
    return narrow | entities(model, **OF_AGENT, **values)


AGENTS = entities(
    Agent, id=AGENT, name=NAMES, enabled=FLAGS, created_at=MOMENTS, deleted_at=TO_DELETE, description=NAMES
)
RULES = scoped(
    Rule,
    name=NAMES,
    condition_text=NAMES,
    action_text=NAMES,
    priority=st.sampled_from([-1, 0, 1]),
    enabled=FLAGS,
    embedding=OPTIONAL_VECTORS,
    embedding_model=MODELS,
)
SCENARIOS = entities(
    Scenario,
    **OF_AGENT,
    name=NAMES,
    entry_step_id=SCOPE_ID,
    steps=st.lists(st.builds(ScenarioStep, id=SCOPE_ID, scenario_id=PART, name=NAMES), max_size=2),
    entry_condition_text=st.sampled_from([None, "", "refund"]),
    entry_condition_embedding=OPTIONAL_VECTORS,
    entry_condition_embedding_model=MODELS,
    version=VERSIONS,
    enabled=FLAGS,
)
TEMPLATES = scoped(Template, name=NAMES, text=NAMES)
VARIABLES = entities(Variable, **OF_AGENT, name=NAMES, resolver_tool_id=NAMES)
ACTIVATIONS = entities(ToolActivation, **OF_AGENT, tool_id=NAMES, policy_override=st.none() | JSON)
PLANS = entities(
    MigrationPlan,
    id=PART,
    scenario_id=PART,
    from_version=VERSIONS,
    to_version=VERSIONS,
    scenario_checksum_v1=NAMES,
    scenario_checksum_v2=NAMES,
    status=STATUSES,
    created_at=MOMENTS,
)

# The text is not looked at when embeddings are kept.
TEXTS = st.builds(
    TextToEmbed,
    st.sampled_from(["rule", "rule", "scenario", "scenario", "episode"]),
    TENANT,
    PART,
    st.just("text"),
    st.sampled_from([1, 2, 3]),
)


def lists_to_embed(kinds: list[str]) -> Calls:
    """Calls of `list_to_embed`, each from anywhere in the list on."""
    after = st.builds(TextToEmbed, st.sampled_from(kinds), TENANT, PART, st.just("text"))
    return call("list_to_embed", MODELS, tenant_id=TENANT, after=st.none() | after, limit=LIMITS)


OPERATIONS = Operations(
    store="config",
    contract=ConfigStore,
    first=[
        call("save_agent", certain(AGENTS, id=AGENT_IDS[0], name="a")),
        call("save_agent", certain(AGENTS, id=AGENT_IDS[1], name="b")),
        call("save_agent", certain(AGENTS, OTHER, id=AGENT_IDS[0])),
        call("save_many", st.tuples(certain(RULES, id=PART_IDS[0]), certain(RULES, id=PART_IDS[1]))),
        call("save_many", st.tuples(certain(SCENARIOS, id=PART_IDS[0]), certain(SCENARIOS, id=PART_IDS[1]))),
        call("save_template", certain(TEMPLATES)),
        call("save_variable", certain(VARIABLES)),
        call("save_tool_activation", certain(ACTIVATIONS)),
        call("save_migration_plan", certain(PLANS)),
    ],
    reads=[
        call("get_agent", TENANT, AGENT),
        call("get_agents", TENANT, enabled_only=FLAGS, limit=LIMITS, offset=OFFSETS),
        call("get_rule", TENANT, PART),
        call("get_rules", TENANT, AGENT, enabled_only=FLAGS),
        call(
            "get_rules",
            TENANT,
            AGENT,
            scope=st.sampled_from([None, Scope.GLOBAL, Scope.STEP]),
            scope_id=st.none() | SCOPE_ID,
            enabled_only=FLAGS,
        ),
        call("vector_search_rules", VECTORS, TENANT, AGENT, limit=LIMITS, min_score=SCORES),
        call("get_scenario", TENANT, PART),
        call("get_scenarios", TENANT, AGENT, enabled_only=FLAGS),
        call("vector_search_scenarios", VECTORS, TENANT, AGENT, limit=LIMITS, min_score=SCORES),
        call("get_archived_scenario", TENANT, PART, VERSIONS),
        call("get_template", TENANT, PART),
        call("get_templates", TENANT, AGENT, scope=st.sampled_from([None, Scope.STEP])),
        call("get_variable", TENANT, PART),
        call("get_variables", TENANT, AGENT),
        call("get_variable_by_name", TENANT, AGENT, NAMES),
        call("get_tool_activation", TENANT, AGENT, NAMES),
        call("get_tool_activations", TENANT, AGENT),
        call("get_migration_plan", TENANT, PART),
        call("get_migration_plan_for_versions", TENANT, PART, VERSIONS, VERSIONS),
        call("list_migration_plans", TENANT, st.none() | PART, st.none() | STATUSES, LIMITS),
        call("count_to_embed", MODELS, tenant_id=TENANT),
        lists_to_embed(["rule", "scenario"]),
    ],
    writes=[
        # Nothing else can be stored without an agent.
        call("save_agent", AGENTS),
        call("save_agent", AGENTS, if_revision=REVISIONS),
        call("save_rule", RULES, if_revision=REVISIONS),
        call("save_scenario", SCENARIOS, if_revision=REVISIONS),
        call("save_template", TEMPLATES, if_revision=REVISIONS),
        call("save_variable", VARIABLES, if_revision=REVISIONS),
        call("save_tool_activation", ACTIVATIONS, if_revision=REVISIONS),
        call("save_migration_plan", PLANS, if_revision=REVISIONS),
        call("archive_scenario_version", TENANT, SCENARIOS),
        call("save_many", lists(AGENTS, RULES, SCENARIOS, TEMPLATES, VARIABLES, ACTIVATIONS, PLANS)),
        call("save_many", lists(AGENTS, VARIABLES)),
        call("delete_agent", TENANT, AGENT),
        call("delete_rule", TENANT, PART),
        call("delete_scenario", TENANT, PART),
        call("delete_template", TENANT, PART),
        call("delete_variable", TENANT, PART),
        call("delete_tool_activation", TENANT, AGENT, NAMES),
        call("delete_migration_plan", TENANT, PART),
        call("set_embeddings", st.lists(st.tuples(TEXTS, VECTORS), max_size=2), MODELS),
        call("purge_deleted", TENANT, AGES),
    ],
)
