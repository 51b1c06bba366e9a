"""The extensions: pgvector for embeddings, pg_trgm for text search.

Revision ID: 0001
Revises:
Create Date: 2026-11-21
"""

from __future__ import annotations

from soldier_data.migrations import create_extension

revision: str = "0001"
down_revision: str | None = None
branch_labels: tuple[str, ...] | None = None
depends_on: tuple[str, ...] | None = None


def upgrade() -> None:
    create_extension("vector")
    create_extension("pg_trgm")


def downgrade() -> None:
    # The extensions are kept, because other applications in the same database may use them.
    pass
