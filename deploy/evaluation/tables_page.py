"""The results of the `paper` profile as one HTML file that needs nothing else."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from markupsafe import Markup

from deploy.evaluation.page import Card, shown_gain, shown_share
from deploy.evaluation.tables_plots import (
    ablation_plot,
    gains_plot,
    methods_plot,
    promises_plot,
    stages_plot,
)
from deploy.report_page import page_environment
from training.cmdiad.resampling import MEAN
from training.cmdiad.significance import Finding, Gain, Promise
from training.cmdiad.tables import NOT_PUBLISHED, SEEDS_MIN, Estimate, MetricTable, Results

RANDOM_WEIGHTS: Final = "weights are random: no figure here says anything about accuracy"
MADE_UP: Final = (
    "the images are made up: figures say what the code does, not what the method can do"
)
LEADING: Final = ("I-AUROC", "AUPRO@30")
"""Figures that are drawn."""


def write_tables_page(path: Path, results: Results) -> None:
    """`path` is the page of `results`."""
    environment = page_environment()
    environment.filters.update(gain=shown_gain, share=shown_share)
    text = environment.get_template("tables.html").render(
        r=results,
        cards=list(cards(results)),
        banners=list(banners(results)),
        tables=[(table, best_rows(table)) for table in results.tables if table.form == "exact"],
        authors=[(table, best_rows(table)) for table in results.tables if table.form == "authors"],
        pooled=[gain for gain in results.gains if gain.category == MEAN],
        single=[gain for gain in results.gains if gain.category != MEAN],
        not_published=NOT_PUBLISHED,
        plots=_plots(results),
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def banners(results: Results) -> Iterator[str]:
    """What a reader has to know before any figure."""
    if results.random:
        yield RANDOM_WEIGHTS
    if results.synthetic:
        yield MADE_UP
    if len(results.seeds) < SEEDS_MIN:
        seeds = f"{len(results.seeds)} seed{'s' if len(results.seeds) > 1 else ''}"
        yield f"{seeds}: fewer than {SEEDS_MIN} say little about what a seed changes"


def cards(results: Results) -> Iterator[Card]:
    """The best method of each leading figure, what hallucination adds, and promises."""
    for metric in LEADING:
        table = results.table(metric)
        found = [] if table is None else [(_mean(row.cells), row.method) for row in table.rows]
        ranked = [(value, method) for value, method in found if value is not None]
        if ranked:
            value, method = max(ranked, key=lambda each: each[0])
            yield Card(f"{value:.3f}", f"highest mean {metric}: {method}")
    pooled = [g for g in results.gains if g.category == MEAN and g.metric == LEADING[0]]
    if pooled:
        yield _gains_card(pooled)
    made = [each for each in results.promises if each.verdict is not Promise.IMPOSSIBLE]
    if results.promises:
        kept = sum(each.verdict is Promise.KEPT for each in made)
        few = len(results.promises) - len(made)
        rest = f"; {few} cannot be promised" if few else ""
        text = f"promised false-reject rates are kept{rest}"
        yield Card(f"{kept} of {len(made)}", text, kept == len(made) if made else None)


def best_rows(table: MetricTable) -> list[int | None]:
    """Of each column the row with the highest value; None where nothing was measured."""
    found = []
    for cells in zip(*(row.cells for row in table.rows), strict=True):
        values = {number: cell.value for number, cell in enumerate(cells) if cell is not None}
        found.append(max(values, key=lambda number: values[number], default=None))
    return found


def _mean(cells: Sequence[Estimate | None]) -> float | None:
    return None if cells[-1] is None else cells[-1].value


def _gains_card(pooled: Sequence[Gain]) -> Card:
    """How many gains are cross-modal; harm is never left out."""
    shown = sum(gain.finding is Finding.CROSS_MODAL for gain in pooled)
    harmed = sum(gain.finding is Finding.HARM for gain in pooled)
    text = f"ways of hallucinating show a cross-modal gain in {LEADING[0]}; {harmed} do harm"
    return Card(f"{shown} of {len(pooled)}", text, False if harmed else (True if shown else None))


def _plots(results: Results) -> dict[str, Any]:
    leading = [table for name in LEADING if (table := results.table(name)) is not None]
    pooled = [gain for gain in results.gains if gain.category == MEAN]
    by_metric = [[gain for gain in pooled if gain.metric == name] for name in LEADING]
    made = [each for each in results.promises if each.verdict is not Promise.IMPOSSIBLE]
    return {
        "methods": _svg(methods_plot(leading)) if leading else "",
        "gains": [_svg(gains_plot(gains)) for gains in by_metric if gains],
        "promises": _svg(promises_plot(made)) if made else "",
        "ablation": _svg(ablation_plot(results.ablation)) if results.ablation else "",
        "stages": _svg(stages_plot(results.stages)) if results.stages else "",
    }


def _svg(text: str) -> Markup:
    return Markup(text)  # noqa: S704 - drawn by us
