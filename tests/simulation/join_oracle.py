"""What must have been said, from the records log alone; shares no code with the line."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from connectors.ports import LogRecord

Facts = dict[str, Any]


@dataclass
class Part:
    """One part as the log tells it so far."""

    policy: str
    opened: int
    due_ms: float
    horizon_ms: float
    closed: bool = False
    revision: int = 0
    alias: str | None = None
    items: dict[str, tuple[int, int, str]] = field(default_factory=dict)
    seen: set[str] = field(default_factory=set)
    superseded: list[str] = field(default_factory=list)
    late: list[str] = field(default_factory=list)


@dataclass
class Expected:
    """Every verdict by (part, revision), and every dead letter by (offset, field)."""

    verdicts: dict[tuple[str, int], Facts] = field(default_factory=dict)
    letters: set[tuple[int, str]] = field(default_factory=set)


class Oracle:
    """Reads the records of one partition in order.

    Args:
        policies: Bodies (JSON) by digest.
        policy: The digest in force before the first policy record.
    """

    def __init__(self, policies: Mapping[str, bytes], policy: str) -> None:
        self._policies = {digest: json.loads(body) for digest, body in policies.items()}
        self._in_force = policy
        self._parts: dict[str, Part] = {}
        self._gone: set[str] = set()
        self.expected = Expected()

    def read(self, records: Iterable[LogRecord]) -> Expected:
        """What must have been said of `records`."""
        for record in records:
            try:
                message = json.loads(record.value or b"")
            except ValueError:
                self._refuse(record, "body")
                continue
            getattr(self, f"_{message['kind']}")(record, message)
        return self.expected

    def _tick(self, record: LogRecord, _: Facts) -> None:
        for key, part in list(self._parts.items()):
            if not part.closed and part.due_ms <= record.timestamp_ms:
                self._revise(key, part, record, "deadline")
            if part.closed and part.horizon_ms <= record.timestamp_ms:
                del self._parts[key]
                self._gone.add(key)

    def _policy(self, _: LogRecord, message: Facts) -> None:
        self._in_force = message["policy_digest"]

    def _force_close(self, record: LogRecord, message: Facts) -> None:
        key = _key(message)
        part = self._parts.get(key)
        if part is None:
            self._refuse(record, "part")
        elif not part.closed:
            self._revise(key, part, record, "forced")

    def _alias(self, record: LogRecord, message: Facts) -> None:
        key = _key(message)
        part = self._parts.get(key)
        if part is None:
            self._refuse(record, "part")
        elif part.alias != message["real_part_id"]:
            part.alias = message["real_part_id"]
            if part.closed:
                self._revise(key, part, record, "late")

    def _station_record(self, record: LogRecord, message: Facts) -> None:
        key = _key(message)
        part = self._parts.get(key)
        if part is None:
            if key in self._gone:
                self._refuse(record, "part")
                return
            part = self._open(record, message)
            self._parts[key] = part
        event, item = message["event_id"], message["modality"]
        if event in part.seen:
            return
        sequence = message["capture_sequence"]
        held = part.items.get(item)
        if held is not None and held[0] > sequence and part.closed:
            self._refuse(record, "capture_sequence")
            return
        part.seen.add(event)
        if held is not None and held[0] > sequence:
            part.superseded.append(event)
            return
        if held is not None:
            part.superseded.append(held[2])
        part.items[item] = (sequence, record.offset, event)
        if part.closed:
            part.late += [item] if item not in part.late else []
            self._revise(key, part, record, "late")
        elif held is None and not self._missing(part):
            self._revise(key, part, record, "complete")

    def _open(self, record: LogRecord, message: Facts) -> Part:
        joining = self._policies[self._in_force]["products"][message["product"]]
        due_ms = record.timestamp_ms + joining["deadline_ms"]
        return Part(
            policy=self._in_force,
            opened=record.offset,
            due_ms=due_ms,
            horizon_ms=due_ms + joining["late_horizon_ms"],
        )

    def _missing(self, part: Part) -> list[str]:
        expected = self._policies[part.policy]["products"]["can"]["expected"]
        return sorted(set(expected) - set(part.items))

    def _revise(self, key: str, part: Part, record: LogRecord, why: str) -> None:
        part.closed = True
        part.revision += 1
        self.expected.verdicts[key, part.revision] = {
            "closed": why,
            "opened_offset": part.opened,
            "closed_offset": record.offset,
            "closed_at_ms": record.timestamp_ms,
            "items": sorted(offset for _, offset, _ in part.items.values()),
            "missing": self._missing(part),
            "late": list(part.late),
            "superseded": list(part.superseded),
            "alias": part.alias,
            "policy_digest": part.policy,
        }

    def _refuse(self, record: LogRecord, name: str) -> None:
        self.expected.letters.add((record.offset, name))


def _key(message: Facts) -> str:
    part = message["part"]
    return f"{part['site']}/{part['line']}/{part['part_id']}/{part['pass']}"
