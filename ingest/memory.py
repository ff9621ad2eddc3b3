"""`JoinStore` in memory, on the pure table: the twin of `RedisJoinStore`.

It keeps the guard too: `state` may be shared by several stores (sessions), saved, rolled back or
lost, as a real server's may.
"""

import copy
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from connectors.errors import Fenced, Gap
from connectors.messages import LinePolicy
from ingest.events import (
    AliasEvent,
    Event,
    ForceEvent,
    PolicyEvent,
    RefusedEvent,
    TickEvent,
)
from ingest.joiner import (
    REVISIONS_MAX,
    Capture,
    Joining,
    JoinPolicy,
    Part,
    Refusal,
    Step,
    due_at_ms,
    elapse,
    force,
    name,
    take,
)
from ingest.store import (
    TICK_SLICE_PARTS,
    Applied,
    Choice,
    Leased,
    Letter,
    Published,
    Slot,
    Watermark,
)

_MARKERS_AT_ONCE: Final = 64


def join_policy(body: str) -> JoinPolicy:
    """What of a policy's body decides joins."""
    policy = LinePolicy.from_bytes(body.encode())
    return JoinPolicy(
        digest=policy.digest,
        retention_ms=policy.retention_ms,
        stations=policy.stations,
        products={
            product: Joining(
                expected=frozenset(spec.expected),
                deadline_ms=spec.deadline_ms,
                late_horizon_ms=spec.late_horizon_ms,
            )
            for product, spec in policy.products.items()
        },
    )


@dataclass(slots=True)
class SlotState:
    """All that one slot holds; `None` for `token` means cold."""

    token: str | None = None
    seq: int = 0
    applied: int = -1
    pub: int = 0
    policy: str = ""
    parts: dict[str, Part] = field(default_factory=dict)
    opens: dict[str, int] = field(default_factory=dict)
    ready: dict[tuple[str, int], int] = field(default_factory=dict)
    leased: dict[tuple[str, int], int] = field(default_factory=dict)
    evidence: dict[tuple[str, int], dict[str, Any]] = field(default_factory=dict)
    chosen: dict[tuple[str, int], bytes] = field(default_factory=dict)
    published: dict[str, int] = field(default_factory=dict)
    markers: dict[str, int] = field(default_factory=dict)
    spans: set[tuple[int, str]] = field(default_factory=set)  # last offset, part
    outbox: dict[int, Letter] = field(default_factory=dict)
    policies: dict[str, JoinPolicy] = field(default_factory=dict)
    policy_log: list[tuple[int, str]] = field(default_factory=list)

    def snapshot(self) -> "SlotState":
        """A copy to roll back to."""
        return copy.deepcopy(self)


