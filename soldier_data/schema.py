"""The metadata of all tables, which Alembic compares with the database."""

from __future__ import annotations

from sqlalchemy import MetaData

from soldier_data.audit import orm as _audit
from soldier_data.config import orm as _config
from soldier_data.memory import orm as _memory
from soldier_data.postgres.orm import Base
from soldier_data.postgres.vector_index import add_vector_indexes, embedding_columns
from soldier_data.profiles import orm as _profiles
from soldier_data.runs import orm as _runs
from soldier_data.vectors import orm as _vectors

metadata = Base.metadata

__all__ = ["metadata", "metadata_with_vector_indexes"]

# Importing these modules adds their tables to the metadata.
_MODULES = (_config, _memory, _audit, _profiles, _runs, _vectors)


def metadata_with_vector_indexes() -> MetaData:
    """Return a copy of the metadata with the vector indexes of the current DDL options."""
    copied = MetaData(naming_convention=metadata.naming_convention)
    for table in metadata.tables.values():
        table.to_metadata(copied)
    add_vector_indexes(embedding_columns(copied))
    return copied
