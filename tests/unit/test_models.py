"""The entities of the config domain: what they check, and their defaults."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest
from pydantic import ValidationError

from soldier_data.base.models import new_id, utcnow
from soldier_data.config import (
    Agent,
    AgentSettings,
    AnchorTransformation,
    MigrationPlan,
    MigrationPlanStatus,
    MigrationScenario,
    Rule,
    Scenario,
    ScenarioStep,
    Scope,
    ScopeFilter,
    Template,
    TemplateMode,
    ToolActivation,
    TransformationMap,
    Variable,
    VariableUpdatePolicy,
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


@pytest.mark.parametrize(
    ("make", "field", "wrong", "right"),
    [
        (AgentFactory, "name", ["", "x" * 101, None], ["x", "x" * 100]),
        (AgentFactory, "current_version", [0, -1], [1, 2**40]),
        (AgentFactory, "created_at", [datetime(2026, 1, 1), "2026-01-01T00:00:00"], [utcnow()]),  # noqa: DTZ001
        (AgentFactory, "deleted_at", [datetime(2026, 1, 1)], [None, utcnow()]),  # noqa: DTZ001
        (AgentFactory, "tenant_id", ["x", None], [uuid4()]),
        (AgentFactory, "revision", [-1], [0, 5]),
        (RuleFactory, "name", ["", "x" * 101], ["x" * 100]),
        (RuleFactory, "condition_text", [""], ["x" * 100_000]),
        (RuleFactory, "action_text", [""], ["x"]),
        (RuleFactory, "priority", [-101, 101], [-100, 100]),
        (RuleFactory, "max_fires_per_session", [-1], [0]),
        (RuleFactory, "cooldown_turns", [-1], [0]),
        (RuleFactory, "scope", ["everywhere"], ["global"]),
        (RuleFactory, "attached_template_ids", [["x"]], [[uuid4()]]),
        (RuleFactory, "embedding", [["x"], 1.0], [[1.0], None]),
        (ScenarioFactory, "name", ["", "x" * 101], ["x" * 100]),
        (ScenarioFactory, "version", [0], [1]),
        (TemplateFactory, "text", [""], ["x"]),
        (TemplateFactory, "mode", ["loud"], ["exclusive"]),
        (VariableFactory, "name", ["", "A", "1a", "a-b", "ä", "a" * 51, "a\n"], ["_", "a1_", "a" * 50]),
        (VariableFactory, "cache_ttl_seconds", [-1], [0]),
        (ToolActivationFactory, "status", ["broken"], ["disabled"]),
        (ToolActivationFactory, "policy_override", [[], "x"], [{}, None]),
        (MigrationPlanFactory, "status", ["done"], ["deployed"]),
    ],
)
def test_a_wrong_value_is_refused_when_made_and_when_assigned(
    make: Any, field: str, wrong: list[Any], right: list[Any]
) -> None:
    entity = make()
    for value in wrong:
        before = entity.model_copy(deep=True)
        with pytest.raises(ValidationError):
            make(**{field: value})
        with pytest.raises(ValidationError):
            setattr(entity, field, value)
        assert entity == before
    for value in right:
        setattr(entity, field, value)
        assert make(**{field: value}).model_dump()[field] == entity.model_dump()[field]


@pytest.mark.parametrize("temperature", [-0.1, 2.1, float("nan")])
def test_settings_of_an_agent_have_bounds(temperature: float) -> None:
    with pytest.raises(ValidationError):
        AgentSettings(temperature=temperature)
    with pytest.raises(ValidationError):
        AgentSettings(max_tokens=0)
    assert AgentSettings() == AgentSettings(
        temperature=0.7, max_tokens=1024, llm_provider=None, llm_model=None
    )


@pytest.mark.parametrize("make", [RuleFactory, TemplateFactory])
def test_a_scope_but_the_global_one_needs_its_id(make: Any) -> None:
    for scope in (Scope.SCENARIO, Scope.STEP):
        with pytest.raises(ValidationError, match="scope_id is required"):
            make(scope=scope)
        entity = make(scope=scope, scope_id=uuid4())
        assert type(entity).model_validate_json(entity.model_dump_json()) == entity


@pytest.mark.parametrize("make", [RuleFactory, TemplateFactory])
def test_a_refused_scope_leaves_the_entity_as_it_was(make: Any) -> None:
    entity = make()
    with pytest.raises(ValidationError):
        entity.scope = Scope.STEP
    assert entity.scope is Scope.GLOBAL

    scope_id = uuid4()
    entity.scope_id = scope_id
    entity.scope = Scope.STEP
    with pytest.raises(ValidationError):
        entity.scope_id = None
    assert entity.scope_id == scope_id
    entity.scope = Scope.GLOBAL
    entity.scope_id = None


def test_the_defaults_are_those_of_the_contract() -> None:
    ids = {"tenant_id": uuid4(), "agent_id": uuid4()}
    rule = Rule(**ids, name="r", condition_text="c", action_text="a")
    assert (rule.scope, rule.priority, rule.enabled, rule.is_hard_constraint) == (
        Scope.GLOBAL,
        0,
        True,
        False,
    )
    assert (rule.attached_tool_ids, rule.attached_template_ids, rule.embedding) == ([], [], None)
    assert (rule.revision, rule.deleted_at, rule.is_deleted) == (0, None, False)
    template = Template(**ids, name="t", text="x")
    assert (template.mode, template.scope) == (TemplateMode.SUGGEST, Scope.GLOBAL)
    variable = Variable(**ids, name="v", resolver_tool_id="x")
    assert (variable.update_policy, variable.cache_ttl_seconds) == (VariableUpdatePolicy.ON_DEMAND, 0)
    assert ToolActivation(**ids, tool_id="x").is_enabled
    scenario = Scenario(**ids, name="s", entry_step_id=uuid4())
    assert (scenario.steps, scenario.version, scenario.tags, scenario.enabled) == ([], 1, [], True)
    step = ScenarioStep(scenario_id=uuid4(), name="s")
    flags = step.model_dump(include={name for name in ScenarioStep.model_fields if name.startswith("is_")})
    assert set(flags.values()) == {False}
    plan: MigrationPlan = MigrationPlanFactory()
    assert (plan.status, plan.summary.total_anchors) == (MigrationPlanStatus.PENDING, 0)
    assert ScopeFilter().include_channels == []


def test_lists_of_two_entities_are_two_lists() -> None:
    first, second = RuleFactory(), RuleFactory()
    first.attached_tool_ids.append("x")
    assert second.attached_tool_ids == []


def test_unknown_keys_are_ignored() -> None:
    agent = Agent.model_validate({"tenant_id": str(uuid4()), "name": "a", "no_such_field": 1})
    assert "no_such_field" not in agent.model_dump()


def test_ids_are_ordered_by_the_time_they_were_made() -> None:
    ids = [new_id() for _ in range(1_000)]
    assert ids == sorted(ids)
    assert {id_.version for id_ in ids} == {7}
    assert len(set(ids)) == 1_000


def test_touching_and_deleting_set_the_times() -> None:
    agent: Agent = AgentFactory(updated_at=datetime(2020, 1, 1, tzinfo=UTC))
    before = utcnow()
    agent.touch()
    assert agent.updated_at >= before
    assert not agent.is_deleted
    agent.soft_delete()
    assert agent.is_deleted
    assert agent.deleted_at == agent.updated_at


def test_an_activation_remembers_when_it_was_switched() -> None:
    activation: ToolActivation = ToolActivationFactory()
    activation.disable()
    assert not activation.is_enabled
    assert activation.disabled_at == activation.updated_at
    activation.enable()
    assert activation.is_enabled
    assert activation.enabled_at == activation.updated_at
    assert activation.disabled_at is not None


def test_an_anchor_is_found_by_its_hash() -> None:
    anchors = [
        AnchorTransformation(
            anchor_content_hash=content_hash,
            anchor_name="a",
            anchor_node_id_v1=uuid4(),
            anchor_node_id_v2=uuid4(),
            migration_scenario=MigrationScenario.CLEAN_GRAFT,
        )
        for content_hash in ("h1", "h2")
    ]
    transformations = TransformationMap(anchors=anchors)
    assert transformations.get_anchor_by_hash("h2") == anchors[1]
    assert transformations.get_anchor_by_hash("h3") is None


@pytest.mark.parametrize(
    "enum", [Scope, TemplateMode, VariableUpdatePolicy, MigrationPlanStatus, MigrationScenario]
)
def test_enums_are_text_in_lower_case(enum: Any) -> None:
    for member in enum:
        assert member == member.value == member.name.lower() == str(member)
