"""The summary of a run: as a file for programs, on the terminal for people.

`deploy/report_page.py` makes the page with pictures from the same summary.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from platform import python_version
from typing import TYPE_CHECKING, Any, Final, Literal

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from training.evaluate import Report
    from training.night import NightReport

_DISTRIBUTIONS: Final = (
    "hololine",
    "kafka-python",
    "ray",
    "torch",
    "timm",
    "open3d",
    "redis",
    "pydantic",
    "opcua",
    "numpy",
)
_COUNTERS: Final = (
    "lost",
    "duplicate",
    "conflicting",
    "lost_records",
    "lost_verdicts",
    "waiting_records",
    "dead_letters",
    "revisions",
    "dispositions",
    "false_rejects",
    "escapes",
    "catches",
    "hallucination",
    "latency_ms",
)

Json = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What was measured around the ledger."""

    seconds: Mapping[str, float]
    """Since the start: ``to_first_verdict``, ``to_summary``; lengths: ``night``, ``swap``."""
    memory_by_process: Mapping[str, float]
    """Peak or present resident memory, MiB."""
    first_verdict_bundle: Literal["cached", "fitted"]
    parts_per_s: float | None = None
    servers: Mapping[str, str] = field(default_factory=dict)
    seeds: Mapping[str, int] = field(default_factory=dict)
    night: Sequence[Mapping[str, Any]] = ()
    """A row per product: what the night made of it."""
    per_main_modality: Sequence[Mapping[str, Any]] | None = None
    """From parts seen by every sensor with others masked, where measured; else from the stream."""


def night_rows(night: "NightReport") -> list[Json]:
    """A row per product for `Run.night`; AUROC is with every sensor, on held-out parts."""
    return [
        {
            "product": one.product,
            "outcome": one.outcome,
            "reason": one.reason,
            "good_parts": sum(n for role, n in one.parts.items() if role != "defective"),
            "defective_parts": one.parts.get("defective", 0),
            "champion_auroc": _complete_auroc(one.champion_report),
            "challenger_auroc": _complete_auroc(one.challenger_report),
            "seconds": one.seconds.get("total"),
        }
        for one in night.products
    ]


def main_modality_rows(night: "NightReport") -> list[Json]:
    """Rows for `Run.per_main_modality`: the champions on held-out parts, others masked."""
    reports = [r for one in night.products if (r := one.champion_report) is not None]
    return [
        {
            "product": report.product,
            "modality": main.modality,
            "n": max((s.good + s.defective for s in report.subsets), default=0),
            "auroc_alone": main.auroc_alone,
            "auroc_with_hallucination": main.auroc_with_hallucination,
            "auroc_all_real": main.auroc_all_real,
        }
        for report in reports
        for main in report.mains
    ]


def _complete_auroc(report: "Report | None") -> float | None:
    if report is None:
        return None
    return max(report.subsets, key=lambda s: len(s.present)).auroc


def make_summary(snapshot: Mapping[str, Any], run: Run) -> Json:
    """Everything a run adds up to, JSON-able.

    Args:
        snapshot: Of a `deploy.ledger.Ledger` after its `end`, with intervals.
        run: What was measured around it.
    """
    main = run.per_main_modality
    return {
        "parts_sent": snapshot["sent_parts"],
        "records_sent": snapshot["sent_records"],
        "parts_judged": snapshot["parts"],
        "verdicts": snapshot["verdicts"],
        **{name: snapshot[name] for name in _COUNTERS},
        "per_subset": snapshot["subsets"],
        "per_main_modality": list(snapshot["main_modalities"] if main is None else main),
        "seconds": dict(run.seconds),
        "memory_by_process": dict(run.memory_by_process),
        "first_verdict_bundle": run.first_verdict_bundle,
        "parts_per_s": snapshot["parts_per_s"] if run.parts_per_s is None else run.parts_per_s,
        "night": [dict(row) for row in run.night],
        "servers": dict(run.servers),
        "seeds": dict(run.seeds),
        "versions": installed_versions(),
    }


