"""One worker process of a run: the real worker, its session inlined, as a coroutine."""

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeVar

from greenlet import getcurrent, greenlet
from sim_broker import ProcessLog, SimWriter
from sim_plan import CRASH, DEAF, MUTE, PAUSE, STOP, Fault
from sim_server import SimStore

from connectors.clock import ManualClock
from connectors.errors import Gap, HololineError, Unavailable
from connectors.memory_scorer import HashScorer
from connectors.messages import Disposition, Evidence
from connectors.ports import SealedEvidence
from ingest import service

if TYPE_CHECKING:
    from sim_world import World

IDLE_ROUNDS: Final = 2
IDLE_S: Final = 1.1
Answer = TypeVar("Answer")


class Dead(BaseException):
    """The process is gone: whatever it tries now does not happen."""


@dataclass(slots=True)
class Turn:
    """Why a process gave the thread back."""

    why: str  # paused, spent, quiet
    amount: int = 0


class ProcessClock:
    """A process's clock: its monotonic time began with it."""

    def __init__(self, clock: ManualClock, number: int) -> None:
        self._clock = clock
        self._ahead_s = 1000.0 * number
        self.now_ns = clock.now_ns

    def monotonic_s(self) -> float:
        """See `Clock.monotonic_s`."""
        return self._clock.monotonic_s() + self._ahead_s


class SimThreading:
    """Stands for the module `threading` in the worker: threads are coroutines of its process.

    Args:
        current: The process that runs now.
    """

    def __init__(self, current: "Callable[[], Process]") -> None:
        self._current = current

    def Thread(self, *, target: Callable[[], None], **_: Any) -> "SimThread":  # noqa: N802 - its name
        """See `threading.Thread`."""
        return SimThread(self._current(), target)

    def Event(self) -> "SimEvent":  # noqa: N802 - its name
        """See `threading.Event`."""
        return SimEvent(self._current())


class SimThread:
    """A session's thread: it runs from one look at its stop event to the next, once a round."""

    def __init__(self, process: "Process", target: Callable[[], None]) -> None:
        self._process = process
        self._coroutine = greenlet(target, parent=process.coroutine)

    def start(self) -> None:
        """See `threading.Thread.start`."""
        self._process.threads.append(self)

    def step(self) -> None:
        """It has run until its next look at the event, or to its end."""
        if not self._coroutine.dead:
            self._coroutine.switch()

    def join(self, timeout_s: float) -> None:
        """See `threading.Thread.join`."""
        self.step()

    def is_alive(self) -> bool:
        """See `threading.Thread.is_alive`."""
        return not self._coroutine.dead


class SimEvent:
    """A stop event: looking at it ends a thread's turn."""

    def __init__(self, process: "Process") -> None:
        self._process = process
        self._set = False

    def set(self) -> None:
        """See `threading.Event.set`."""
        self._set = True

    def is_set(self) -> bool:
        """See `threading.Event.is_set`."""
        if not self._set:
            self._process.coroutine.switch()
        return self._set


class SimScorer(HashScorer):
    """Answers differently each time, as a model swapped between any two calls would.

    Args:
        process: Whose calls they are.
    """

    def __init__(self, process: "Process") -> None:
        super().__init__()
        self._process = process

    def score(self, batch: "list[SealedEvidence]") -> "Future[list[bytes]]":
        """See `ports.Scorer.score`; a slow one answers the newest call first, one a round."""
        world = self._process.world
        self.salt = self._process.effect("scorer.score", world.next_model)
        answers = [self.answer(Evidence.from_bytes(sealed.raw)) for sealed in batch]
        future: Future[list[bytes]] = Future()
        if world.workload.slow:
            self._process.scoring.append((future, answers))
        else:
            future.set_result(answers)
        return future

    def answer(self, evidence: Evidence) -> bytes:
        """The verdict's bytes; some parts are poison to every model."""
        verdict = self.verdict(evidence)
        if evidence.part.part_id.startswith("poison"):
            update = {
                "disposition": Disposition.UNDECIDABLE,
                "reasons": ("payload_corrupt: rgb",),
            }
            verdict = verdict.model_copy(update=update)
        return verdict.to_bytes()


