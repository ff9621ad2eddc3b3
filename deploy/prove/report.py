"""All rounds of a proof as one summary: for programs as JSON, for people in a few lines."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from math import ceil
from typing import Any, Final, Self

from rich.box import SIMPLE_HEAD
from rich.table import Table

from deploy.prove.checker import EXAMPLES_MAX, KINDS
from deploy.prove.controls import CONTROLS, Outcome
from deploy.prove.reading import Judged
from deploy.prove.rounds import Fault, Round, Wanted
from deploy.report import installed_versions

PROMISE: Final = (
    "For each (part, revision) at most one distinct verdict is published, and each accepted record "
    "is reflected in a verdict or a dead letter, under crash or pause of any worker, replica or "
    "sink, Redis restart, rollback to older data or total loss, rebalance, and model swap at any "
    "moment."
)
NOT_COVERED: Final = (
    "Loss of acknowledged Kafka data, retention shorter than the outage, a changed partition "
    "count, a deleted payload."
)
_SERVERS: Final = ("kafka", "redis")
"""Their clients are packages of nearly the same names."""

HOLDS, BROKEN, NOT_PROVEN, UNFINISHED = "holds", "broken", "not proven", "unfinished"

Json = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """One round as the proof's folder keeps it: what was done, what was found, what was spoilt."""

    done: Round
    findings: Json
    verdicts_by_s: list[int]
    controls: tuple[Outcome, ...]

    @classmethod
    def of(cls, done: Round, judged: Judged, controls: Sequence[Outcome]) -> Self:
        """A round that was just judged."""
        return cls(
            done=done,
            findings=judged.findings.to_json(),
            verdicts_by_s=judged.verdicts_by_s,
            controls=tuple(controls),
        )

    @property
    def violations(self) -> int:
        """How often the round broke the promise."""
        return sum(self.findings["counts"].values())

    def to_json(self) -> Json:
        """As the folder holds it; `from_json` is the inverse."""
        return asdict(self) | {"done": self.done.to_json()}

    @classmethod
    def from_json(cls, held: Json) -> Self:
        """The inverse of `to_json`."""
        controls = (each | {"wanted": tuple(each["wanted"])} for each in held["controls"])
        return cls(
            done=Round.from_json(held["done"]),
            findings=held["findings"],
            verdicts_by_s=held["verdicts_by_s"],
            controls=tuple(Outcome(**each) for each in controls),
        )


