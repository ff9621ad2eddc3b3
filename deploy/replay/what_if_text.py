"""What would have changed, as it is printed."""

from typing import Any, Final

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from deploy.replay.story import utc
from deploy.replay.what_if import Course, WhatIf

ROWS_MAX: Final = 40
"""Changed parts that are printed; ``--json`` has all of them."""
_TOTALS: Final = {
    "revisions": "revisions",
    "deadlines_met": "closed complete, before the deadline",
    "deadlines_passed": "closed by the deadline",
    "not_closed": "not closed when the log ended",
    "records_refused": "records refused (dead letters)",
    "waited_ms_p50": "first record to revision 1, p50, ms",
    "waited_ms_p99": "first record to revision 1, p99, ms",
    "unscored": "could not be judged anew",
}


def what_if_text(found: WhatIf) -> RenderableType:
    """Totals, and the parts that would have been otherwise."""
    changed = [row for row in found.rows if row.changed]
    between = f"{utc(found.from_ms)[:19]} and {utc(found.to_ms)[:19]} UTC"
    head = Text(
        f"{len(found.rows)} parts opened between {between}; "
        f"{len(changed)} would have been otherwise"
    )
    parts: list[RenderableType] = [head, _totals(found)]
    if changed:
        table = Table(title="parts that would have been otherwise", title_justify="left")
        for name in ("part", "product", "was", "would have been", "what changes"):
            table.add_column(name)
        for row in changed[:ROWS_MAX]:
            table.add_row(
                escape(row.part),
                escape(row.product),
                _course(row.was),
                _course(row.would),
                ", ".join(row.changed),
            )
        parts.append(table)
    if len(changed) > ROWS_MAX:
        parts.append(Text(f"and {len(changed) - ROWS_MAX} more: --json has all", style="dim"))
    parts.append(Text("nothing was written: neither topics nor Redis nor payloads", style="dim"))
    return Group(*parts)


def _totals(found: WhatIf) -> Table:
    was, would = found.totals("was"), found.totals("would")
    table = Table("", "was", "would have been", title="totals", title_justify="left")
    names = sorted({*was["dispositions"], *would["dispositions"]})
    for name in names:
        _add(table, f"last said: {name}", was["dispositions"], would["dispositions"], name)
    for name, words in _TOTALS.items():
        _add(table, words, was, would, name)
    return table


def _add(table: Table, words: str, was: dict[str, Any], would: dict[str, Any], name: str) -> None:
    one, other = was.get(name, 0), would.get(name, 0)
    style = None if one == other else "bold"
    shown = ["-" if value is None else str(value) for value in (one, other)]
    table.add_row(words, *shown, style=style)


def _course(course: Course) -> str:
    if course.unscored is not None:
        return f"[yellow]not judged: {escape(course.unscored)}[/]"
    if course.closed is None:
        return "not closed"
    p = "" if course.p_value is None else f" p {course.p_value:.4f}"
    revisions = f"{course.revisions} rev" if course.revisions > 1 else "1 rev"
    said = course.disposition or "no verdict"
    return f"{said}{p}, {revisions}, {course.closed} after {course.waited_ms} ms"
