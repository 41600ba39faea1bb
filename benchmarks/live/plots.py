"""Draw what was measured as SVG: the same figures give the same bytes.

    python -m benchmarks.live.plots FIGURES.json DIR

draws again what `python -m benchmarks.live --json` wrote. Colours are readable on white and on black.
"""

import json
import sys
from pathlib import Path
from statistics import median
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

INK, GRID = "#808890", "#80889055"
OURS, THEIRS, ALSO_THEIRS = "#2f81f7", "#e0752d", "#b063d6"
STYLE: dict[Any, Any] = {
    "svg.hashsalt": "ci_eventstore",
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.titlesize": 11,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": GRID,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
}
#: What a row of each plot begins with.
CPU, STREAMS = "CPU, ", "SSE, "


def draw(figures: dict[str, Any], folder: Path) -> None:
    """Write one file for each question, from figures as they stand in JSON."""
    rows = [row for section in figures["sections"] for row in section["rows"]]
    with mpl.rc_context(STYLE):
        _save(_latency(figures["waits_ms"]), folder / "live-latency.svg")
        _save(_followers([row for row in rows if row["what"].startswith(CPU)]), folder / "live-followers.svg")
        _save(_streams([row for row in rows if row["what"].startswith(STREAMS)]), folder / "live-sse.svg")


def _save(figure: Figure, path: Path) -> None:
    # matplotlib writes trailing blanks, and would write the time.
    figure.savefig(path, format="svg", transparent=True, metadata={"Date": None})
    path.write_text("".join(f"{line.rstrip()}\n" for line in path.read_text().splitlines()))


def _latency(waits: dict[str, dict[str, list[float]]]) -> Figure:
    """Draw which share of all events had arrived after how long."""
    figure = Figure(figsize=(8, 3.2))
    panels = figure.subplots(1, len(waits["ours"]), sharey=True, squeeze=False)[0]
    for axes, rate in zip(panels, waits["ours"], strict=True):
        for side, label, colour in (("ours", "hub", OURS), ("theirs", "a lone blocking XREAD", THEIRS)):
            axes.ecdf(waits[side][rate], label=label, color=colour, linewidth=1.8)
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xlabel("milliseconds from append to arrival")
        axes.set_title(f"one follower, {rate}")
    panels[0].set_ylabel("share of all events")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
    return figure


def _followers(rows: list[dict[str, Any]]) -> Figure:
    """Draw what an event costs the following process for each follower."""
    figure = Figure(figsize=(8, 3.4))
    axes = figure.subplots()
    labels = [row["what"].removeprefix(CPU).replace(", ", "\n") for row in rows]
    series = [
        ("hub", [OURS], [median(row["ours"]) for row in rows]),
        ("blocking XREAD, a connection each", [THEIRS], [median(row["theirs"]) for row in rows]),
    ]
    _bars(axes, labels, series)
    axes.set_xlabel("CPU time per delivered event in microseconds (less is better)")
    figure.legend(loc="outside upper center", ncols=2)
    return figure


def _streams(rows: list[dict[str, Any]]) -> Figure:
    """Draw how many events each server hands out for a second of its CPU."""
    figure = Figure(figsize=(8, 2.4))
    whats = list(dict.fromkeys(row["what"] for row in rows))
    # Each rate has a scale of its own: what is shared grows with it.
    for axes, what in zip(figure.subplots(1, len(whats), sharey=True, squeeze=False)[0], whats, strict=True):
        starlette, fastapi = (row for row in rows if row["what"] == what)
        values = [median(starlette["ours"]), median(starlette["theirs"]), median(fastapi["theirs"])]
        _bars(axes, ["ci_eventstore", "sse-starlette", "FastAPI's own"], [("", [OURS, THEIRS, ALSO_THEIRS], values)])
        axes.set_title(what.removeprefix(STREAMS))
        axes.xaxis.set_major_locator(MaxNLocator(4))
    figure.supxlabel("events delivered per second of the server's CPU (more is better)", fontsize=10, color=INK)
    return figure


def _bars(axes: Axes, labels: list[str], series: list[tuple[str, list[str], list[float]]]) -> None:
    """Draw a group of bars for each label, the first on top, with their figures."""
    height = 0.8 / len(series)
    for place, (name, colours, values) in enumerate(series):
        places = [number + (place - (len(series) - 1) / 2) * height for number in range(len(labels))]
        bars = axes.barh(places, values, height * 0.92, label=name, color=colours)
        shown = [f"{value:,.0f}" if value >= 10 else f"{value:.1f}" for value in values]
        axes.bar_label(bars, shown, padding=3, color=INK, fontsize=9)
    axes.set_yticks(range(len(labels)), labels)
    if not axes.yaxis_inverted():
        axes.invert_yaxis()
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.grid(visible=False, axis="y")
    axes.margins(x=0.2)


if __name__ == "__main__":
    draw(json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2]))
