"""Entities of the config domain."""

from __future__ import annotations

from uuid import UUID, uuid4

import factory

from soldier_data.config import (
    Agent,
    AnchorTransformation,
    MigrationPlan,
    MigrationScenario,
    Rule,
    Scenario,
    ScenarioStep,
    StepTransition,
    Template,
    ToolActivation,
    TransformationMap,
    Variable,
)


class AgentFactory(factory.Factory[Agent]):
    class Meta:
        model = Agent

    tenant_id: UUID = factory.LazyFunction(uuid4)
    name: str = factory.Sequence(lambda number: f"Agent {number}")
    description: str = factory.Faker("sentence")


class RuleFactory(factory.Factory[Rule]):
    class Meta:
        model = Rule

    tenant_id: UUID = factory.LazyFunction(uuid4)
    agent_id: UUID = factory.LazyFunction(uuid4)
    name: str = factory.Sequence(lambda number: f"Rule {number}")
    condition_text: str = factory.Faker("sentence")
    action_text: str = factory.Faker("sentence")


class StepTransitionFactory(factory.Factory[StepTransition]):
    class Meta:
        model = StepTransition

    to_step_id: UUID = factory.LazyFunction(uuid4)
    condition_text: str = factory.Faker("sentence")


class ScenarioStepFactory(factory.Factory[ScenarioStep]):
    class Meta:
        model = ScenarioStep

    scenario_id: UUID = factory.LazyFunction(uuid4)
    name: str = factory.Sequence(lambda number: f"Step {number}")


class ScenarioFactory(factory.Factory[Scenario]):
    class Meta:
        model = Scenario

    tenant_id: UUID = factory.LazyFunction(uuid4)
    agent_id: UUID = factory.LazyFunction(uuid4)
    id: UUID = factory.LazyFunction(uuid4)
    name: str = factory.Sequence(lambda number: f"Scenario {number}")
    steps: list[ScenarioStep] = factory.LazyAttribute(
        lambda scenario: [
            ScenarioStepFactory(
                scenario_id=scenario.id, is_entry=True, transitions=[StepTransitionFactory(priority=3)]
            ),
            ScenarioStepFactory(scenario_id=scenario.id, is_terminal=True, collects_profile_fields=["name"]),
        ]
    )
    entry_step_id: UUID = factory.LazyAttribute(lambda scenario: scenario.steps[0].id)
    tags: list[str] = factory.LazyFunction(lambda: ["support", "Überraschung"])


class TemplateFactory(factory.Factory[Template]):
    class Meta:
        model = Template

    tenant_id: UUID = factory.LazyFunction(uuid4)
    agent_id: UUID = factory.LazyFunction(uuid4)
    name: str = factory.Sequence(lambda number: f"Template {number}")
    text: str = factory.Faker("sentence")


class VariableFactory(factory.Factory[Variable]):
    class Meta:
        model = Variable

    tenant_id: UUID = factory.LazyFunction(uuid4)
    agent_id: UUID = factory.LazyFunction(uuid4)
    name: str = factory.Sequence(lambda number: f"variable_{number}")
    resolver_tool_id: str = "crm.lookup"


class ToolActivationFactory(factory.Factory[ToolActivation]):
    class Meta:
        model = ToolActivation

    tenant_id: UUID = factory.LazyFunction(uuid4)
    agent_id: UUID = factory.LazyFunction(uuid4)
    tool_id: str = factory.Sequence(lambda number: f"tool-{number}")


class MigrationPlanFactory(factory.Factory[MigrationPlan]):
    class Meta:
        model = MigrationPlan

    tenant_id: UUID = factory.LazyFunction(uuid4)
    scenario_id: UUID = factory.LazyFunction(uuid4)
    from_version: int = 1
    to_version: int = 2
    scenario_checksum_v1: str = "a1"
    scenario_checksum_v2: str = "b2"
    transformation_map: TransformationMap = factory.LazyFunction(
        lambda: TransformationMap(
            anchors=[
                AnchorTransformation(
                    anchor_content_hash="h1",
                    anchor_name="Greeting",
                    anchor_node_id_v1=uuid4(),
                    anchor_node_id_v2=uuid4(),
                    migration_scenario=MigrationScenario.GAP_FILL,
                )
            ]
        )
    )
