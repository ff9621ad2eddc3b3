"""The plots of the evaluation report, as SVG: each answers one question at a glance."""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from matplotlib.figure import Figure
from scipy.stats import norm

from deploy.plots import STEEL, drawn, rows_plot
from training.bootstrap import Interval
from training.evaluation.accuracy import PLAIN_GRADE, Cell
from training.evaluation.hallucination import MainResult
from training.evaluation.promise import PromiseCell
from training.evaluation.report import ProductReport
from training.sweep import Sweep

RED: Final = "#b1241b"
SOFT: Final = "#9fb6bf"
VIOLET: Final = "#6a45c2"
_PALETTE: Final = ("#1d6a96", "#c2562d", "#3b7d4f", "#6a45c2", "#8a6d1d", "#a3336b", "#2b2f33")


def subsets_plot(products: Sequence[ProductReport]) -> str:
    """How well do the sensors that were there find plain defects? With the floors' marks."""
    rows = [(p.product, s) for p in products for s in p.subsets if s.plain is not None]

    def draw(axes: Any) -> None:
        for place, (_, subset) in enumerate(rows):
            _interval(axes, place, subset.plain, colour=STEEL)
            if subset.reference is not None:
                axes.plot(subset.reference.value, place, "D", color=RED, ms=5, mfc="none")
        axes.axvline(0.5, color=SOFT, lw=1, ls=":")
        axes.set_xlim(0.45, 1.01)
        axes.set_xlabel(
            f"image AUROC on defects of d' from {PLAIN_GRADE:g} on (dot, 95 % interval)\n"
            "red diamond: plain ResNet-18 memory"
        )

    return rows_plot([f"{product}: {' + '.join(s.present)}" for product, s in rows], draw)


def kinds_plot(product: ProductReport) -> str:
    """Which kinds does which set of sensors find? AUROC of plain grades; hatched: no trace."""
    found = [c for c in product.cells if c.grade is None or c.grade >= PLAIN_GRADE]
    subsets = list(dict.fromkeys(cell.present for cell in found))
    kinds = sorted({cell.kind for cell in found})
    values = np.array([[_plain_value(found, s, kind) for s in subsets] for kind in kinds])
    figure = Figure(
        figsize=(1.6 + 0.95 * len(subsets), 1.5 + 0.36 * len(kinds)), layout="constrained"
    )
    axes = figure.add_subplot()
    picture = axes.imshow(values, vmin=0.5, vmax=1.0, cmap="YlGnBu", aspect="auto")
    for row, kind in enumerate(kinds):
        for column, subset in enumerate(subsets):
            _kind_cell(axes, values[row, column], at=(column, row), seen=_sees(found, subset, kind))
    axes.set_xticks(range(len(subsets)), ["\n+ ".join(s) for s in subsets], fontsize=8)
    axes.set_yticks(range(len(kinds)), [kind.replace("_", " ") for kind in kinds])
    axes.set_title(product.product, loc="left", fontweight="bold")
    figure.colorbar(picture, ax=axes, label="image AUROC", fraction=0.04)
    return drawn(figure)


def grades_plot(products: Sequence[ProductReport]) -> str:
    """How does detection grow with the defect's d'? Beside the inspector whose d' it is."""
    figure = Figure(figsize=(max(3.4 * len(products), 6.4), 3.8), layout="constrained")
    for axes, product in zip(
        figure.subplots(1, len(products), sharey=True, squeeze=False)[0], products, strict=True
    ):
        curve = np.geomspace(0.7, 9, 60)
        axes.plot(
            curve,
            norm.cdf(curve / np.sqrt(2)),
            color="#2b2f33",
            lw=1,
            ls="--",
            label="inspector of that d'",
        )
        for colour, subset in zip(_PALETTE, product.subsets, strict=False):
            points = _by_grade(product.cells, subset.present)
            if points:
                name = " + ".join(subset.present)
                axes.plot(
                    *zip(*points, strict=True), "o-", color=colour, ms=3.5, lw=1.3, label=name
                )
        axes.set_xscale("log", base=2)
        axes.set_xticks([1, 2, 4, 8], ["1", "2", "4", "8"])
        axes.set_ylim(0.4, 1.02)
        axes.set_title(product.product, loc="left", fontweight="bold")
        axes.set_xlabel("d' of the defect")
        axes.grid(color="#e4e9e9", lw=0.7)
    figure.axes[0].set_ylabel("image AUROC, kinds seen")
    handles, names = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=4, fontsize=8, frameon=False)
    return drawn(figure)


