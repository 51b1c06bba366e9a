"""The messages in the table of docs/operations.md are those that the package raises."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
_ROW = re.compile(r"^\| (?P<message>[^|]+) \| [^|]+ \|$")


def _messages() -> list[str]:
    page = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    section = page.split("## Troubleshooting")[1].split("\n## ")[0]
    rows = [match["message"] for line in section.splitlines() if (match := _ROW.match(line))]
    # The head of the table, the line below it, and symptoms without a message.
    return [row for row in rows if row not in ("message", "---") and not row.startswith("`")]


def _source() -> str:
    """All string literals of the package, joined as Python joins neighbouring ones."""
    text = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "soldier_data").rglob("*.py"))
    return re.sub(r'"\s*\n\s*f?"', "", text)


@pytest.mark.parametrize("message", _messages())
def test_the_message_is_in_the_source(message: str) -> None:
    source = _source()
    for part in message.split("..."):
        assert part.strip(" :") in source, f"no message contains {part!r}: correct docs/operations.md"


def test_there_are_messages() -> None:
    assert len(_messages()) > 15
