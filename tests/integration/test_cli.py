"""What holds for every command: how it is started, and what becomes of its output where nothing can take it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import soldier_data

COMMAND = [sys.executable, "-m", "soldier_data"]


def run(*arguments: str, code: str | None = None, **options: Any) -> subprocess.CompletedProcess[str]:
    command = COMMAND if code is None else [sys.executable, "-c", code]
    variables = options.pop("variables", {})
    return subprocess.run(
        [*command, *arguments],
        env={**os.environ, **variables},
        check=False,
        text=True,
        **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options},
    )


def test_the_version_is_shown() -> None:
    shown = run("--version")
    assert (shown.returncode, shown.stdout) == (0, f"soldier-data {soldier_data.__version__}\n")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
@pytest.mark.parametrize("arguments", [["--help"], ["db", "history"], ["db", "document"]], ids=" ".join)
def test_output_that_cannot_be_written_is_told_in_a_line(arguments: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        failed = run(*arguments, stdout=full)
    assert failed.returncode == 1
    assert failed.stderr == "Error: cannot write the output: No space left on device\n"


def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    command = subprocess.Popen(
        [*COMMAND, "db", "document"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert command.stdout is not None
    assert command.stderr is not None
    # The reader is gone before the command has written anything.
    command.stdout.close()
    told = command.stderr.read()
    command.stderr.close()
    assert command.wait() == 1
    assert told == ""


_PRINTS = """
from rich.console import Console
from rich.table import Table
from soldier_data.cli import app as commands, main

@commands.app.command("print")
def prints() -> None:
    Console().print_json('{"text": "Gr\\u00fc\\u00dfe \\U0001f600"}', indent=None)
    table = Table("Gr\\u00fc\\u00dfe")
    table.add_row("\\U0001f600")
    Console().print(table)

main()
"""


def test_what_the_outputs_encoding_lacks_is_escaped_as_in_json() -> None:
    shown = run("print", code=_PRINTS, variables={"PYTHONIOENCODING": "ascii"})
    assert (shown.returncode, shown.stderr) == (0, "")
    document, table = shown.stdout.split("\n", 1)
    assert document.isascii()
    assert json.loads(document) == {"text": "Gr\u00fc\u00dfe \U0001f600"}
    assert "Gr\\u00fc\\u00dfe" in table


def test_without_its_packages_the_command_line_says_what_to_install() -> None:
    code = "import sys; sys.modules['typer'] = None\nfrom soldier_data.cli import main; main()"
    failed = run(code=code)
    assert failed.returncode == 1
    assert failed.stderr == 'Error: the command line needs typer: run `pip install "soldier-data[cli]"`\n'


def test_without_its_package_the_fastapi_part_says_what_to_install() -> None:
    code = "import sys; sys.modules['fastapi'] = None\nimport soldier_data.fastapi"
    failed = run(code=code)
    assert failed.stderr.endswith(
        'ModuleNotFoundError: soldier_data.fastapi needs FastAPI: run `pip install "soldier-data[fastapi]"`\n'
    )


def test_a_star_gives_the_public_names() -> None:
    found = run(
        code="from soldier_data import *\nprint(Agent.__name__, DataLayer.__name__, StoreError.__name__)"
    )
    assert (found.stdout, found.stderr) == ("Agent DataLayer StoreError\n", "")
    for name in soldier_data.__all__:
        assert getattr(soldier_data, name).__name__ == name


def test_the_package_alone_loads_nothing() -> None:
    found = run(code="import sys, soldier_data; print(soldier_data.__all__ != [], 'pydantic' in sys.modules)")
    assert found.stdout == "True False\n"


@pytest.mark.parametrize(("arguments", "code"), [([], 2), (["nonsense"], 2), (["db", "history", "x"], 2)])
def test_a_wrong_usage_ends_in_exit_code_2(arguments: list[str], code: int) -> None:
    assert run(*arguments).returncode == code
