"""A seed -> what stations send of each part, and when: complete, short, late, repeated, broken."""

import heapq
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from random import Random
from typing import Any, Final

from connectors.cloudevents import headers_of
from connectors.line import Line
from connectors.messages import (
    PROCESS_ITEM,
    Alias,
    ForceClose,
    Message,
    PartKey,
    PayloadRef,
    StationRecord,
    event_id_of,
)
from connectors.ports import Headers
from deploy.prove.judge import DEADLY

STORIES: Final = {
    "complete": 60,
    "short": 10,
    "late": 8,
    "after_the_horizon": 3,
    "repeated": 6,
    "retaken": 4,
    "outdone": 2,
    "aliased": 2,
    "forced": 2,
    "broken": 3,
}
"""How many of a hundred parts live each story."""

DEFECTS: Final = (
    *("bytes", "kind", "field", "missing", "event_id", "key", "partition", "modality"),
    *("station", "product", "line", "too_big", "major"),
)
"""One of them a broken record has."""

DEADLY_PART: Final = 100
"""The number of the part that kills each replica which judges it, where one is asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Send:
    """One record as it goes out; `after_s` counts from the part's beginning."""

    after_s: float
    key: bytes
    value: bytes
    headers: Headers
    partition: int | None = None


class Stories:
    """Tells what is sent of part number n; the same for the same seed.

    Args:
        line: The line.
        seed: Of this round.
        now_ns: Wall time; stations stamp their captures with it.
        deadly: The number of a part that kills each replica which judges it; -1: none.
    """

    def __init__(
        self, line: Line, *, seed: int, now_ns: Callable[[], int], deadly: int = -1
    ) -> None:
        self._line = line
        self._seed = seed
        self._now_ns = now_ns
        self._deadly = deadly
        self._owners = line.owners()

    def of(self, number: int) -> list[Send]:
        """All that is sent of this part, in the order of time."""
        random = Random(f"{self._seed}:{number}")  # noqa: S311 - a plan, not a secret
        product = random.choice(sorted(self._line.products))
        part = PartKey(
            site=self._line.site,
            line=self._line.line,
            part_id=f"part-{number:07d}",
            pass_number=random.choice((1, 1, 1, 2)),
        )
        story = random.choices(list(STORIES), weights=list(STORIES.values()))[0]
        if number == self._deadly:
            return _Story(self, random, part, "block").deadly()
        told = _Story(self, random, part, product)
        return sorted(getattr(told, story)(), key=lambda send: send.after_s)

    def record(self, part: PartKey, product: str, item: str, **changes: Any) -> StationRecord:
        """A valid record of one item of a part; `changes` replace its fields."""
        station = self._owners[item]
        sequence = int(changes.pop("sequence", 1))
        now_ns = self._now_ns()
        process = item == PROCESS_ITEM
        return StationRecord(
            event_id=event_id_of(part, station, item, sequence),
            part=part,
            product=product,
            station=station,
            modality=item,
            capture_sequence=sequence,
            captured_at_ns=now_ns,
            published_at_ns=now_ns,
            lot=f"L-{part.part_id[-7:-2]}",
            payload=None if process else _payload(part, item, sequence),
            process_values=changes.pop("values", {"force": 1.5}) if process else {},
        )

    def send(self, message: Message, part: PartKey, after_s: float) -> Send:
        """`message` of `part`, as its sender would send it."""
        key = str(part)
        source = f"/{self._line.site}/{self._line.area}/{self._line.line}/station"
        return Send(
            after_s=after_s,
            key=key.encode(),
            value=message.to_bytes(),
            headers=headers_of(message, source=source, subject=key),
        )

    def expected(self, product: str) -> tuple[str, ...]:
        """The items that a product expects."""
        return self._line.products[product].expected

    def seconds(self, product: str) -> tuple[float, float]:
        """A product's deadline, and how much later its horizon is."""
        policy = self._line.products[product]
        return policy.deadline_ms / 1e3, policy.late_horizon_ms / 1e3

    def now_ns(self) -> int:
        """Wall time."""
        return self._now_ns()


