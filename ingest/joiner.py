"""The join of one part: a pure state machine, and nothing else.

No clock, no Redis, no log. All that decides a part's fate is in `TABLE`; what an event means to a
part is decided by `_meaning`. Time is the broker's: a deadline compares with the time of a tick
record, so a replay of the log closes the same joins at the same place with the same revisions.

`ingest/lua/apply.lua` is this file once more, inside Redis; both pass one contract suite.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum, StrEnum, auto
from typing import Final, NamedTuple

RECORDS_MAX: Final = 32
REVISIONS_MAX: Final = 16


class Phase(Enum):
    """How far a part has come."""

    ABSENT = auto()  # no state: never seen, or evicted
    OPEN = auto()  # collecting until complete, deadline or force-close
    CLOSED = auto()  # has a revision; late records make the next one until the horizon


class Signal(Enum):
    """What an event means to a part, given what is held of it."""

    ARRIVED = auto()  # an item not held yet; expected ones are still missing
    COMPLETED = auto()  # the last missing expected item
    OUTRANKED_HELD = auto()  # a higher capture sequence of an item that is held
    OUTRANKED_BY_HELD = auto()  # a lower capture sequence of an item that is held
    REPEATED = auto()  # this very event was taken before
    NAMED = auto()  # an alias names the real id behind a tracking id
    TIMED_OUT = auto()  # a tick's timestamp reached the deadline
    FORCED = auto()  # an operator closes the join now
    EXPIRED = auto()  # a tick's timestamp reached the late-data horizon


class Emit(Enum):
    """What follows once the new state is stored."""

    NOTHING = auto()
    REVISE = auto()  # freeze the evidence as the next revision
    REFUSE = auto()  # dead letter
    EVICT = auto()  # forget the part; its marker stays


class Closing(StrEnum):
    """Why a revision was frozen; the values of `connectors.messages.Closed`."""

    COMPLETE = "complete"
    DEADLINE = "deadline"
    LATE = "late"
    FORCED = "forced"


TABLE: Final[Mapping[Phase, Mapping[Signal, tuple[Phase, Emit]]]] = {
    Phase.ABSENT: {
        Signal.ARRIVED: (Phase.OPEN, Emit.NOTHING),
        Signal.COMPLETED: (Phase.CLOSED, Emit.REVISE),
        Signal.NAMED: (Phase.ABSENT, Emit.REFUSE),
        Signal.FORCED: (Phase.ABSENT, Emit.REFUSE),
    },
    Phase.OPEN: {
        Signal.ARRIVED: (Phase.OPEN, Emit.NOTHING),
        Signal.COMPLETED: (Phase.CLOSED, Emit.REVISE),
        Signal.OUTRANKED_HELD: (Phase.OPEN, Emit.NOTHING),
        Signal.OUTRANKED_BY_HELD: (Phase.OPEN, Emit.NOTHING),
        Signal.REPEATED: (Phase.OPEN, Emit.NOTHING),
        Signal.NAMED: (Phase.OPEN, Emit.NOTHING),
        Signal.TIMED_OUT: (Phase.CLOSED, Emit.REVISE),
        Signal.FORCED: (Phase.CLOSED, Emit.REVISE),
    },
    Phase.CLOSED: {
        Signal.ARRIVED: (Phase.CLOSED, Emit.REVISE),
        Signal.COMPLETED: (Phase.CLOSED, Emit.REVISE),
        Signal.OUTRANKED_HELD: (Phase.CLOSED, Emit.REVISE),
        Signal.OUTRANKED_BY_HELD: (Phase.CLOSED, Emit.REFUSE),
        Signal.REPEATED: (Phase.CLOSED, Emit.NOTHING),
        Signal.NAMED: (Phase.CLOSED, Emit.REVISE),
        Signal.FORCED: (Phase.CLOSED, Emit.NOTHING),
        Signal.EXPIRED: (Phase.ABSENT, Emit.EVICT),
    },
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Joining:
    """What of a product's policy decides its joins."""

    expected: frozenset[str]
    deadline_ms: int
    late_horizon_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinPolicy:
    """What of a line's policy decides joins; in force from one offset to the next change."""

    digest: str
    retention_ms: int
    stations: Mapping[str, str]
    products: Mapping[str, Joining]


