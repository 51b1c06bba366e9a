"""The metadata of all tables, which Alembic compares with the database."""

from __future__ import annotations

from sqlalchemy import MetaData

from soldier_data.orm import Base
from soldier_data.postgres.vector_index import add_vector_indexes, embedding_columns

metadata = Base.metadata

__all__ = ["metadata", "metadata_with_vector_indexes"]


def metadata_with_vector_indexes() -> MetaData:
    """Return a copy of the metadata with the vector indexes of the current DDL options."""
    copied = MetaData(naming_convention=metadata.naming_convention)
    for table in metadata.tables.values():
        table.to_metadata(copied)
    add_vector_indexes(embedding_columns(copied))
    return copied
