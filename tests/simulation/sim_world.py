"""One run: real workers on a simulated broker, server, clock and scorer, in one thread.

Each process is a coroutine (greenlet). Between any two external effects a plan may kill it, pause
it while a successor runs, or change what is outside; then the run goes on until nothing is left to
do.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol

import structlog
from greenlet import greenlet
from sim_broker import Broker
from sim_plan import BACK, DEAF, LATE, LOSE, ROLLBACK, TORN, TWIN, UNMARKED, Effect, Fault
from sim_process import Dead, Process, SimThreading
from sim_server import Server
from sim_workloads import BODIES, Workload

from connectors.clock import ManualClock
from connectors.ports import Outgoing, TopicSpec
from ingest import service
from ingest.memory import MemoryJoinStore, SlotState
from ingest.store import JoinStore

EFFECTS_MAX: Final = 6_000
PROCESSES_MAX: Final = 60
STEP_BACK_MS: Final = 900


class Strikes(Protocol):
    """Says what goes wrong at an effect."""

    @property
    def rolls_back(self) -> bool:
        """Whether the server may have to go back to an earlier state."""
        ...

    def at(self, index: int, name: str, rollbacks: Sequence[int]) -> list[Fault]:
        """The faults at this effect."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardsOff:
    """What a negative control switches off in the doubles around the real code."""

    fencing: bool = False
    read_back: bool = False
    settling: bool = False
    store: Callable[[SlotState], JoinStore] = MemoryJoinStore
    patches: tuple[tuple[Any, str, Any], ...] = ()


class Stuck(BaseException):
    """The run does not come to rest."""


class World:
    """A run of one workload under one plan.

    Args:
        workload: What is sent, and how the surroundings behave.
        plan: What goes wrong.
        off: Guards that are switched off.
        maps: Whether the server's earlier states are told apart, to enumerate rollbacks.
    """

    def __init__(
        self, workload: Workload, plan: Strikes, *, off: GuardsOff | None = None, maps: bool = False
    ) -> None:
        self.workload = workload
        self.off = off if off is not None else GuardsOff()
        self.clock = ManualClock()
        self.stepped_back_ms = 0
        self.activity = 0
        self.models = 0
        self.effects: list[Effect] = []
        self.bugs: list[str] = []
        self.told: list[str] = []
        self.stuck = False
        self.main = greenlet.getcurrent()
        self._plan = plan
        self.maps = maps
        self._stages = list(workload.stages)
        self._last_sent: Outgoing | None = None
        self.processes = 0
        self._running: list[Process] = []
        self.broker = Broker(self, fencing=not self.off.fencing)
        self.server = Server(remembers=maps or plan.rolls_back)
        self._create_topics()

    def run(self) -> "World":
        """Everything is at rest, or the run is stuck."""
        patches = (
            *self.off.patches,
            (service, "threading", SimThreading(lambda: self._running[-1])),
        )
        kept = [(owner, name, getattr(owner, name)) for owner, name, _ in patches]
        for owner, name, double in patches:
            setattr(owner, name, double)
        try:
            with suppress(Stuck):
                self._schedule()
        finally:
            for owner, name, own in kept:
                setattr(owner, name, own)
            self._end_all()
        return self

    def struck(self, process: Process, name: str) -> tuple[int, list[Fault]]:
        """The place in the run of this effect, which is the next one, and its faults."""
        if len(self.effects) >= EFFECTS_MAX:
            self.stuck = True
            raise Stuck
        rollbacks: tuple[int, ...] = ()
        if self.server.remembers and name.startswith("store."):
            rollbacks = self.server.rollbacks()
        index = len(self.effects)
        self.effects.append(Effect(name, process.number, rollbacks))
        faults = self._plan.at(index, name, rollbacks)
        self.told += [str(fault) for fault in faults]
        return index, faults

    def note(self, index: int, answer: object) -> None:
        """Whether the effect changed anything, or told its caller anything."""
        effect = self.effects[index]
        if effect.name.startswith("store."):
            idle = not self.server.changed()
        else:
            idle = effect.name.endswith(".poll") and not answer
        self.effects[index] = replace(effect, idle=idle)

    def change(self, fault: Fault) -> None:
        """Something outside of the processes goes wrong."""
        if fault.kind == LOSE:
            self.server.lose()
        elif fault.kind == ROLLBACK:
            self.server.roll_back(fault.amount)
        elif fault.kind == BACK:
            self.stepped_back_ms += STEP_BACK_MS
        elif fault.kind == TWIN and self._last_sent is not None:
            self.broker.append(self._last_sent)
        elif fault.kind not in {DEAF, TORN, LATE, UNMARKED, TWIN}:
            raise ValueError(f"{fault} is no fault")

    def next_model(self) -> str:
        """Another model than ever before."""
        self.models += 1
        return f"m{self.models}"

    def feed(self) -> bool:
        """The next stage of the workload is in the log, if one is left."""
        if not self._stages:
            return False
        for step in self._stages.pop(0):
            if isinstance(step, float):
                self.clock.advance_s(step)
            elif isinstance(step, str):
                self.broker.trim()
            else:
                self._last_sent = step(self.clock.now_ns())
                self.broker.append(self._last_sent)
        return True

    def _create_topics(self) -> None:
        line = self.workload.line_of(0)
        for entity in ("records", "verdicts", "dead-letters", "policies"):
            self.broker.ensure_topics(
                [TopicSpec(name=line.topic(entity), partitions=1, retention_ms=60_000)]
            )
        for digest, body in BODIES.items():
            self.broker.append(
                Outgoing(topic=line.topic("policies"), key=digest.encode(), value=body)
            )
        if self.workload.preloaded:
            self.feed()

    def _schedule(self) -> None:
        while True:
            if not self._running:
                self._start(budget=None)
            process = self._running[-1]
            turn = process.resume()
            if process.dead:
                self._running.remove(process)
            elif turn.why == "paused":
                self._start(budget=turn.amount or None)
            elif turn.why == "spent":
                process.budget = None
                self._running.insert(0, self._running.pop())
            elif not self._next_restless():
                return

    def _next_restless(self) -> bool:
        """Whether a process may still have something to do; it is the next one to run."""
        restless = [one for one in self._running if one.quiet_at != self.activity]
        if restless:
            self._running.remove(restless[-1])
            self._running.append(restless[-1])
        return bool(restless)

    def _start(self, *, budget: int | None) -> None:
        if self.processes >= PROCESSES_MAX:
            self.stuck = True
            raise Stuck
        self._running.append(Process(world=self, number=self.processes, budget=budget))
        self.processes += 1
        self.activity += 1

    def _end_all(self) -> None:
        for process in self._running:
            with suppress(Dead, Stuck):
                process.kill()


def silence() -> None:
    """What the workers log is not shown: a run expects every warning there is."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
