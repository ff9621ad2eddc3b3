"""Whatever bytes arrive, intake answers with an event: never a crash, never silence."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.errors import Poison
from connectors.line import Line, Modality, Station
from connectors.memory_scorer import HashScorer
from connectors.messages import (
    Alias,
    Evidence,
    ForceClose,
    Message,
    PartKey,
    PayloadRef,
    ProductPolicy,
    StationRecord,
    Tick,
    event_id_of,
)
from connectors.partitioner import murmur2_partition
from connectors.ports import Headers, LogRecord
from ingest.events import AliasEvent, Event, RefusedEvent, TickEvent
from ingest.evidence import evidence_of, sealed_of
from ingest.intake import Intake
from ingest.joiner import Capture
from ingest.memory import MemoryJoinStore

LINE = Line(
    site="s",
    area="a",
    line="l",
    modalities={"rgb": Modality(kind="image", units="1")},
    stations={"cam": Station(publishes=("rgb",)), "plc": Station(publishes=("process",))},
    products={"can": ProductPolicy(expected=("rgb",), deadline_ms=1_000)},
)
PARTITIONS = 2
PART = PartKey(site="s", line="l", part_id="p1")
RECORD = StationRecord(
    event_id=event_id_of(PART, "cam", "rgb", 1),
    part=PART,
    product="can",
    station="cam",
    modality="rgb",
    capture_sequence=1,
    captured_at_ns=10**18,
    published_at_ns=10**18,
    payload=PayloadRef(uri="x", sha256="0" * 64, size_bytes=1, media_type="image/png"),
)


class OwnPolicy:
    """Knows the line's own policy and no other."""

    own = LINE.policy()

    def find(self, digest: str) -> object:
        """See `PolicyBook.find`."""
        return self.own if digest == self.own.digest else None


def read(
    raw: bytes | None,
    *,
    key: bytes | None = str(PART).encode(),
    headers: Headers = (),
    partition: int | None = None,
    offset: int = 7,
) -> Event:
    """What intake makes of one record."""
    intake = Intake(line=LINE, partitions=PARTITIONS, policies=OwnPolicy())  # type: ignore[arg-type]
    right = murmur2_partition(key or b"", PARTITIONS)
    return intake.read(
        LogRecord(
            topic="t",
            partition=right if partition is None else partition,
            offset=offset,
            timestamp_ms=10**12,
            key=key,
            value=raw,
            headers=headers,
        )
    )


def opened_store() -> MemoryJoinStore:
    """Owned, and before offset 0."""
    store = MemoryJoinStore()
    store.takeover("t")
    body = LINE.policy().to_bytes().decode()
    store.reset("t", applied=-1, policy=LINE.policy().digest, body=body)
    return store


def changed(**fields: object) -> bytes:
    """The valid record with some fields changed."""
    return json.dumps({**json.loads(RECORD.to_bytes()), **fields}).encode()


def test_a_valid_record_becomes_a_capture() -> None:
    """What decides is lifted out; the rest travels unread."""
    event = read(RECORD.to_bytes())
    assert isinstance(event, Capture)
    assert (event.part, event.item, event.sequence) == ("s/l/p1/1", "rgb", 1)


def test_a_tick_needs_no_key() -> None:
    """Ticks are written by explicit partition."""
    assert isinstance(read(Tick(log_start=3).to_bytes(), key=None), TickEvent)


def test_what_the_broker_refuses_is_no_fault_of_a_policy_change() -> None:
    """The process ends on it; a letter would leave the line under the old policy for good."""

    class Forbidden:
        def find(self, digest: str) -> object:
            raise Poison("topic", f"no right to read {digest}")

    intake = Intake(line=LINE, partitions=PARTITIONS, policies=Forbidden())  # type: ignore[arg-type]
    raw = json.dumps({"kind": "policy", "policy_digest": "0" * 64}).encode()
    record = LogRecord(
        topic="t", partition=0, offset=7, timestamp_ms=10**12, key=None, value=raw, headers=()
    )
    with pytest.raises(Poison, match="no right"):
        intake.read(record)


