"""What agents remember: episodes, and a graph of entities and relationships."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal, NamedTuple
from uuid import UUID

from pydantic import Field

from soldier_data.base.models import Model, Moment, new_id, utcnow

ContentType = Literal["message", "event", "document", "summary", "fact"]
"""What kind of content an episode holds."""

EpisodeSource = Literal["user", "agent", "system", "external"]
"""Where an episode comes from."""


class MemoryModel(Model):
    """What everything remembered has.

    Attributes:
        group_id: A scope inside the tenant, freely chosen: a conversation, a customer, a project, ...
        recorded_at: When it was put on record, which may be long after it happened.
        deleted_at: Set on what is softly deleted, which no read returns.
    """

    id: UUID = Field(default_factory=new_id)
    tenant_id: UUID
    group_id: str
    recorded_at: Moment = Field(default_factory=utcnow)
    deleted_at: Moment | None = None

    @property
    def is_deleted(self) -> bool:
        """Whether it is softly deleted."""
        return self.deleted_at is not None


class Episode(MemoryModel):
    """Something that was said or happened.

    Attributes:
        importance: 0 to 1.
        occurred_at: When it happened.
        embedding: Of the content; as long as SOLDIER_EMBEDDING_DIMENSIONS.
        embedding_model: Which model made the embedding.
        entity_ids: The entities that it mentions; they need not be stored.
    """

    agent_id: UUID | None = None
    customer_profile_id: UUID | None = None
    session_id: UUID | None = None
    content: str
    content_type: ContentType = "message"
    source: EpisodeSource
    source_metadata: dict[str, Any] = Field(default_factory=dict)
    importance: float = Field(default=0.5, ge=0, le=1)
    occurred_at: Moment = Field(default_factory=utcnow)
    embedding: list[float] | None = None
    embedding_model: str | None = None
    entity_ids: list[UUID] = Field(default_factory=list)

    def position(self) -> tuple[datetime, UUID]:
        """Where it stands in the list of its group."""
        return self.occurred_at, self.id


class Entity(MemoryModel):
    """A person, a thing or a notion that episodes are about.

    Attributes:
        valid_from: Since when it is so in the world.
        valid_to: Until when; None while it still is.
        embedding: As long as SOLDIER_EMBEDDING_DIMENSIONS.
        embedding_model: Which model made the embedding.
    """

    name: str
    entity_type: str
    attributes: dict[str, Any] = Field(default_factory=dict)
    valid_from: Moment = Field(default_factory=utcnow)
    valid_to: Moment | None = None
    embedding: list[float] | None = None
    embedding_model: str | None = None

    def position(self) -> tuple[datetime, UUID]:
        """Where it stands in the list of its group."""
        return self.recorded_at, self.id


class Relationship(MemoryModel):
    """A directed edge between two entities.

    Attributes:
        confidence: 0 to 1.
        valid_from: Since when it is so in the world.
        valid_to: Until when; None while it still is.
    """

    from_entity_id: UUID
    to_entity_id: UUID
    relation_type: str
    attributes: dict[str, Any] = Field(default_factory=dict)
    confidence: float = Field(default=1.0, ge=0, le=1)
    valid_from: Moment = Field(default_factory=utcnow)
    valid_to: Moment | None = None

    def position(self) -> tuple[datetime, UUID]:
        """Where it stands in the list of its group."""
        return self.recorded_at, self.id


class EpisodeHit(NamedTuple):
    """An episode that a search found. Unpacks as a pair.

    Attributes:
        score: The cosine similarity to the query, -1 to 1; of a hybrid search, the sum of reciprocal ranks.
    """

    episode: Episode
    score: float


class EntityHit(NamedTuple):
    """An entity that a search found. Unpacks as a pair.

    Attributes:
        score: The cosine similarity to the query, -1 to 1.
    """

    entity: Entity
    score: float
