"""The lowest versions that pyproject.toml allows are the ones that `make test-lowest` installs."""

from __future__ import annotations

import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parents[2]


def test_the_lowest_versions_are_those_that_are_tested() -> None:
    with (ROOT / "pyproject.toml").open("rb") as file:
        project = tomllib.load(file)["project"]
    extras = [given for name, given in project["optional-dependencies"].items() if name != "dev"]
    allowed = [Requirement(text) for texts in (project["dependencies"], *extras) for text in texts]
    lines = (ROOT / "constraints-lowest.txt").read_text(encoding="utf-8").splitlines()
    pinned = {pin.name: pin for pin in (Requirement(line) for line in lines if not line.startswith("#"))}
    for requirement in allowed:
        [lowest] = [item.version for item in requirement.specifier if item.operator == ">="]
        [tested] = [item.version for item in pinned[requirement.name].specifier]
        assert Version(tested) == Version(lowest), requirement.name
