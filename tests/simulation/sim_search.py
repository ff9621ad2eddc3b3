"""Which runs there are: single faults, pairs, seeds, and each guard switched off."""

import random
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from sim_checker import violations
from sim_controls import CONTROLS, Control
from sim_plan import (
    EVERYTHING,
    IN_PAIRS,
    PAUSE,
    ROLLBACK,
    Fault,
    Plan,
    RandomPlan,
    Reach,
    faults_of,
)
from sim_workloads import WORKLOADS, Workload, random_workload
from sim_world import GuardsOff, World

FAILURES_KEPT: Final = 20
PAIRS_MAX: Final = 4_000
PAIRS_OF_ONE: Final = 10
SYMPTOMS: Final = frozenset({"bug", "stuck"})
"""What a switched-off guard may lead to that breaks no promise yet."""
RANDOM: Final = "random:"


@dataclass(slots=True)
class Tally:
    """How many runs there were, what was found in them, and plans that replay it."""

    runs: int = 0
    found: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)

    @property
    def harm(self) -> int:
        """How often a promise was broken."""
        return sum(count for kind, count in self.found.items() if kind not in SYMPTOMS)

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
    """One run; a random workload without faults in its plan suffers those of its seed."""
    workload = workload_of(plan.workload)
    if plan.workload.startswith(RANDOM) and not plan.faults:
        return World(workload, RandomPlan(plan.workload, seed=_seed(plan.workload)), off=off).run()
    return World(workload, plan, off=off, maps=maps).run()


def workload_of(name: str) -> Workload:
    """The workload of this name, ``random:SEED`` included."""
    return random_workload(_seed(name)) if name.startswith(RANDOM) else WORKLOADS[name]


def _seed(name: str) -> int:
    return int(name.removeprefix(RANDOM))


def first_faults(workload: str, reach: Reach, *, off: GuardsOff | None = None) -> list[Fault]:
    """Every fault that can strike a run in which nothing else goes wrong."""
    return faults_of(run(Plan(workload), off=off, maps=True).effects, reach)


def second_faults(first: Plan, *, off: GuardsOff | None = None) -> list[Fault]:
    """Every fault that can strike at or after the one of `first`."""
    effects = run(first, off=off, maps=True).effects
    return faults_of(effects, IN_PAIRS, start=first.faults[0].at)


def tally_of(plans: Iterable[Plan], *, off: GuardsOff | None = None) -> Tally:
    """Each of `plans`, run and checked."""
    tally = Tally()
    for plan in plans:
        tally.add(plan, violations(run(plan, off=off)))
    return tally


def singles(workload: str, reach: Reach) -> Tally:
    """Each single fault of one workload."""
    return tally_of(Plan(workload, (fault,)) for fault in first_faults(workload, reach))


def pairs(first: Plan, *, every: int = 1, offset: int = 0) -> Tally:
    """The fault of `first` together with each one after it, or with each so-manieth."""
    faults = second_faults(first)[offset % every :: every]
    return tally_of(first.plus(fault) for fault in faults)


def seeded(seed: int) -> Tally:
    """One random workload without faults, which one process survives, and with random ones."""
    name = f"{RANDOM}{seed}"
    calm = World(workload_of(name), Plan(name)).run()
    found = violations(calm)
    found["restart without a fault"] += calm.processes - 1
    tally = Tally()
    tally.add(f"{name}, without faults", +found)
    tally.add(name, violations(run(Plan(name))))
    return tally


def control(guard: str, *, enough: int | None = None) -> Tally:
    """What is found with one guard off.

    Args:
        guard: One of `CONTROLS`.
        enough: So many runs that break a promise are enough; None: every run there is, and
            `PAIRS_MAX` of a control that takes pairs.
    """
    spec = CONTROLS[guard]
    tally = Tally()
    for plan in _plans_of(spec):
        tally.add(plan, violations(run(plan, off=spec.off)))
        if enough is not None and len(tally.failures) >= enough and tally.harm:
            break
    return tally


def _plans_of(spec: Control) -> Iterator[Plan]:
    """Every single fault, in an order that shows different ones soon; or a sample of pairs."""
    shuffle = random.Random(0).shuffle
    for workload in spec.workloads:
        faults = first_faults(workload, EVERYTHING, off=spec.off)
        shuffle(faults)
        faults.sort(key=lambda fault: fault.kind not in spec.by)
        firsts = [Plan(workload, (fault,)) for fault in faults]
        yield from _in_pairs(firsts, spec) if spec.pairs else firsts


def _in_pairs(firsts: list[Plan], spec: Control) -> Iterator[Plan]:
    """A pause, and a rollback after it: of each pause a few."""
    paused = [first for first in firsts if first.faults[0].kind == PAUSE]
    for first in paused[: PAIRS_MAX // PAIRS_OF_ONE]:
        effects = run(first, off=spec.off, maps=True).effects
        faults = faults_of(effects, EVERYTHING, start=first.faults[0].at)
        seconds = [fault for fault in faults if fault.kind == ROLLBACK]
        picked = random.Random(str(first)).sample(seconds, min(PAIRS_OF_ONE, len(seconds)))
        yield from map(first.plus, picked)
