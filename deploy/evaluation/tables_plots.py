"""The plots of the `paper` profile's results, as SVG: each answers one question at a glance."""

from collections.abc import Sequence
from typing import Any, Final

from matplotlib import rc_context
from matplotlib.figure import Figure

from deploy.evaluation.plots import RED, SOFT, VIOLET
from deploy.plots import STEEL, drawn, rows_plot
from training.bootstrap import Interval
from training.cmdiad.ablation import Ablation
from training.cmdiad.significance import Finding, Gain, Promise, PromiseCheck
from training.cmdiad.tables import MetricTable, Row, StageCost

INK: Final = "#2b2f33"
ORANGE: Final = "#c2562d"
_LINE: Final = "#c9d2d4"
_GRID: Final = "#e4e9e9"
_COLOURS: Final = {
    Finding.CROSS_MODAL: "#17693f",
    Finding.GAIN: VIOLET,
    Finding.NONE: STEEL,
    Finding.HARM: RED,
}
_PROMISES: Final = {Promise.KEPT: STEEL, Promise.BROKEN: RED}


def methods_plot(tables: Sequence[MetricTable]) -> str:
    """Which method is best over all classes? The mean with its interval, a panel a figure."""
    names = list(dict.fromkeys(row.method for table in tables for row in table.rows))
    with rc_context({"axes.spines.top": False, "axes.spines.right": False, "font.size": 9}):
        size = (2.4 + 3.2 * len(tables), 0.8 + 0.27 * len(names))
        figure = Figure(figsize=size, layout="constrained")
        panels = figure.subplots(1, len(tables), sharey=True, squeeze=False)[0]
        for axes, table in zip(panels, tables, strict=True):
            for row in table.rows:
                _mean(axes, names.index(row.method), row)
            axes.set_title(table.metric, loc="left", fontweight="bold", fontsize=10)
            axes.set_xlabel("mean over classes (dot, 95 % interval)")
            axes.grid(axis="x", color=_GRID, linewidth=0.7)
            axes.set_axisbelow(True)
            axes.tick_params(axis="y", length=0)
        panels[0].set_yticks(range(len(names)), names)
        panels[0].set_ylim(len(names) - 0.5, -0.5)
        return drawn(figure)


def gains_plot(gains: Sequence[Gain]) -> str:
    """Does hallucination help, and more than its controls? Gains over the main modality alone."""
    rows: list[tuple[str, Interval, str]] = []
    borders = []
    for gain in gains:
        borders.append(len(rows) - 0.5)
        rows.append((f"{gain.method}   hallucination", gain.gain, _COLOURS[gain.finding]))
        rows += [(f"control: {rival.name}", rival.gain, SOFT) for rival in gain.rivals]

    def draw(axes: Any) -> None:
        for place, (_, interval, colour) in enumerate(rows):
            _interval(axes, place, interval, colour=colour)
        for border in borders[1:]:
            axes.axhline(border, color=_LINE, lw=0.8)
        axes.axvline(0, color=INK, lw=1)
        axes.set_xlabel(f"{gains[0].metric} over that of the main alone (95 % interval)")

    return rows_plot([label for label, _, _ in rows], draw)


def promises_plot(checks: Sequence[PromiseCheck]) -> str:
    """Are promised false-reject rates kept? Observed in its exact interval beside the promise."""

    def draw(axes: Any) -> None:
        for place, check in enumerate(checks):
            ends = check.rejected.interval
            axes.plot(ends, [place, place], color=SOFT, lw=4, solid_capstyle="round")
            axes.plot(check.rejected.rate, place, "o", color=_PROMISES[check.verdict], ms=5)
            axes.plot(check.rate, place, "|", color=RED, ms=12, mew=2)
        axes.set_xlim(left=-0.004)
        axes.set_xlabel("false rejects of fresh good images: observed (dot, 95 %), promised (red)")

    return rows_plot([f"{each.category}: {each.subset}" for each in checks], draw)


def ablation_plot(ablation: Ablation) -> str:
    """What is behind the asymmetry? Both gains of every setting, the baseline on top."""
    rows = [
        (f"{row.setting.words}   {main} main" if first else f"{main} main", each.gain, colour)
        for row in ablation.rows
        for first, main, each, colour in zip(
            (True, False), ablation.mains, row.directions, (STEEL, ORANGE), strict=True
        )
    ]

    def draw(axes: Any) -> None:
        for place, (_, interval, colour) in enumerate(rows):
            _interval(axes, place, interval, colour=colour)
        for border in range(2, len(rows), 2):
            axes.axhline(border - 0.5, color=_LINE, lw=0.8)
        axes.axvline(0, color=INK, lw=1)
        axes.set_xlabel(f"{ablation.metric} over that of the main alone (95 % interval)")

    return rows_plot([label for label, _, _ in rows], draw)


def stages_plot(stages: Sequence[StageCost]) -> str:
    """Where does the time go?"""

    def draw(axes: Any) -> None:
        for place, each in enumerate(stages):
            axes.barh(place, each.wall_ms, height=0.6, color=STEEL)
            text = f" {each.wall_ms:,.3g}" if each.wall_ms < 100 else f" {each.wall_ms:,.0f}"
            axes.text(each.wall_ms, place, text, va="center", fontsize=8, color=INK)
        axes.set_xlim(right=1.12 * max(each.wall_ms for each in stages))
        axes.set_xlabel("milliseconds an image")

    devices = {each.device for each in stages}
    return rows_plot(
        [each.stage + (f" ({each.device})" if len(devices) > 1 else "") for each in stages], draw
    )


def _method_colour(method: str) -> str:
    """Single modalities, both, and what is hallucinated, by main modality."""
    if not method.startswith("MTFI"):
        return INK
    return STEEL if "PC main" in method else ORANGE


def _mean(axes: Any, place: int, row: Row) -> None:
    """The mean over classes, or the word that there is none."""
    found = row.cells[-1]
    if found is not None:
        _interval(axes, place, found.interval, colour=_method_colour(row.method))
        return
    across = axes.get_yaxis_transform()
    axes.text(
        0.02,
        place,
        "not measured on every class",
        transform=across,
        color=SOFT,
        fontsize=8,
        va="center",
    )


def _interval(axes: Any, place: int, interval: Interval, *, colour: str) -> None:
    ends = [interval.low, interval.high]
    axes.plot(ends, [place, place], color=colour, lw=4, alpha=0.35, solid_capstyle="round")
    axes.plot(interval.value, place, "o", color=colour, ms=5)