@dataclass(eq=False)
class Process:
    """One worker process."""

    world: "World"
    number: int
    budget: int | None = None
    dead: bool = False
    stopping: bool = False
    quiet_at: int = -1
    idle_rounds: int = 0
    seen_activity: int = -1
    writers: list[SimWriter] = field(default_factory=list)
    later: list[Callable[[], None]] = field(default_factory=list)
    threads: list[SimThread] = field(default_factory=list)
    scoring: list[tuple["Future[list[bytes]]", list[bytes]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.coroutine = greenlet(self._run, parent=self.world.main)
        self._interrupted = self.coroutine

    def resume(self) -> Turn:
        """The process has run on until it gives the thread back, or ends."""
        return self._interrupted.switch()

    def kill(self) -> None:
        """The process is gone, wherever it was."""
        self.dead = True
        if not self._interrupted.dead:
            self._interrupted.throw(Dead)

    def effect(self, name: str, act: Callable[[], Answer], **others: Callable[[], Any]) -> Answer:
        """`act` has been done at a moment at which anything may go wrong.

        Args:
            name: What is done.
            act: Does it.
            others: What happens in its place when a fault of that kind strikes.
        """
        if self.budget == 0:
            self._yield(Turn("spent"))
        if self.budget is not None:
            self.budget -= 1
        if self.dead:
            raise Dead
        index, faults = self.world.struck(self, name)
        for fault in faults:
            act = others.get(fault.kind, act)
            self._suffer(fault, name)
        done = act()
        if self.world.maps:
            self.world.note(index, done)
        if any(fault.kind == DEAF for fault in faults):
            raise _error(name)
        return done

    def _suffer(self, fault: Fault, name: str) -> None:
        """The fault has struck before the effect."""
        if fault.kind == PAUSE:
            self._yield(Turn("paused", fault.amount))
        elif fault.kind == CRASH:
            self.dead = True
            raise Dead
        elif fault.kind == STOP:
            self.stopping = True
        elif fault.kind == MUTE:
            raise _error(name)
        else:
            self.world.change(fault)

    def round(self) -> None:
        """What is on its way arrives; time passes when nothing else does."""
        world = self.world
        later, self.later = self.later, []
        for arrive in later:
            arrive()
        if self.scoring:
            future, answers = self.scoring.pop()
            future.set_result(answers)
            world.activity += 1
        for writer in self.writers:
            writer.land()
        if world.activity != self.seen_activity:
            self.idle_rounds = 0
            world.clock.advance_s(0.01)
        elif not world.feed():
            self.idle_rounds += 1
            world.clock.advance_s(IDLE_S)
        if self.idle_rounds > IDLE_ROUNDS:
            self.idle_rounds = 0
            self.quiet_at = world.activity
            self._yield(Turn("quiet"))
        self.seen_activity = world.activity
        for thread in self.threads:
            thread.step()

    def _yield(self, turn: Turn) -> None:
        self._interrupted = getcurrent()
        self.world.main.switch(turn)
        if self.dead:
            raise Dead

    def _run(self) -> None:
        world = self.world
        try:
            worker = service.Worker(
                line=world.workload.line_of(self.number),
                log=ProcessLog(self, world.broker),  # type: ignore[arg-type]
                stores=lambda _: SimStore(self, world.server, world.off.store(world.server.state)),
                scorer=SimScorer(self),  # type: ignore[arg-type]
                clock=ProcessClock(world.clock, self.number),
                instance="w",
            )
            worker.run(_Stop(self))  # type: ignore[arg-type]
        except (Dead, HololineError):
            pass
        except Exception as error:  # noqa: BLE001 - the process ends on it, and the run tells
            world.bugs.append(f"{type(error).__name__}: {error}")
        self.dead = True


class _Stop:
    """The process's own stop event."""

    def __init__(self, process: Process) -> None:
        self._process = process

    def is_set(self) -> bool:
        return self._process.stopping


def _error(name: str) -> HololineError:
    text = f"{name}: no answer"
    return Gap(text) if name.startswith("store.") else Unavailable(text)