class Capture(NamedTuple):
    """A station record, reduced to what decides; `head` and `body` are carried unread.

    A tuple, as millions are made.
    """

    offset: int
    logged_at_ms: int
    part: str
    product: str
    station: str
    item: str
    sequence: int
    event_id: str
    captured_at_ms: int
    head: str = ""
    body: str = ""
    gap_ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """An item that a part holds."""

    sequence: int
    event_id: str
    body: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """All that is known of one part while it has state."""

    phase: Phase
    product: str
    policy: str
    head: str
    opened_offset: int
    opened_at_ms: int
    deadline_at_ms: int
    horizon_at_ms: int
    last_offset: int
    revision: int = 0
    records: int = 0
    alias: str = ""
    items: Mapping[str, Held] = field(default_factory=dict)
    seen: frozenset[str] = frozenset()
    superseded: tuple[str, ...] = ()
    late: tuple[str, ...] = ()
    gap_ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why an event becomes a dead letter: the field, and what is wrong with it."""

    field: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """The outcome of one event: the part's new state (None: no state), and what follows."""

    part: Part | None
    closing: Closing | None = None  # set: the part has a new revision
    refusal: Refusal | None = None


def take(part: Part | None, capture: Capture, *, policy: JoinPolicy, marker: int | None) -> Step:
    """Take one capture.

    Args:
        part: The part's state, or None.
        capture: The capture.
        policy: The one that the part opened under; without state, the one in force.
        marker: Opening offset that a published verdict or an eviction left behind, if any.
    """
    if part is not None:
        part = _spanning(part, capture.offset)
    refusal = _refusal(part, capture, policy=policy, marker=marker)
    if refusal is not None:
        return Step(part=part, refusal=refusal)
    held = part if part is not None else _opened(capture, policy)
    signal = _meaning(held, capture, policy.products)
    phase, emit = TABLE[Phase.ABSENT if part is None else held.phase][signal]
    if signal is Signal.REPEATED:
        return Step(part=held)
    refusal = _beyond_bounds(held, emit)
    if refusal is not None:
        return Step(part=held, refusal=refusal)
    taken = replace(_with(held, capture, signal), phase=phase)
    if emit is not Emit.REVISE:
        return Step(part=taken)
    if held.phase is Phase.OPEN:
        return _revised(taken, Closing.COMPLETE)
    return _revised(replace(taken, late=_plus(taken.late, capture.item)), Closing.LATE)


def name(part: Part | None, *, alias: str, offset: int) -> Step:
    """Give a part that was tracked after a no-read its real id."""
    if part is None:
        return Step(part=None, refusal=NO_SUCH_PART)
    part = _spanning(part, offset)
    if part.alias == alias:
        return Step(part=part)
    phase, emit = TABLE[part.phase][Signal.NAMED]
    refusal = _beyond_bounds(part, emit)
    if refusal is not None:
        return Step(part=part, refusal=refusal)
    named = replace(part, phase=phase, alias=alias, records=part.records + 1)
    return _revised(named, Closing.LATE) if emit is Emit.REVISE else Step(part=named)


def force(part: Part | None, *, offset: int) -> Step:
    """Close a part's join now."""
    if part is None:
        return Step(part=None, refusal=NO_SUCH_PART)
    part = _spanning(part, offset)
    phase, emit = TABLE[part.phase][Signal.FORCED]
    if emit is Emit.NOTHING:
        return Step(part=part)
    return _revised(replace(part, phase=phase), Closing.FORCED)


def elapse(part: Part, *, offset: int) -> Step:
    """Let the part's next due time pass: its deadline while open, its horizon once closed.

    The caller compares `due_at_ms` with the tick's timestamp; a part without state was evicted.
    """
    signal = Signal.TIMED_OUT if part.phase is Phase.OPEN else Signal.EXPIRED
    phase, emit = TABLE[part.phase][signal]
    if emit is Emit.EVICT:
        return Step(part=None)
    return _revised(_spanning(replace(part, phase=phase), offset), Closing.DEADLINE)


def due_at_ms(part: Part) -> int:
    """Broker time at which something happens to the part by itself."""
    return part.deadline_at_ms if part.phase is Phase.OPEN else part.horizon_at_ms


NO_SUCH_PART: Final = Refusal(
    field="part", reason="nothing is known of this part here; send its records first"
)


