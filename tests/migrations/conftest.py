"""A checkout to change."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.migrations.tools import CHECKOUT


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of the checkout, to change."""
    ignored = shutil.ignore_patterns("__pycache__")
    for name in ("soldier_data", "alembic"):
        shutil.copytree(CHECKOUT / name, tmp_path / name, ignore=ignored)
    for name in ("alembic.ini", "pyproject.toml"):
        shutil.copy(CHECKOUT / name, tmp_path / name)
    return tmp_path