def summarise(wanted: Wanted, kept: Sequence[Kept], *, planned: int) -> Json:
    """What all rounds so far add up to.

    Args:
        wanted: What was asked.
        kept: The rounds that are done.
        planned: How many there are to be.
    """
    proof = [each for each in kept if each.done.guarded]
    live = [each for each in kept if not each.done.guarded]
    faults = [(each.done.scorer, fault) for each in proof for fault in each.done.faults]
    controls = _controls(proof)
    summary: Json = {
        "promise": PROMISE,
        "not_covered": NOT_COVERED,
        "wanted": asdict(wanted),
        "rounds_planned": planned,
        "rounds_done": len(kept),
        "own_servers": all(each.done.own_servers for each in kept),
        "parts": sum(each.done.parts for each in proof),
        "records": sum(each.done.records for each in proof),
        "seconds": sum(each.done.seconds for each in kept),
        "counts": dict.fromkeys(KINDS, 0) | _added(each.findings["counts"] for each in proof),
        "seen": _added(each.findings["seen"] for each in proof),
        "examples": _examples(proof),
        "faults": len(faults),
        "faults_by_kind": _faults(faults),
        "skipped": _skipped(kept),
        "controls": controls,
        "live_controls": [_live(each) for each in live],
        "figures": _figures(proof),
        "rounds": [_row(each) for each in kept],
        "timelines": [_timeline(each) for each in proof],
        "rss": _rss(proof),
        "versions": installed_versions() | _versions(kept),
    }
    why = list(_doubts(summary, proof))
    return {"verdict": _verdict(summary, why), "why": why} | summary


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least this share of the values does not exceed."""
    return sorted(values)[max(0, ceil(share * len(values)) - 1)]


def as_table(summary: Json) -> Table:
    """The summary for a terminal."""
    table = Table(title=f"The promise {words(summary)}", title_justify="left", box=SIMPLE_HEAD)
    table.add_column("what")
    table.add_column("count", justify="right")
    for name in ("parts", "records", "faults"):
        table.add_row(name, f"{summary[name]:,}")
    for kind in KINDS:
        count = summary["counts"][kind]
        table.add_row(kind.replace("_", " "), f"[{'red' if count else 'green'}]{count}[/]")
    caught = sum(each["caught"] == each["tried"] > 0 for each in summary["controls"])
    table.add_row("controls caught", f"{caught} of {len(summary['controls'])}")
    broken = sum(sum(each["counts"].values()) for each in summary["live_controls"])
    table.add_row("found in a worker without guards", str(broken))
    for reason in summary["why"]:
        table.add_row("[yellow]why[/]", reason)
    return table


def words(summary: Json) -> str:
    """The verdict as the end of a sentence that begins with "The promise"."""
    told = {
        HOLDS: "holds",
        BROKEN: "is broken",
        NOT_PROVEN: "is not proven",
        UNFINISHED: "is not proven yet",
    }
    return told[summary["verdict"]]


def _verdict(summary: Json, why: Sequence[str]) -> str:
    if any(summary["counts"].values()):
        return BROKEN
    if summary["rounds_done"] < summary["rounds_planned"]:
        return UNFINISHED
    return NOT_PROVEN if why else HOLDS


def _doubts(summary: Json, proof: Sequence[Kept]) -> Iterable[str]:
    """Why it cannot be said that the promise holds."""
    if summary["rounds_done"] < summary["rounds_planned"]:
        yield f"{summary['rounds_done']} of {summary['rounds_planned']} rounds are done"
    for kind, count in summary["counts"].items():
        if count:
            yield f"{count} {kind.replace('_', ' ')}"
    for each in proof:
        if not each.done.drained:
            yield f"round {each.done.number} ended before everything was answered"
    if not summary["faults"]:
        yield "no fault was done"
    yield from _blind_spots(summary)


def _blind_spots(summary: Json) -> Iterable[str]:
    """Where a fault of the line might have been missed."""
    for control in summary["controls"]:
        if control["caught"] < control["tried"]:
            yield f"the checker missed a control: {control['name']}"
        elif not control["tried"]:
            yield f"a control had nothing to spoil: {control['name']}"
    for live in summary["live_controls"]:
        if sum(live["counts"].values()) == live["counts"]["lost"]:
            yield "a worker without guards said nothing wrong: these faults prove nothing"


def _controls(proof: Sequence[Kept]) -> list[Json]:
    rows = []
    for name, (wanted, _) in CONTROLS.items():
        outcomes = [o for each in proof for o in each.controls if o.name == name]
        tried = [o for o in outcomes if o.found is not None]
        rows.append(
            {
                "name": name,
                "wanted": list(wanted),
                "tried": len(tried),
                "caught": sum(o.caught for o in tried),
                "found": _added(o.found or {} for o in tried),
            }
        )
    return rows


def _faults(faults: Sequence[tuple[str, Fault]]) -> list[Json]:
    """By scorer and kind: `lite` has to score what waited too, before a verdict comes."""
    by_kind: dict[tuple[str, str], list[Fault]] = defaultdict(list)
    for scorer, fault in faults:
        by_kind[scorer, fault.kind].append(fault)
    return [_fault_row(*which, done) for which, done in sorted(by_kind.items())]


def _fault_row(scorer: str, kind: str, done: Sequence[Fault]) -> Json:
    took = [fault.recovered_s for fault in done if fault.recovered_s is not None]
    spread = (
        {"p50_s": percentile(took, 0.5), "p99_s": percentile(took, 0.99), "max_s": max(took)}
        if took
        else {"p50_s": None, "p99_s": None, "max_s": None}
    )
    facts = {"kind": kind, "scorer": scorer, "count": len(done), "recovered": len(took)}
    return facts | spread


def _skipped(kept: Sequence[Kept]) -> list[Json]:
    told = Counter((each.kind, each.why) for one in kept for each in one.done.skipped)
    return [
        {"kind": kind, "why": why, "rounds": count} for (kind, why), count in sorted(told.items())
    ]


def _examples(proof: Sequence[Kept]) -> dict[str, list[Json]]:
    found: dict[str, list[Json]] = defaultdict(list)
    for each in proof:
        for kind, examples in each.findings["examples"].items():
            found[kind] += [{"round": each.done.number} | example for example in examples]
    return {kind: examples[:EXAMPLES_MAX] for kind, examples in found.items()}


def _live(each: Kept) -> Json:
    return {
        "round": each.done.number,
        "parts": each.done.parts,
        "faults": len(each.done.faults),
        "counts": each.findings["counts"],
    }


def _row(each: Kept) -> Json:
    done = each.done
    facts = ("number", "name", "seed", "scorer", "guarded", "brokers", "parts", "records")
    return {name: getattr(done, name) for name in facts} | {
        "seconds": round(done.seconds, 1),
        "faults": len(done.faults),
        "drained": done.drained,
        "violations": each.violations,
    }


def _timeline(each: Kept) -> Json:
    done = each.done
    faults = [{"kind": fault.kind, "at_s": fault.at_s} for fault in done.faults]
    facts = {"round": done.number, "name": done.name, "faults": faults}
    return facts | {"verdicts_by_s": each.verdicts_by_s}


def _figures(proof: Sequence[Kept]) -> list[Json]:
    """Each figure of each round that measured it, without what all rounds have."""
    return [
        {"round": each.done.number, "name": name, "value": value}
        for each in proof
        for name, value in sorted(each.done.figures.items())
    ]


def _rss(proof: Sequence[Kept]) -> list[Json]:
    """Memory of workers in the longest round that sampled it: the soak, if there was one."""
    sampled = [each.done for each in proof if each.done.rss]
    if not sampled:
        return []
    longest = max(sampled, key=lambda done: (done.name == "soak", done.seconds))
    return [
        {
            "round": longest.number,
            "name": longest.name,
            "worker": worker,
            "samples": [[*each] for each in samples],
        }
        for worker, samples in sorted(longest.rss.items())
    ]


def _versions(kept: Sequence[Kept]) -> dict[str, str]:
    told: dict[str, set[str]] = defaultdict(set)
    for name, version in chain.from_iterable(each.done.versions.items() for each in kept):
        told[f"{name} server" if name in _SERVERS else name].add(version)
    return {name: ", ".join(sorted(versions)) for name, versions in sorted(told.items())}


def _added(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """Sums by name."""
    total: dict[str, int] = defaultdict(int)
    for each in counts:
        for name, count in each.items():
            total[name] += count
    return dict(total)
