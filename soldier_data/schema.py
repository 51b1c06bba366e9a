"""All tables of the package in one metadata, which Alembic compares the database with."""

from __future__ import annotations

from soldier_data.base.orm import Base
from soldier_data.config import orm as _config

metadata = Base.metadata

__all__ = ["metadata"]

# Importing the modules is what fills the metadata.
_MODULES = (_config,)