def hallucination_plot(products: Sequence[ProductReport]) -> str:
    """Does hallucination help, and more than its controls? Gain over the main modality alone."""
    groups = [(p.product, m) for p in products for m in p.mains]
    rows = [(f"{product}: {m.main}", *row) for product, m in groups for row in _arms_of(m)]

    def draw(axes: Any) -> None:
        for place, (_, _, interval, colour) in enumerate(rows):
            _interval(axes, place, interval, colour=colour)
        for place in range(0, len(rows), len(rows) // len(groups)):
            axes.axhline(place - 0.5, color="#c9d2d4", lw=0.8)
        axes.axvline(0, color="#2b2f33", lw=1)
        axes.axvline(-0.01, color=RED, lw=1, ls=":")
        axes.set_xlabel("AUROC gained over the main alone (95 % interval; red: -0.01)")

    size = len(rows) // max(len(groups), 1)
    labels = [
        f"{name}   {arm}" if number % size == 0 else arm
        for number, (name, arm, _, _) in enumerate(rows)
    ]
    return rows_plot(labels, draw)


def promise_plot(cells: Sequence[PromiseCell]) -> str:
    """Does the promised false-reject rate hold? Observed in its interval beside the promise."""
    held = [cell for cell in cells if cell.rank]
    highest = max(cell.rejected.interval[1] for cell in held)

    def draw(axes: Any) -> None:
        for place, cell in enumerate(held):
            colour = STEEL if cell.holds else RED
            ends = cell.rejected.interval
            axes.plot(ends, [place, place], color=SOFT, lw=4, solid_capstyle="round")
            axes.plot(cell.rejected.rate, place, "o", color=colour, ms=5)
            axes.plot(cell.rate, place, "|", color=RED, ms=13, mew=2)
        axes.set_xlim(-0.002, max(0.08, highest) + 0.005)
        axes.set_xlabel("false rejects on fresh parts: observed (dot, 95 %) and promised (red)")

    return rows_plot([f"{c.product}: {' + '.join(c.present)} at {c.rate:.0%}" for c in held], draw)


def sweep_plot(sweep: Sweep) -> str:
    """How much must modalities have in common for hallucination to help?"""
    figure = Figure(figsize=(6.4, 3.3), layout="constrained")
    axes = figure.add_subplot()
    kinds = list(dict.fromkeys(point.anomaly for point in sweep.points))
    for colour, kind in zip(_PALETTE, kinds, strict=False):
        points = [point for point in sweep.points if point.anomaly == kind]
        shares = [point.share for point in points]
        axes.plot(shares, [p.gain.value for p in points], "o-", color=colour, ms=4, label=kind)
        axes.fill_between(
            shares,
            [p.gain.low for p in points],
            [p.gain.high for p in points],
            color=colour,
            alpha=0.15,
            lw=0,
        )
    axes.axhline(0, color="#2b2f33", lw=1)
    axes.set_xlabel("share of variance that the two modalities have in common")
    axes.set_ylabel("AUROC gained by hallucination")
    axes.legend(fontsize=8, frameon=False, title="the anomaly acts on", title_fontsize=8)
    return drawn(figure)


def _arms_of(main: MainResult) -> list[tuple[str, Interval, str]]:
    return [
        ("hallucinated, as fitted", main.gain, VIOLET),
        ("hallucinated, equal weight", main.compared, VIOLET),
        *((f"control: {rival.name}", rival.gain, SOFT) for rival in main.rivals),
        ("others real (ceiling)", main.ceiling, STEEL),
    ]


def _interval(axes: Any, place: int, interval: Interval | None, *, colour: str) -> None:
    if interval is None:
        return
    ends = [interval.low, interval.high]
    axes.plot(ends, [place, place], color=colour, lw=4, alpha=0.35, solid_capstyle="round")
    axes.plot(interval.value, place, "o", color=colour, ms=5)


def _of(cells: Sequence[Cell], subset: Sequence[str], kind: str) -> list[Cell]:
    found = [c for c in cells if c.present == tuple(subset) and c.kind == kind]
    graded = [c for c in found if c.grade is not None]
    return graded or found


def _plain_value(cells: Sequence[Cell], subset: Sequence[str], kind: str) -> float:
    found = _of(cells, subset, kind)
    sizes = [cell.defective for cell in found]
    return float(np.average([cell.auroc.value for cell in found], weights=sizes))


def _sees(cells: Sequence[Cell], subset: Sequence[str], kind: str) -> bool:
    return any(cell.seen for cell in _of(cells, subset, kind))


def _kind_cell(axes: Any, value: float, *, at: tuple[int, int], seen: bool) -> None:
    from matplotlib.patches import Rectangle

    if not seen:
        corner = (at[0] - 0.5, at[1] - 0.5)
        axes.add_patch(Rectangle(corner, 1, 1, fc="#eceff0", ec="#b9c3c6", hatch="///", lw=0))
    dark = seen and value > 0.8
    axes.text(
        *at,
        f"{value:.2f}",
        ha="center",
        va="center",
        fontsize=8,
        color="white" if dark else "#182126",
    )


def _by_grade(cells: Sequence[Cell], present: tuple[str, ...]) -> list[tuple[float, float]]:
    """(grade, AUROC) over the kinds that the subset sees."""
    grouped: dict[float, list[Cell]] = {}
    for cell in cells:
        if cell.present == present and cell.grade is not None and cell.seen:
            grouped.setdefault(cell.grade, []).append(cell)
    return [
        (
            grade,
            float(np.average([c.auroc.value for c in found], weights=[c.defective for c in found])),
        )
        for grade, found in sorted(grouped.items())
    ]
