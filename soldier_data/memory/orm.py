"""The tables of the memory domain."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Double, ForeignKeyConstraint, Index
from sqlalchemy.orm import Mapped, mapped_column, validates

from soldier_data.base.models import new_id, utcnow
from soldier_data.memory.search import fold
from soldier_data.postgres.orm import (
    LIVING,
    STORED_INLINE,
    Base,
    SoftDeleted,
    TenantKey,
    listed,
    purge_index,
)


class MemoryRow(TenantKey, SoftDeleted):
    """Columns of all items in memory.

    Attributes:
        write_id: As in `postgres.orm.Revisioned`: identifies the row of a repeated call.
    """

    group_id: Mapped[str] = mapped_column(sort_order=1, info=STORED_INLINE)
    recorded_at: Mapped[datetime] = mapped_column(default=utcnow, sort_order=100)
    write_id: Mapped[UUID] = mapped_column(default=new_id, sort_order=104)


def _page_index(table: str) -> Index:
    return Index(f"ix_{table}_page", "tenant_id", "group_id", "recorded_at", "id", postgresql_where=LIVING)


def _folded_content(context: Any) -> str:
    return fold(context.get_current_parameters()["content"])


class EpisodeRow(MemoryRow, Base):
    """An episode (`Episode`).

    Each index that ends in occurred_at serves searches that filter by its columns, newest first.

    There is no index by agent: a tenant has few agents, each with many episodes, which the index of the whole tenant
    finds nearly as fast.

    Attributes:
        content_folded: The content for text search, as returned by `memory.search.fold`. It follows the content of
            objects; set it in an UPDATE statement of your own.
    """

    __tablename__ = "episodes"
    __table_args__ = (
        Index("ix_episodes_page", "tenant_id", "group_id", "occurred_at", "id", postgresql_where=LIVING),
        Index("ix_episodes_tenant", "tenant_id", "occurred_at", "id", postgresql_where=LIVING),
        Index(
            "ix_episodes_customer",
            "tenant_id",
            "customer_profile_id",
            "occurred_at",
            "id",
            postgresql_where=LIVING,
        ),
        Index("ix_episodes_session", "tenant_id", "session_id", "occurred_at", "id", postgresql_where=LIVING),
        # Not by tenant, which would require the extension btree_gin, slow down writes, and gain nothing as long as
        # the planner can choose between this index and an index of the tenant's rows. Roles subject to row-level
        # security use an index by time instead: LIKE is not leakproof, so their policy is evaluated first.
        Index(
            "ix_episodes_words",
            "content_folded",
            postgresql_using="gin",
            postgresql_ops={"content_folded": "gin_trgm_ops"},
            postgresql_where=LIVING,
        ),
        purge_index("episodes"),
    )

    agent_id: Mapped[UUID | None]
    customer_profile_id: Mapped[UUID | None]
    session_id: Mapped[UUID | None]
    content: Mapped[str]
    content_folded: Mapped[str] = mapped_column(default=_folded_content)
    content_type: Mapped[str] = mapped_column(default="message")
    source: Mapped[str]
    source_metadata: Mapped[dict[str, Any]] = mapped_column(default=dict)
    importance: Mapped[float] = mapped_column(Double, default=0.5)
    occurred_at: Mapped[datetime] = mapped_column(default=utcnow)
    embedding: Mapped[list[float] | None]
    embedding_model: Mapped[str | None] = mapped_column(info=STORED_INLINE)
    entity_ids: Mapped[list[UUID]] = mapped_column(default=list)

    @validates("content")
    def _fold(self, _name: str, content: str) -> str:
        self.content_folded = fold(content)
        return content


class EntityRow(MemoryRow, Base):
    """A person, thing or concept that episodes mention (`Entity`).

    Attributes:
        relationships: Those from the entity and those to it.
    """

    __tablename__ = "entities"
    __table_args__ = (_page_index("entities"), purge_index("entities"))

    name: Mapped[str]
    entity_type: Mapped[str] = mapped_column(info=STORED_INLINE)
    attributes: Mapped[dict[str, Any]] = mapped_column(default=dict)
    valid_from: Mapped[datetime] = mapped_column(default=utcnow)
    valid_to: Mapped[datetime | None]
    embedding: Mapped[list[float] | None]
    embedding_model: Mapped[str | None] = mapped_column(info=STORED_INLINE)

    relationships: Mapped[list[RelationshipRow]] = listed(
        "and_(EntityRow.tenant_id == RelationshipRow.tenant_id, RelationshipRow.deleted_at == None, "
        "or_(EntityRow.id == RelationshipRow.from_entity_id, EntityRow.id == RelationshipRow.to_entity_id))",
        "(RelationshipRow.recorded_at, RelationshipRow.id)",
    )


class RelationshipRow(MemoryRow, Base):
    """A directed edge between two entities (`Relationship`).

    Indexes of the entities' ids include deleted rows, because foreign keys look them up.
    """

    __tablename__ = "relationships"
    __table_args__ = (
        ForeignKeyConstraint(
            ["tenant_id", "from_entity_id"],
            ["entities.tenant_id", "entities.id"],
            name="fk_relationships_from_entity",
        ),
        ForeignKeyConstraint(
            ["tenant_id", "to_entity_id"],
            ["entities.tenant_id", "entities.id"],
            name="fk_relationships_to_entity",
        ),
        _page_index("relationships"),
        Index("ix_relationships_from", "tenant_id", "from_entity_id"),
        Index("ix_relationships_to", "tenant_id", "to_entity_id"),
        purge_index("relationships"),
    )

    from_entity_id: Mapped[UUID]
    to_entity_id: Mapped[UUID]
    relation_type: Mapped[str]
    attributes: Mapped[dict[str, Any]] = mapped_column(default=dict)
    confidence: Mapped[float] = mapped_column(Double, default=1.0)
    valid_from: Mapped[datetime] = mapped_column(default=utcnow)
    valid_to: Mapped[datetime | None]