def _refusal(
    part: Part | None, capture: Capture, *, policy: JoinPolicy, marker: int | None
) -> Refusal | None:
    owner = policy.stations.get(capture.item)
    if owner is None:
        return Refusal(
            field="modality",
            reason=f"no in-line station publishes {capture.item}; declare it in the line file",
        )
    if owner != capture.station:
        return Refusal(
            field="station",
            reason=f"{capture.item} belongs to station {owner}; give each station its own modality",
        )
    if capture.product not in policy.products:
        return Refusal(
            field="product",
            reason=f"{capture.product} is not a product of this line; declare it in the line file",
        )
    if part is not None:
        return _other_product(part, capture)
    return _cannot_open(capture, policy=policy, marker=marker)


def _other_product(part: Part, capture: Capture) -> Refusal | None:
    if part.product == capture.product:
        return None
    return Refusal(
        field="product", reason=f"this part opened as {part.product}; correct the station"
    )


def _cannot_open(capture: Capture, *, policy: JoinPolicy, marker: int | None) -> Refusal | None:
    if capture.captured_at_ms < capture.logged_at_ms - policy.retention_ms:
        return Refusal(
            field="captured_at_ns",
            reason="older than the log's retention; correct the station's clock",
        )
    if marker is not None and capture.offset != marker:
        return Refusal(
            field="part",
            reason="came after the late-data horizon; raise late_horizon_ms or use a new pass",
        )
    return None


def _opened(capture: Capture, policy: JoinPolicy) -> Part:
    joining = policy.products[capture.product]
    deadline_at_ms = capture.logged_at_ms + joining.deadline_ms
    return Part(
        phase=Phase.OPEN,
        product=capture.product,
        policy=policy.digest,
        head=capture.head,
        opened_offset=capture.offset,
        opened_at_ms=capture.logged_at_ms,
        deadline_at_ms=deadline_at_ms,
        horizon_at_ms=deadline_at_ms + joining.late_horizon_ms,
        last_offset=capture.offset,
    )


def _meaning(part: Part, capture: Capture, products: Mapping[str, Joining]) -> Signal:
    if capture.event_id in part.seen:
        return Signal.REPEATED
    held = part.items.get(capture.item)
    if held is not None:
        higher = capture.sequence > held.sequence
        return Signal.OUTRANKED_HELD if higher else Signal.OUTRANKED_BY_HELD
    expected = products[capture.product].expected
    have = part.items.keys() | {capture.item}
    return Signal.COMPLETED if expected <= have else Signal.ARRIVED


def _beyond_bounds(part: Part, emit: Emit) -> Refusal | None:
    if emit is Emit.REFUSE:
        return Refusal(
            field="capture_sequence",
            reason="a capture with a higher sequence was judged already; count captures up",
        )
    if part.records >= RECORDS_MAX:
        return Refusal(field="part", reason=f"has {RECORDS_MAX} records already; use a new pass")
    if emit is Emit.REVISE and part.revision >= REVISIONS_MAX:
        return Refusal(field="part", reason=f"has {REVISIONS_MAX} revisions; use a new pass")
    return None


def _with(part: Part, capture: Capture, signal: Signal) -> Part:
    fresh = Held(sequence=capture.sequence, event_id=capture.event_id, body=capture.body)
    items = dict(part.items)
    superseded = part.superseded
    if signal is Signal.OUTRANKED_BY_HELD:
        superseded = (*superseded, capture.event_id)
    else:
        if signal is Signal.OUTRANKED_HELD:
            superseded = (*superseded, items[capture.item].event_id)
        items[capture.item] = fresh
    gap_ids = part.gap_ids
    for gap_id in capture.gap_ids:
        gap_ids = _plus(gap_ids, gap_id)
    return replace(
        part,
        items=items,
        seen=part.seen | {capture.event_id},
        superseded=superseded,
        gap_ids=gap_ids,
        records=part.records + 1,
    )


def _spanning(part: Part, offset: int) -> Part:
    """The part's records reach to `offset`: a repeat, or one that was refused, is one of them.

    A replay that began behind them would not know the part, and refuse them once more or otherwise.
    """
    return replace(part, last_offset=offset)


def _revised(part: Part, closing: Closing) -> Step:
    return Step(part=replace(part, revision=part.revision + 1), closing=closing)


def _plus(names: tuple[str, ...], new: str) -> tuple[str, ...]:
    return names if new in names else (*names, new)
