"""Negative controls: each guard switched off in a double, on the workload that shows it.

Product code has no switch. A store's double brings the server's state to where the session left it
(or takes back what a guard relies on) around the real store's calls; the log's are in `Broker`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from sim_plan import LOSE, PAUSE, UNMARKED
from sim_world import GuardsOff

from connectors.errors import Gap
from ingest import broker_time
from ingest.events import Event
from ingest.joiner import Capture
from ingest.memory import MemoryJoinStore, SlotState
from ingest.store import Applied, Choice, Leased, Letter, Published, Slot, Watermark


class Bypass:
    """`JoinStore` that passes on to the real one; its heirs switch one guard off.

    Args:
        state: What the server holds.
    """

    def __init__(self, state: SlotState) -> None:
        self.state = state
        self.inner = MemoryJoinStore(state)
        self.token = ""
        self.seq = 0

    def takeover(self, token: str) -> Slot | None:
        slot = self.inner.takeover(token)
        self.token, self.seq = token, self.state.seq
        return slot

    def reset(self, token: str, *, applied: int, policy: str, body: str) -> None:
        self.inner.reset(token, applied=applied, policy=policy, body=body)
        self.token, self.seq = token, self.state.seq

    def apply(self, events: Sequence[Event]) -> Applied:
        return self.call("apply", events)

    def lease(self, limit: int) -> tuple[list[Leased], int]:
        return self.call("lease", limit)

    def choose(self, offers: Sequence[tuple[str, int, bytes]]) -> list[Choice]:
        return self.call("choose", offers)

    def confirm(self, published: Sequence[Published], *, pub: int) -> None:
        self.call("confirm", published, pub=pub)

    def watermark(self) -> Watermark:
        return self.call("watermark")

    def letters(self, *, delivered_below: int, limit: int) -> list[Letter]:
        return self.call("letters", delivered_below=delivered_below, limit=limit)

    def wipe(self) -> None:
        self.inner.wipe()

    def close(self) -> None:
        self.inner.close()

    def call(self, name: str, *arguments: Any, **named: Any) -> Any:
        """One guarded call of the real store."""
        self.before(name)
        answer = getattr(self.inner, name)(*arguments, **named)
        self.seq += 1
        return answer

    def before(self, name: str) -> None:
        """What makes the guard pass."""


class NoToken(Bypass):
    """Any session may write, whoever owns the slot."""

    def before(self, name: str) -> None:
        if self.state.token is not None:
            self.state.token = self.token


class NoSeq(Bypass):
    """A session does not notice that the server went back in time."""

    def before(self, name: str) -> None:
        if self.state.token == self.token:
            self.state.seq = self.seq


class CarryOn(Bypass):
    """After a GAP the session takes the slot over once more and goes on."""

    def call(self, name: str, *arguments: Any, **named: Any) -> Any:
        try:
            return super().call(name, *arguments, **named)
        except Gap:
            if self.state.token is None:
                raise
            self.takeover(self.token)
            return super().call(name, *arguments, **named)


class NoDedupe(Bypass):
    """Each record counts, though its event was taken before."""

    def apply(self, events: Sequence[Event]) -> Applied:
        return super().apply([_as_new(event) for event in events])


def _as_new(event: Event) -> Event:
    if not isinstance(event, Capture):
        return event
    return event._replace(event_id=f"{event.event_id}{event.offset}", sequence=event.offset)


class NoPublishedCheck(Bypass):
    """What was read back does not keep a revision from being judged once more."""

    def before(self, name: str) -> None:
        self.state.published.clear()


class NoWatermark(Bypass):
    """The position is committed, whatever is still open."""

    def watermark(self) -> Watermark:
        return replace(super().watermark(), offset=self.state.applied + 1, policy=self.state.policy)


class PolicyOfNow(Bypass):
    """The policy in force now is committed beside a watermark that may lie before its change."""

    def watermark(self) -> Watermark:
        return replace(super().watermark(), policy=self.state.policy)


class NoOrder(Bypass):
    """Revision n + 1 is handed out although n is not published."""

    def lease(self, limit: int) -> tuple[list[Leased], int]:
        super().lease(0)
        members = list(self.state.ready)[:limit]
        for member in members:
            self.state.leased[member] = self.state.ready.pop(member)
        leased = [
            Leased(part=part, revision=revision, frozen=self.state.evidence[part, revision])
            for part, revision in members
        ]
        return leased, len(self.state.ready)


class NoOutbox(Bypass):
    """Dead letters wait in the worker's memory, not at the server."""

    def __init__(self, state: SlotState) -> None:
        super().__init__(state)
        self.kept: dict[int, Letter] = {}

    def apply(self, events: Sequence[Event]) -> Applied:
        applied = super().apply(events)
        self.kept.update(self.state.outbox)
        self.state.outbox.clear()
        return applied

    def letters(self, *, delivered_below: int, limit: int) -> list[Letter]:
        super().letters(delivered_below=0, limit=0)
        self.kept = {at: one for at, one in self.kept.items() if at >= delivered_below}
        return [self.kept[at] for at in sorted(self.kept)[:limit]]


