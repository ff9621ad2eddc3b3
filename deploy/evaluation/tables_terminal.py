"""The results of the `paper` profile in one screen, and where the whole of them lies."""

from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table

from deploy.evaluation.page import shown_gain
from deploy.evaluation.tables_page import banners, cards
from training.cmdiad.resampling import MEAN
from training.cmdiad.significance import Finding
from training.cmdiad.tables import Results, Row, shown

_COLOURS: Final = {Finding.CROSS_MODAL: "green", Finding.HARM: "red"}


def show_tables(results: Results, out: Path, *, console: Console) -> None:
    """What must be known first, short figures, means over classes and gains are on the console."""
    for banner in banners(results):
        console.print(f"[bold red]{banner}[/]")
    for card in cards(results):
        colour = {"good": "green", "bad": "red"}.get(card.tone, "default")
        console.print(f"[bold {colour}]{card.value:>10}[/]  {card.text}")
    console.print(means_table(results))
    if results.gains:
        console.print(gains_table(results))
    console.print(f"page: {out}", soft_wrap=True)


def means_table(results: Results) -> Table:
    """A row a method, a column a figure: the mean over classes, and what seeds change."""
    tables = [table for table in results.tables if table.form == "exact"]
    made = Table(title="mean over classes (± over seeds)", title_justify="left", pad_edge=False)
    made.add_column("method")
    for table in tables:
        made.add_column(table.metric, justify="right", no_wrap=True)
    by_name = [{row.method: row for row in table.rows} for table in tables]
    for method in dict.fromkeys(method for rows in by_name for method in rows):
        made.add_row(method, *(_mean(rows.get(method)) for rows in by_name))
    return made


def gains_table(results: Results) -> Table:
    """What hallucination adds on the mean over classes, and what that comes to."""
    made = Table("method", "figure", "gain over the main alone", "above", "finding", pad_edge=False)
    for gain in results.gains:
        if gain.category == MEAN:
            colour = _COLOURS.get(gain.finding, "default")
            made.add_row(
                gain.method,
                gain.metric,
                shown_gain(gain.gain),
                f"{len(gain.beaten)} of {len(gain.rivals)} controls",
                f"[{colour}]{gain.finding}[/]",
            )
    return made


def _mean(row: Row | None) -> str:
    return shown(None if row is None else row.cells[-1])
