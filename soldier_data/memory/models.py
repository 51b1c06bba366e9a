"""The memory of agents: episodes, and a graph of entities and relationships."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal, NamedTuple, TypedDict
from uuid import UUID

from pydantic import Field

from soldier_data.base.models import Model, Moment, new_id, utcnow

ContentType = Literal["message", "event", "document", "summary", "fact"]
"""The type of an episode's content."""

EpisodeSource = Literal["user", "agent", "system", "external"]
"""The origin of an episode."""


class MemoryModel(Model):
    """Base class of the items in memory.

    Attributes:
        group_id: A scope within the tenant, chosen by the service: a conversation, a customer, a project.
        recorded_at: Time of recording, which may be long after the event.
        deleted_at: Time of the soft deletion, or None. Reads do not return deleted items.
    """

    id: UUID = Field(default_factory=new_id)
    tenant_id: UUID
    group_id: str
    recorded_at: Moment = Field(default_factory=utcnow)
    deleted_at: Moment | None = None

    @property
    def is_deleted(self) -> bool:
        """True if the item is soft-deleted."""
        return self.deleted_at is not None


class Episode(MemoryModel):
    """Something that was said or that happened.

    Attributes:
        importance: 0 to 1.
        occurred_at: Time of the event.
        embedding: The embedding of the content, of SOLDIER_EMBEDDING_DIMENSIONS numbers.
        embedding_model: The model that made the embedding.
        entity_ids: The entities that the episode mentions; they need not be stored.
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
        """The sort key in lists."""
        return self.occurred_at, self.id


class EpisodeFilter(TypedDict, total=False):
    """The filters of an episode search, which are keyword arguments. None matches every episode.

    Attributes:
        group_id: Only episodes of this group.
        agent_id: Only episodes of this agent.
        customer_profile_id: Only episodes of this customer.
        session_id: Only episodes of this session.
        content_type: Only episodes of this type.
        occurred_after: Only episodes that occurred at this time or later.
        occurred_before: Only episodes that occurred before this time.
    """

    group_id: str | None
    agent_id: UUID | None
    customer_profile_id: UUID | None
    session_id: UUID | None
    content_type: ContentType | None
    occurred_after: datetime | None
    occurred_before: datetime | None


class Entity(MemoryModel):
    """A person, thing or concept that episodes mention.

    Attributes:
        valid_from: Time from which the facts hold.
        valid_to: Time until which the facts hold; None if they still do.
        embedding: An embedding of SOLDIER_EMBEDDING_DIMENSIONS numbers.
        embedding_model: The model that made the embedding.
    """

    name: str
    entity_type: str
    attributes: dict[str, Any] = Field(default_factory=dict)
    valid_from: Moment = Field(default_factory=utcnow)
    valid_to: Moment | None = None
    embedding: list[float] | None = None
    embedding_model: str | None = None

    def position(self) -> tuple[datetime, UUID]:
        """The sort key in lists."""
        return self.recorded_at, self.id


class Relationship(MemoryModel):
    """A directed edge between two entities.

    Attributes:
        confidence: 0 to 1.
        valid_from: Time from which the relationship holds.
        valid_to: Time until which the relationship holds; None if it still does.
    """

    from_entity_id: UUID
    to_entity_id: UUID
    relation_type: str
    attributes: dict[str, Any] = Field(default_factory=dict)
    confidence: float = Field(default=1.0, ge=0, le=1)
    valid_from: Moment = Field(default_factory=utcnow)
    valid_to: Moment | None = None

    def position(self) -> tuple[datetime, UUID]:
        """The sort key in lists."""
        return self.recorded_at, self.id


class EpisodeHit(NamedTuple):
    """A search result, which unpacks as a pair.

    Attributes:
        episode: The episode.
        score: The cosine similarity to the query, -1 to 1; in a hybrid search, the sum of reciprocal ranks.
    """

    episode: Episode
    score: float


class EntityHit(NamedTuple):
    """A search result, which unpacks as a pair.

    Attributes:
        entity: The entity.
        score: The cosine similarity to the query, -1 to 1.
    """

    entity: Entity
    score: float
