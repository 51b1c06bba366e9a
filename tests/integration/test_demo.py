"""The demonstration, run as a person runs it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

DEMO = [sys.executable, "-c", "from soldier_data.cli import main; main()", "demo"]
# As a shell starts what it puts into the background.
IGNORING_INTERRUPTS = ["sh", "-c", 'trap "" INT; exec "$@"', "sh"]
SHARED_DATA = Path(__file__).resolve().parents[3] / "shared" / "data"


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder for temporary files that the account of the servers may enter, when root runs the tests."""
    with tempfile.TemporaryDirectory(prefix="sd-", dir="/tmp") as name:
        path = Path(name)
        path.chmod(0o755)
        yield path


def environment(folder: Path) -> dict[str, str]:
    return {**os.environ, "TMPDIR": str(folder), "COLUMNS": "120", "TERM": "dumb"}


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*DEMO, *arguments], env=environment(folder), cwd=folder, capture_output=True, text=True, check=False
    )


def servers_below(folder: Path) -> list[str]:
    listed = subprocess.run(["ps", "-ww", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    return [line for line in listed.splitlines() if str(folder) in line and "from soldier_data" not in line]


def rows(output: str, table: str) -> int:
    found = re.search(rf"^\s*{table}\s+([\d,]+)\s*$", output, re.MULTILINE)
    assert found, f"no row count of {table} in:\n{output}"
    return int(found[1].replace(",", ""))


def test_the_sample_is_replayed_and_nothing_is_left_behind(folder: Path) -> None:
    done = run(folder)

    assert done.returncode == 0, done.stdout + done.stderr
    assert "Replayed 12 conversations with 56 turns" in done.stdout
    for title in (
        "Rules found by vector search",
        "The most active of 12 sessions",
        "Episodes similar to:",
        "The profile of",
        "Tasks of this customer, and customers with the same tasks",
        "Runs with the most steps, of 12",
        "A session demoted and promoted again",
        "Stored rows",
        "Time per operation",
    ):
        assert title in done.stdout
    assert rows(done.stdout, "agents") == 1
    assert rows(done.stdout, "rules") > 50
    assert rows(done.stdout, "turn_records") == 56
    # What the customer said and what the agent answered.
    assert rows(done.stdout, "episodes") >= 2 * 56
    assert rows(done.stdout, "audit_events") >= 56
    assert 0 < rows(done.stdout, "customer_profiles") == rows(done.stdout, "channel_identities") < 12
    for found in (
        r"by vector +\d\.\d\d ",
        r"by text: \w+ ",
        r"by both +0\.\d{4} ",
        r"2: customers with the .* [1-9]",
    ):
        assert re.search(found, done.stdout), found
    assert rows(done.stdout, "runs") == 12
    assert rows(done.stdout, "steps") == rows(done.stdout, "llm_calls") == 56
    assert rows(done.stdout, "sessions in Redis, hot") == 12
    assert re.search(r"demote it.*hot\s+persistent", done.stdout)
    assert re.search(r"read it, with \d+ turns\s+persistent\s+hot", done.stdout)
    assert done.stderr == ""
    assert servers_below(folder) == []
    assert list(folder.iterdir()) == []


def test_kept_data_is_there_the_next_time(folder: Path) -> None:
    kept = folder / "kept"

    first = run(folder, "--limit", "2", "--keep", str(kept))
    second = run(folder, "--limit", "2", "--keep", str(kept))

    assert first.returncode == second.returncode == 0, first.stdout + second.stdout
    assert "The data is in" in second.stdout
    assert rows(first.stdout, "sessions in Redis, hot") == 2
    assert rows(second.stdout, "sessions in Redis, hot") == 4
    assert [path.name for path in folder.iterdir()] == ["kept"]


@pytest.mark.parametrize(("in_background", "seconds"), [(False, 0.0), (False, 3.0), (True, 1.0), (True, 3.0)])
def test_an_interrupt_stops_the_servers(folder: Path, in_background: bool, seconds: float) -> None:
    # Long enough that the demo is still at work when the signal comes.
    endless = folder / "conversations.jsonl"
    sample = Path(__file__).parents[2] / "soldier_data" / "demo" / "sample" / "conversations.jsonl"
    endless.write_text(sample.read_text(encoding="utf-8") * 500, encoding="utf-8")
    demo = subprocess.Popen(
        [*(IGNORING_INTERRUPTS if in_background else ()), *DEMO, "--conversations", str(endless)],
        env=environment(folder),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + 30
    while not servers_below(folder) and time.monotonic() < deadline:
        time.sleep(0.05)
    # While the servers start, while the database is migrated or the agent stored, and while conversations are replayed.
    time.sleep(seconds)

    # A keyboard interrupts all that a terminal runs in the foreground, `kill` one process.
    (os.kill if in_background else os.killpg)(demo.pid, signal.SIGINT)
    output, _ = demo.communicate(timeout=30)

    assert demo.returncode == 130, output
    assert "Interrupted" in output
    assert "Traceback" not in output
    assert servers_below(folder) == []
    assert list(folder.iterdir()) == [endless]


def test_two_demos_run_side_by_side(folder: Path) -> None:
    demos = [
        subprocess.Popen(
            DEMO, env=environment(folder), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        for _ in range(2)
    ]

    outputs = [demo.communicate(timeout=60)[0] for demo in demos]

    assert [demo.returncode for demo in demos] == [0, 0], outputs
    assert all(rows(output, "agents") == 1 for output in outputs)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--conversations", "nowhere.jsonl"], "Error: nowhere.jsonl cannot be read"),
        (["--conversations", "/dev/null"], "Error: /dev/null has no conversations: pass a file"),
        (["--keep", "x", "--own-servers"], "cannot be combined with --own-servers"),
        (["--limit", "0"], "--limit"),
    ],
)
def test_a_wrong_argument_is_told_in_words(folder: Path, arguments: list[str], message: str) -> None:
    done = run(folder, *arguments)

    assert done.returncode != 0
    assert message in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr


def test_real_conversations_are_replayed(folder: Path) -> None:
    if not SHARED_DATA.is_dir():
        pytest.skip(f"the conversations between people are not at {SHARED_DATA}")

    done = run(
        folder,
        *("--conversations", str(SHARED_DATA / "conversations.jsonl.gz")),
        *("--guidelines", str(SHARED_DATA / "guidelines.json.gz")),
        *("--limit", "40"),
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "Replayed 40 conversations" in done.stdout
    assert rows(done.stdout, "scenarios") == 79
    assert rows(done.stdout, "rules") > 1000
    assert rows(done.stdout, "sessions in Redis, hot") == 40
