"""Every kind of rule about a person's records holds for entities in memory, and has a translation into SQL."""

from __future__ import annotations

from uuid import uuid4

import pytest

from soldier_data.base.subject_rules import (
    Both,
    Either,
    HeldAt,
    In,
    IsNone,
    Lists,
    Mentions,
    NotIn,
    Overlaps,
    Rule,
    matches,
)
from soldier_data.base.subjects import DataSubject
from soldier_data.memory.statements import EPISODES
from soldier_data.postgres.statements import Statement
from soldier_data.postgres.subjects import condition
from tests.factories.memory import EpisodeFactory

PERSON, ENTITY = uuid4(), uuid4()
SUBJECT = DataSubject(uuid4(), frozenset([PERSON]), external_ids=frozenset(["crm-1"]))
LISTS: Lists = {"groups": {"crm-1"}, "others": {"crm-2"}, "entity_ids": {ENTITY}}
OWN = EpisodeFactory(group_id="crm-1", entity_ids=[ENTITY], source_metadata={"of": str(PERSON)})
OTHER = EpisodeFactory(group_id="crm-2", agent_id=uuid4())

RULES: list[Rule] = [
    In("group_id", "groups"),
    NotIn("group_id", "others"),
    Overlaps("entity_ids", "entity_ids"),
    Mentions("content", "source_metadata"),
    HeldAt("group_id", "occurred_at"),
    Both(In("group_id", "groups"), NotIn("group_id", "others")),
    Either(In("group_id", "groups"), Mentions("content")),
    IsNone("agent_id"),
]


def test_every_kind_of_rule_is_here() -> None:
    assert {type(rule) for rule in RULES} == set(Rule.__subclasses__())


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: type(rule).__name__)
def test_a_rule_holds_in_memory_and_compiles_to_sql(rule: Rule) -> None:
    own = OWN.model_copy(update={"agent_id": None})
    assert matches(rule, own, SUBJECT, LISTS)
    assert not matches(rule, OTHER, SUBJECT, LISTS)
    assert Statement("testing", EPISODES.select().where(condition(rule, EPISODES))).sql
