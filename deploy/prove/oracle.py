"""What must have been said of one partition: its records in order -> evidence and dead letters.

Written from the text of the design in the plainest way: dicts, no clock, no Redis, no batches. It
shares no code with the line, so that one mistake cannot stand on both sides.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import Final, NamedTuple

from deploy.prove.contract import Json, Place, Raw, Refused, check_place, content_of, key_of

_RECORDS_MAX: Final = 32
_REVISIONS_MAX: Final = 16


class Revision(NamedTuple):
    """A part's next revision has to be judged by exactly this evidence."""

    part: str
    evidence: Json


class Letter(NamedTuple):
    """The record at `offset` has to be a dead letter that names `field`."""

    offset: int
    field: str


@dataclass(slots=True, kw_only=True)
class _Part:
    """What is known of a part from its first record until its late-data horizon."""

    head: Json
    product: str
    policy: str
    horizon_ms: int
    revision: int = 0
    records: int = 0
    alias: str | None = None
    items: dict[str, Json] = field(default_factory=dict)
    seen: set[str] = field(default_factory=set)
    superseded: list[str] = field(default_factory=list)
    late: list[str] = field(default_factory=list)
    gap_ids: list[str] = field(default_factory=list)

    def count(self) -> None:
        """One more record, which makes a revision where there is one."""
        if self.records >= _RECORDS_MAX or self.revision >= _REVISIONS_MAX:
            raise Refused("part")
        self.records += 1


