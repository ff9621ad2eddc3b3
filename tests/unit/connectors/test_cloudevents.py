"""CloudEvents headers: what an MES without Python reads first."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.cloudevents import headers_of, major_of
from connectors.errors import MalformedMessage
from connectors.messages import PartKey, PayloadRef, StationRecord, Tick, event_id_of

PART = PartKey(site="aachen", line="cells", part_id="P-1")
RECORD = StationRecord(
    event_id=event_id_of(PART, "camera", "rgb", 7),
    part=PART,
    product="can",
    station="camera",
    modality="rgb",
    capture_sequence=7,
    captured_at_ns=1_700_000_000_000_000_001,
    published_at_ns=1_700_000_000_500_000_000,
    payload=PayloadRef(uri="ab/cd", sha256="0" * 64, size_bytes=9, media_type="image/png"),
)


def test_a_capture_carries_every_attribute() -> None:
    """Kafka binary mode: attributes are headers with the prefix ce_, in UTF-8."""
    headers = headers_of(
        RECORD,
        source="/aachen/hall/cells/camera",
        subject=str(PART),
        time_ns=RECORD.captured_at_ns,
        traceparent="00-" + "1" * 32 + "-" + "2" * 16 + "-01",
    )
    assert dict(headers) == {
        "ce_specversion": b"1.0",
        "ce_id": RECORD.event_id.encode(),
        "ce_source": b"/aachen/hall/cells/camera",
        "ce_type": b"hololine.station-record.v1",
        "ce_subject": b"aachen/cells/P-1/1",
        "ce_dataschema": b"urn:hololine:schema:station-record:v1",
        "content-type": b"application/json",
        "ce_time": b"2023-11-14T22:13:20.000000001Z",
        "ce_partitionkey": b"aachen/cells/P-1/1",
        "ce_dataref": b"ab/cd",
        "ce_traceparent": b"00-" + b"1" * 32 + b"-" + b"2" * 16 + b"-01",
    }
    assert len(headers) == len(dict(headers))


def test_what_is_not_known_is_left_out() -> None:
    """A tick has no part, payload, time or trace: no empty headers; its id is its bytes' hash."""
    headers = dict(headers_of(Tick(log_start=3), source="/a/b/c/worker", subject="p0"))
    assert set(headers) == {
        "ce_specversion", "ce_id", "ce_source", "ce_type", "ce_subject", "ce_dataschema",
        "content-type",
    }  # fmt: skip
    again = dict(headers_of(Tick(log_start=3), source="/a/b/c/worker", subject="p0"))
    other = dict(headers_of(Tick(log_start=4), source="/a/b/c/worker", subject="p0"))
    assert headers["ce_id"] == again["ce_id"] != other["ce_id"]


def test_the_type_is_read_back() -> None:
    """What we write we can tell apart."""
    assert major_of(headers_of(RECORD, source="/s", subject="x")) == ("station-record", 1)


def test_a_record_without_cloudevents_has_no_type() -> None:
    """A station that writes plain JSON is legal; its value must speak for itself."""
    assert major_of(()) is None
    assert major_of((("traceparent", b"00"),)) is None


def test_a_later_major_is_told_by_its_number() -> None:
    """The reader decides what to do with a major it does not know."""
    assert major_of((("ce_type", b"hololine.station-record.v2"),)) == ("station-record", 2)


@pytest.mark.parametrize(
    "declared",
    [
        b"",
        b"\xff\xfe",
        b"com.acme.thing",
        b"hololine.verdict",
        b"hololine.verdict.v0",
        b"hololine.verdict.v1\n",
        b"hololine.verdict.v99999",
        b"hololine.verdict.v\xd9\xa1",
        b"hololine." + b"a" * 10_000 + b".v1",
    ],
)
def test_an_unreadable_type_is_refused_by_name(declared: bytes) -> None:
    """The dead letter says which header is wrong, and stays small."""
    with pytest.raises(MalformedMessage) as refused:
        major_of((("ce_type", declared),))
    assert refused.value.field == "ce_type"
    assert len(refused.value.reason) < 500


def test_two_types_are_refused() -> None:
    """Kafka allows a header twice; which of them would count?"""
    twice = (("ce_type", b"hololine.tick.v1"), ("ce_type", b"hololine.verdict.v1"))
    with pytest.raises(MalformedMessage):
        major_of(twice)


@given(declared=st.binary(max_size=60))
def test_no_header_bytes_crash_the_reader(declared: bytes) -> None:
    """Whatever stands in the header, the answer is an entity or a named refusal."""
    try:
        entity, major = major_of((("ce_type", declared),)) or ("", 0)
    except MalformedMessage:
        return
    assert declared == f"hololine.{entity}.v{major}".encode()


@given(time_ns=st.integers(1, 2**63 - 1))
def test_times_are_rfc_3339_to_the_nanosecond(time_ns: int) -> None:
    """No time that a message can hold fails, and none is rounded."""
    headers = dict(headers_of(RECORD, source="/s", subject="x", time_ns=time_ns))
    text = headers["ce_time"].decode()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z", text)
    assert int(text[-10:-1]) == time_ns % 1_000_000_000
