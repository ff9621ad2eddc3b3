"""The page of a proof: one file that needs nothing else, for people to keep and to send."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from markupsafe import Markup
from matplotlib import rc_context
from matplotlib.figure import Figure

from deploy.plots import STEEL, drawn
from deploy.prove.checker import KINDS
from deploy.prove.report import BROKEN, HOLDS, Json, words
from deploy.report_page import page_environment

TIMELINES_MAX: Final = 12
_RED: Final = "#b1241b"
_ORANGE: Final = "#c2562d"
_COLOURS: Final = (STEEL, _ORANGE, "#6a45c2", "#17693f")
_STYLE: Final = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
}
_NAMES: Final = {
    "lost": "lost: no verdict",
    "duplicate": "duplicate: the same verdict twice",
    "conflicting": "conflicting: another verdict for the same revision",
    "wrong_evidence": "wrong evidence",
    "wrong_revision": "wrong revision, order or chain",
    "wrong_verdict": "verdict that does not follow from its evidence and model",
    "lost_letter": "lost: refused without a dead letter",
    "wrong_letter": "dead letter that is wrong or should not be",
}


def write_page(path: Path, summary: Json) -> None:
    """`path` is the page of a proof's summary."""
    environment = page_environment()
    environment.filters.update(seconds=_seconds, thousands=lambda n: f"{n:,}", listed=_listed)
    busiest = sorted(summary["timelines"], key=lambda each: -len(each["faults"]))[:TIMELINES_MAX]
    text = environment.get_template("prove.html").render(
        s=summary,
        words=words(summary),
        tone={HOLDS: "good", BROKEN: "bad"}.get(summary["verdict"], "doubt"),
        kinds=[(kind, _NAMES[kind], summary["counts"][kind]) for kind in KINDS],
        timelines=[(each, _svg(timeline_plot(each))) for each in busiest],
        memory=_svg(memory_plot(summary["rss"])) if summary["rss"] else None,
        command=command_of(summary),
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def command_of(summary: Json) -> str:
    """What to type for the same proof."""
    wanted = summary["wanted"]
    if wanted["quick"]:
        return f"hololine prove --quick --seed {wanted['seed']}"
    named = ("parts", "faults", "brokers", "seed")
    told = [f"--{name} {wanted[name]}" for name in named]
    return " ".join(["hololine prove", *told, f"--soak-minutes {wanted['soak_minutes']:g}"])


def timeline_plot(timeline: Json) -> str:
    """Verdicts a second in one round, with a mark for each fault, a row a kind."""
    kinds = sorted({fault["kind"] for fault in timeline["faults"]})
    rates = timeline["verdicts_by_s"]
    with rc_context(_STYLE):
        heights = [1.6, 0.15 * max(len(kinds), 1)]
        figure = Figure(figsize=(9.2, 0.7 + sum(heights)), layout="constrained")
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=heights)
        above.fill_between(range(len(rates)), rates, step="post", color=STEEL, alpha=0.8, lw=0)
        above.set_ylabel("verdicts / s")
        above.set_ylim(bottom=0)
        for row, kind in enumerate(kinds):
            times = [fault["at_s"] for fault in timeline["faults"] if fault["kind"] == kind]
            below.plot(times, [row] * len(times), "|", color=_RED, markersize=7, mew=1.4)
        below.set_yticks(range(len(kinds)), [kind.replace("_", " ") for kind in kinds], fontsize=7)
        below.set_ylim(max(len(kinds), 1) - 0.5, -0.5)
        below.set_xlabel("seconds since the round began; a red mark is a fault")
        return drawn(figure)


def memory_plot(rss: Sequence[Json]) -> str:
    """Resident memory of each worker over time."""
    with rc_context(_STYLE):
        figure = Figure(figsize=(9.2, 2.4), layout="constrained")
        axes = figure.add_subplot()
        for number, each in enumerate(rss):
            minutes = [time_s / 60 for time_s, _ in each["samples"]]
            colour = _COLOURS[number % len(_COLOURS)]
            mib = [size for _, size in each["samples"]]
            axes.plot(minutes, mib, color=colour, linewidth=1.4, label=each["worker"])
        axes.set_ylim(bottom=0)
        axes.set_ylabel("resident memory, MiB")
        axes.set_xlabel("minutes")
        axes.grid(axis="y", color="#9fb6bf", alpha=0.3, linewidth=0.7)
        axes.legend(frameon=False, loc="lower right")
        return drawn(figure)


def _svg(text: str) -> Markup:
    return Markup(text)  # noqa: S704 - drawn by us


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}" if value < 100 else f"{value:.0f}"


def _listed(example: dict[str, Any]) -> str:
    """An example of a finding in one line."""
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in example.items())
