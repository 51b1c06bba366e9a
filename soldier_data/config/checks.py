"""Validation that both config stores run before they write."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from soldier_data.base.embeddings import check_embedding
from soldier_data.base.items import check_items
from soldier_data.base.values import check_key, check_storable
from soldier_data.config.kinds import ConfigEntity, kind_of
from soldier_data.config.models import Rule, Scenario, ToolActivation
from soldier_data.errors import ValidationError


def check_entity(entity: ConfigEntity, dimensions: int) -> None:
    """Check that the entity can be stored, with embeddings of `dimensions` numbers.

    Raises:
        ValidationError: Names the field.
    """
    check_storable(entity)
    if isinstance(entity, Rule):
        if entity.embedding is not None:
            check_embedding(entity.embedding, dimensions, "embedding")
    elif isinstance(entity, Scenario):
        if entity.entry_condition_embedding is not None:
            check_embedding(entity.entry_condition_embedding, dimensions, "entry_condition_embedding")
        for place, step in enumerate(entity.steps):
            for way, transition in enumerate(step.transitions):
                if transition.condition_embedding is not None:
                    field = f"steps[{place}].transitions[{way}].condition_embedding"
                    check_embedding(transition.condition_embedding, dimensions, field)
    elif isinstance(entity, ToolActivation):
        check_key(entity.tool_id, "tool_id")


def check_list(entities: Sequence[ConfigEntity], dimensions: int) -> None:
    """Check a list of entities to save.

    Raises:
        ValidationError: An entity cannot be stored, is in the list twice, or belongs to another tenant than the first.
            Names its place and the field.
    """

    def check(entity: ConfigEntity) -> None:
        kind_of(entity)
        check_entity(entity, dimensions)

    check_items(entities, "entities", check)
    seen: set[tuple[type, UUID]] = set()
    for place, entity in enumerate(entities):
        key = (kind_of(entity), entity.id)
        if key in seen:
            raise ValidationError(
                f"entities[{place}].id is in the list twice: pass each entity once", field="id"
            )
        seen.add(key)


def check_scenario_tenant(tenant_id: UUID, scenario: Scenario) -> None:
    """Check that the scenario belongs to the tenant.

    Raises:
        ValidationError: It belongs to another tenant.
    """
    if scenario.tenant_id != tenant_id:
        raise ValidationError(
            "scenario.tenant_id differs from tenant_id: pass the tenant_id of the scenario", field="tenant_id"
        )
