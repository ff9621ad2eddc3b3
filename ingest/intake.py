"""Raw records of the log -> checked events; what cannot be one is refused by field."""

import json
from functools import lru_cache
from typing import Final

from pydantic import TypeAdapter

from connectors.cloudevents import major_of
from connectors.errors import Poison
from connectors.line import Line
from connectors.messages import (
    RECORD_BYTES_MAX,
    Alias,
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
_COMMON: Final = b'{"kind":"station_record",'
"""How nearly all records begin; the kind of others is looked up."""

_HEADS_REMEMBERED: Final = 256
_VALUES: Final = TypeAdapter(dict[str, float])


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
        """The event that `record` is; a `RefusedEvent` when it is none.

        Raises:
            Poison: The broker refuses to show a policy: no fault of the record, which stays.
        """
        try:
            message = self._checked(record)
            if not isinstance(message, PolicyChange):
                return self._event(record, message)
        except Poison as error:
            return _refused(record, error)
        return self._policy_change(record, message)

    def _checked(self, record: LogRecord) -> Message:
        raw = record.value or b""
        if len(raw) > RECORD_BYTES_MAX:
            raise Poison(
                "body", f"{len(raw)} bytes; at most {RECORD_BYTES_MAX}: put payloads in the store"
            )
        named = major_of(record.headers)
        if named is not None and named[1] != 1:
            raise Poison("ce_type", f"major v{named[1]} is unknown here; send v1")
        if raw.startswith(_COMMON):
            return StationRecord.from_bytes(raw)
        return _KINDS[_kind_of(raw)].from_bytes(raw)

    def _event(self, record: LogRecord, message: Message) -> Event:
        if isinstance(message, StationRecord):
            return self._capture(record, message)
        at = {"offset": record.offset, "logged_at_ms": record.timestamp_ms}
        match message:
            case Alias():
                part = self._part(record, message.part)
                return AliasEvent(**at, part=part, real_part_id=message.real_part_id)
            case ForceClose():
                return ForceEvent(**at, part=self._part(record, message.part))
            case Tick():
                return TickEvent(**at, log_start=message.log_start)
        raise AssertionError(message)

    def _policy_change(self, record: LogRecord, message: PolicyChange) -> Event:
        policy = self._policies.find(message.policy_digest)
        if policy is None:
            unknown = Poison("policy_digest", "no operator published this policy; run hololine up")
            return _refused(record, unknown)
        return PolicyEvent(
            offset=record.offset,
            logged_at_ms=record.timestamp_ms,
            digest=policy.digest,
            body=policy.to_bytes().decode(),
        )

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
            head=_head_of(message.product, message.lot, message.order, message.operation),
            body=_item_of(record, message),
            gap_ids=message.gap_ids,
        )


def _refused(record: LogRecord, error: Poison) -> RefusedEvent:
    return RefusedEvent(
        offset=record.offset,
        logged_at_ms=record.timestamp_ms,
        field=error.field[:128],
        reason=error.reason[:512],
    )


def _item_of(record: LogRecord, message: StationRecord) -> str:
    """The canonical JSON of an `EvidenceItem`, of values that were checked already."""
    payload, values = message.payload, message.process_values
    claim = "" if payload is None else f'"payload":{payload.to_bytes().decode()},'
    measured = _VALUES.dump_json(values).decode() if values else "{}"
    return (
        f'{{"event_id":"{message.event_id}","offset":{record.offset},'
        f'"station":"{message.station}","modality":"{message.modality}",'
        f'"capture_sequence":{message.capture_sequence},'
        f'"captured_at_ns":{message.captured_at_ns},"logged_at_ms":{record.timestamp_ms},'
        f'{claim}"process_values":{measured}}}'
    )


@lru_cache(maxsize=_HEADS_REMEMBERED)
def _head_of(product: str, lot: str | None, order: str | None, operation: str | None) -> str:
    return Head(product=product, lot=lot, order=order, operation=operation).to_bytes().decode()


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
