"""Line breaks in SQL. Nothing but white space changes, so that a statement stays the one that is sent."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

_WIDTH = 100
_INDENT = 2
# Brackets around fewer characters are not broken.
_SHORT = 40

_TOKENS = re.compile(r"""(\s*)('(?:[^']|'')*'|"[^"]*"|[(),]|[^\s(),'"]+)""")

# What begins a line in a statement that is broken. The first alternatives hold words that begin no clause there.
_JOIN = r"(?:(?:LEFT|FULL) OUTER |CROSS )?JOIN"
_CLAUSES = re.compile(
    r"(?:(?P<within>(?:IS |NOT )+DISTINCT FROM|WITH TIME ZONE)|"
    r"(?P<clause>WITH(?: RECURSIVE)?|SELECT(?: DISTINCT)?|INSERT INTO|UPDATE|DELETE FROM|FROM|WHERE|SET|VALUES|"
    rf"{_JOIN}|GROUP BY|ORDER BY|LIMIT|OFFSET|UNION(?: ALL)?|EXCEPT|USING|FOR (?:NO KEY |KEY )?(?:UPDATE|SHARE)|"
    r"ON CONFLICT|DO UPDATE SET|RETURNING)|"
    r"(?P<condition>AND|OR))(?= |$)"
)


@dataclass
class _Part:
    """A word, or what stands in brackets.

    Attributes:
        text: The word; "(" for brackets.
        spaced: Whether white space precedes it.
        inner: What stands in the brackets.
    """

    text: str
    spaced: bool
    inner: list[_Part] = field(default_factory=list)

    def __str__(self) -> str:
        return f"({_flat(self.inner)})" if self.text == "(" else self.text


def formatted(sql: str) -> str:
    """The statement with line breaks: lines of about 100 characters, two spaces for each level of brackets."""
    parts = _parsed(iter(_TOKENS.findall(sql)))
    return "\n".join(_lines(parts, 0, statement=True))


def _parsed(tokens: Iterator[tuple[str, str]]) -> list[_Part]:
    parts: list[_Part] = []
    for space, text in tokens:
        if text == ")":
            break
        parts.append(_Part(text, bool(space), _parsed(tokens) if text == "(" else []))
    return parts


def _flat(parts: list[_Part]) -> str:
    return "".join(f" {part}" if part.spaced and number else str(part) for number, part in enumerate(parts))


def _lines(parts: list[_Part], indent: int, *, statement: bool = False) -> list[str]:
    """The lines of a statement, or of what stands in brackets."""
    if not statement and _fits(parts, indent):
        return [" " * indent + _flat(parts)]
    lines: list[str] = []
    for clause in _split(parts, "clause"):
        # Conditions within a list stay in its lines.
        whole = _fits(clause, indent) or clause[0].text in ("SELECT", "SET", "DO", "RETURNING")
        for number, piece in enumerate([clause] if whole else _split(clause, "condition")):
            lines += _filled(piece, indent + (_INDENT if number else 0))
    return lines


def _split(parts: list[_Part], kind: str) -> list[list[_Part]]:
    """Split before each clause, or before each AND and OR."""
    found: list[list[_Part]] = [[]]
    skip = 0
    for number, part in enumerate(parts):
        if skip:
            skip -= 1
        elif match := _keyword(parts[number:]):
            skip = match.group().count(" ")
            if match.lastgroup == kind and found[-1]:
                found.append([])
        found[-1].append(part)
    return found


def _keyword(parts: list[_Part]) -> re.Match[str] | None:
    # As many words as the longest keyword has.
    return _CLAUSES.match(" ".join(part.text for part in parts[:4]))


def _fits(parts: list[_Part], indent: int) -> bool:
    return indent + len(_flat(parts)) <= _WIDTH


def _filled(parts: list[_Part], indent: int) -> list[str]:
    """Fill lines with the items of a list. An item that fits on no line is broken within its brackets."""
    items: list[list[_Part]] = [[]]
    for part in parts:
        items[-1].append(part)
        if part.text == ",":
            items.append([])
    further = indent + _INDENT if _keyword(parts) and parts[0].text != "WITH" else indent
    lines = [" " * indent]
    for item in filter(None, items):
        length = len(_flat(item))
        if lines[-1].strip() and len(lines[-1]) + 1 + length > _WIDTH:
            lines.append(" " * further)
        if _fits(item, len(lines[-1])):
            lines[-1] += _spaced(item[0], lines) + _flat(item)
        else:
            _break(item, lines, indent if len(lines) == 1 else further)
    return lines


def _break(item: list[_Part], lines: list[str], indent: int) -> None:
    """Append an item to `lines`, with what stands in long brackets on lines of its own."""
    for part in item:
        text = str(part)
        space = _spaced(part, lines)
        too_long = len(lines[-1]) + len(space) + len(text) > _WIDTH
        if too_long and part.text == "(" and len(text) > _SHORT:
            lines[-1] += f"{space}("
            lines += _lines(part.inner, indent + _INDENT)
            lines.append(" " * indent + ")")
        elif too_long and space:
            lines.append(" " * (indent + _INDENT) + text)
        else:
            lines[-1] += space + text


def _spaced(part: _Part, lines: list[str]) -> str:
    return " " if part.spaced and lines[-1].strip() else ""
