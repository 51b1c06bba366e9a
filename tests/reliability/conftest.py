"""How often each reliability test does what it does, and the report of what was found.

The test command runs these tests with small counts. `make soak` runs them with the counts of the bars, and writes
docs/reliability.md.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic

import pytest

_ROWS = pytest.StashKey[list["Found"]]()

_HEAD = """# Reliability

What `make soak` found on {date}, with Python {python} on {cores} cores, in {minutes:.0f} minutes. The same tests
run with smaller counts in `make test`. Each is a test of tests/reliability, named here.

| what is done | bar | found | seconds | test |
| --- | --- | --- | --- | --- |
"""


@dataclass
class Found:
    """What one test did and found: a row of the report."""

    test: str
    what: str = ""
    bar: str = ""
    found: str = ""
    passed: bool = False
    started: float = field(default_factory=monotonic)
    seconds: float = 0.0

    def __call__(self, what: str, *, bar: str, found: str) -> None:
        """Keep what was done, how good it has to be and what was measured. A test that fails is reported so."""
        self.what, self.bar, self.found = what, bar, found


class Counts:
    """Chooses between the quick and the full count."""

    def __init__(self, soak: bool) -> None:
        self.soak = soak

    def __call__(self, quick: int, full: int) -> int:
        """`full` in a soak, else `quick`."""
        return full if self.soak else quick


@pytest.fixture(scope="session")
def count(pytestconfig: pytest.Config) -> Counts:
    """`count(quick, full)`: how often to do something."""
    return Counts(bool(pytestconfig.getoption("--soak")))


@pytest.fixture
def report(request: pytest.FixtureRequest) -> Iterator[Found]:
    """`report(what, bar=..., found=...)`: the test's row of the report."""
    row = Found(test=request.node.nodeid)
    request.config.stash.setdefault(_ROWS, []).append(row)
    failed = request.session.testsfailed
    yield row
    row.seconds = monotonic() - row.started
    row.passed = request.session.testsfailed == failed


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write the report."""
    file = session.config.getoption("--soak-report")
    rows = session.config.stash.get(_ROWS, [])
    if not file or not rows:
        return
    head = _HEAD.format(
        date=datetime.now(UTC).date(),
        python=platform.python_version(),
        cores=os.cpu_count(),
        minutes=sum(row.seconds for row in rows) / 60,
    )
    lines = (
        f"| {row.what or row.test} | {row.bar} | {row.found if row.passed else '**failed** ' + row.found} "
        f"| {row.seconds:.0f} | {row.test.removeprefix('tests/reliability/')} |\n"
        for row in rows
    )
    Path(file).write_text(head + "".join(lines), encoding="utf-8")
