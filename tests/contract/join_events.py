"""Random events of one partition, few parts and short deadlines, so that everything collides."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from hypothesis import strategies as st

from connectors.messages import LinePolicy, ProductPolicy
from ingest.events import (
    AliasEvent,
    Event,
    ForceEvent,
    PolicyEvent,
    RefusedEvent,
    TickEvent,
)
from ingest.joiner import Capture

RETENTION_MS: Final = 3_600_000
BEGIN_MS: Final = 1_790_000_000_000
PARTS: Final = ("p0", "p1", "s/l/p2/1", "p#3", "p4")
ITEMS: Final = ("process", "rgb", "scan", "thermal", "unknown")


def _policy(stations: dict[str, str], **products: ProductPolicy) -> LinePolicy:
    return LinePolicy(retention_ms=RETENTION_MS, stations=stations, products=products)


_STATIONS: Final = {
    "process": "plc",
    "rgb": "camera",
    "scan": "scanner",
    "thermal": "thermo",
}
_FOIL: Final = ProductPolicy(expected=("rgb",), deadline_ms=500, late_horizon_ms=500)
POLICIES: Final = (
    _policy(
        _STATIONS,
        can=ProductPolicy(
            expected=("process", "rgb", "scan"), deadline_ms=1_000, late_horizon_ms=2_000
        ),
        foil=_FOIL,
    ),
    _policy(
        _STATIONS,
        can=ProductPolicy(expected=("rgb", "process"), deadline_ms=3_000, late_horizon_ms=60_000),
        foil=_FOIL,
    ),
    _policy(
        {**_STATIONS, "rgb": "other-camera"},
        can=ProductPolicy(expected=("thermal",), deadline_ms=100, late_horizon_ms=1),
    ),
)
"""The second expects less and waits longer; the third has other stations and lacks a product."""


@dataclass
class Log:
    """The partition: what was appended, at which broker times, and which policies it tells of."""

    offset: int = 0
    """The next one."""
    now_ms: int = BEGIN_MS
    watermark: int = 0
    events: list[Event] = field(default_factory=list)

    def append(self, make: "Make", *, later_ms: int, gap: int) -> None:
        """The event is in the log; transactions leave gaps between offsets."""
        self.now_ms += later_ms
        self.events.append(make(self))
        self.offset += 1 + gap

    def after(self, offset: int, limit: int) -> list[Event]:
        """Up to `limit` events behind `offset`."""
        return [event for event in self.events if event.offset > offset][:limit]

    def policy_at(self, offset: int) -> LinePolicy:
        """The policy in force once the event at `offset` is applied."""
        digests = [
            event.digest
            for event in self.events
            if isinstance(event, PolicyEvent) and event.offset <= offset
        ]
        by_digest = {policy.digest: policy for policy in POLICIES}
        return by_digest[digests[-1]] if digests else POLICIES[0]


Make = Callable[[Log], Event]


@st.composite
def captures(draw: st.DrawFn) -> Make:
    """Any capture: repeated, outranked, of an unknown item or product, of a wrong station, old."""
    part, item = draw(st.sampled_from(PARTS)), draw(st.sampled_from(ITEMS))
    product = draw(st.sampled_from(("can", "can", "can", "can", "can", "foil", "nothing")))
    station = draw(st.sampled_from((None, None, None, None, None, None, "other-camera", "nobody")))
    sequence = draw(st.integers(0, 3))
    age_ms = draw(st.sampled_from((0, 0, 0, RETENTION_MS, RETENTION_MS + 1)))
    gaps = draw(st.sampled_from(((), (), (), ("g1",), ("g2", "g1"))))
    return lambda log: capture(
        log,
        part,
        item,
        sequence,
        product=product,
        station=station,
        captured_at_ms=log.now_ms - age_ms,
        gap_ids=gaps,
    )


def capture(
    log: Log,
    part: str,
    item: str,
    sequence: int,
    *,
    product: str = "can",
    station: str | None = None,
    captured_at_ms: int | None = None,
    gap_ids: tuple[str, ...] = (),
) -> Capture:
    """What the log's end holds next, where nothing else is said of a station that may send it."""
    return Capture(
        offset=log.offset,
        logged_at_ms=log.now_ms,
        part=part,
        product=product,
        station=_STATIONS.get(item, "nobody") if station is None else station,
        item=item,
        sequence=sequence,
        event_id=f"{part}|{item}|{sequence}",
        captured_at_ms=log.now_ms if captured_at_ms is None else captured_at_ms,
        head='{"product":"' + product + '"}',
        body=f"{item}@{log.offset} ä",
        gap_ids=gap_ids,
    )


@st.composite
def _others(draw: st.DrawFn) -> Make:
    part = draw(st.sampled_from((*PARTS, "never")))
    kind = draw(st.sampled_from(("tick", "tick", "alias", "force", "policy", "refused")))
    which = draw(st.integers(0, 2))
    reason = draw(st.sampled_from(("bad", 'a "quoted"/\\ word', "ümläut \x00\x1f\x7f €")))

    def make(log: Log) -> Event:
        at = {"offset": log.offset, "logged_at_ms": log.now_ms}
        if kind == "tick":
            kept = (0, log.watermark, log.offset)[which]
            return TickEvent(**at, log_start=kept)
        if kind == "alias":
            return AliasEvent(**at, part=part, real_part_id=f"r{which}")
        if kind == "force":
            return ForceEvent(**at, part=part)
        if kind == "policy":
            policy = POLICIES[which]
            body = policy.to_bytes().decode()
            return PolicyEvent(**at, digest=policy.digest, body=body)
        return RefusedEvent(**at, field="body", reason=reason)

    return make


events: Final = st.one_of(captures(), captures(), _others())
pauses_ms: Final = st.sampled_from((0, 0, 1, 50, 400, 1_000))
gaps: Final = st.sampled_from((0, 0, 0, 1))
