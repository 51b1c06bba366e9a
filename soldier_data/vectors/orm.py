"""The table of the vectors domain."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Index
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column, validates

from soldier_data.base.models import new_id, utcnow
from soldier_data.postgres.orm import STORED_INLINE, Base, TenantKey


def _stored_metadata(context: Any) -> Any:
    return context.get_current_parameters()["metadata"]


class EmbeddingRow(TenantKey, Base):
    """A text with its embedding (`Embedding`).

    Attributes:
        metadata_: The metadata, exactly as passed.
        searched_metadata: The metadata as JSONB, for filters. Because JSONB rewrites numbers (1e308 becomes an integer
            of 309 digits), it cannot be returned. It follows the metadata of objects; set it in an UPDATE statement
            of your own.
        write_id: As in `postgres.orm.Revisioned`: identifies the row of a repeated call.
    """

    __tablename__ = "embeddings"
    __table_args__ = (
        Index("ix_embeddings_source", "tenant_id", "source_id"),
        Index("ix_embeddings_source_type", "tenant_id", "source_type"),
        # Not by tenant, which would require the extension btree_gin. The planner chooses between this index and an
        # index of the tenant's rows. jsonb_path_ops stores hashes, so values may have any length.
        Index(
            "ix_embeddings_metadata",
            "searched_metadata",
            postgresql_using="gin",
            postgresql_ops={"searched_metadata": "jsonb_path_ops"},
        ),
    )

    content: Mapped[str]
    embedding: Mapped[list[float]]
    embedding_model: Mapped[str | None] = mapped_column(info=STORED_INLINE)
    # `metadata` is an attribute of every mapped class.
    metadata_: Mapped[dict[str, Any]] = mapped_column("metadata", default=dict)
    searched_metadata: Mapped[dict[str, Any]] = mapped_column(
        JSONB, default=_stored_metadata, info=STORED_INLINE
    )
    source_type: Mapped[str] = mapped_column(info=STORED_INLINE)
    source_id: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(default=utcnow)
    write_id: Mapped[UUID] = mapped_column(default=new_id)

    @validates("metadata_")
    def _search_metadata(self, _name: str, metadata: dict[str, Any]) -> dict[str, Any]:
        self.searched_metadata = metadata
        return metadata