class MemoryJoinStore:
    """See `JoinStore`.

    Args:
        state: What the server holds; share it to let two sessions contend for one slot.
    """

    def __init__(self, state: SlotState | None = None) -> None:
        self.state = state if state is not None else SlotState()
        self._token = ""
        self._seq = 0
        self._budget = 0

    def takeover(self, token: str) -> Slot | None:
        """See `JoinStore.takeover`."""
        self._token = token
        if self.state.token is None:
            return None
        self.state.token = token
        self.state.ready.update(self.state.leased)
        self.state.leased.clear()
        self._seq = self.state.seq
        return Slot(applied=self.state.applied, pub=self.state.pub, policy=self.state.policy)

    def reset(self, token: str, *, applied: int, policy: str, body: str) -> None:
        """See `JoinStore.reset`."""
        fresh = SlotState(token=token, applied=applied, policy=policy)
        fresh.policies[policy] = join_policy(body)
        fresh.policy_log.append((applied, policy))
        self._become(fresh)
        self._token, self._seq = token, 0

    def apply(self, events: Sequence[Event]) -> Applied:
        """See `JoinStore.apply`."""
        self._guard()
        self._budget = TICK_SLICE_PARTS
        taken = 0
        for event in events:
            assert event.offset > self.state.applied, "event at or before applied"
            if not self._take(event):
                break
            taken += 1
            self.state.applied = event.offset
        due = [due_at_ms(part) for part in self.state.parts.values()]
        return Applied(
            taken=taken,
            applied=self.state.applied,
            ready=len(self.state.ready),
            outbox=len(self.state.outbox),
            next_due_ms=min(due, default=None),
        )

    def wipe(self) -> None:
        """See `JoinStore.wipe`."""
        self._become(SlotState())

    def lease(self, limit: int) -> tuple[list[Leased], int]:
        """See `JoinStore.lease`."""
        self._guard()
        leased: list[Leased] = []
        order = sorted(self.state.ready, key=lambda m: (self.state.ready[m], f"{m[0]}#{m[1]}"))
        for part, revision in order[: limit * 2]:
            if len(leased) == limit:
                break
            if self._unpublished(part, revision - 1):
                continue
            member = (part, revision)
            self.state.leased[member] = self.state.ready.pop(member)
            leased.append(Leased(part=part, revision=revision, frozen=self.state.evidence[member]))
        return leased, len(self.state.ready)

    def choose(self, offers: Sequence[tuple[str, int, bytes]]) -> list[Choice]:
        """See `JoinStore.choose`."""
        self._guard()
        state = self.state
        for part, revision, _ in offers:
            published = state.published.get(part, 0) >= revision
            if not published and (part, revision) not in state.leased:
                raise Gap(f"choose: {part}#{revision} is not leased")
        choices = []
        for part, revision, verdict in offers:
            if state.published.get(part, 0) >= revision:
                choices.append(Choice(verdict=None))
                continue
            chosen = state.chosen.setdefault((part, revision), verdict)
            choices.append(Choice(verdict=chosen))
        return choices

    def confirm(self, published: Sequence[Published], *, pub: int) -> None:
        """See `JoinStore.confirm`."""
        self._guard()
        state = self.state
        for one in published:
            member = (one.part, one.revision)
            state.published[one.part] = max(one.revision, state.published.get(one.part, 0))
            state.markers[one.part] = one.opened_offset
            for held in (state.ready, state.leased, state.evidence, state.chosen):
                held.pop(member, None)
            if one.part not in state.parts and not self._any_unpublished(one.part):
                state.opens.pop(one.part, None)
        state.pub = pub

    def watermark(self) -> Watermark:
        """See `JoinStore.watermark`."""
        self._guard()
        state = self.state
        low = min(state.applied + 1, *state.opens.values(), *state.outbox, 2**62)
        while True:
            inside = [state.markers.get(p, low) for last, p in state.spans if last >= low]
            if min(inside, default=low) >= low:
                break
            low = min(inside)
        state.spans = {(last, part) for last, part in state.spans if last >= low}
        while len(state.policy_log) > 1 and state.policy_log[1][0] < low:
            state.policy_log.pop(0)
        return Watermark(offset=low, policy=state.policy_log[0][1], parts=len(state.parts))

    def letters(self, *, delivered_below: int, limit: int) -> list[Letter]:
        """See `JoinStore.letters`."""
        self._guard()
        kept = {o: one for o, one in self.state.outbox.items() if o >= delivered_below}
        self.state.outbox = kept
        return [kept[offset] for offset in sorted(kept)[:limit]]

    def close(self) -> None:
        """See `JoinStore.close`."""

    def _become(self, other: SlotState) -> None:
        for slot in SlotState.__slots__:
            setattr(self.state, slot, getattr(other, slot))

    def _guard(self) -> None:
        if self.state.token is None:
            raise Gap("the slot is lost")
        if self.state.token != self._token:
            raise Fenced("another session owns this partition")
        if self.state.seq != self._seq:
            raise Gap("the slot went back in time")
        self.state.seq += 1
        self._seq += 1

    def _take(self, event: Event) -> bool:
        state = self.state
        match event:
            case Capture():
                self._capture(event)
            case AliasEvent():
                part = state.parts.get(event.part)
                step = name(part, alias=event.real_part_id, offset=event.offset)
                self._settle(event.part, step, event)
            case ForceEvent():
                step = force(state.parts.get(event.part), offset=event.offset)
                self._settle(event.part, step, event)
            case RefusedEvent():
                self._refuse(event.offset, Refusal(field=event.field, reason=event.reason))
            case PolicyEvent():
                state.policies[event.digest] = join_policy(event.body)
                state.policy_log.append((event.offset, event.digest))
                state.policy = event.digest
            case TickEvent():
                return self._tick(event)
        return True

    def _capture(self, event: Capture) -> None:
        state = self.state
        part = state.parts.get(event.part)
        policy = state.policies[part.policy if part is not None else state.policy]
        marker = state.markers.get(event.part) if part is None else None
        step = take(part, event, policy=policy, marker=marker)
        if part is None and step.part is not None:
            state.opens[event.part] = event.offset
        self._settle(event.part, step, event)

    def _settle(self, key: str, step: Step, event: Event) -> None:
        if step.refusal is not None:
            self._refuse(event.offset, step.refusal)
        if step.part is None:
            return
        self.state.parts[key] = step.part
        if step.closing is not None:
            self._freeze(key, step, event)

    def _freeze(self, key: str, step: Step, event: Event) -> None:
        part = step.part
        assert part is not None
        if part.revision <= self.state.published.get(key, 0):
            return
        expected = self.state.policies[part.policy].products[part.product].expected
        member = (key, part.revision)
        self.state.evidence[member] = {
            "product": part.product,
            "closed": str(step.closing),
            "head": part.head,
            "alias": part.alias,
            "policy": part.policy,
            "opened_offset": part.opened_offset,
            "opened_at_ms": part.opened_at_ms,
            "closed_offset": event.offset,
            "closed_at_ms": event.logged_at_ms,
            "names": sorted(part.items),
            "items": [part.items[item].body for item in sorted(part.items)],
            "missing": sorted(expected - part.items.keys()),
            "late": list(part.late),
            "superseded": list(part.superseded),
            "gap_ids": list(part.gap_ids),
        }
        self.state.ready[member] = event.offset

    def _tick(self, tick: TickEvent) -> bool:
        state = self.state
        while True:
            due = [(due_at_ms(p), key) for key, p in state.parts.items()]
            first = min(due, default=(2**62, ""))
            if first[0] > tick.logged_at_ms:
                break
            if self._budget <= 0:
                return False
            self._budget -= 1
            key = first[1]
            step = elapse(state.parts[key], offset=tick.offset)
            if step.part is None:
                self._evict(key)
            else:
                self._settle(key, step, tick)
        return self._forget_below(tick.log_start)

    def _forget_below(self, log_start: int) -> bool:
        """What the log no longer holds cannot be replayed: its markers go, within the budget."""
        state = self.state
        while old := sorted((o, key) for key, o in state.markers.items() if o < log_start):
            if self._budget <= 0:
                return False
            self._budget -= len(old[:_MARKERS_AT_ONCE])
            for _, key in old[:_MARKERS_AT_ONCE]:
                del state.markers[key]
                state.published.pop(key, None)
        return True

    def _evict(self, key: str) -> None:
        part = self.state.parts.pop(key)
        self.state.markers[key] = part.opened_offset
        self.state.spans.add((part.last_offset, key))
        if not any(self._unpublished(key, r) for r in range(1, part.revision + 1)):
            del self.state.opens[key]

    def _refuse(self, offset: int, refusal: Refusal) -> None:
        self.state.outbox[offset] = Letter(
            offset=offset, field=refusal.field, reason=refusal.reason
        )

    def _unpublished(self, part: str, revision: int) -> bool:
        return (part, revision) in self.state.ready or (part, revision) in self.state.leased

    def _any_unpublished(self, part: str) -> bool:
        return any(self._unpublished(part, r) for r in range(1, REVISIONS_MAX + 1))


def frozen_json(frozen: dict[str, Any]) -> str:
    """Frozen evidence in a form that compares across implementations: Lua has no empty list."""
    return json.dumps({k: ([] if v == {} else v) for k, v in frozen.items()}, sort_keys=True)
