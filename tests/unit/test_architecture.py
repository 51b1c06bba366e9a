"""The picture in docs/architecture.md shows the layers that the import contracts enforce."""

from __future__ import annotations

import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
WIDTH = 77


def picture() -> str:
    """The layers of `pyproject.toml`, from the top down. Packages of one layer do not import each other."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        contracts = tomllib.load(file)["tool"]["importlinter"]["contracts"]
    [layers] = [contract["layers"] for contract in contracts if contract["type"] == "layers"]
    rows = [[name.strip() for name in layer.split("|")] for layer in layers]
    lines = []
    for number, names in enumerate(rows):
        above = rows[number - 1] if number else []
        lines += [_border(names, above), _row(names)]
    return "\n".join([*lines, _border([], rows[-1])])


def test_the_picture_shows_the_layers_of_the_import_contract() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    assert f"```text\n{picture()}\n```" in page, f"docs/architecture.md is to show:\n{picture()}"


def test_every_package_is_described() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    packages = {path.parent.name for path in (ROOT / "soldier_data").glob("*/__init__.py")}
    assert packages
    assert {name for name in packages if f"`{name}`" not in page} == set()


def _widths(names: list[str]) -> list[int]:
    inside = WIDTH - 1 - len(names)
    width, rest = divmod(inside, len(names))
    return [width + (place < rest) for place in range(len(names))]


def _row(names: list[str]) -> str:
    cells = (name.center(width) for name, width in zip(names, _widths(names), strict=True))
    return f"|{'|'.join(cells)}|"


def _border(below: list[str], above: list[str]) -> str:
    corners = {0, WIDTH - 1}
    for names in (below, above):
        place = 0
        for width in _widths(names) if names else ():
            place += width + 1
            corners.add(place)
    return "".join("+" if place in corners else "-" for place in range(WIDTH))