class Oracle:
    """One partition of a line. `policies` are bodies by digest, `in_force` is the first of them."""

    def __init__(self, place: Place, policies: Mapping[str, Json], in_force: str) -> None:
        self._place = place
        self._policies = policies
        self._in_force = in_force
        self._parts: dict[str, _Part] = {}
        self._gone: dict[str, int] = {}
        self._due: list[tuple[int, str]] = []

    def take(self, record: Raw) -> Iterator[Revision | Letter]:
        """What follows from the next record of the log."""
        try:
            kind, body = content_of(record)
            if kind == "tick":
                yield from self._tick(record, body)
            elif kind == "policy":
                self._change_policy(body["policy_digest"])
            else:
                check_place(record, body["part"], self._place)
                follow = {"alias": self._alias, "force_close": self._force}
                yield from follow.get(kind, self._capture)(record, body, key_of(body["part"]))
        except Refused as refused:
            yield Letter(record.offset, str(refused)[:128])

    def unanswered(self) -> list[str]:
        """Parts whose records no revision reflects yet."""
        return [key for key, part in self._parts.items() if not part.revision]

    def _change_policy(self, digest: str) -> None:
        if digest not in self._policies:
            raise Refused("policy_digest")
        self._in_force = digest

    def _capture(self, record: Raw, body: Json, key: str) -> Iterator[Revision]:
        part = self._parts.get(key)
        self._check_policy(part, body)
        if part is None:
            part = self._opened(record, body, key)
        item = body["modality"]
        held = part.items.get(item)
        lower = held is not None and body["capture_sequence"] <= held["capture_sequence"]
        if body["event_id"] in part.seen:
            return
        if part.revision and lower:
            raise Refused("capture_sequence")
        part.count()
        part.seen.add(body["event_id"])
        part.gap_ids = [*dict.fromkeys([*part.gap_ids, *body.get("gap_ids", ())])]
        if held is not None:
            part.superseded.append(body["event_id"] if lower else held["event_id"])
        if not lower:
            part.items[item] = _item(record, body)
        if part.revision:
            part.late = [*dict.fromkeys([*part.late, item])]
            yield self._revised(part, record, "late")
        elif not self._missing(part):
            yield self._revised(part, record, "complete")

    def _alias(self, record: Raw, body: Json, key: str) -> Iterator[Revision]:
        part = self._known(key)
        if part.alias != body["real_part_id"]:
            part.count()
            part.alias = body["real_part_id"]
            if part.revision:
                yield self._revised(part, record, "late")

    def _force(self, record: Raw, _body: Json, key: str) -> Iterator[Revision]:
        part = self._known(key)
        if not part.revision:
            yield self._revised(part, record, "forced")

    def _tick(self, record: Raw, body: Json) -> Iterator[Revision]:
        while self._due and self._due[0][0] <= record.timestamp_ms:
            _, key = heappop(self._due)
            part = self._parts[key]
            if not part.revision:
                yield self._revised(part, record, "deadline")
            if part.horizon_ms <= record.timestamp_ms:
                self._gone[key] = self._parts.pop(key).head["opened_offset"]
            else:
                heappush(self._due, (part.horizon_ms, key))
        start = body["log_start"]
        if start:  # what the log no longer holds cannot come again
            self._gone = {key: opened for key, opened in self._gone.items() if opened >= start}

    def _check_policy(self, part: _Part | None, body: Json) -> None:
        """The record fits the policy that its part opened under, else the one in force."""
        policy = self._policies[self._in_force if part is None else part.policy]
        owner = policy["stations"].get(body["modality"])
        if owner is None:
            raise Refused("modality")
        if owner != body["station"]:
            raise Refused("station")
        if body["product"] not in policy["products"]:
            raise Refused("product")
        if part is not None and body["product"] != part.product:
            raise Refused("product")

    def _opened(self, record: Raw, body: Json, key: str) -> _Part:
        policy = self._policies[self._in_force]
        if body["captured_at_ns"] // 10**6 < record.timestamp_ms - policy["retention_ms"]:
            raise Refused("captured_at_ns")
        if key in self._gone:
            raise Refused("part")
        product = policy["products"][body["product"]]
        deadline_ms = record.timestamp_ms + product["deadline_ms"]
        heappush(self._due, (deadline_ms, key))
        said = {name: body.get(name) for name in ("lot", "order", "operation")}
        self._parts[key] = _Part(
            product=body["product"],
            policy=self._in_force,
            horizon_ms=deadline_ms + product["late_horizon_ms"],
            head={
                "part": {"pass": 1} | body["part"],
                "opened_offset": record.offset,
                "opened_at_ms": record.timestamp_ms,
                **{name: value for name, value in said.items() if value is not None},
            },
        )
        return self._parts[key]

    def _known(self, key: str) -> _Part:
        if key not in self._parts:
            raise Refused("part")
        return self._parts[key]

    def _missing(self, part: _Part) -> list[str]:
        expected = self._policies[part.policy]["products"][part.product]["expected"]
        return sorted(set(expected) - part.items.keys())

    def _revised(self, part: _Part, record: Raw, closed: str) -> Revision:
        part.revision += 1
        evidence = {
            "schema_version": 1,
            "revision": part.revision,
            "product": part.product,
            "closed": closed,
            "closed_offset": record.offset,
            "closed_at_ms": record.timestamp_ms,
            "items": [part.items[name] for name in sorted(part.items)],
            "missing": self._missing(part),
            "late": [*part.late],
            "superseded": [*part.superseded],
            "gap_ids": [*part.gap_ids],
            "policy_digest": part.policy,
            "policy": self._policies[part.policy]["products"][part.product],
            **({} if part.alias is None else {"alias": part.alias}),
        }
        return Revision(key_of(part.head["part"]), part.head | evidence)


def _item(record: Raw, body: Json) -> Json:
    names = ("event_id", "station", "modality", "capture_sequence", "captured_at_ns")
    values = {name: float(value) for name, value in body.get("process_values", {}).items()}
    payload = body.get("payload")
    return {
        **{name: body[name] for name in names},
        "offset": record.offset,
        "logged_at_ms": record.timestamp_ms,
        "process_values": values,
        **({} if payload is None else {"payload": {"units": "1", "shape": []} | payload}),
    }
