"""Conversion of guidelines to an agent: tasks become scenarios, replies become templates, actions become rules."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from uuid import UUID

from soldier_data.base.models import new_id
from soldier_data.config.models import (
    Agent,
    AgentPart,
    Rule,
    Scenario,
    ScenarioStep,
    Scope,
    StepTransition,
    Template,
    TemplateMode,
    ToolActivation,
    Variable,
    VariableUpdatePolicy,
)
from soldier_data.demo.models import Guideline, GuidelineStep
from soldier_data.providers.embeddings import EmbeddingProvider

_LONGEST_NAME = 100

_VARIABLES = {
    "customer_name": ("The name that the customer goes by.", VariableUpdatePolicy.ON_SESSION_START),
    "open_task": ("What the customer wants now.", VariableUpdatePolicy.ON_EACH_TURN),
    "last_query": ("What was looked up last.", VariableUpdatePolicy.ON_DEMAND),
}


@dataclass
class SupportDesk:
    """An agent with its scenarios, rules, templates, variables and tools.

    Attributes:
        agent: The agent.
        scenarios: Scenarios by the key of their guideline.
        steps: Steps by the key of their guideline and their own key in it.
        parts: Everything to store with the agent, scenarios included.
    """

    agent: Agent
    scenarios: dict[str, Scenario] = field(default_factory=dict)
    steps: dict[tuple[str, str], ScenarioStep] = field(default_factory=dict)
    parts: list[AgentPart] = field(default_factory=list)


async def build_support_desk(
    tenant_id: UUID, guidelines: Iterable[Guideline], provider: EmbeddingProvider
) -> SupportDesk:
    """Create an agent that follows `guidelines`, without storing it."""
    agent = Agent(tenant_id=tenant_id, name="Support desk", description="Answers customers by the book.")
    desk = SupportDesk(agent)
    for guideline in guidelines:
        _add_scenario(desk, guideline)
    desk.parts += [
        Variable(
            tenant_id=tenant_id,
            agent_id=agent.id,
            name=name,
            description=description,
            resolver_tool_id="session",
            update_policy=policy,
        )
        for name, (description, policy) in _VARIABLES.items()
    ]
    tools = sorted({tool for step in desk.steps.values() for tool in step.tool_ids})
    desk.parts += [ToolActivation(tenant_id=tenant_id, agent_id=agent.id, tool_id=tool) for tool in tools]
    await _embed(desk, provider)
    return desk


def step_content_hash(step: ScenarioStep) -> str:
    """Return a hash of a step's name and description, which changes only if they do."""
    return hashlib.sha256(f"{step.name}\n{step.description}".encode()).hexdigest()[:16]


def _add_scenario(desk: SupportDesk, guideline: Guideline) -> None:
    agent = desk.agent
    scenario_id = new_id()
    ids = {step.key: new_id() for step in guideline.steps}
    steps = [_step(scenario_id, step, ids) for step in guideline.steps]
    scenario = Scenario(
        id=scenario_id,
        tenant_id=agent.tenant_id,
        agent_id=agent.id,
        name=_name(guideline.title),
        description=guideline.description,
        entry_step_id=next((step.id for step in steps if step.is_entry), steps[0].id),
        steps=steps,
        entry_condition_text=f"The customer wants: {guideline.title}. {guideline.description or ''}".strip(),
        tags=[guideline.group, guideline.source],
    )
    desk.scenarios[guideline.key] = scenario
    desk.parts.append(scenario)
    for step, source in zip(steps, guideline.steps, strict=True):
        desk.steps[guideline.key, source.key] = step
        _add_step_parts(desk, guideline, step, source)
    for number, instruction in enumerate(guideline.instructions, start=1):
        desk.parts.append(
            Rule(
                tenant_id=agent.tenant_id,
                agent_id=agent.id,
                name=_name(f"{guideline.title} {number}"),
                condition_text=f"The customer wants: {guideline.title}",
                action_text=instruction,
                scope=Scope.SCENARIO,
                scope_id=scenario_id,
                priority=10,
            )
        )


def _step(scenario_id: UUID, step: GuidelineStep, ids: dict[str, UUID]) -> ScenarioStep:
    return ScenarioStep(
        id=ids[step.key],
        scenario_id=scenario_id,
        name=step.key,
        description=step.text,
        transitions=[
            StepTransition(to_step_id=ids[key], condition_text=f"{step.name} is done")
            for key in step.next_keys
        ],
        tool_ids=[step.key] if step.kind == "action" else [],
        is_entry=step.is_entry,
        is_terminal=step.is_terminal,
        # In the guidelines no edge leads to the steps that follow a query or a question.
        reachable_from_anywhere=step.is_detached,
        performs_action=step.kind == "action",
    )


def _add_step_parts(
    desk: SupportDesk, guideline: Guideline, step: ScenarioStep, source: GuidelineStep
) -> None:
    agent = desk.agent
    if source.kind == "reply":
        template = Template(
            tenant_id=agent.tenant_id,
            agent_id=agent.id,
            name=_name(source.name),
            text=source.text,
            mode=TemplateMode.SUGGEST,
            scope=Scope.STEP,
            scope_id=step.id,
        )
        step.template_ids.append(template.id)
        desk.parts.append(template)
    if source.kind == "branch":
        return
    rules = [
        Rule(
            tenant_id=agent.tenant_id,
            agent_id=agent.id,
            name=_name(f"{guideline.title}: {source.name}"),
            condition_text=f"{guideline.title}: {source.name}",
            action_text=action,
            scope=Scope.STEP,
            scope_id=step.id,
        )
        for action in (source.text, *source.details)
        if action
    ]
    step.rule_ids.extend(rule.id for rule in rules)
    desk.parts.extend(rules)


async def _embed(desk: SupportDesk, provider: EmbeddingProvider) -> None:
    rules = [part for part in desk.parts if isinstance(part, Rule)]
    vectors = await provider.embed_batch([f"{rule.condition_text} {rule.action_text}" for rule in rules])
    for rule, vector in zip(rules, vectors, strict=True):
        rule.embedding = vector
        rule.embedding_model = provider.model_id
    scenarios = list(desk.scenarios.values())
    vectors = await provider.embed_batch([str(scenario.entry_condition_text) for scenario in scenarios])
    for scenario, vector in zip(scenarios, vectors, strict=True):
        scenario.entry_condition_embedding = vector
        scenario.entry_condition_embedding_model = provider.model_id


def _name(text: str) -> str:
    return text if len(text) <= _LONGEST_NAME else f"{text[: _LONGEST_NAME - 1]}…"
