"""What both config stores check before they write."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from soldier_data.base.embeddings import check_embedding
from soldier_data.base.values import check_storable
from soldier_data.config.migration_models import MigrationPlan
from soldier_data.config.models import Agent, AgentPart, Rule, Scenario
from soldier_data.errors import ValidationError


def check_entity(entity: Agent | AgentPart | MigrationPlan, dimensions: int) -> None:
    """Check that `entity` can be stored, its embeddings having `dimensions` numbers.

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


def check_list(entities: Sequence[Agent | AgentPart | MigrationPlan], dimensions: int) -> None:
    """Check each entity, that all are of one tenant, and that none is in the list twice.

    Raises:
        ValidationError: Names the entity's place in the list and the field.
    """
    seen: set[tuple[type, UUID]] = set()
    for place, entity in enumerate(entities):
        check_entity(entity, dimensions)
        if entity.tenant_id != entities[0].tenant_id:
            raise ValidationError(
                f"entities[{place}].tenant_id differs from that of the first: save each tenant's in a call of its own",
                field="tenant_id",
            )
        if (type(entity), entity.id) in seen:
            raise ValidationError(f"entities[{place}].id is in the list twice: keep one of them", field="id")
        seen.add((type(entity), entity.id))


def check_scenario_tenant(tenant_id: UUID, scenario: Scenario) -> None:
    """Check that `scenario` is the tenant's.

    Raises:
        ValidationError: It is another tenant's.
    """
    if scenario.tenant_id != tenant_id:
        raise ValidationError(
            "scenario.tenant_id differs from tenant_id: pass the scenario's own", field="tenant_id"
        )
