"""A checkout to change."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.migrations.tools import copy_checkout


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of the checkout, to change."""
    return copy_checkout(tmp_path)
