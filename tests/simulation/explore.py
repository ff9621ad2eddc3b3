"""Runs the real workers under every single and double fault of small workloads, and beyond.

python tests/simulation/explore.py                 every single and double, 2,000 seeds, controls
python tests/simulation/explore.py --quick         singles, a sample of doubles, 100 seeds, controls
python tests/simulation/explore.py --replay 'late/pause:6@12,rollback:3@40'
"""

from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from sim_checker import violations
from sim_controls import Control
from sim_plan import Fault, Plan, RandomPlan, faults_of
from sim_workloads import WORKLOADS, Workload, random_workload
from sim_world import GuardsOff, World

PAUSES_OF_SINGLES: Final = tuple(range(46))
PAUSES_OF_DOUBLES: Final = (0, 3, 5, 9, 13)
"""Until the successor is at rest, or has fenced, or taken over, or applied, or begun to publish."""
ROLLBACKS_OF_SINGLES: Final = 1_000
ROLLBACKS_OF_DOUBLES: Final = 4
FAILURES_KEPT: Final = 20


@dataclass(slots=True)
class Tally:
    """How many runs there were, and what was found in them."""

    runs: int = 0
    found: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)

    def add(self, plan: object, found: Counter[str]) -> None:
        """One run."""
        self.runs += 1
        self.found += found
        if found and len(self.failures) < FAILURES_KEPT:
            self.failures.append(str(plan))

    def plus(self, other: "Tally") -> None:
        """The runs of `other` count here too."""
        self.runs += other.runs
        self.found += other.found
        self.failures = (self.failures + other.failures)[:FAILURES_KEPT]


def run(plan: Plan, *, off: GuardsOff | None = None, maps: bool = False) -> World:
    """One run; a plan of a random workload brings its own faults."""
    workload = workload_of(plan.workload)
    if plan.workload.startswith("random:") and not plan.faults:
        return World(workload, RandomPlan(plan.workload, seed=_seed(plan.workload)), off=off).run()
    return World(workload, plan, off=off, maps=maps).run()


def workload_of(name: str) -> Workload:
    """The workload of this name, `random:SEED` included."""
    return random_workload(_seed(name)) if name.startswith("random:") else WORKLOADS[name]


def _seed(name: str) -> int:
    return int(name.partition(":")[2])


def first_faults(
    workload: str, *, off: GuardsOff | None = None, singles: bool = True
) -> list[Fault]:
    """Every fault that can strike a run in which nothing else goes wrong."""
    effects = run(Plan(workload), off=off, maps=True).effects
    return faults_of(
        effects,
        start=0,
        pauses=PAUSES_OF_SINGLES if singles else PAUSES_OF_DOUBLES,
        rollbacks_max=ROLLBACKS_OF_SINGLES if singles else ROLLBACKS_OF_DOUBLES,
    )


def explore_singles(workload: str, *, off: GuardsOff | None = None, every: int = 1) -> Tally:
    """Each single fault of one workload, or each so-manieth."""
    tally = Tally()
    for fault in first_faults(workload, off=off)[::every]:
        plan = Plan(workload, (fault,))
        tally.add(plan, violations(run(plan, off=off)))
    return tally


def explore_doubles(
    first: Plan, *, off: GuardsOff | None = None, every: int = 1, offset: int = 0
) -> Tally:
    """Each fault that can strike at or after the one of `first`, together with it."""
    tally = Tally()
    effects = run(first, off=off, maps=True).effects
    seconds = faults_of(
        effects,
        start=first.faults[0].at,
        pauses=PAUSES_OF_DOUBLES,
        rollbacks_max=ROLLBACKS_OF_DOUBLES,
    )
    for fault in seconds[offset % every :: every]:
        plan = first.plus(fault)
        tally.add(plan, violations(run(plan, off=off)))
    return tally


def explore_seed(seed: int) -> Tally:
    """One random workload without faults, which one process survives, and with random ones."""
    name = f"random:{seed}"
    tally = Tally()
    calm = World(workload_of(name), Plan(name)).run()
    found = violations(calm)
    found["restart without a fault"] += calm.processes - 1
    tally.add(f"{name} without faults", +found)
    tally.add(name, violations(run(Plan(name))))
    return tally


def control_counts(control: Control, *, every: int) -> Tally:
    """What the checker finds with one guard off, in singles and then doubles until it is found."""
    tally = Tally()
    for workload in control.workloads:
        tally.plus(explore_singles(workload, off=control.off, every=every))
        for number, fault in enumerate(control.firsts(first_faults(workload, singles=False))):
            first = Plan(workload, (fault,))
            tally.plus(explore_doubles(first, off=control.off, every=every * 3, offset=number))
    return tally
