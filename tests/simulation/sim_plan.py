"""What goes wrong in one run, and when: a plan is a line of text that replays it.

``late/crash@17,pause:6@23``: workload *late*; before effect 17 the process dies; before effect 23
the running process is paused, a successor runs for 6 effects, then the paused one goes on.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

CRASH: Final = "crash"  # the process is gone before the effect
MUTE: Final = "mute"  # the effect is not done; its caller gets an error
DEAF: Final = "deaf"  # the effect is done; its caller gets an error all the same
PAUSE: Final = (
    "pause"  # a successor runs for so many effects (0: until quiet), then this one goes on
)
STOP: Final = "stop"  # the process is told to stop: it ends in good order after its round
LOSE: Final = "lose"  # the join's server loses everything
ROLLBACK: Final = "rollback"  # the join's server is as it was so many calls ago
TORN: Final = "torn"  # a transaction is acknowledged as committed, and aborted
LATE: Final = "late"  # a commit is on its way: it lands when the transactional id is taken over
UNMARKED: Final = "unmarked"  # a commit is decided, and the broker forgets to mark it in the log
TWIN: Final = "twin"  # a station sends its last record again
BACK: Final = "back"  # the broker's clock steps back

PURE: Final = frozenset(
    {"group.committed", "records.poll", "verdicts.poll", "verdicts.end", "policies.poll"}
)
"""Effects that change nothing outside: dying before one is dying before the next."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that goes wrong at one effect of a run."""

    at: int
    kind: str
    amount: int = 0

    def __str__(self) -> str:
        amount = f":{self.amount}" if self.amount else ""
        return f"{self.kind}{amount}@{self.at}"

    @classmethod
    def parse(cls, text: str) -> "Fault":
        """The inverse of `str`."""
        what, at = text.split("@")
        kind, _, amount = what.partition(":")
        return cls(int(at), kind, int(amount or 0))


@dataclass(frozen=True, slots=True)
class Effect:
    """One effect of a run: what, by which process, and which earlier states differ from now."""

    name: str
    process: int
    rollbacks: tuple[int, ...] = ()
    idle: bool = False  # it changed nothing and told its caller nothing


@dataclass(frozen=True, slots=True)
class Plan:
    """A workload and its faults."""

    workload: str
    faults: tuple[Fault, ...] = ()

    def __str__(self) -> str:
        return f"{self.workload}/{','.join(map(str, self.faults))}"

    @classmethod
    def parse(cls, text: str) -> "Plan":
        """The inverse of `str`."""
        workload, _, faults = text.partition("/")
        return cls(workload, tuple(Fault.parse(one) for one in faults.split(",") if one))

    def at(self, index: int, name: str, rollbacks: Sequence[int]) -> list[Fault]:
        """The faults at this effect, in order."""
        return [fault for fault in self.faults if fault.at == index]

    @property
    def rolls_back(self) -> bool:
        """Whether the server may have to go back to an earlier state."""
        return any(fault.kind == ROLLBACK for fault in self.faults)

    def plus(self, fault: Fault) -> "Plan":
        """The same with one more."""
        return Plan(self.workload, (*self.faults, fault))


class RandomPlan:
    """Faults by a seed: each effect may suffer one, until so many have struck.

    Args:
        workload: Whose name and seed the plan's text is.
        seed: Decides everything.
        faults_max: How many strike at most.
        share: How many of a hundred effects suffer one.
    """

    def __init__(
        self, workload: str, *, seed: int, faults_max: int = 8, share: float = 0.06
    ) -> None:
        self.workload = workload
        self._random = random.Random(seed)
        self._left = faults_max
        self._share = share

    def __str__(self) -> str:
        return f"{self.workload}/"

    @property
    def rolls_back(self) -> bool:
        """Whether the server may have to go back to an earlier state."""
        return True

    def at(self, index: int, name: str, rollbacks: Sequence[int]) -> list[Fault]:
        """The faults at this effect; to be asked once for each effect."""
        if not self._left or self._random.random() > self._share:
            return []
        self._left -= 1
        kind = self._random.choice(kinds_at(name))
        amount = 0
        if kind == PAUSE:
            amount = self._random.randrange(40)
        if kind == ROLLBACK:
            amount = self._random.choice([1, *rollbacks])
        return [Fault(index, kind, amount)]


def kinds_at(name: str, *, errors: bool = True) -> list[str]:
    """What can go wrong at an effect of this name.

    Args:
        name: What is done.
        errors: Whether the server's calls may answer with an error; to a session that is little
            else than dying before or after the call.
    """
    kinds = [PAUSE]
    if name not in PURE:
        kinds += [CRASH, STOP]
    if name not in PURE and (errors or not name.startswith("store.")):
        kinds += [MUTE, DEAF]
    if name.startswith("store."):
        kinds += [LOSE, ROLLBACK]
    if name == "txn.end":
        kinds += [TORN, LATE, UNMARKED]
    if name == "records.poll":
        kinds += [TWIN, BACK]
    return kinds


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """How far an enumeration of faults goes at each effect."""

    pauses: Sequence[int]  # for how many effects a successor may run
    rollbacks_max: int  # to how many different earlier states the server may go back
    errors: bool  # whether the server's calls may answer with an error


EVERYTHING: Final = Reach(pauses=range(46), rollbacks_max=1_000, errors=True)
QUICK: Final = Reach(pauses=(0, 1, 2, 3, 5, 8, 13, 21, 34), rollbacks_max=1_000, errors=True)
"""Every fault too, but a successor runs for nine different lengths."""
IN_PAIRS: Final = Reach(pauses=(0, 3, 8, 13), rollbacks_max=3, errors=False)
"""A successor comes to rest, or has fenced, or has applied, or begins to publish."""


def faults_of(effects: Sequence[Effect], reach: Reach, *, start: int = 0) -> list[Fault]:
    """Every fault within `reach` at the effects of a run from `start` on.

    An effect that changes nothing and tells nothing is left out: whatever strikes before it might
    as well strike after it. The first such call to the server after another is kept, as it is the
    one that has to notice.
    """
    faults = []
    probed = False
    for index in range(start, len(effects)):
        effect = effects[index]
        asks = effect.name.startswith("store.")
        if effect.idle and (probed or not asks):
            continue
        probed = effect.idle if asks else probed
        for kind in kinds_at(effect.name, errors=reach.errors):
            amounts: Sequence[int] = (0,)
            if kind == PAUSE:
                amounts = reach.pauses
            if kind == ROLLBACK:
                amounts = thinned((1, *effect.rollbacks), reach.rollbacks_max)
            faults += [Fault(index, kind, amount) for amount in amounts]
    return faults


def thinned(amounts: Sequence[int], most: int) -> list[int]:
    """At most so many of `amounts`, evenly spread, first and last among them."""
    distinct = sorted(set(amounts))
    if len(distinct) <= most:
        return distinct
    step = (len(distinct) - 1) / (most - 1)
    return sorted({distinct[round(place * step)] for place in range(most)})
