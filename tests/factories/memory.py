"""Entities of the memory domain."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID, uuid4

import factory

from soldier_data.base.models import utcnow
from soldier_data.memory import Entity, Episode, Relationship


class EpisodeFactory(factory.Factory[Episode]):  # factory-boy ships no types.
    class Meta:
        model = Episode

    tenant_id: UUID = factory.LazyFunction(uuid4)
    group_id: str = "conversation"
    content: str = factory.Faker("sentence")
    source: str = "user"
    occurred_at: datetime = factory.LazyFunction(utcnow)


class EntityFactory(factory.Factory[Entity]):  # As above.
    class Meta:
        model = Entity

    tenant_id: UUID = factory.LazyFunction(uuid4)
    group_id: str = "conversation"
    name: str = factory.Sequence(lambda number: f"Entity {number}")
    entity_type: str = "person"


class RelationshipFactory(factory.Factory[Relationship]):  # As above.
    class Meta:
        model = Relationship

    tenant_id: UUID = factory.LazyFunction(uuid4)
    group_id: str = "conversation"
    from_entity_id: UUID = factory.LazyFunction(uuid4)
    to_entity_id: UUID = factory.LazyFunction(uuid4)
    relation_type: str = "knows"
