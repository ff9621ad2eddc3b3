"""A whole proof: each round done, judged and kept; the report written after each of them.

The folder holds what was asked and every round that is done, so the same command goes on where it
ended. A round that was cut off left no file, and one of other code proves nothing: both are done
anew.
"""

import json
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, replace
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from connectors.errors import Poison
from connectors.ports import Log
from deploy.prove.controls import run_controls
from deploy.prove.page import write_page
from deploy.prove.reading import check_round, observe
from deploy.prove.report import Json, Kept, summarise
from deploy.prove.rounds import Progress, Round, Wanted
from deploy.report import write_summary

if TYPE_CHECKING:
    from deploy.prove.plan import RoundPlan

ASKED: Final = "asked.json"
REPORT: Final = "prove.json"
PAGE: Final = "prove.html"
CODE: Final = "code digest"
_SOURCES: Final = ("connectors", "ingest", "inference", "training", "deploy")


class Stage(Protocol):
    """Servers and a line, and what is done to them; see `deploy.prove.stage`."""

    @property
    def log(self) -> Log:
        """Reads a round's topics after it."""
        ...

    def run_round(self, plan: "RoundPlan", tell: Callable[[Progress], None]) -> Round:
        """The round is over: load, faults, and all is answered or had its time."""
        ...

    def tidy(self) -> None:
        """Nothing of that round is left on the servers; one that broke the promise is kept."""
        ...


class Audience(Protocol):
    """Who is told how far the proof has come."""

    def begun(self, plan: "RoundPlan", *, planned: int) -> None:
        """A round begins."""
        ...

    def progress(self, progress: Progress) -> None:
        """It has come so far."""
        ...

    def ended(self, kept: Kept) -> None:
        """It is judged."""
        ...


def prove(
    wanted: Wanted,
    *,
    folder: Path,
    plans: Sequence["RoundPlan"],
    stage: Callable[[], AbstractContextManager[Stage]],
    audience: Audience,
) -> Json:
    """Do the rounds that `folder` lacks; return the summary of all, which lies there as a page too.

    Raises:
        Poison: The folder holds a proof that was asked otherwise.
        Unavailable: A server of the stage cannot be reached.
    """
    _check_asked(folder, wanted)
    code = code_digest()
    kept = {plan.number: _kept(folder, plan.number, code) for plan in plans}
    todo = [plan for plan in plans if kept[plan.number] is None]
    summary = _report(folder, wanted, kept, planned=len(plans))
    if not todo:
        return summary
    with stage() as running:
        for plan in todo:
            audience.begun(plan, planned=len(plans))
            done = running.run_round(plan, audience.progress)
            audience.progress(Progress(parts=done.parts, faults=len(done.faults), doing="judging"))
            one = _judged(running.log, done, code)
            write_summary(_path(folder, plan.number), one.to_json())
            kept[plan.number] = one
            summary = _report(folder, wanted, kept, planned=len(plans))
            audience.ended(one)
            if not (one.done.guarded and one.violations):
                running.tidy()
    return summary


def code_digest() -> str:
    """Changes with any line of the code that is proven, or that proves."""
    root, digest = Path(__file__).parents[2], sha256()
    for source in _SOURCES:
        for path in sorted((root / source).rglob("*")):
            if path.suffix in {".py", ".lua", ".json"}:
                digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _judged(log: Log, done: Round, code: str) -> Kept:
    """The round with its findings; what was really found is spoilt in controls too."""
    done = replace(done, versions=done.versions | {CODE: code})
    spoils = done.guarded and done.scorer == "hash"
    controls = run_controls(observe(log, done), done.seed) if spoils else []
    return Kept.of(done, check_round(log, done), controls)


def _report(folder: Path, wanted: Wanted, kept: dict[int, Kept | None], *, planned: int) -> Json:
    done = [each for _, each in sorted(kept.items()) if each is not None]
    summary = summarise(wanted, done, planned=planned)
    write_summary(folder / REPORT, summary)
    write_page(folder / PAGE, summary)
    return summary


def _check_asked(folder: Path, wanted: Wanted) -> None:
    path, asked = folder / ASKED, asdict(wanted)
    if path.exists():
        before = json.loads(path.read_text(encoding="utf-8"))
        differ = sorted(name for name in asked if asked[name] != before.get(name))
        if differ:
            told = ", ".join(f"{name} {before.get(name)}" for name in differ)
            raise Poison("--folder", f"{folder} holds a proof with {told}; name another folder")
    else:
        write_summary(path, asked)


def _kept(folder: Path, number: int, code: str) -> Kept | None:
    """The round as it was kept, if it was done with this code."""
    path = _path(folder, number)
    if not path.exists():
        return None
    kept = Kept.from_json(json.loads(path.read_text(encoding="utf-8")))
    return kept if kept.done.versions[CODE] == code else None


def _path(folder: Path, number: int) -> Path:
    return folder / f"round-{number:03d}.json"
