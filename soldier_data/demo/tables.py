"""How the demonstration's tables look."""

from __future__ import annotations

from dataclasses import dataclass

from rich.box import SIMPLE_HEAD
from rich.table import Table


@dataclass(frozen=True)
class Column:
    """A column of a table: as wide as what is in it, or, with a share, what the others leave."""

    header: str
    share: int | None = None
    right: bool = False


def make_table(title: str, *columns: Column) -> Table:
    """An empty table. Cells too long for their column are cut off, so that a row stays one line."""
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


def one_line(words: str) -> str:
    """`words` without line breaks."""
    return " ".join(words.split())
