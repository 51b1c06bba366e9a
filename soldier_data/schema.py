"""All tables of the package in one metadata, which Alembic compares the database with."""

from __future__ import annotations

from soldier_data.audit import orm as _audit
from soldier_data.base.orm import Base
from soldier_data.config import orm as _config
from soldier_data.memory import orm as _memory
from soldier_data.profiles import orm as _profiles
from soldier_data.runs import orm as _runs
from soldier_data.vectors import orm as _vectors

metadata = Base.metadata

__all__ = ["metadata"]

# Importing the modules is what fills the metadata.
_MODULES = (_config, _memory, _audit, _profiles, _runs, _vectors)
