"""A raw record -> what it says and of which part, or the field for which it has to be refused.

Written from the published schemas and the text of the design; it shares no code with the line.
"""

import json
import re
from collections.abc import Sequence
from hashlib import sha256
from typing import Any, Final, NamedTuple, Protocol

from deploy.prove.schema import broken_field, schema_of

_BYTES_MAX: Final = 16 * 1024
_TYPE: Final = re.compile(rb"hololine\.[a-z-]+\.v1")
_SCHEMAS: Final = {
    "station_record": "station-record",
    "alias": "alias",
    "force_close": "force-close",
    "tick": "tick",
    "policy": "policy-change",
}

Json = dict[str, Any]


class Raw(Protocol):
    """A record as any reader of the log has it."""

    @property
    def offset(self) -> int: ...  # noqa: D102 - the names say it
    @property
    def timestamp_ms(self) -> int: ...  # noqa: D102
    @property
    def key(self) -> bytes | None: ...  # noqa: D102
    @property
    def value(self) -> bytes | None: ...  # noqa: D102
    @property
    def headers(self) -> Sequence[tuple[str, bytes]]: ...  # noqa: D102


class Refused(Exception):
    """The record has to be a dead letter; the argument is the field that it names."""


class Place(NamedTuple):
    """The partition that is read, and the line whose it is."""

    site: str
    line: str
    partition: int
    partitions: int


def content_of(record: Raw) -> tuple[str, Json]:
    """The record's kind and body.

    Raises:
        Refused: It breaks the contract.
    """
    if len(record.value or b"") > _BYTES_MAX:
        raise Refused("body")
    types = [value for name, value in record.headers if name == "ce_type"]
    if types and (len(types) > 1 or not _TYPE.fullmatch(types[0])):
        raise Refused("ce_type")
    try:
        body = json.loads((record.value or b"").decode())
        kind = body.get("kind", "station_record")
    except (ValueError, AttributeError, RecursionError):
        raise Refused("body") from None
    if not isinstance(kind, str) or kind not in _SCHEMAS:
        raise Refused("kind")
    field = broken_field(body, schema_of(_SCHEMAS[kind]))
    if field is not None:
        raise Refused(field)
    if kind == "station_record":
        _check_capture(body)
    return kind, body


def key_of(part: Json) -> str:
    """The key of a part's records."""
    return f"{part['site']}/{part['line']}/{part['part_id']}/{part.get('pass', 1)}"


def check_place(record: Raw, part: Json, place: Place) -> None:
    """The record lies where all records of its part lie.

    Raises:
        Refused: It does not.
    """
    key = key_of(part).encode()
    if record.key != key:
        raise Refused("key")
    if (part["site"], part["line"]) != (place.site, place.line):
        raise Refused("part.line")
    if (_murmur2(key) & 0x7FFFFFFF) % place.partitions != place.partition:
        raise Refused("partition")


def _murmur2(data: bytes) -> int:
    """Kafka's hash of a key, after org.apache.kafka.common.utils.Utils.murmur2."""
    whole, most = len(data) & ~3, 0xFFFFFFFF
    state = 0x9747B28C ^ len(data)
    for at in range(0, whole, 4):
        word = int.from_bytes(data[at : at + 4], "little") * 0x5BD1E995 & most
        state = (state * 0x5BD1E995 ^ (word ^ word >> 24) * 0x5BD1E995) & most
    if data[whole:]:
        state = (state ^ int.from_bytes(data[whole:], "little")) * 0x5BD1E995 & most
    state = (state ^ state >> 13) * 0x5BD1E995 & most
    return state ^ state >> 15


def _check_capture(body: Json) -> None:
    names = (key_of(body["part"]), body["station"], body["modality"], body["capture_sequence"])
    if body["event_id"] != sha256("|".join(map(str, names)).encode()).hexdigest()[:32]:
        raise Refused("event_id")
    if (body.get("payload") is None) != (body["modality"] == "process"):
        raise Refused("payload")
