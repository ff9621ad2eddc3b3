"""One part's life, lived again on the pure table: what became of each record, every revision.

It is the join that the worker runs (`MemoryJoinStore` is the twin of the scripts in Redis), given
this part's records, the ticks that can move it and the changes of policy between them. Other parts
cannot touch it, so they are left out.
"""

from array import array
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, Protocol

from connectors.messages import Evidence, LinePolicy
from ingest.events import Event, PolicyEvent, TickEvent
from ingest.evidence import evidence_of
from ingest.joiner import Capture, Part, Phase
from ingest.memory import MemoryJoinStore
from ingest.policies import PolicyBook
from ingest.store import Letter, Published

_TOKEN: Final = "replay"  # noqa: S105 - a session's name, no secret


class Fate(StrEnum):
    """What became of a record."""

    COUNTED = "counted"
    SUPERSEDED = "superseded"  # a higher capture sequence of the same modality came
    REPEATED = "duplicate"  # this very capture, name or wish had been taken before
    REFUSED = "dead letter"


class Ticks(Protocol):
    """Where log time is looked up."""

    def next(self, *, after: int, before: Event | None, due_at_ms: int | None) -> TickEvent | None:
        """The first after an offset, before an event (None: the end), that reaches what is due."""
        ...


class LoggedTicks:
    """The ticks of one partition, 16 bytes each.

    Where the log began at a tick is left out: it frees the join of what the log has lost, and what
    is replayed is what the log still has.
    """

    def __init__(self) -> None:
        self._offsets, self._times = array("q"), array("q")

    def add(self, tick: TickEvent) -> None:
        """`tick` comes after all earlier ones."""
        self._offsets.append(tick.offset)
        self._times.append(tick.logged_at_ms)

    def next(self, *, after: int, before: Event | None, due_at_ms: int | None) -> TickEvent | None:
        """See `Ticks.next`.

        Every tick compares with its own time, never with a running maximum.
        """
        if due_at_ms is None:
            return None
        low = bisect_left(self._offsets, after + 1)
        high = len(self._offsets) if before is None else bisect_left(self._offsets, before.offset)
        chosen = next((i for i in range(low, high) if self._times[i] >= due_at_ms), None)
        if chosen is None:
            return None
        return TickEvent(
            offset=self._offsets[chosen], logged_at_ms=self._times[chosen], log_start=0
        )


@dataclass(slots=True)
class Life:
    """What became of a part."""

    evidences: list[Evidence] = field(default_factory=list)
    """Its revisions, in order."""
    fates: dict[int, Fate] = field(default_factory=dict)
    """What became of each of its records, by offset."""
    letters: dict[int, Letter] = field(default_factory=dict)
    phase: Phase = Phase.ABSENT
    due_at_ms: int | None = None
    """Broker time at which something happens by itself: the deadline, then the horizon."""


class _Living:
    def __init__(self, key: str, *, applied: int, policy: LinePolicy, policies: PolicyBook) -> None:
        self.life = Life()
        self._key = key
        self._policies = policies
        self._superseded: set[str] = set()
        self._captures: dict[str, list[int]] = {}
        self.store = MemoryJoinStore()
        body = policy.to_bytes().decode()
        self.store.reset(_TOKEN, applied=applied, policy=policy.digest, body=body)

    def take(self, event: Event) -> None:
        before = self.store.state.parts.get(self._key)
        self.life.due_at_ms = self.store.apply([event]).next_due_ms
        after = self.store.state.parts.get(self._key)
        self._collect()
        self.life.phase = Phase.ABSENT if after is None else after.phase
        if isinstance(event, TickEvent | PolicyEvent):
            return
        if event.offset in self.life.letters:
            self.life.fates[event.offset] = Fate.REFUSED
            return
        moved = _standing(after) != _standing(before)
        self.life.fates[event.offset] = Fate.COUNTED if moved else Fate.REPEATED
        if moved and after is not None and isinstance(event, Capture):
            self._captures.setdefault(event.event_id, []).append(event.offset)
            self._superseded |= set(after.superseded)

    def end(self) -> Life:
        for event_id in self._superseded:
            for offset in self._captures.get(event_id, ()):
                self.life.fates[offset] = Fate.SUPERSEDED
        return self.life

    def _collect(self) -> None:
        """Revisions and letters leave the store, as if they had been published."""
        for letter in self.store.letters(delivered_below=0, limit=1):
            self.life.letters[letter.offset] = letter
            self.store.letters(delivered_below=letter.offset + 1, limit=0)
        for leased in self.store.lease(1)[0]:
            evidence = evidence_of(leased, self._policies)
            self.life.evidences.append(evidence)
            published = Published(
                part=leased.part,
                revision=leased.revision,
                opened_offset=evidence.opened_offset,
            )
            self.store.confirm([published], pub=0)


def _standing(part: Part | None) -> tuple[int, int]:
    """What a record moves when it counts."""
    return (0, 0) if part is None else (part.records, part.revision)


def live(
    key: str,
    events: Sequence[Event],
    *,
    policy: LinePolicy,
    policies: PolicyBook,
    ticks: Ticks,
) -> Life:
    """The life of part `key` from its first event on.

    Args:
        key: The part's key.
        events: All of the part's events, refused ones too, and the changes of policy between them,
            in order of offsets.
        policy: The one in force at the first event.
        policies: Bodies of policies.
        ticks: Log time.
    """
    if not events:
        return Life()
    living = _Living(key, applied=events[0].offset - 1, policy=policy, policies=policies)
    for event in (*events, None):
        while True:
            tick = ticks.next(
                after=living.store.state.applied, before=event, due_at_ms=living.life.due_at_ms
            )
            if tick is None:
                break
            living.take(tick)
        if event is not None:
            living.take(event)
    return living.end()