def write_summary(path: Path, summary: Mapping[str, Any]) -> None:
    """`path` holds the summary as JSON, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(summary, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    partial.replace(path)


def installed_versions() -> dict[str, str]:
    """Versions of Python and of the packages that figures depend on."""
    found = {"python": python_version()}
    for name in _DISTRIBUTIONS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def print_summary(summary: Mapping[str, Any], console: Console | None = None) -> None:
    """The summary stands on the terminal, for people."""
    out = console if console is not None else Console()
    for table in (_counts(summary), _promises(summary), _rankings(summary), _stages(summary)):
        if table.row_count:
            out.print(table)
    out.print(_closing(summary))


def percent(share: float | None, digits: int = 1) -> str:
    """A share as people read it; a dash for none."""
    return "-" if share is None else f"{100 * share:.{digits}f} %"


def figure(value: float | None, interval: Sequence[float] | None = None) -> str:
    """An AUROC with its interval; a dash for none."""
    if value is None:
        return "-"
    bounds = "" if interval is None else f" ({interval[0]:.2f}-{interval[1]:.2f})"
    return f"{value:.3f}{bounds}"


def _table(title: str, texts: Sequence[str], numbers: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold")
    table.box, table.pad_edge, table.collapse_padding = SIMPLE_HEAD, False, True
    for name in texts:
        table.add_column(name, no_wrap=True)
    for name in numbers:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _counts(summary: Mapping[str, Any]) -> Table:
    zeros = ("lost", "duplicate", "conflicting")
    table = _table(
        "What went through the line", (), ("parts sent", "verdicts", *zeros, "dead letters")
    )
    cells = [f"[bold {'green' if summary[z] == 0 else 'red'}]{summary[z]}[/]" for z in zeros]
    sent, verdicts = str(summary["parts_sent"]), str(summary["verdicts"])
    table.add_row(sent, verdicts, *cells, str(summary["dead_letters"]))
    return table


def _promises(summary: Mapping[str, Any]) -> Table:
    numbers = ("n", "AUROC", "promised", "rejected", "stopped", "caught")
    title = "Good parts rejected and stopped, defective ones caught"
    table = _table(title, ("product", "sensors"), numbers)
    for row in summary["per_subset"]:
        table.add_row(
            row["product"],
            "+".join(row["subset"]) or "none",
            str(row["n"]),
            figure(row["image_auroc"]),
            percent(row["promised"]),
            f"{row['rejected_good']}/{row['good_with_promise']}",
            f"{row['stopped_good']}/{row['good']}",
            f"{row['caught']}/{row['defective']}",
        )
    return table


def subset_words(subset: Sequence[str]) -> str:
    """A set of modalities as people write it."""
    return " + ".join(subset) or "none"


def observed(row: Mapping[str, Any]) -> str:
    """The observed false-reject rate of a subset, with the counts behind it."""
    rejected, good = row["rejected_good"], row["good_with_promise"]
    rate = row["observed_false_reject_rate"]
    return "-" if rate is None else f"{percent(rate)} ({rejected}/{good})"


def _rankings(summary: Mapping[str, Any]) -> Table:
    numbers = ("alone", "others hallucinated", "all real", "n")
    table = _table("AUROC with one sensor", ("product", "sensor"), numbers)
    names = ("auroc_alone", "auroc_with_hallucination", "auroc_all_real")
    for row in summary["per_main_modality"]:
        if row["n"]:
            cells = [figure(row[name]) for name in names]
            table.add_row(row["product"], row["modality"], *cells, str(row["n"]))
    return table


def _stages(summary: Mapping[str, Any]) -> Table:
    table = _table("Latency by stage, ms", ("stage",), ("p50", "p99", "n"))
    for stage, values in summary["latency_ms"].items():
        cells = (f"{values['p50']:.0f}", f"{values['p99']:.0f}", str(values["n"]))
        table.add_row(stage.replace("_", " "), *cells)
    return table


def _spread(share: float | None, interval: Sequence[float]) -> str:
    """A share with its 95 % interval; a dash for none."""
    if share is None:
        return "-"
    return f"{percent(share)}, 95 %: {percent(interval[0], 0)}-{percent(interval[1], 0)}"


def _closing(summary: Mapping[str, Any]) -> str:
    rejects, escapes = summary["false_rejects"], summary["escapes"]
    catches = summary["catches"]
    first, missing = rejects["first"], summary["hallucination"]
    seconds = ", ".join(f"{k.replace('_', ' ')} {v:.1f} s" for k, v in summary["seconds"].items())
    memory = sum(summary["memory_by_process"].values())
    pace = summary["parts_per_s"]
    return "\n".join(
        [
            (
                f"False rejects: at most {percent(rejects['promised'])} promised, "
                f"{percent(first['rate'])} observed ({first['rejected']} of {first['n']} "
                f"good parts); rejected at any revision {percent(rejects['any']['rate'])}."
            ),
            (
                f"Caught: {catches['caught']} of {catches['defective']} defective parts "
                f"({_spread(catches['rate'], catches['interval'])}); good parts stopped: "
                f"{catches['stopped']} of {catches['good']} "
                f"({_spread(catches['stop_rate'], catches['stop_interval'])}). Parts that are held "
                "or undecidable are not caught, and stopped."
            ),
            f"Escapes: {escapes['accepted']} of {escapes['defective']} defective parts accepted.",
            (
                f"With a sensor missing ({missing['n']} parts): AUROC "
                f"{figure(missing['auroc_with'])} with hallucination, "
                f"{figure(missing['auroc_without'])} without."
            ),
            (
                f"{seconds}; first verdict by a {summary['first_verdict_bundle']} bundle; "
                f"{'-' if pace is None else f'{pace:.1f}'} parts/s; {memory:.0f} MiB in all."
            ),
        ]
    )
