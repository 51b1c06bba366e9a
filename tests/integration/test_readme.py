"""What the README says is true."""

from __future__ import annotations

import re
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

from soldier_data.setting_names import variable_name
from soldier_data.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_code_of_the_readme_runs_and_finds_the_rule() -> None:
    code = re.search(r"```python\n(.*?)```", README, re.DOTALL)
    assert code

    done = subprocess.run([sys.executable, "-c", code[1]], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    assert "Ask for the order number." in done.stdout
    assert done.stderr == ""


def test_the_table_of_settings_is_complete_and_right() -> None:
    listed = dict(re.findall(r"^\| `(SOLDIER_\w+)` \| `(.*?)` \|", README, re.MULTILINE))

    defaults = {}
    for name, field in Settings.model_fields.items():
        value = field.default
        if isinstance(value, timedelta):
            value = f"{value.total_seconds():g}"
        defaults[variable_name(name)] = str(value).lower() if isinstance(value, bool) else str(value)
    assert listed == defaults


def test_the_files_that_the_readme_points_to_exist() -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", README)

    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_no_file_names_a_package_index() -> None:
    tracked = subprocess.run(
        ["git", "ls-files"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    ).stdout.split()
    hosts = re.compile(r"(index-url|find-links|pypi\.org|pythonhosted)", re.IGNORECASE)
    named = [
        name
        for name in tracked
        if (ROOT / name).is_file()
        and name != "tests/integration/test_readme.py"
        and hosts.search((ROOT / name).read_text(encoding="utf-8", errors="replace"))
    ]

    assert named == []
