"""The report's plots, as SVG."""

import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from matplotlib import rc_context
from matplotlib.figure import Figure

STEEL: Final = "#1d3a4a"
_RED: Final = "#b1241b"
_SOFT: Final = "#9fb6bf"
_WIDTH_IN: Final = 7.2
_ROW_IN: Final = 0.24
_STYLE: Final = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "hololine",
}

Rows = Sequence[Mapping[str, Any]]


def auroc_plot(rows: Rows) -> str | None:
    """AUROC with its interval for each product and subset; None when none could be ranked."""
    ranked = [row for row in rows if row["image_auroc"] is not None]
    if not ranked:
        return None

    def draw(axes: Any) -> None:
        for place, row in enumerate(ranked):
            _interval(axes, place, row.get("image_auroc_interval"))
            axes.plot(row["image_auroc"], place, "o", color=STEEL, markersize=5)
        axes.axvline(0.5, color=_SOFT, linewidth=1, linestyle=":")
        axes.set_xlim(0, 1.02)
        axes.set_xlabel("image AUROC (0.5: chance)")

    return rows_plot([f"{_name(r)}  n={r['n']}, {r['defective']} def." for r in ranked], draw)


def promise_plot(rows: Rows) -> str | None:
    """Observed false-reject rate with its interval beside what was promised; None without any."""
    held = [row for row in rows if row["observed_false_reject_rate"] is not None]
    if not held:
        return None

    def draw(axes: Any) -> None:
        for place, row in enumerate(held):
            _interval(axes, place, row["observed_interval"])
            axes.plot(row["observed_false_reject_rate"], place, "o", color=STEEL, markersize=5)
            if row["promised"] is not None:
                axes.plot(row["promised"], place, "|", color=_RED, markersize=14, mew=2)
        axes.set_xlim(-0.01, 1.0)
        axes.set_xlabel("false rejects: observed (dot, 95 % interval) and promised (red)")

    return rows_plot([f"{_name(r)}  good={r['good_with_promise']}" for r in held], draw)


def latency_plot(stages: Mapping[str, Mapping[str, float]]) -> str | None:
    """Median and 99th percentile by stage, on a logarithmic axis; None without any."""
    shown = {name: s for name, s in stages.items() if s["p99"] > 0}
    if not shown:
        return None

    def draw(axes: Any) -> None:
        for place, stage in enumerate(shown.values()):
            low, high = max(stage["p50"], 0.1), max(stage["p99"], 0.1)
            axes.plot([low, high], [place, place], color=_SOFT, linewidth=4, solid_capstyle="round")
            axes.plot(low, place, "o", color=STEEL, markersize=5)
            axes.plot(high, place, "|", color=STEEL, markersize=11, mew=2)
        axes.set_xscale("log")
        axes.set_xlabel("milliseconds: median (dot) and 99th percentile (bar)")

    return rows_plot([name.replace("_", " ") for name in shown], draw)


def _name(row: Mapping[str, Any]) -> str:
    return f"{row['product']}: {' + '.join(row['subset']) or 'none'}"


def _interval(axes: Any, place: int, interval: Sequence[float] | None) -> None:
    if interval is not None:
        axes.plot(interval, [place, place], color=_SOFT, linewidth=4, solid_capstyle="round")


def rows_plot(labels: Sequence[str], draw: Callable[[Any], None]) -> str:
    """One labelled row each, the first on top; `draw` gets the axes."""
    with rc_context(_STYLE):
        figure = Figure(figsize=(_WIDTH_IN, 0.75 + _ROW_IN * len(labels)), layout="constrained")
        axes = figure.add_subplot()
        draw(axes)
        axes.set_yticks(range(len(labels)), labels)
        axes.set_ylim(len(labels) - 0.5, -0.5)
        axes.grid(axis="x", color="#e4e9e9", linewidth=0.7)
        axes.set_axisbelow(True)
        return drawn(figure)


def drawn(figure: Figure) -> str:
    """The figure as an SVG element, the same for the same figure."""
    buffer = io.StringIO()
    with rc_context(_STYLE):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]
