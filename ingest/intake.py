"""Raw records of the log -> checked events; what cannot be one is refused by field."""

import json
from typing import Final

from connectors.cloudevents import major_of
from connectors.errors import Poison
from connectors.line import Line
from connectors.messages import (
    RECORD_BYTES_MAX,
    Alias,
    EvidenceItem,
    ForceClose,
    Message,
    PartKey,
    PolicyChange,
    StationRecord,
    Tick,
)
from connectors.partitioner import murmur2_partition
from connectors.ports import LogRecord
from ingest.events import (
    AliasEvent,
    Event,
    ForceEvent,
    PolicyEvent,
    RefusedEvent,
    TickEvent,
)
from ingest.joiner import Capture
from ingest.policies import Head, PolicyBook

_KINDS: Final[dict[str, type[Message]]] = {
    "station_record": StationRecord,
    "alias": Alias,
    "force_close": ForceClose,
    "tick": Tick,
    "policy": PolicyChange,
}
_KEYED: Final = (StationRecord, Alias, ForceClose)


class Intake:
    """Checks the records of one partition of one line.

    Args:
        line: The line; records of another one are refused.
        partitions: How many partitions the records topic has.
        policies: Where a policy's digest is looked up.
    """

    def __init__(self, *, line: Line, partitions: int, policies: PolicyBook) -> None:
        self._line = line
        self._partitions = partitions
        self._policies = policies

    def read(self, record: LogRecord) -> Event:
        """The event that `record` is; a `RefusedEvent` when it is none."""
        try:
            return self._event(record, self._checked(record))
        except Poison as error:
            return RefusedEvent(
                offset=record.offset,
                logged_at_ms=record.timestamp_ms,
                field=error.field[:128],
                reason=error.reason[:512],
            )

    def _checked(self, record: LogRecord) -> Message:
        raw = record.value or b""
        if len(raw) > RECORD_BYTES_MAX:
            raise Poison(
                "body", f"{len(raw)} bytes; at most {RECORD_BYTES_MAX}: put payloads in the store"
            )
        named = major_of(record.headers)
        if named is not None and named[1] != 1:
            raise Poison("ce_type", f"major v{named[1]} is unknown here; send v1")
        return _KINDS[_kind_of(raw)].from_bytes(raw)

    def _event(self, record: LogRecord, message: Message) -> Event:
        at = {"offset": record.offset, "logged_at_ms": record.timestamp_ms}
        match message:
            case StationRecord():
                return self._capture(record, message)
            case Alias():
                part = self._part(record, message.part)
                return AliasEvent(**at, part=part, real_part_id=message.real_part_id)
            case ForceClose():
                return ForceEvent(**at, part=self._part(record, message.part))
            case Tick():
                return TickEvent(**at, log_start=message.log_start)
            case PolicyChange():
                policy = self._policies.find(message.policy_digest)
                if policy is None:
                    raise Poison(
                        "policy_digest", "no operator published this policy; run hololine up"
                    )
                body = policy.to_bytes().decode()
                return PolicyEvent(**at, digest=policy.digest, body=body)
        raise AssertionError(message)

    def _part(self, record: LogRecord, part: PartKey) -> str:
        """The part's key, once it is sure that the record lies where all of the part's do."""
        key = str(part)
        if (record.key or b"") != key.encode():
            raise Poison("key", f"must be the part key {key}, as site/line/part_id/pass")
        if (part.site, part.line) != (self._line.site, self._line.line):
            raise Poison("part.line", f"this log is of {self._line.site}/{self._line.line}")
        expected = murmur2_partition(key.encode(), self._partitions)
        if record.partition != expected:
            raise Poison(
                "partition",
                f"key {key} belongs to partition {expected}; set the producer's partitioner to "
                "murmur2 (librdkafka: partitioner=murmur2_random)",
            )
        return key

    def _capture(self, record: LogRecord, message: StationRecord) -> Capture:
        item = EvidenceItem(
            event_id=message.event_id,
            offset=record.offset,
            station=message.station,
            modality=message.modality,
            capture_sequence=message.capture_sequence,
            captured_at_ns=message.captured_at_ns,
            logged_at_ms=record.timestamp_ms,
            payload=message.payload,
            process_values=message.process_values,
        )
        head = Head(
            product=message.product,
            lot=message.lot,
            order=message.order,
            operation=message.operation,
        )
        return Capture(
            offset=record.offset,
            logged_at_ms=record.timestamp_ms,
            part=self._part(record, message.part),
            product=message.product,
            station=message.station,
            item=message.modality,
            sequence=message.capture_sequence,
            event_id=message.event_id,
            captured_at_ms=message.captured_at_ns // 1_000_000,
            head=head.to_bytes().decode(),
            body=item.to_bytes().decode(),
            gap_ids=message.gap_ids,
        )


def _kind_of(raw: bytes) -> str:
    try:
        kind = json.loads(raw).get("kind", "station_record")
    except UnicodeDecodeError as error:
        raise Poison("body", f"not UTF-8 at byte {error.start}; encode JSON as UTF-8") from error
    except (ValueError, AttributeError, RecursionError) as error:
        raise Poison("body", f"not a JSON object: {str(error)[:120]}") from error
    if not isinstance(kind, str) or kind not in _KINDS:
        raise Poison("kind", f"{str(kind)[:40]!r} is none of {', '.join(_KINDS)}")
    return kind
