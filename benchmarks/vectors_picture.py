"""Chart of vector search: recall by latency, and growth."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from benchmarks.harness import Bench, Spread
from benchmarks.vectors_by_hand import Point

PICTURE = Path(__file__).parent / "vector-search.png"

_COLOURS = {"HNSW": "tab:blue", "IVFFlat": "tab:orange", "exact": "tab:gray"}
_MARKS = (("s", "black"), ("D", "tab:purple"), ("^", "tab:green"))


def draw(
    bench: Bench,
    title: str,
    growth: Sequence[tuple[int, Spread, Spread]],
    curves: dict[str, list[Point]],
    libraries: Sequence[Point],
) -> None:
    """Write `benchmarks/vector-search.png`.

    Args:
        bench: Receives a note if matplotlib is missing.
        title: Title of the left half.
        growth: Number of rows, time of an exact search, and time of a search with the index.
        curves: Points of handwritten pgvector code, by type of index.
        libraries: One point for each library, ours first.
    """
    try:
        pyplot = import_module("matplotlib.pyplot")
    except ModuleNotFoundError:
        bench.note(
            f"{PICTURE.name} was not drawn: matplotlib is not installed (benchmarks/requirements.txt)."
        )
        return
    pyplot.switch_backend("agg")
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(13, 5.5), layout="constrained")
    for name, points in curves.items():
        recalls, times = [point.recall for point in points], [point.seconds * 1000 for point in points]
        left.plot(recalls, times, "o-", color=_COLOURS[name], label=f"{name}, by hand", alpha=0.8)
        for point, recall, time in zip(points, recalls, times, strict=True):
            left.annotate(
                point.label.rpartition(" ")[2] if len(points) > 1 else "",
                (recall, time),
                textcoords="offset points",
                xytext=(5, -11),
                fontsize=8,
                color=_COLOURS[name],
            )
    for (mark, colour), point in zip(_MARKS, libraries, strict=False):
        left.plot([point.recall], [point.seconds * 1000], mark, color=colour, markersize=9, label=point.label)
    left.set(xlabel="recall@10", ylabel="median of a search, ms", yscale="log", title=title)
    sizes = [size for size, _, _ in growth]
    for name, label, above, spreads in (
        ("exact", "exact", 7, [exact for _, exact, _ in growth]),
        ("HNSW", "through the index", -14, [indexed for _, _, indexed in growth]),
    ):
        medians = [spread.median * 1000 for spread in spreads]
        right.plot(sizes, medians, "o-", color=_COLOURS[name], label=label)
        right.fill_between(
            sizes,
            [spread.low * 1000 for spread in spreads],
            [spread.high * 1000 for spread in spreads],
            color=_COLOURS[name],
            alpha=0.2,
        )
        for size, value in zip(sizes, medians, strict=True):
            right.annotate(
                f"{value:.3g}", (size, value), textcoords="offset points", xytext=(0, above), fontsize=8
            )
    right.set(
        xlabel="embeddings of one tenant",
        ylabel="median of a search by the store, ms",
        xscale="log",
        yscale="log",
        title="growth, 1,536 numbers (quartiles shaded)",
    )
    right.set_xticks(sizes, [f"{size:,}" for size in sizes])
    right.minorticks_off()
    for axes in (left, right):
        axes.yaxis.set_major_formatter("{x:g}")
        axes.grid(visible=True, which="both", alpha=0.25)
        axes.legend(fontsize=8)
    figure.savefig(PICTURE, dpi=110)