@pytest.mark.parametrize(
    ("raw", "more", "field"),
    [
        (b"\xff\xfe", {}, "body"),
        (b"[]", {}, "body"),
        (None, {}, "body"),
        (b"x" * 20_000, {}, "body"),
        (changed(kind="nope"), {}, "kind"),
        (changed(surprise=1), {}, "surprise"),
        (changed(schema_version=9), {}, "schema_version"),
        (changed(part={"site": "s", "line": "l", "part_id": "x" * 10_000}), {}, "part.part_id"),
        (changed(event_id="0" * 32), {}, "event_id"),
        (RECORD.to_bytes(), {"headers": (("ce_type", b"hololine.station-record.v2"),)}, "ce_type"),
        (RECORD.to_bytes(), {"key": b"other"}, "key"),
        (
            RECORD.to_bytes(),
            {"partition": 1 - murmur2_partition(str(PART).encode(), PARTITIONS)},
            "partition",
        ),
        (json.dumps({"kind": "policy", "policy_digest": "0" * 64}).encode(), {}, "policy_digest"),
    ],
)
def test_what_cannot_be_taken_is_refused_by_field(
    raw: bytes | None, more: dict[str, object], field: str
) -> None:
    """The refusal names the field that a sender must correct."""
    event = read(raw, **more)  # type: ignore[arg-type]
    assert isinstance(event, RefusedEvent)
    assert event.field == field
    assert event.reason


def of_another_line(kind: str, part: PartKey) -> bytes:
    """A message of this kind about a part of another line."""
    capture = RECORD.model_copy(
        update={"part": part, "event_id": event_id_of(part, "cam", "rgb", 1)}
    )
    messages: dict[str, Message] = {
        "capture": capture,
        "alias": Alias(part=part, real_part_id="real", published_at_ns=10**18),
        "force_close": ForceClose(part=part, requested_by="o", published_at_ns=10**18),
    }
    return messages[kind].to_bytes()


@pytest.mark.parametrize("kind", ["capture", "alias", "force_close"])
@pytest.mark.parametrize(
    "part",
    [PartKey(site="s", line="m", part_id="p1"), PartKey(site="r", line="l", part_id="p1")],
    ids=str,
)
def test_one_line_cannot_write_the_parts_of_another(kind: str, part: PartKey) -> None:
    """Not under the other's key, and not under a key of this line that hides it."""
    openly = read(of_another_line(kind, part), key=str(part).encode())
    hidden = read(of_another_line(kind, part), key=str(PART).encode())
    assert isinstance(openly, RefusedEvent)
    assert isinstance(hidden, RefusedEvent)
    assert (openly.field, hidden.field) == ("part.line", "key")


PRINTABLE = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=40)


NUMBERS = st.floats(allow_nan=False, allow_infinity=False)


@given(part_id=PRINTABLE, lot=PRINTABLE, gap=PRINTABLE, alias=st.none() | PRINTABLE, value=NUMBERS)
def test_sealed_evidence_is_in_canonical_bytes(
    part_id: str, lot: str, gap: str, alias: str | None, value: float
) -> None:
    """Put together from pieces or encoded as a message: the same bytes, quotes and all."""
    part = PartKey(site="s", line="l", part_id=part_id)
    record = RECORD.model_copy(
        update={
            "part": part,
            "event_id": event_id_of(part, "cam", "rgb", 1),
            "lot": lot,
            "gap_ids": (gap,),
        }
    )
    process = record.model_copy(
        update={
            "station": "plc",
            "modality": "process",
            "event_id": event_id_of(part, "plc", "process", 1),
            "payload": None,
            "process_values": {"force": value},
        }
    )
    key = str(part).encode()
    store = opened_store()
    store.apply([read(record.to_bytes(), key=key)])
    store.apply([read(process.to_bytes(), key=key, offset=8)])
    if alias is not None:
        store.apply([AliasEvent(offset=9, logged_at_ms=10**12, part=str(part), real_part_id=alias)])
    for leased in store.lease(2)[0]:
        sealed = sealed_of(leased, OwnPolicy())  # type: ignore[arg-type]
        assert sealed.raw == Evidence.from_bytes(sealed.raw).to_bytes()
        assert (sealed.product, sealed.modalities) == ("can", ("rgb",))


@given(st.binary(max_size=200))
def test_no_bytes_crash_it(raw: bytes) -> None:
    """Random bytes are refused, never raised."""
    assert isinstance(read(raw), RefusedEvent)


def test_frozen_evidence_becomes_the_message_that_is_judged() -> None:
    """Record -> join -> evidence keeps what was captured, and a scorer can answer it."""
    store = opened_store()
    event = read(RECORD.to_bytes())
    store.apply([event])
    evidence = evidence_of(store.lease(1)[0][0], OwnPolicy())  # type: ignore[arg-type]
    assert evidence.items[0].payload == RECORD.payload
    assert evidence.opened_offset == evidence.closed_offset == 7
    assert HashScorer().verdict(evidence).evidence_digest == evidence.digest
