"""CloudEvents 1.0 in Kafka's binary mode: the attributes travel as headers, the value stays plain.

Source: CloudEvents 1.0.2, "Kafka Protocol Binding" section 3.2; extensions `partitionkey`,
`dataref` and "Distributed Tracing" (`traceparent`).
"""

import re
from datetime import UTC, datetime
from functools import lru_cache
from hashlib import sha256
from typing import Final

from connectors.errors import MalformedMessage
from connectors.messages import MESSAGES, Message
from connectors.ports import Headers

MAJOR: Final = 1
"""The major version of every message that this release writes."""

_ENTITIES: Final = {kind: name for name, kind in MESSAGES.items()}
_OWN_IDS: Final = ("event_id", "verdict_id", "letter_id")
_TYPE: Final = re.compile(r"hololine\.([a-z][a-z-]{0,63})\.v([1-9][0-9]{0,3})")


def headers_of(
    message: Message,
    *,
    source: str,
    subject: str,
    time_ns: int | None = None,
    traceparent: str | None = None,
) -> Headers:
    """The CloudEvents headers that `message` travels with.

    Args:
        message: One of `MESSAGES`; its value on the wire is `message.to_bytes()`.
        source: Which process of which line speaks, as a URI reference: ``/site/area/line/worker``.
        subject: What the event is about: the part key where there is a part.
        time_ns: When it happened, nanoseconds since the Unix epoch, UTC.
        traceparent: W3C trace context to carry on.
    """
    part = getattr(message, "part", None)
    payload = getattr(message, "payload", None)
    attributes = {
        "ce_id": _id_of(message),
        "ce_subject": subject,
        "ce_time": None if time_ns is None else rfc3339(time_ns),
        "ce_partitionkey": None if part is None else str(part),
        "ce_dataref": None if payload is None else payload.uri,
        "ce_traceparent": traceparent,
    }
    own = ((name, text.encode()) for name, text in attributes.items() if text is not None)
    return (*common_headers(type(message), source=source), *own)


def common_headers(kind: type[Message], *, source: str) -> Headers:
    """The headers that all messages of one kind from one source share."""
    entity = _ENTITIES[kind]
    attributes = {
        "ce_specversion": "1.0",
        "ce_source": source,
        "ce_type": f"hololine.{entity}.v{MAJOR}",
        "ce_dataschema": f"urn:hololine:schema:{entity}:v{MAJOR}",
        "content-type": "application/json",
    }
    return tuple((name, text.encode()) for name, text in attributes.items())


def major_of(headers: Headers) -> tuple[str, int] | None:
    """The entity and the major version that the headers declare; None where there is no `ce_type`.

    Raises:
        MalformedMessage: `ce_type` is there, but is not one ``hololine.<entity>.v<major>``.
    """
    declared = [value for name, value in headers if name == "ce_type"]
    if not declared:
        return None
    named = _entity_and_major(declared[0])
    if named is None or len(declared) > 1:
        shown = b", ".join(declared)[:80]
        raise MalformedMessage("ce_type", f"{shown!r} is not one hololine.<entity>.v<major>")
    return named


@lru_cache(maxsize=64)
def _entity_and_major(declared: bytes) -> tuple[str, int] | None:
    match = _TYPE.fullmatch(declared.decode("ascii", errors="replace"))
    return None if match is None else (match.group(1), int(match.group(2)))


def _id_of(message: Message) -> str:
    """The message's own deterministic id, else the hash of its bytes."""
    for field in _OWN_IDS:
        own = getattr(message, field, None)
        if own is not None:
            return str(own)
    return sha256(message.to_bytes()).hexdigest()[:32]


def rfc3339(time_ns: int) -> str:
    """The time as CloudEvents wants it, UTC to the nanosecond."""
    seconds, nanoseconds = divmod(time_ns, 1_000_000_000)
    moment = datetime.fromtimestamp(seconds, tz=UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{nanoseconds:09d}Z"
