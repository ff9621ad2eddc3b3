"""The evaluation report as one HTML file that needs nothing else."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from markupsafe import Markup

from deploy.evaluation.plots import (
    grades_plot,
    hallucination_plot,
    kinds_plot,
    promise_plot,
    subsets_plot,
    sweep_plot,
)
from deploy.report_page import page_environment
from training.bootstrap import Interval
from training.evaluation.promise import RECALIBRATIONS
from training.evaluation.report import Evaluation
from training.promise_check import Share

ALL_FLOOR: Final = 0.95
SINGLE_FLOOR: Final = 0.85
GAIN_FLOOR: Final = -0.01


@dataclass(frozen=True, slots=True)
class Card:
    """One figure in large, with whether it is where it should be."""

    value: str
    text: str
    good: bool | None = None

    @property
    def tone(self) -> str:
        """Its colour's name."""
        return "" if self.good is None else ("good" if self.good else "bad")


def write_page(path: Path, evaluation: Evaluation) -> None:
    """`path` is the page of `evaluation`."""
    environment = page_environment()
    environment.filters.update(interval=shown_interval, gain=shown_gain, share=shown_share)
    text = environment.get_template("evaluation.html").render(
        e=evaluation,
        cards=list(cards(evaluation)),
        plots=_plots(evaluation),
        recalibrations=RECALIBRATIONS,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def cards(evaluation: Evaluation) -> Iterator[Card]:
    """The worst product of each figure that matters."""
    rows = [(p.product, s) for p in evaluation.products for s in p.subsets if s.plain is not None]
    widest = max((len(s.present) for _, s in rows), default=0)
    for size, floor, name in ((widest, ALL_FLOOR, "all sensors"), (1, SINGLE_FLOOR, "one sensor")):
        sized = [
            (s.plain.value, product, s)
            for product, s in rows
            if s.plain is not None and len(s.present) == size
        ]
        if sized:
            value, product, subset = min(sized, key=lambda row: row[0])
            where = f"{product}, {' + '.join(subset.present)}" if size == 1 else product
            yield Card(f"{value:.3f}", f"AUROC, {name}, worst: {where}", value >= floor)
    mains = [(m.gain.lower_bound, p.product, m) for p in evaluation.products for m in p.mains]
    if mains:
        value, product, main = min(mains, key=lambda row: row[0])
        text = f"lowest bound of a gain by hallucination: {product}, {main.main}"
        yield Card(f"{value:+.3f}", text, value > GAIN_FLOOR)
    cells = [cell for cell in evaluation.promise.cells if cell.rank]
    if cells:
        held = sum(cell.holds for cell in cells)
        text = "cells keep the promised false-reject rate"
        yield Card(f"{held} of {len(cells)}", text, held == len(cells))


def shown_interval(interval: Interval | None) -> str:
    """A value with its 95 % interval."""
    if interval is None:
        return "-"
    return f"{interval.value:.3f} ({interval.low:.3f}-{interval.high:.3f})"


def shown_gain(interval: Interval) -> str:
    """A difference with its 95 % interval, signed."""
    return f"{interval.value:+.4f} ({interval.low:+.4f} to {interval.high:+.4f})"


def shown_share(share: Share) -> str:
    """How many of how many, and the rate."""
    return "-" if share.rate is None else f"{share.hits} / {share.n} = {100 * share.rate:.1f} %"


def _plots(evaluation: Evaluation) -> dict[str, Any]:
    products = evaluation.products
    graded = any(cell.grade is not None for p in products for cell in p.cells)
    several = any(p.mains for p in products)
    plots: dict[str, Any] = {
        "subsets": _svg(subsets_plot(products)),
        "grades": _svg(grades_plot(products)) if graded else "",
        "kinds": [_svg(kinds_plot(product)) for product in products if product.cells],
        "hallucination": _svg(hallucination_plot(products)) if several else "",
        "sweep": _svg(sweep_plot(evaluation.sweep)),
        "promise": "",
    }
    if any(cell.rank for cell in evaluation.promise.cells):
        plots["promise"] = _svg(promise_plot(evaluation.promise.cells))
    return plots


def _svg(text: str) -> Markup:
    return Markup(text)  # noqa: S704 - drawn by us
