"""How often each reliability test does what it does, and the report of what was found.

The test command runs these tests with small counts. `make soak` runs them with the counts of the bars, and writes
docs/reliability.md.
"""

from __future__ import annotations

import os
import platform
from collections.abc import AsyncIterator, Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic

import pytest

from soldier_data.data_layer import DataLayer
from soldier_data.settings import Settings
from tests.conftest import DIMENSIONS

_ROW = "soak"

_HEAD = """# Reliability

Results of `make soak` on {date}, with Python {python} on {cores} cores, in {minutes:.0f} minutes of test
time. `make test` runs the same tests with smaller counts. The last column names the test in tests/reliability.

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
    failed = request.session.testsfailed
    yield row
    row.seconds = monotonic() - row.started
    row.passed = request.session.testsfailed == failed
    # What a test process tells the one that writes the report.
    request.node.user_properties.append((_ROW, asdict(row)))


@pytest.fixture
async def data_in_memory() -> AsyncIterator[DataLayer]:
    """A data layer without servers."""
    async with DataLayer.in_memory(Settings(embedding_dimensions=DIMENSIONS)) as data:
        yield data


@pytest.fixture(params=["data_in_memory", "data"], ids=["in memory", "on servers"])
def layer(request: pytest.FixtureRequest) -> DataLayer:
    """A data layer of the test's own, of each kind in turn."""
    layer: DataLayer = request.getfixturevalue(request.param)
    return layer


class Reporter:
    """Gathers the rows of all test processes, and writes the report at the end."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._rows: list[Found] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take the row of a test that has ended."""
        if report.when == "teardown":
            self._rows += [Found(**values) for name, values in report.user_properties if name == _ROW]  # type: ignore[arg-type]

    def pytest_sessionfinish(self) -> None:
        """Write the report."""
        _write(self._file, sorted(self._rows, key=lambda row: row.test))


def pytest_configure(config: pytest.Config) -> None:
    """Let the process that the user started write the report."""
    file = config.getoption("--soak-report", None)
    if file and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Reporter(Path(file)))


def _write(file: Path, rows: list[Found]) -> None:
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
    file.write_text(head + "".join(lines), encoding="utf-8")
