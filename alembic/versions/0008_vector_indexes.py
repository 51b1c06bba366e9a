"""Indexes of embeddings, and the model of every embedding.

Revision ID: 0008
Revises: 0007
Create Date: 2026-11-21 04:05:12.401377+00:00
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from soldier_data.migrations import create_vector_index, drop_vector_index, set_storage

revision: str = "0008"
down_revision: str | None = "0007"
branch_labels: tuple[str, ...] | None = None
depends_on: tuple[str, ...] | None = None

_ADDED = (("entities", "embedding_model"), ("embeddings", "embedding_model"))
_COMPARED = (
    ("entities", "entity_type"),
    ("entities", "group_id"),
    ("episodes", "embedding_model"),
    ("episodes", "group_id"),
    ("relationships", "group_id"),
    ("rules", "embedding_model"),
    ("scenarios", "entry_condition_embedding_model"),
)


def upgrade() -> None:
    op.add_column("entities", sa.Column("embedding_model", sa.Text(), nullable=True), if_not_exists=True)
    op.add_column("embeddings", sa.Column("embedding_model", sa.Text(), nullable=True), if_not_exists=True)
    for table, column in _ADDED + _COMPARED:
        set_storage(table, column, "MAIN")
    # Each index is built concurrently, which commits the operations before it.
    create_vector_index("embeddings", "embedding", living=False)
    create_vector_index("entities", "embedding", living=True)
    create_vector_index("episodes", "embedding", living=True)
    create_vector_index("rules", "embedding", living=True)
    create_vector_index("scenarios", "entry_condition_embedding", living=True)


def downgrade() -> None:
    drop_vector_index("scenarios", "entry_condition_embedding")
    drop_vector_index("rules", "embedding")
    drop_vector_index("episodes", "embedding")
    drop_vector_index("entities", "embedding")
    drop_vector_index("embeddings", "embedding")
    for table, column in _COMPARED:
        set_storage(table, column, "EXTENDED")
    op.drop_column("embeddings", "embedding_model", if_exists=True)
    op.drop_column("entities", "embedding_model", if_exists=True)