class NoProbe(Bypass):
    """Without traffic nothing is asked of the server."""

    def __init__(self, state: SlotState) -> None:
        super().__init__(state)
        self.mark: Watermark | None = None

    def lease(self, limit: int) -> tuple[list[Leased], int]:
        return super().lease(limit) if limit else ([], 0)

    def watermark(self) -> Watermark:
        if self.mark is None or self.state.token == self.token:
            self.mark = super().watermark()
        return self.mark


class NoChoice(Bypass):
    """Each offer is taken, whatever was offered before."""

    def choose(self, offers: Sequence[tuple[str, int, bytes]]) -> list[Choice]:
        answers = []
        for (part, revision, verdict), choice in zip(offers, super().choose(offers), strict=True):
            answers.append(Choice(verdict=verdict) if choice.verdict is not None else choice)
            self.state.chosen[part, revision] = verdict
        return answers


@dataclass(frozen=True, slots=True, kw_only=True)
class Control:
    """A guard that is off, and the workloads on which that shows."""

    off: GuardsOff
    workloads: tuple[str, ...]
    by: tuple[str, ...] = ()  # kinds of faults that show it soonest
    pairs: bool = False  # it takes a paused session, and a rollback meanwhile


_NO_TRAFFIC: Final = ((broker_time, "IDLE_S", 1e9),)

CONTROLS: Final = {
    "token": Control(off=GuardsOff(store=NoToken), workloads=("two", "late"), pairs=True),
    "seq": Control(off=GuardsOff(store=NoSeq), workloads=("late", "two")),
    "new session on GAP": Control(off=GuardsOff(store=CarryOn), workloads=("late", "two")),
    "dedupe": Control(off=GuardsOff(store=NoDedupe), workloads=("late",)),
    "read-back at takeover": Control(off=GuardsOff(read_back=True), workloads=("late",)),
    "settling at takeover": Control(
        off=GuardsOff(settling=True), workloads=("late",), by=(UNMARKED,)
    ),
    "published check": Control(off=GuardsOff(store=NoPublishedCheck), workloads=("late",)),
    "watermark": Control(
        off=GuardsOff(store=NoWatermark), workloads=("horizon", "late"), by=(LOSE,)
    ),
    "policy at the mark": Control(
        off=GuardsOff(store=PolicyOfNow), workloads=("policy",), by=(LOSE,)
    ),
    "Kafka fencing": Control(off=GuardsOff(fencing=True), workloads=("late", "two"), by=(PAUSE,)),
    "order of revisions": Control(off=GuardsOff(store=NoOrder), workloads=("revisions",)),
    "outbox": Control(off=GuardsOff(store=NoOutbox), workloads=("letters",)),
    "idle probe": Control(
        off=GuardsOff(store=NoProbe, patches=_NO_TRAFFIC), workloads=("late",), by=(LOSE,)
    ),
    "choose-first, fencing off too": Control(
        off=GuardsOff(fencing=True, store=NoChoice), workloads=("late", "two"), by=(PAUSE,)
    ),
}
"""By the guard that is off. Each has to break a promise of `sim_checker`."""