class _Story:
    """One part's; each method is a story."""

    def __init__(self, stories: Stories, random: Random, part: PartKey, product: str) -> None:
        self._of = stories
        self._random = random
        self._part = part
        self._product = product
        self._items = list(stories.expected(product))
        random.shuffle(self._items)
        self._deadline_s, self._horizon_s = stories.seconds(product)

    def complete(self) -> list[Send]:
        values = {"force": self._random.random()}
        return [self._sent(item, self._soon(), values=values) for item in self._items]

    def deadly(self) -> list[Send]:
        values = {"force": 1.5, DEADLY: 1.0}
        return [self._sent(item, self._soon(), values=values) for item in self._items]

    def short(self) -> list[Send]:
        return [self._sent(item, self._soon()) for item in self._items[1:]]

    def late(self) -> list[Send]:
        late_s = self._deadline_s + self._random.uniform(0.1, 0.8) * self._horizon_s
        return [*self.short(), self._sent(self._items[0], late_s)]

    def after_the_horizon(self) -> list[Send]:
        late_s = self._deadline_s + self._horizon_s + self._random.uniform(0.5, 3.0)
        return [*self.short(), self._sent(self._items[0], late_s)]

    def repeated(self) -> list[Send]:
        first = self.complete()
        again_s = self._random.uniform(0.0, 0.9) * (self._deadline_s + self._horizon_s)
        twice = self._random.choice(first)
        return [*first, replace(twice, after_s=max(again_s, twice.after_s))]

    def retaken(self) -> list[Send]:
        again_s = self._random.uniform(0.1, 0.8) * self._horizon_s
        item = self._random.choice(self._items)
        return [*self.complete(), self._sent(item, again_s, sequence=2)]

    def outdone(self) -> list[Send]:
        first, *others = self._items
        lower_s = self._random.uniform(0.0, 0.8) * self._horizon_s
        return [
            self._sent(first, 0.0, sequence=3),
            *(self._sent(item, self._soon()) for item in others),
            self._sent(first, lower_s, sequence=2),
        ]

    def aliased(self) -> list[Send]:
        named_s = self._random.uniform(0.1, 0.8) * self._horizon_s
        alias = Alias(
            part=self._part,
            real_part_id=f"{self._part.part_id}-real",
            published_at_ns=self._of.now_ns(),
        )
        return [*self.complete(), self._of.send(alias, self._part, named_s)]

    def forced(self) -> list[Send]:
        force = ForceClose(
            part=self._part, requested_by="operator", published_at_ns=self._of.now_ns()
        )
        forced_s = self._random.uniform(0.05, 0.9) * self._deadline_s
        return [*self.short(), self._of.send(force, self._part, forced_s)]

    def broken(self) -> list[Send]:
        whole = self._sent(self._items[0], self._soon())
        defect = self._random.choice(DEFECTS)
        return [*self.complete(), _broken(whole, defect, self._random)]

    def _soon(self) -> float:
        return self._random.uniform(0.0, 0.6) * self._deadline_s

    def _sent(self, item: str, after_s: float, **changes: Any) -> Send:
        record = self._of.record(self._part, self._product, item, **changes)
        return self._of.send(record, self._part, after_s)


def _broken(send: Send, defect: str, random: Random) -> Send:
    """`send` with this one defect."""
    if defect == "bytes":
        return replace(send, value=b"\xff\xfe{")
    if defect == "key":
        return replace(send, key=b"somebody/else/1/1")
    if defect == "partition":
        return replace(send, partition=random.randrange(2))
    if defect == "major":
        return replace(
            send,
            headers=tuple((name, value.replace(b".v1", b".v2")) for name, value in send.headers),
        )
    body: dict[str, Any] = json.loads(send.value)
    if defect == "line":
        other = PartKey.model_validate(body["part"] | {"line": "other"})
        body["part"]["line"] = other.line
        changed = body | _renamed(body)
        return replace(send, key=str(other).encode(), value=json.dumps(changed).encode())
    if defect == "missing":
        del body["captured_at_ns"]
    return replace(send, value=json.dumps(body | _defects(body).get(defect, {})).encode())


def _defects(body: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """What each defect of the body alone changes in it."""
    return {
        "kind": {"kind": "surprise"},
        "field": {"surprise": 1},
        "event_id": {"event_id": "0" * 32},
        "modality": _renamed(body, modality="sonar"),
        "station": _renamed(body, station="nobody"),
        "product": {"product": "unheard-of"},
        "too_big": {"lot": "x" * 17_000},
    }


def _renamed(body: dict[str, Any], **changes: str) -> dict[str, Any]:
    """`changes` with the event id that goes with them."""
    changed = body | changes
    part = PartKey.model_validate(changed["part"])
    digest = event_id_of(part, changed["station"], changed["modality"], changed["capture_sequence"])
    return changes | {"event_id": digest}


def _payload(part: PartKey, item: str, sequence: int) -> PayloadRef:
    """A claim check that nobody follows."""
    digest = event_id_of(part, "payload", item, sequence) * 2
    return PayloadRef(
        uri=f"sha256/{digest[:2]}/{digest}", sha256=digest, size_bytes=1, media_type="image/png"
    )


def timed(stories: Stories, *, parts: int, a_second: float) -> Iterator[tuple[float, int, Send]]:
    """Every record of a round in the order of time: (seconds since the beginning, part, record).

    Args:
        stories: What is sent of each part.
        parts: How many parts.
        a_second: How many of them begin in a second.
    """
    waiting: list[tuple[float, int, int, Send]] = []
    count = 0
    for number in range(parts):
        begins_s = number / a_second
        while waiting and waiting[0][0] <= begins_s:
            at_s, _, part, send = heapq.heappop(waiting)
            yield at_s, part, send
        for send in stories.of(number):
            count += 1
            heapq.heappush(waiting, (begins_s + send.after_s, count, number, send))
    while waiting:
        at_s, _, part, send = heapq.heappop(waiting)
        yield at_s, part, send
