"""The contract of `ConfigStore`, run against every backend: every legal value comes back as it was."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any, Literal
from uuid import UUID, uuid4
from zoneinfo import ZoneInfo

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import AwareDatetime

from soldier_data.base.models import Model, Moment
from soldier_data.config import (
    Agent,
    AgentPart,
    AgentSettings,
    AnchorMigrationPolicy,
    AnchorTransformation,
    ConfigStore,
    DeletedNode,
    DownstreamChanges,
    FieldCollectionInfo,
    ForkBranch,
    InsertedNode,
    MigrationPlan,
    MigrationPlanStatus,
    MigrationScenario,
    MigrationSummary,
    MigrationWarning,
    NewFork,
    Rule,
    Scenario,
    ScenarioStep,
    Scope,
    ScopeFilter,
    StepTransition,
    Template,
    TemplateMode,
    ToolActivation,
    TransformationMap,
    TransitionChange,
    UpstreamChanges,
    Variable,
    VariableUpdatePolicy,
)
from soldier_data.sessions import Channel
from tests.conftest import DIMENSIONS

CHARACTERS = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
TEXTS = st.text(CHARACTERS, max_size=20)
FILLED = st.text(CHARACTERS, min_size=1, max_size=100)
ZONES = st.sampled_from([UTC, timezone(timedelta(hours=-11)), ZoneInfo("Europe/Berlin")])
MOMENTS = st.datetimes(datetime(1900, 1, 1), datetime(9990, 1, 1), timezones=ZONES)  # noqa: DTZ001 - ZONES adds them.
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
DOCUMENTS = st.dictionaries(
    TEXTS,
    st.recursive(
        st.none() | st.booleans() | st.integers() | FLOATS | TEXTS,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
        max_leaves=6,
    ),
    max_size=3,
)
# Short and even, so that neither rounding nor the norm is what is tested here.
VECTORS = st.lists(st.integers(-8, 8).map(float), min_size=DIMENSIONS, max_size=DIMENSIONS).filter(any)
IDS = st.uuids()
FROM_ZERO, FROM_ONE = st.integers(0, 2**63 - 1), st.integers(1, 2**63 - 1)

BY_TYPE: dict[Any, st.SearchStrategy[Any]] = {
    bool: st.booleans(),
    int: st.integers(-(2**63) + 1, 2**63 - 1),
    str: TEXTS,
    str | None: st.none() | TEXTS,
    UUID: IDS,
    UUID | None: st.none() | IDS,
    AwareDatetime: MOMENTS,
    Moment | None: st.none() | MOMENTS,
    list[str]: st.lists(TEXTS, max_size=3),
    list[UUID]: st.lists(IDS, max_size=3),
    list[float] | None: st.none() | VECTORS,
    list[Channel]: st.lists(st.sampled_from(Channel), max_size=2),
    dict[str, Any]: DOCUMENTS,
    dict[str, Any] | None: st.none() | DOCUMENTS,
    dict[str, int]: st.dictionaries(TEXTS, FROM_ZERO, max_size=3),
    TemplateMode: st.sampled_from(TemplateMode),
    VariableUpdatePolicy: st.sampled_from(VariableUpdatePolicy),
    MigrationPlanStatus: st.sampled_from(MigrationPlanStatus),
    MigrationScenario: st.sampled_from(MigrationScenario),
    MigrationScenario | None: st.none() | st.sampled_from(MigrationScenario),
    Literal["enabled", "disabled"]: st.sampled_from(["enabled", "disabled"]),
}
"""Any legal value of each type that a field has. A field of a new type fails until its type is here."""

FIXED = {"tenant_id", "agent_id", "deleted_at", "revision", "updated_at"}
"""What the test or the store sets."""


def arbitrary(model: type[Model], **given: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """The fields of a model, each with any legal value; `given` for those that are not of a plain type."""
    fields = {name: field for name, field in model.model_fields.items() if name not in FIXED}
    return st.fixed_dictionaries(
        {name: given[name] if name in given else BY_TYPE[field.annotation] for name, field in fields.items()}
    )


def some(values: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[list[dict[str, Any]]]:
    """Up to two of them."""
    return st.lists(values, max_size=2)


def scoped(model: type[Model], **given: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """As `arbitrary`, for a model with a scope: only the global one has no id."""
    narrow = st.sampled_from([Scope.SCENARIO, Scope.STEP])
    return arbitrary(model, scope=narrow, scope_id=IDS, **given) | arbitrary(
        model, scope=st.just(Scope.GLOBAL), scope_id=st.none(), **given
    )


AGENTS = arbitrary(
    Agent,
    name=FILLED,
    current_version=FROM_ONE,
    settings=arbitrary(AgentSettings, temperature=st.floats(0, 2), max_tokens=FROM_ONE),
)
RULES = scoped(
    Rule,
    name=FILLED,
    condition_text=FILLED,
    action_text=FILLED,
    priority=st.integers(-100, 100),
    max_fires_per_session=FROM_ZERO,
    cooldown_turns=FROM_ZERO,
)
STEPS = arbitrary(ScenarioStep, transitions=some(arbitrary(StepTransition)))
SCENARIOS = arbitrary(Scenario, name=FILLED, steps=some(STEPS), version=FROM_ONE)
TEMPLATES = scoped(Template, name=FILLED, text=FILLED)
VARIABLES = arbitrary(
    Variable, name=st.from_regex(r"[a-z_][a-z0-9_]{0,49}", fullmatch=True), cache_ttl_seconds=FROM_ZERO
)
ACTIVATIONS = arbitrary(ToolActivation)
CHANGES = {
    "inserted_nodes": some(arbitrary(InsertedNode)),
    "new_forks": some(arbitrary(NewFork, branches=some(arbitrary(ForkBranch)))),
    "modified_transitions": some(arbitrary(TransitionChange)),
}
ANCHORS = arbitrary(
    AnchorTransformation,
    upstream_changes=arbitrary(UpstreamChanges, **CHANGES),
    downstream_changes=arbitrary(DownstreamChanges, **CHANGES),
)
AGES = st.none() | FROM_ZERO
POLICIES = arbitrary(
    AnchorMigrationPolicy,
    scope_filter=arbitrary(ScopeFilter, max_session_age_days=AGES, min_session_age_days=AGES),
)
SUMMARIES = arbitrary(
    MigrationSummary,
    warnings=some(arbitrary(MigrationWarning, affected_sessions_estimate=FROM_ZERO)),
    fields_to_collect=some(arbitrary(FieldCollectionInfo)),
)
PLANS = arbitrary(
    MigrationPlan,
    transformation_map=arbitrary(
        TransformationMap, anchors=some(ANCHORS), deleted_nodes=some(arbitrary(DeletedNode))
    ),
    anchor_policies=st.dictionaries(TEXTS, POLICIES, max_size=2),
    summary=SUMMARIES,
)

WITHOUT_DEADLINE = settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@WITHOUT_DEADLINE
@given(
    agent=AGENTS,
    rule=RULES,
    template=TEMPLATES,
    variable=VARIABLES,
    activation=ACTIVATIONS,
    scenario=SCENARIOS,
)
async def test_any_legal_values_of_an_agent_and_its_parts_come_back_as_they_were(
    config_store: ConfigStore,
    agent: dict[str, Any],
    rule: dict[str, Any],
    template: dict[str, Any],
    variable: dict[str, Any],
    activation: dict[str, Any],
    scenario: dict[str, Any],
) -> None:
    tenant_id = uuid4()
    saved = Agent(tenant_id=tenant_id, **agent)
    of_agent = {"tenant_id": tenant_id, "agent_id": saved.id}
    its_rule = Rule(**of_agent, **rule)
    its_template = Template(**of_agent, **template)
    its_variable = Variable(**of_agent, **variable)
    its_activation = ToolActivation(**of_agent, **activation)
    its_scenario = Scenario(**of_agent, **scenario)
    everything: list[Agent | AgentPart] = [
        saved,
        its_rule,
        its_template,
        its_variable,
        its_activation,
        its_scenario,
    ]
    # In a list the first time, so that both ways of writing are taken.
    assert await config_store.save_many(everything) == len(everything)
    for again in (False, True):
        if again:
            await config_store.save_agent(saved)
            await config_store.save_rule(its_rule)
            await config_store.save_template(its_template)
            await config_store.save_variable(its_variable)
            await config_store.save_tool_activation(its_activation)
            await config_store.save_scenario(its_scenario)
        assert await config_store.get_agent(tenant_id, saved.id) == saved
        assert await config_store.get_rule(tenant_id, its_rule.id) == its_rule
        assert await config_store.get_template(tenant_id, its_template.id) == its_template
        assert await config_store.get_variable(tenant_id, its_variable.id) == its_variable
        assert await config_store.get_scenario(tenant_id, its_scenario.id) == its_scenario
        found = await config_store.get_tool_activation(tenant_id, saved.id, its_activation.tool_id)
        assert found == its_activation
        # Equal numbers may be of different types.
        assert repr(found.policy_override) == repr(its_activation.policy_override)
    await config_store.archive_scenario_version(tenant_id, its_scenario)
    archived = await config_store.get_archived_scenario(tenant_id, its_scenario.id, its_scenario.version)
    assert archived == its_scenario


@WITHOUT_DEADLINE
@given(plan=PLANS)
async def test_any_legal_values_of_a_migration_plan_come_back_as_they_were(
    config_store: ConfigStore, plan: dict[str, Any]
) -> None:
    saved = MigrationPlan(tenant_id=uuid4(), **plan)
    await config_store.save_migration_plan(saved)
    found = await config_store.get_migration_plan(saved.tenant_id, saved.id)
    assert found == saved
    assert repr(found.anchor_policies) == repr(saved.anchor_policies)
