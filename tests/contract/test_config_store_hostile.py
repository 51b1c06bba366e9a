"""The contract of `ConfigStore`, run against every backend: values that cannot be stored are refused alike."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from itertools import product
from typing import Any
from uuid import UUID, uuid4
from zoneinfo import ZoneInfo

import pytest
from pydantic import ValidationError as PydanticValidationError

from soldier_data.config import Agent, AnchorMigrationPolicy, ConfigStore, Rule, ScopeFilter
from soldier_data.errors import NotFoundError, StoreError, ValidationError
from tests.cases.kind import Kind
from tests.cases.kinds.config import ACTIVATION, AGENT, PLAN, REVISIONED, RULE, SCENARIO, VARIABLE
from tests.cases.values import TEXT
from tests.factories.config import AgentFactory, RuleFactory, ScenarioFactory, ToolActivationFactory

BAD_TEXTS = ["a\0b", "\0", "\ud800", "x\udfffy", "\udc00\ud800"]
bad_texts = pytest.mark.parametrize("text", BAD_TEXTS, ids=ascii)


def nested(levels: int, wrap: Callable[[Any], Any] = lambda value: {"a": value}) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = wrap(value)
    return value


BAD_DOCUMENTS: dict[str, Any] = {
    "NUL": {"a": "b\0"},
    "NUL in a key": {"a\0": 1},
    "surrogate": {"a": ["\ud800"]},
    "surrogate in a key": {"a": {"\udfff": 1}},
    "NaN": {"a": float("nan")},
    "infinity": {"a": [float("inf")]},
    "minus infinity": {"a": {"b": float("-inf")}},
    "101 levels": nested(101),
    "101 levels of lists": {"a": nested(100, lambda value: [value])},
    "5,000 levels": nested(5_000),
    "datetime": {"a": datetime(2026, 1, 1, tzinfo=UTC)},
    "date": {"a": date(2026, 1, 1)},
    "set": {"a": {1}},
    "tuple": {"a": (1, 2)},
    "bytes": {"a": b"x"},
    "uuid": {"a": uuid4()},
    "decimal": {"a": Decimal(1)},
    "object": {"a": object()},
    "integer key": {"a": {1: 2}},
    "None as key": {"a": [{None: 2}]},
    "huge integer": {"a": 10**5_000},
    "huge negative integer": {"a": -(10**1_000)},
}


@pytest.mark.parametrize("document", BAD_DOCUMENTS.values(), ids=BAD_DOCUMENTS.keys())
async def test_a_policy_that_is_no_json_is_refused(
    config_store: ConfigStore, agent: Agent, document: Any
) -> None:
    activation = ToolActivationFactory(tenant_id=agent.tenant_id, agent_id=agent.id)
    activation.__dict__["policy_override"] = document
    with pytest.raises(ValidationError) as refused:
        await config_store.save_tool_activation(activation)
    assert refused.value.field == "policy_override"
    assert activation.revision == 0
    assert await ACTIVATION.get(config_store, activation) is None


async def test_a_plan_whose_conditions_are_no_json_is_refused(
    config_store: ConfigStore, tenant_id: UUID
) -> None:
    plan = PLAN.new(tenant_id, uuid4())
    policy = AnchorMigrationPolicy(anchor_content_hash="h", anchor_name="n", scope_filter=ScopeFilter())
    plan.anchor_policies = {"h": policy}
    for document in BAD_DOCUMENTS.values():
        plan.anchor_policies["h"].scope_filter.__dict__["custom_conditions"] = document
        with pytest.raises(ValidationError) as refused:
            await config_store.save_migration_plan(plan)
        assert refused.value.field == "anchor_policies[...].scope_filter.custom_conditions"


@pytest.mark.parametrize(
    "document",
    [
        nested(100),
        {"a": nested(99, lambda value: [value])},
        {"a": [2**1_999, -(2**1_999), 1e308, 5e-324, 1e22, 1.0, 1, True, None, ""]},
        {"": {" ": {}}},
        {TEXT: TEXT, "\u2028": "\u2029\x7f\x1f"},
        {str(number): [number] for number in range(10_000)},
    ],
    ids=["100 levels", "100 levels of lists", "numbers", "empty keys", "text", "wide"],
)
async def test_json_comes_back_as_it_was(
    config_store: ConfigStore, agent: Agent, document: dict[str, Any]
) -> None:
    activation = ToolActivationFactory(tenant_id=agent.tenant_id, agent_id=agent.id, policy_override=document)
    await config_store.save_tool_activation(activation)
    found = await ACTIVATION.get(config_store, activation)
    assert repr(found.policy_override) == repr(document)

    plan = PLAN.new(agent.tenant_id, uuid4())
    filter_ = ScopeFilter(custom_conditions=document)
    plan.anchor_policies = {
        "h": AnchorMigrationPolicy(anchor_content_hash="h", anchor_name="n", scope_filter=filter_)
    }
    await config_store.save_migration_plan(plan)
    stored = await config_store.get_migration_plan(agent.tenant_id, plan.id)
    assert stored is not None
    assert repr(stored.anchor_policies["h"].scope_filter.custom_conditions) == repr(document)


@pytest.mark.parametrize("kind", REVISIONED, ids=lambda kind: kind.name)
async def test_every_text_field_refuses_what_is_no_text(
    config_store: ConfigStore, agent: Agent, kind: Kind
) -> None:
    fields = kind.full()
    texts = [name for name, value in fields.items() if isinstance(value, str) and "\u202e" in value]
    lists = [name for name, value in fields.items() if isinstance(value, list) and TEXT in value]
    assert texts + lists or kind is PLAN
    for name, text in product(texts + lists, BAD_TEXTS):
        entity = kind.new(agent.tenant_id, agent.id)
        entity.__dict__[name] = text if name in texts else ["", text]
        with pytest.raises(ValidationError) as refused:
            await kind.save(config_store, entity)
        assert refused.value.field == (name if name in texts else f"{name}[1]")
        assert text not in str(refused.value)


@bad_texts
async def test_text_inside_documents_and_lists_is_checked(
    config_store: ConfigStore, agent: Agent, text: str
) -> None:
    owner = {"tenant_id": agent.tenant_id, "agent_id": agent.id}
    scenario = ScenarioFactory(**owner)
    scenario.steps[0].transitions[0].__dict__["condition_text"] = text
    with pytest.raises(ValidationError) as refused:
        await config_store.save_scenario(scenario)
    assert refused.value.field == "steps[0].transitions[0].condition_text"

    agent.settings.__dict__["llm_model"] = text
    with pytest.raises(ValidationError) as refused:
        await config_store.save_agent(agent)
    assert refused.value.field == "settings.llm_model"

    rule: Rule = RuleFactory(**owner)
    rule.__dict__["attached_tool_ids"] = ["good", text]
    with pytest.raises(ValidationError) as refused:
        await config_store.save_rule(rule)
    assert refused.value.field == "attached_tool_ids[1]"


@bad_texts
async def test_names_that_are_looked_up_are_checked(
    config_store: ConfigStore, agent: Agent, text: str
) -> None:
    key = (agent.tenant_id, agent.id, text)
    for call in (
        config_store.get_variable_by_name,
        config_store.get_tool_activation,
        config_store.delete_tool_activation,
    ):
        with pytest.raises(ValidationError) as refused:
            await call(*key)
        assert refused.value.field in ("name", "tool_id")


async def test_text_with_metacharacters_is_looked_up_literally(
    config_store: ConfigStore, agent: Agent
) -> None:
    stored = [TEXT, "a%", "a_", "a\\", "a'", 'a"', "'; DROP TABLE tool_activations; --", "$1", "NULL", ""]
    owner = {"tenant_id": agent.tenant_id, "agent_id": agent.id}
    activations = {text: ToolActivationFactory(**owner, tool_id=text) for text in stored}
    await config_store.save_many(activations.values())
    for text, activation in activations.items():
        assert await config_store.get_tool_activation(agent.tenant_id, agent.id, text) == activation
    for text in ("ab", "a%%", "%", "_", "null", " ", TEXT.upper()):
        assert await config_store.get_tool_activation(agent.tenant_id, agent.id, text) is None


@pytest.mark.parametrize(
    "moment", [datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)], ids=str
)
@pytest.mark.parametrize("kind", [AGENT, RULE, PLAN], ids=lambda kind: kind.name)
async def test_a_moment_that_would_not_come_back_is_refused(
    config_store: ConfigStore, agent: Agent, kind: Kind, moment: datetime
) -> None:
    entity = kind.new(agent.tenant_id, agent.id, created_at=moment)
    with pytest.raises(ValidationError) as refused:
        await kind.save(config_store, entity)
    assert refused.value.field == "created_at"
    # Nothing was stored that could not be read.
    await config_store.get_agents(agent.tenant_id)


@pytest.mark.parametrize(
    "moment",
    [
        datetime.min.replace(tzinfo=timezone(timedelta(hours=14))),
        datetime.max.replace(tzinfo=timezone(-timedelta(hours=12))),
    ],
    ids=str,
)
@pytest.mark.parametrize("kind", [AGENT, RULE, PLAN], ids=lambda kind: kind.name)
def test_a_moment_outside_of_the_calendar_in_utc_is_refused_by_the_model(
    kind: Kind, moment: datetime
) -> None:
    with pytest.raises(PydanticValidationError, match="outside the years 1 to 9999"):
        kind.new(uuid4(), uuid4(), created_at=moment)


@pytest.mark.parametrize(
    "moment",
    [
        datetime(1900, 1, 1, tzinfo=timezone(timedelta(minutes=19, seconds=32))),
        # The clocks leave this hour out, and repeat that one.
        datetime(2000, 3, 26, 2, 30, tzinfo=ZoneInfo("Europe/Berlin")),
        datetime(2000, 10, 29, 2, 30, tzinfo=ZoneInfo("Europe/Berlin"), fold=1),
    ],
    ids=str,
)
@pytest.mark.parametrize("kind", [AGENT, RULE, PLAN], ids=lambda kind: kind.name)
async def test_a_moment_of_any_zone_comes_back_equal(
    config_store: ConfigStore, agent: Agent, kind: Kind, moment: datetime
) -> None:
    entity = kind.new(agent.tenant_id, agent.id, created_at=moment)
    await kind.save(config_store, entity)
    assert await kind.get(config_store, entity) == entity


async def test_the_ends_of_the_calendar_are_kept(config_store: ConfigStore, agent: Agent) -> None:
    for moment in (datetime(1, 1, 2, tzinfo=UTC), datetime(9999, 12, 30, tzinfo=UTC)):
        rule = RULE.new(agent.tenant_id, agent.id, created_at=moment)
        await config_store.save_rule(rule)
        assert await config_store.get_rule(agent.tenant_id, rule.id) == rule


async def test_a_number_beyond_64_bits_is_refused(config_store: ConfigStore, agent: Agent) -> None:
    agent.current_version = 2**63
    with pytest.raises(ValidationError) as refused:
        await config_store.save_agent(agent)
    assert refused.value.field == "current_version"
    variable = VARIABLE.new(agent.tenant_id, agent.id, cache_ttl_seconds=2**63 - 1)
    await config_store.save_variable(variable)
    assert await VARIABLE.get(config_store, variable) == variable

    for call, field in (
        (config_store.get_archived_scenario(agent.tenant_id, agent.id, 2**63), "version"),
        (config_store.get_migration_plan_for_versions(agent.tenant_id, agent.id, 2**63, 1), "from_version"),
        (config_store.get_migration_plan_for_versions(agent.tenant_id, agent.id, 1, -(2**63)), "to_version"),
    ):
        with pytest.raises(ValidationError) as refused:
            await call
        assert refused.value.field == field


async def test_a_tool_id_too_long_for_an_index_is_refused(config_store: ConfigStore, agent: Agent) -> None:
    longest = "ä" * 1_000
    activation = ToolActivationFactory(tenant_id=agent.tenant_id, agent_id=agent.id, tool_id=longest)
    await config_store.save_tool_activation(activation)
    assert await ACTIVATION.get(config_store, activation) == activation
    activation.tool_id += "x"
    with pytest.raises(ValidationError) as refused:
        await config_store.save_tool_activation(activation)
    assert refused.value.field == "tool_id"


async def test_ten_megabytes_of_text_come_back(config_store: ConfigStore, agent: Agent) -> None:
    rule: Rule = RuleFactory(tenant_id=agent.tenant_id, agent_id=agent.id, action_text="ß" * 5_000_000)
    await config_store.save_rule(rule)
    found = await config_store.get_rule(agent.tenant_id, rule.id)
    assert found is not None
    assert found.action_text == rule.action_text


async def test_no_refusal_repeats_the_value(config_store: ConfigStore, agent: Agent) -> None:
    canary = "canary-4711"
    owner = {"tenant_id": agent.tenant_id, "agent_id": agent.id}
    await config_store.save_agent(AgentFactory(tenant_id=agent.tenant_id, name=canary))
    clashes: list[tuple[Kind, Any]] = [
        (AGENT, AgentFactory(tenant_id=agent.tenant_id, name=canary)),
        (RULE, RuleFactory(tenant_id=agent.tenant_id, name=canary)),
        (RULE, RuleFactory(**owner, name=canary + "\0")),
        (ACTIVATION, ToolActivationFactory(**owner, policy_override={canary: {canary}})),
        (ACTIVATION, ToolActivationFactory(**owner, tool_id=canary * 1_000)),
        (SCENARIO, ScenarioFactory(**owner, tags=[canary + "\0"])),
    ]
    for kind, entity in clashes:
        with pytest.raises(StoreError) as refused:
            await kind.save(config_store, entity)
        assert canary not in repr(refused.value)
        assert refused.value.__cause__ is None
        assert refused.value.__context__ is None
    with pytest.raises(NotFoundError):
        await config_store.save_rule(RuleFactory(tenant_id=agent.tenant_id))
