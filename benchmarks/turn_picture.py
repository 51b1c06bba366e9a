"""Chart of a turn: its time by the delay of the network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path

from benchmarks.harness import Bench, Spread

PICTURE = Path(__file__).parents[1] / "docs" / "turn-latency.png"

_STYLES = {
    "ours": ("soldier_data", "tab:blue", "o-", 2.5),
    "0ae26ca": ("soldier_data, earlier (0ae26ca)", "tab:cyan", "o--", 1.5),
    "by hand": ("limit: one statement by hand", "black", "s:", 1.5),
    "langgraph's checkpointer and store": ("langgraph's checkpointer and store", "tab:green", "^-", 1.5),
    "openai-agents' SQLAlchemySession": ("openai-agents, and inserts", "tab:orange", "v-", 1.5),
    "SQLAlchemy's ORM": ("SQLAlchemy's ORM", "tab:red", "D-", 1.5),
}


def draw(bench: Bench, delays: Sequence[float], spreads: Mapping[str, Sequence[Spread]]) -> None:
    """Write `docs/turn-latency.png`.

    Args:
        bench: Receives a note if matplotlib is missing.
        delays: Delays each way, in seconds.
        spreads: Time of a turn for each delay, by implementation.
    """
    try:
        pyplot = import_module("matplotlib.pyplot")
    except ModuleNotFoundError:
        bench.note(
            f"{PICTURE.name} was not drawn: matplotlib is not installed (benchmarks/requirements.txt)."
        )
        return
    pyplot.switch_backend("agg")
    figure, axes = pyplot.subplots(figsize=(9, 5.5), layout="constrained")
    milliseconds = [delay * 1000 for delay in delays]
    # In the order of their last points, so that the legend is in the order of the lines.
    for name, taken in sorted(spreads.items(), key=lambda item: -item[1][-1].median):
        label, colour, style, width = _STYLES[name]
        medians = [spread.median * 1000 for spread in taken]
        axes.plot(
            milliseconds,
            medians,
            style,
            color=colour,
            linewidth=width,
            label=f"{label}, {medians[-1]:.0f} ms",
        )
        axes.fill_between(
            milliseconds,
            [spread.low * 1000 for spread in taken],
            [spread.high * 1000 for spread in taken],
            color=colour,
            alpha=0.12,
            linewidth=0,
        )
    axes.set(
        xlabel="delay of the network each way, ms",
        ylabel="time of a turn, ms (median; quartiles shaded)",
        title="What storing a turn of a conversation takes",
        xlim=(0, milliseconds[-1]),
    )
    axes.set_ylim(bottom=0)
    axes.set_xticks(milliseconds, [f"{value:g}" for value in milliseconds])
    axes.grid(visible=True, alpha=0.25)
    axes.legend(title=f"with {milliseconds[-1]:g} ms each way:", fontsize=9)
    figure.savefig(PICTURE, dpi=110)
