"""The table of the vectors domain."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Index
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from soldier_data.postgres.orm import STORED_INLINE, Base, TenantKey


class EmbeddingRow(TenantKey, Base):
    """`Embedding`.

    Attributes:
        metadata_: The metadata exactly as they were given.
        searched_metadata: The same as JSONB, which filters are compared with. JSONB rewrites numbers (1e308 becomes
            an integer of 309 digits), so it cannot be what is given back.
        write_id: As in `postgres.orm.Revisioned`: how a repeated call knows its own row.
    """

    __tablename__ = "embeddings"
    __table_args__ = (
        Index("ix_embeddings_source", "tenant_id", "source_id"),
        Index("ix_embeddings_source_type", "tenant_id", "source_type"),
        # Without the tenant: leading with it takes the extension btree_gin. PostgreSQL weighs this index against
        # the tenant's own rows. Paths are kept as hashes, so values of any length fit.
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
    # The class has an attribute `metadata` already, which all ORM classes share.
    metadata_: Mapped[dict[str, Any]] = mapped_column("metadata")
    searched_metadata: Mapped[dict[str, Any]] = mapped_column(JSONB, info=STORED_INLINE)
    source_type: Mapped[str] = mapped_column(info=STORED_INLINE)
    source_id: Mapped[str]
    created_at: Mapped[datetime]
    write_id: Mapped[UUID]
