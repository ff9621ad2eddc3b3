"""Runs the real workers under every single fault and every pair of small workloads, and beyond.

    python tests/simulation/explore.py --quick          about a minute
    python tests/simulation/explore.py                  every pair; --resume FILE goes on
    python tests/simulation/explore.py --seed 5000      random workloads and faults of other seeds
    python tests/simulation/explore.py --replay 'late/pause:6@12,rollback:3@40'

It ends with 1 if a promise was broken, or if a guard could be switched off unseen.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn
from rich.table import Table
from sim_checker import violations
from sim_controls import CONTROLS
from sim_plan import EVERYTHING, IN_PAIRS, QUICK, Plan
from sim_search import Tally, control, first_faults, pairs, run, seeded, singles
from sim_workloads import WORKLOADS
from sim_world import silence

SEEDS: Final = 5_000
QUICK_SEEDS: Final = 60
SEEDS_OF_ONE: Final = 20
QUICK_FIRSTS: Final = 8
QUICK_PAIRS_EVERY: Final = 12
ENOUGH: Final = 5


@dataclass(frozen=True, slots=True)
class Unit:
    """A piece of work that one process does: small enough to be done again after a cut."""

    part: str  # singles, pairs, seeds, control
    name: str
    quick: bool

    def tally(self) -> Tally:
        """It is done."""
        if self.part == "singles":
            return singles(self.name, QUICK if self.quick else EVERYTHING)
        if self.part == "pairs":
            every = QUICK_PAIRS_EVERY if self.quick else 1
            return pairs(Plan.parse(self.name), every=every, offset=len(self.name))
        if self.part == "control":
            return control(self.name, enough=ENOUGH if self.quick else None)
        tally = Tally()
        for seed in range(int(self.name), int(self.name) + SEEDS_OF_ONE):
            tally.plus(seeded(seed))
        return tally

    @property
    def row(self) -> str:
        """Under which name it is summed up."""
        if self.part == "seeds":
            return "seeds"
        return f"{self.part}: {self.name.partition('/')[0]}"


def units_of(*, quick: bool, seed: int) -> Iterator[Unit]:
    """All there is to do, the quickest to fail first."""
    yield from (Unit("singles", name, quick) for name in WORKLOADS)
    yield from (Unit("control", guard, quick) for guard in CONTROLS)
    count = QUICK_SEEDS if quick else SEEDS
    yield from (
        Unit("seeds", str(first), quick) for first in range(seed, seed + count, SEEDS_OF_ONE)
    )
    for name in WORKLOADS:
        firsts = first_faults(name, IN_PAIRS)
        step = len(firsts) // QUICK_FIRSTS if quick else 1
        yield from (Unit("pairs", str(Plan(name, (one,))), quick) for one in firsts[::step])


def explored(units: list[Unit], *, jobs: int, kept: Path | None, console: Console) -> list[Tally]:
    """The tally of each unit; those that the file `kept` holds are not done again."""
    done = _kept(kept)
    waiting = [unit for unit in units if str(unit) not in done]
    columns = (*Progress.get_default_columns()[:3], MofNCompleteColumn(), TimeRemainingColumn())
    with (
        Progress(*columns, console=console) as progress,
        ProcessPoolExecutor(jobs, initializer=silence) as pool,
    ):
        bar = progress.add_task("exploring", total=len(units), completed=len(units) - len(waiting))
        futures = {pool.submit(unit.tally): unit for unit in waiting}
        for future in as_completed(futures):
            unit = futures.pop(future)
            done[str(unit)] = future.result()
            _keep(kept, unit, done[str(unit)])
            progress.advance(bar)
    return [done[str(unit)] for unit in units]


def summary(units: list[Unit], tallies: list[Tally]) -> dict[str, Tally]:
    """One tally a row."""
    rows: dict[str, Tally] = {}
    for unit, tally in zip(units, tallies, strict=True):
        rows.setdefault(unit.row, Tally()).plus(tally)
    return rows


def broken(rows: dict[str, Tally]) -> list[str]:
    """What must not be: a promise broken with all guards on, a guard whose absence goes unseen."""
    wrong = []
    for name, tally in rows.items():
        if name.startswith("control") and not tally.harm:
            wrong.append(f"{name}: switched off, and nothing was found in {tally.runs} runs")
        elif not name.startswith("control") and tally.found:
            wrong += [f"{name}: {failure}" for failure in tally.failures]
    return wrong


def main() -> int:
    """The command."""
    asked = _asked()
    silence()
    console = Console(stderr=True)
    if asked.replay is not None:
        return _replay(Plan.parse(asked.replay), console)
    units = list(units_of(quick=asked.quick, seed=asked.seed))
    tallies = explored(units, jobs=asked.jobs, kept=asked.resume, console=console)
    rows = summary(units, tallies)
    wrong = broken(rows)
    if asked.json:
        sys.stdout.write(json.dumps(_as_json(rows, wrong), indent=2) + "\n")
    else:
        console.print(_table(rows))
    for line in wrong:
        console.print(f"[red]{line}", highlight=False)
    return 1 if wrong else 0


def _asked() -> Any:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="every single fault, some pairs")
    parser.add_argument("--seed", type=int, default=0, help="first seed of the random ones")
    parser.add_argument("--jobs", type=int, default=1, help="processes at work")
    parser.add_argument("--resume", type=Path, help="file that keeps what is done, and is read")
    parser.add_argument("--replay", metavar="PLAN", help="one run, told effect by effect")
    parser.add_argument("--json", action="store_true", help="the figures, for machines")
    return parser.parse_args()


def _replay(plan: Plan, console: Console) -> int:
    world = run(plan, maps=True)
    told: dict[str, list[str]] = {}
    for fault in world.told:
        told.setdefault(fault.partition("@")[2], []).append(fault)
    for index, effect in enumerate(world.effects):
        faults = " ".join(told.get(str(index), ()))
        console.print(f"{index:5} process {effect.process}  {effect.name:20} [red]{faults}")
    found = violations(world)
    console.print(dict(found) or "every promise was kept", *world.bugs)
    return 1 if found else 0


def _kept(path: Path | None) -> dict[str, Tally]:
    if path is None or not path.exists():
        return {}
    done = {}
    for line in path.read_text().splitlines():
        held = json.loads(line)
        tally = Tally(runs=held["runs"], failures=held["failures"])
        tally.found.update(held["found"])
        done[held["unit"]] = tally
    return done


def _keep(path: Path | None, unit: Unit, tally: Tally) -> None:
    if path is None:
        return
    held = {"unit": str(unit), "runs": tally.runs, "found": tally.found, "failures": tally.failures}
    with path.open("a") as file:
        file.write(json.dumps(held) + "\n")


def _as_json(rows: dict[str, Tally], wrong: list[str]) -> dict[str, Any]:
    return {
        "interleavings": _guarded_runs(rows),
        "broken": wrong,
        "rows": {
            name: {"runs": tally.runs, "found": dict(tally.found), "first": tally.failures[:1]}
            for name, tally in rows.items()
        },
    }


def _guarded_runs(rows: dict[str, Tally]) -> int:
    return sum(tally.runs for name, tally in rows.items() if not name.startswith("control"))


def _table(rows: dict[str, Tally]) -> Table:
    table = Table(title=f"{_guarded_runs(rows):,} interleavings with every guard on")
    table.add_column("what")
    table.add_column("runs", justify="right")
    table.add_column("promises broken")
    for name, tally in rows.items():
        found = ", ".join(f"{kind} {count:,}" for kind, count in sorted(tally.found.items()))
        table.add_row(name, f"{tally.runs:,}", found or "0")
    return table


if __name__ == "__main__":
    sys.exit(main())
