"""The kinds of entities that a config store keeps, behind one interface: for what the contract says of all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, TypeVar
from uuid import UUID, uuid4

from soldier_data.config import (
    Agent,
    AnchorMigrationPolicy,
    AnchorTransformation,
    ConfigStore,
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
from tests.factories.config import (
    AgentFactory,
    MigrationPlanFactory,
    RuleFactory,
    ScenarioFactory,
    TemplateFactory,
    ToolActivationFactory,
    VariableFactory,
)

E = TypeVar("E", Agent, Rule, Scenario, Template, Variable, ToolActivation, MigrationPlan)

HALVES = [0.5, -0.25, 0.0, 1.0, 2.0, -4.0, 0.125, 8.0]
"""An embedding that float32 holds exactly."""

TEXT = 'Größe "5\'" 100% _\\ \n\t; DROP TABLE agents; -- $1 {0} 漢字 👩‍👩‍👧 \u202e\u0001\ufffe'
"""Text with everything that a badly written store trips over."""

_INDIA = timezone(timedelta(hours=5, minutes=30))
_NEWFOUNDLAND = timezone(-timedelta(hours=3, minutes=30))
_CREATED = datetime(2024, 2, 29, 23, 59, 59, 999_999, tzinfo=_INDIA)
_LATER = datetime(2031, 1, 1, 0, 0, 0, 1, tzinfo=_NEWFOUNDLAND)


@dataclass(frozen=True)
class Kind:
    """One kind of entity.

    Attributes:
        name: The last part of the names of the store's methods.
        make: Makes an entity from keyword arguments.
        full: The fields of an entity in which no field has its default.
        changed: A field, and another value for it.
    """

    name: str
    make: Callable[..., Any]
    full: Callable[[], dict[str, Any]]
    changed: tuple[str, Any] = ("description", "changed")
    has_agent: bool = True

    def new(self, tenant_id: UUID, agent_id: UUID, **fields: Any) -> Any:
        """An entity of the tenant, and of the agent if it has one."""
        return self.make(tenant_id=tenant_id, **({"agent_id": agent_id} if self.has_agent else {}), **fields)

    def change(self, entity: Any) -> None:
        """Change something."""
        setattr(entity, *self.changed)

    async def save(self, store: ConfigStore, entity: Any, if_revision: int | None = None) -> UUID:
        """Save the entity."""
        saved: UUID = await getattr(store, f"save_{self.name}")(entity, if_revision=if_revision)
        return saved

    async def get(self, store: ConfigStore, entity: Any, tenant_id: UUID | None = None) -> Any:
        """Read what is stored under the entity's key, or under the same one of another tenant."""
        return await getattr(store, f"get_{self.name}")(*self._key(entity, tenant_id))

    async def delete(self, store: ConfigStore, entity: Any, tenant_id: UUID | None = None) -> bool:
        """Delete the entity."""
        deleted: bool = await getattr(store, f"delete_{self.name}")(*self._key(entity, tenant_id))
        return deleted

    def _key(self, entity: Any, tenant_id: UUID | None) -> tuple[Any, ...]:
        tenant_id = tenant_id or entity.tenant_id
        if self.name == "tool_activation":
            return tenant_id, entity.agent_id, entity.tool_id
        return tenant_id, entity.id


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
        "created_at": _CREATED,
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
        "created_at": _CREATED,
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
        "created_at": _CREATED,
    }


def _full_template() -> dict[str, Any]:
    return {
        "name": "t",
        "text": TEXT,
        "mode": "exclusive",
        "scope": "scenario",
        "scope_id": uuid4(),
        "conditions": TEXT,
        "created_at": _CREATED,
    }


def _full_variable() -> dict[str, Any]:
    return {
        "name": "_" + "z" * 49,
        "description": TEXT,
        "resolver_tool_id": TEXT,
        "update_policy": "on_scenario_entry",
        "cache_ttl_seconds": 2**40,
        "created_at": _CREATED,
    }


def _full_activation() -> dict[str, Any]:
    return {
        "tool_id": TEXT,
        "status": "disabled",
        "policy_override": {
            TEXT: [TEXT, None, True, 1, 1.0, -0.0, 1e22, 0.1, 2**70, {"": {}}, []],
            "b": None,
            "a": {"nested": {"deeper": [[]]}},
        },
        "enabled_at": _CREATED,
        "disabled_at": _LATER,
        "created_at": _CREATED,
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
        "created_at": _CREATED,
        "created_by": TEXT,
        "approved_at": _LATER,
        "approved_by": "b",
        "deployed_at": datetime(1970, 1, 1, tzinfo=UTC),
        "expires_at": datetime(9999, 12, 1, 1, tzinfo=_INDIA),
    }


AGENT = Kind("agent", AgentFactory, _full_agent, has_agent=False)
RULE = Kind("rule", RuleFactory, _full_rule)
SCENARIO = Kind("scenario", ScenarioFactory, _full_scenario)
TEMPLATE = Kind("template", TemplateFactory, _full_template, ("conditions", "changed"))
VARIABLE = Kind("variable", VariableFactory, _full_variable)
ACTIVATION = Kind("tool_activation", ToolActivationFactory, _full_activation, ("policy_override", {"a": 1}))
PLAN = Kind("migration_plan", MigrationPlanFactory, _full_plan, ("created_by", "changed"), has_agent=False)

PARTS = (RULE, SCENARIO, TEMPLATE, VARIABLE, ACTIVATION)
"""What belongs to an agent."""

SOFTLY_DELETED = (AGENT, *PARTS)
KINDS = (*SOFTLY_DELETED, PLAN)
