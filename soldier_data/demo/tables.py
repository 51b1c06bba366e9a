"""Layout of the demonstration's tables."""

from __future__ import annotations

from dataclasses import dataclass

from rich.box import SIMPLE_HEAD
from rich.table import Table


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        header: Heading.
        share: Share of the remaining width; None for the width of the content.
        right: True to align the content to the right.
    """

    header: str
    share: int | None = None
    right: bool = False


def make_table(title: str, *columns: Column) -> Table:
    """Return an empty table, which truncates cells that are too long, so that each row is one line."""
    table = Table(
        title=title,
        title_style="bold",
        title_justify="left",
        header_style="bold",
        box=SIMPLE_HEAD,
        expand=any(column.share for column in columns),
    )
    for column in columns:
        table.add_column(
            column.header,
            justify="right" if column.right else "left",
            ratio=column.share,
            no_wrap=True,
            overflow="ellipsis",
        )
    return table


def one_line(text: str) -> str:
    """Return `text` with all runs of whitespace replaced by single spaces."""
    return " ".join(text.split())
