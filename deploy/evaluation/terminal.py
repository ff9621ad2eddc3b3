"""The evaluation in one screen, and where the whole of it lies."""

from pathlib import Path

from rich.console import Console
from rich.table import Table

from deploy.evaluation.page import cards, shown_interval
from training.evaluation.report import Evaluation


def show(evaluation: Evaluation, out: Path) -> None:
    """The short figures and one row per product and subset are on the terminal."""
    console = Console(highlight=False)
    for card in cards(evaluation):
        colour = {"good": "green", "bad": "red"}.get(card.tone, "default")
        console.print(f"[bold {colour}]{card.value:>10}[/]  {card.text}")
    console.print(accuracy_table(evaluation))
    console.print(f"report: {out / 'report.html'}")


def accuracy_table(evaluation: Evaluation) -> Table:
    """One row per product and subset: plain defects, all defects, the reference beside it."""
    reference = evaluation.reference or "reference"
    table = Table("product", "sensors", "plain defects", "all defects", reference)
    for report in evaluation.products:
        for subset in report.subsets:
            table.add_row(
                report.product,
                " + ".join(subset.present),
                shown_interval(subset.plain),
                shown_interval(subset.every),
                shown_interval(subset.reference),
            )
    return table
