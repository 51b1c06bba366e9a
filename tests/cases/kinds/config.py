"""The kinds of entities that the config store keeps."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from typing import Any
from uuid import UUID, uuid4

from soldier_data.config import (
    Agent,
    AnchorMigrationPolicy,
    AnchorTransformation,
    DeletedNode,
    DownstreamChanges,
    FieldCollectionInfo,
    ForkBranch,
    InsertedNode,
    MigrationPlan,
    MigrationSummary,
    MigrationWarning,
    NewFork,
    Rule,
    Scenario,
    ScenarioStep,
    ScopeFilter,
    StepTransition,
    Template,
    ToolActivation,
    TransformationMap,
    TransitionChange,
    UpstreamChanges,
    Variable,
)
from tests.cases.kind import Kind
from tests.cases.values import DOCUMENT, HALVES, LATER, LATEST, LEAP_DAY, TEXT
from tests.factories.config import (
    AgentFactory,
    MigrationPlanFactory,
    RuleFactory,
    ScenarioFactory,
    TemplateFactory,
    ToolActivationFactory,
    VariableFactory,
)


def _full_agent() -> dict[str, Any]:
    return {
        "name": TEXT[:100],
        "description": TEXT,
        "enabled": False,
        "current_version": 2**40,
        "settings": {
            "llm_provider": "acme",
            "llm_model": TEXT,
            "temperature": 0.1 + 0.2,
            "max_tokens": 2**31,
        },
        "created_at": LEAP_DAY,
    }


def _full_rule() -> dict[str, Any]:
    return {
        "name": TEXT[:100],
        "description": TEXT,
        "condition_text": TEXT,
        "action_text": "x" * 100_000,
        "scope": "step",
        "scope_id": uuid4(),
        "priority": -100,
        "enabled": False,
        "max_fires_per_session": 3,
        "cooldown_turns": 4,
        "is_hard_constraint": True,
        "attached_tool_ids": ["", TEXT, "NULL", "{a,b}"],
        "attached_template_ids": [uuid4(), UUID(int=0)],
        "embedding": HALVES,
        "embedding_model": "model-1",
        "created_at": LEAP_DAY,
    }


def _full_scenario() -> dict[str, Any]:
    scenario_id, first, second = uuid4(), uuid4(), uuid4()
    step = ScenarioStep(
        id=first,
        scenario_id=scenario_id,
        name=TEXT,
        description=TEXT,
        transitions=[
            StepTransition(
                to_step_id=second,
                condition_text=TEXT,
                condition_embedding=HALVES,
                priority=-5,
                condition_fields=["a", TEXT],
            )
        ],
        template_ids=[uuid4()],
        rule_ids=[uuid4(), uuid4()],
        tool_ids=["", TEXT],
        is_entry=True,
        is_terminal=True,
        can_skip=True,
        reachable_from_anywhere=True,
        collects_profile_fields=["email"],
        performs_action=True,
        is_required_action=True,
        is_checkpoint=True,
        checkpoint_description=TEXT,
    )
    return {
        "id": scenario_id,
        "name": "S" * 100,
        "description": TEXT,
        "entry_step_id": first,
        "steps": [step, ScenarioStep(id=second, scenario_id=scenario_id, name="")],
        "entry_condition_text": TEXT,
        "entry_condition_embedding": HALVES,
        "entry_condition_embedding_model": "model-1",
        "version": 7,
        "content_hash": "abc",
        "tags": ["", TEXT],
        "enabled": False,
        "created_at": LEAP_DAY,
    }


def _full_template() -> dict[str, Any]:
    return {
        "name": "t",
        "text": TEXT,
        "mode": "exclusive",
        "scope": "scenario",
        "scope_id": uuid4(),
        "conditions": TEXT,
        "created_at": LEAP_DAY,
    }


def _full_variable() -> dict[str, Any]:
    return {
        "name": "_" + "z" * 49,
        "description": TEXT,
        "resolver_tool_id": TEXT,
        "update_policy": "on_scenario_entry",
        "cache_ttl_seconds": 2**40,
        "created_at": LEAP_DAY,
    }


def _full_activation() -> dict[str, Any]:
    return {
        "tool_id": TEXT,
        "status": "disabled",
        "policy_override": DOCUMENT,
        "enabled_at": LEAP_DAY,
        "disabled_at": LATER,
        "created_at": LEAP_DAY,
    }


def _full_plan() -> dict[str, Any]:
    changes = {
        "inserted_nodes": [
            InsertedNode(
                node_id=uuid4(),
                node_name=TEXT,
                collects_fields=["a"],
                has_rules=True,
                is_required_action=True,
                is_checkpoint=True,
            )
        ],
        "removed_node_ids": [uuid4()],
        "new_forks": [
            NewFork(
                fork_node_id=uuid4(),
                fork_node_name="f",
                branches=[
                    ForkBranch(
                        target_step_id=uuid4(),
                        target_step_name="t",
                        condition_text="c",
                        condition_fields=["x"],
                    )
                ],
            )
        ],
        "modified_transitions": [
            TransitionChange(
                from_step_id=uuid4(), to_step_id_v1=uuid4(), to_step_id_v2=uuid4(), change_type="moved"
            )
        ],
    }
    anchor = AnchorTransformation(
        anchor_content_hash="h",
        anchor_name=TEXT,
        anchor_node_id_v1=uuid4(),
        anchor_node_id_v2=uuid4(),
        upstream_changes=UpstreamChanges.model_validate(changes),
        downstream_changes=DownstreamChanges.model_validate(changes),
        migration_scenario="re_route",
    )
    deleted = DeletedNode(
        node_id_v1=uuid4(), node_name="d", nearest_anchor_hash="h", nearest_anchor_id_v2=uuid4()
    )
    policy = AnchorMigrationPolicy(
        anchor_content_hash="h",
        anchor_name=TEXT,
        scope_filter=ScopeFilter(
            include_channels=["email"],
            exclude_channels=["voice"],
            include_current_nodes=[TEXT],
            exclude_current_nodes=["b"],
            max_session_age_days=3,
            min_session_age_days=1,
            custom_conditions={"deep": [{"x": 1.0, "y": 2**70, "z": None}], TEXT: TEXT},
        ),
        update_downstream=False,
        force_scenario="gap_fill",
    )
    summary = MigrationSummary(
        total_anchors=1,
        anchors_with_clean_graft=2,
        anchors_with_gap_fill=3,
        anchors_with_re_route=4,
        nodes_deleted=5,
        estimated_sessions_affected=6,
        sessions_by_anchor={TEXT: 7},
        warnings=[
            MigrationWarning(severity="high", anchor_name="a", message=TEXT, affected_sessions_estimate=8)
        ],
        fields_to_collect=[
            FieldCollectionInfo(
                field_name="f",
                display_name="F",
                affected_anchors=["a"],
                reason=TEXT,
                can_extract_from_conversation=False,
            )
        ],
    )
    return {
        "from_version": 3,
        "to_version": 4,
        "scenario_checksum_v1": "x",
        "scenario_checksum_v2": "y",
        "transformation_map": TransformationMap(
            anchors=[anchor], deleted_nodes=[deleted], new_node_ids=[uuid4()]
        ),
        "anchor_policies": {TEXT: policy},
        "summary": summary,
        "status": "deployed",
        "created_at": LEAP_DAY,
        "created_by": TEXT,
        "approved_at": LATER,
        "approved_by": "b",
        "deployed_at": datetime(1970, 1, 1, tzinfo=UTC),
        "expires_at": LATEST,
    }


async def _archive(store: Any, scenario: Scenario, tenant_id: UUID) -> UUID:
    await store.archive_scenario_version(tenant_id, scenario)
    return scenario.id


_config = partial(Kind, store="config", adds_many="save_many")

AGENT = _config(
    "agent",
    Agent,
    AgentFactory,
    _full_agent,
    changed=("description", "changed"),
    counter=("current_version", 1),
)

_part = partial(_config, parents={"agent_id": AGENT})

RULE = _part(
    "rule", Rule, RuleFactory, _full_rule, changed=("description", "changed"), counter=("cooldown_turns", 0)
)
SCENARIO = _part(
    "scenario",
    Scenario,
    ScenarioFactory,
    _full_scenario,
    changed=("description", "changed"),
    counter=("version", 1),
)
ARCHIVED_SCENARIO = _config(
    "archived_scenario",
    Scenario,
    partial(ScenarioFactory, version=7),
    _full_scenario,
    tables=("scenario_archives",),
    changed=("description", "changed"),
    key=("id", "version"),
    adds=_archive,
    adds_many=None,
    updates=_archive,
    deletes=None,
)
TEMPLATE = _part(
    "template",
    Template,
    TemplateFactory,
    _full_template,
    changed=("conditions", "changed"),
    counter=("text", "0"),
)
VARIABLE = _part(
    "variable",
    Variable,
    VariableFactory,
    _full_variable,
    changed=("description", "changed"),
    counter=("cache_ttl_seconds", 0),
)
ACTIVATION = _part(
    "tool_activation",
    ToolActivation,
    ToolActivationFactory,
    _full_activation,
    changed=("policy_override", {"a": 1}),
    counter=("policy_override", {"count": 0}),
    key=("agent_id", "tool_id"),
)
PLAN = _config(
    "migration_plan",
    MigrationPlan,
    MigrationPlanFactory,
    _full_plan,
    changed=("created_by", "changed"),
    counter=("to_version", 2),
)

KINDS = (AGENT, RULE, SCENARIO, TEMPLATE, VARIABLE, ACTIVATION, PLAN, ARCHIVED_SCENARIO)

PARTS = tuple(kind for kind in KINDS if AGENT in kind.parents.values())
"""What belongs to an agent."""

SOFTLY_DELETED = (AGENT, *PARTS)
REVISIONED = (*SOFTLY_DELETED, PLAN)
"""What `save_many` takes."""
