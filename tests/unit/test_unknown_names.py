"""Entities refuse names that they do not know when they are constructed, and pass over them in what was stored."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
from pydantic import ValidationError

import soldier_data.audit.models
import soldier_data.config.models
import soldier_data.config.scenario_migrations
import soldier_data.memory.models
import soldier_data.profiles.models
import soldier_data.runs.models
import soldier_data.sessions.models
import soldier_data.vectors.models  # noqa: F401 - each makes its entities known to `Model`.
from soldier_data.base.models import Model
from soldier_data.config import Agent, Scenario
from tests.factories.config import AgentFactory, ScenarioFactory, ScenarioStepFactory, StepTransitionFactory


def _kinds(base: type[Model]) -> Iterator[type[Model]]:
    for kind in base.__subclasses__():
        if kind.__module__.startswith("soldier_data."):
            yield kind
        yield from _kinds(kind)


@pytest.mark.parametrize("kind", set(_kinds(Model)), ids=lambda kind: kind.__name__)
def test_an_unknown_name_is_refused_when_an_entity_is_constructed(kind: Any) -> None:
    with pytest.raises(ValidationError, match=r"descripton\n  Extra inputs are not permitted"):
        kind(descripton="a typing error")


def test_an_unknown_name_in_a_part_is_refused_when_an_entity_is_constructed() -> None:
    steps: list[Any] = [{"scenario_id": uuid4(), "name": "s", "is_entrance": True}]
    with pytest.raises(ValidationError, match=r"steps\.0\.is_entrance"):
        Scenario(tenant_id=uuid4(), agent_id=uuid4(), name="s", entry_step_id=uuid4(), steps=steps)


def test_an_unknown_name_cannot_be_assigned() -> None:
    agent: Any = AgentFactory()
    with pytest.raises(ValidationError, match="descripton"):
        agent.descripton = "a typing error"


def test_unknown_names_in_a_document_are_ignored_at_every_depth() -> None:
    scenario: Scenario = ScenarioFactory(steps=[ScenarioStepFactory(transitions=[StepTransitionFactory()])])
    document = scenario.model_dump(mode="json")
    document["no_such_field"] = 1
    document["steps"][0]["no_such_field"] = 1
    document["steps"][0]["transitions"][0]["no_such_field"] = 1
    assert Scenario.model_validate(document) == scenario
    assert Scenario.model_validate_json(json.dumps(document)) == scenario


def test_a_document_can_be_checked_for_unknown_names() -> None:
    document = {"tenant_id": str(uuid4()), "name": "a", "descripton": "a typing error"}
    with pytest.raises(ValidationError, match="descripton"):
        Agent.model_validate(document, extra="forbid")
    with pytest.raises(ValidationError, match="descripton"):
        Agent.model_validate_json(json.dumps(document), extra="forbid")
