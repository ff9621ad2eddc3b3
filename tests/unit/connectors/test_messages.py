"""Messages: what is written is what is read, and whatever else is refused by name."""

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from connectors.errors import MalformedMessage
from connectors.messages import (
    MESSAGES,
    RECORD_BYTES_MAX,
    Alias,
    Closed,
    DeadLetter,
    Disposition,
    Evidence,
    EvidenceItem,
    ForceClose,
    LinePolicy,
    Message,
    NearlineResult,
    PartKey,
    PayloadRef,
    PolicyChange,
    ProductPolicy,
    Region,
    Selection,
    StationRecord,
    Tick,
    Verdict,
    View,
    event_id_of,
    json_schema,
    letter_id_of,
    verdict_id_of,
)

slugs = st.from_regex(r"[a-z0-9][a-z0-9_-]{0,20}", fullmatch=True)
labels = st.from_regex(r"[\x20-\x7e]{1,40}", fullmatch=True)
digests = st.from_regex(r"[0-9a-f]{64}", fullmatch=True)
times = st.integers(1, 2**63 - 1)
fractions = st.floats(0.0, 1.0)
finite = st.floats(allow_nan=False, allow_infinity=False)
offsets = st.integers(0, 2**53 - 1)
maybe_labels = st.none() | labels

parts = st.builds(
    PartKey,
    site=slugs,
    line=slugs,
    part_id=st.from_regex(r"[\x21-\x7e]{1,128}", fullmatch=True),
    pass_number=st.integers(1, 999),
)
payloads = st.builds(
    PayloadRef,
    uri=st.text(min_size=1, max_size=60),
    sha256=digests,
    size_bytes=st.integers(1, 2**40),
    media_type=st.sampled_from(["image/png", "application/x-npy", "image/svg+xml"]),
    units=st.sampled_from(["1", "mm", "°C"]),
    shape=st.lists(st.integers(0, 4096), max_size=4).map(tuple),
)
regions = st.builds(
    Region,
    modality=slugs,
    top=fractions,
    left=fractions,
    height=fractions,
    width=fractions,
    score=finite,
)
views = st.builds(
    View,
    kind=st.sampled_from(["features", "heat_map"]),
    modality=slugs,
    hallucinated=st.booleans(),
    payload=payloads,
)
policies = st.builds(
    ProductPolicy,
    expected=st.lists(slugs, min_size=1, max_size=4).map(tuple),
    minimum=st.lists(slugs, max_size=4).map(tuple),
    deadline_ms=st.integers(1, 86_400_000),
)
evidences = st.builds(
    Evidence,
    part=parts,
    revision=st.integers(1, 16),
    product=slugs,
    lot=maybe_labels,
    closed=st.sampled_from(Closed),
    opened_offset=offsets,
    opened_at_ms=offsets,
    closed_offset=offsets,
    closed_at_ms=offsets,
    items=st.lists(
        st.builds(
            EvidenceItem,
            event_id=st.text(),
            offset=offsets,
            station=slugs,
            modality=slugs,
            capture_sequence=offsets,
            captured_at_ns=times,
            logged_at_ms=offsets,
            payload=st.none() | payloads,
            process_values=st.dictionaries(slugs, finite, max_size=2),
        ),
        max_size=2,
    ).map(tuple),
    missing=st.lists(slugs, max_size=2).map(tuple),
    policy_digest=digests,
    policy=policies,
)


@st.composite
def station_records(draw: st.DrawFn) -> StationRecord:
    part, station, modality = draw(parts), draw(slugs), draw(slugs)
    sequence = draw(offsets)
    return StationRecord(
        event_id=event_id_of(part, station, modality, sequence),
        part=part,
        product=draw(slugs),
        station=station,
        modality=modality,
        capture_sequence=sequence,
        captured_at_ns=draw(times),
        published_at_ns=draw(times),
        lot=draw(maybe_labels),
        operation=draw(maybe_labels),
        payload=None if modality == "process" else draw(payloads),
        process_values=draw(st.dictionaries(slugs, finite, max_size=4)),
        gap_ids=tuple(draw(st.lists(labels, max_size=2))),
    )


BY_NAME: dict[str, st.SearchStrategy[Message]] = {
    "station-record": station_records(),
    "alias": st.builds(Alias, part=parts, real_part_id=st.just("REAL-1"), published_at_ns=times),
    "force-close": st.builds(ForceClose, part=parts, requested_by=labels, published_at_ns=times),
    "tick": st.builds(Tick, log_start=offsets),
    "policy-change": st.builds(PolicyChange, policy_digest=digests),
    "line-policy": st.builds(
        LinePolicy,
        stations=st.dictionaries(slugs, slugs, max_size=3),
        products=st.dictionaries(slugs, policies, max_size=2),
    ),
    "verdict": st.builds(
        Verdict,
        verdict_id=st.uuids().map(str),
        part=parts,
        revision=st.integers(1, 16),
        product=slugs,
        disposition=st.sampled_from(Disposition),
        reasons=st.lists(st.text(), max_size=2).map(tuple),
        p_value=st.none() | fractions,
        false_reject_rate=fractions,
        promise_valid=st.booleans(),
        score=st.none() | finite,
        scores=st.dictionaries(slugs, finite, max_size=2),
        regions=st.lists(regions, max_size=2).map(tuple),
        views=st.lists(views, max_size=2).map(tuple),
        evidence_digest=digests,
        evidence=evidences,
    ),
    "nearline-result": st.builds(
        NearlineResult,
        part=parts,
        product=slugs,
        method=st.sampled_from(["CT", "SEM", "manual"]),
        finding=st.sampled_from(["good", "defective"]),
        defect_kind=maybe_labels,
        regions=st.lists(regions, max_size=2).map(tuple),
        payloads=st.lists(payloads, max_size=2).map(tuple),
        selection=st.builds(
            Selection, policy=labels, probability=st.floats(0.0, 1.0, exclude_min=True)
        ),
        examined_at_ns=times,
    ),
    "dead-letter": st.builds(
        DeadLetter,
        letter_id=st.text(),
        field=st.text(),
        reason=st.text(),
        remedy=st.text(),
        topic=st.text(),
        partition=offsets,
        offset=offsets,
        logged_at_ms=offsets,
        raw_base64=st.binary(max_size=30).map(lambda raw: raw.hex()),
        raw_size_bytes=offsets,
        headers=st.dictionaries(st.text(), st.text(), max_size=2),
    ),
}


def record_json(**changes: Any) -> bytes:
    """A good station record as JSON, with some fields changed (None: removed)."""
    part = PartKey(site="aachen", line="cells", part_id="P-1")
    good = {
        "kind": "station_record",
        "schema_version": 1,
        "event_id": event_id_of(part, "camera", "rgb", 7),
        "part": {"site": "aachen", "line": "cells", "part_id": "P-1", "pass": 1},
        "product": "can",
        "station": "camera",
        "modality": "rgb",
        "capture_sequence": 7,
        "captured_at_ns": 1_700_000_000_000_000_000,
        "published_at_ns": 1_700_000_000_000_000_001,
        "payload": {
            "uri": "payloads/ab/cd",
            "sha256": "0" * 64,
            "size_bytes": 10,
            "media_type": "image/png",
        },
    }
    changed = {**good, **changes}
    return json.dumps({k: v for k, v in changed.items() if v is not None}).encode()


def test_every_message_has_a_round_trip() -> None:
    """No message that crosses a topic is left out below."""
    assert set(BY_NAME) == set(MESSAGES)


@pytest.mark.parametrize("name", sorted(MESSAGES))
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_what_is_written_is_what_is_read_and_fits_the_schema(
    name: str, data: st.DataObject
) -> None:
    """Bytes -> message -> the same bytes, and the published JSON Schema accepts them."""
    message = data.draw(BY_NAME[name])
    raw = message.to_bytes()
    again = MESSAGES[name].from_bytes(raw)
    assert again == message
    assert again.to_bytes() == raw
    Draft202012Validator(json_schema(name)).validate(json.loads(raw))


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"colour": "red"}, "colour"),
        ({"schema_version": 2}, "schema_version"),
        ({"kind": "tick"}, "kind"),
        ({"product": None}, "product"),
        ({"product": "Can 3"}, "product"),
        ({"capture_sequence": "7"}, "capture_sequence"),
        ({"capture_sequence": 2**53}, "capture_sequence"),
        ({"capture_sequence": -1}, "capture_sequence"),
        ({"captured_at_ns": 0}, "captured_at_ns"),
        ({"captured_at_ns": 10**30}, "captured_at_ns"),
        ({"part": {"site": "a", "line": "b", "part_id": "P" * 10_240}}, "part.part_id"),
        ({"part": {"site": "a", "line": "b", "part_id": "P-1\n"}}, "part.part_id"),
        ({"part": {"site": "a", "line": "b", "part_id": "Ü"}}, "part.part_id"),
        ({"part": {"site": "a", "line": "b", "part_id": "P", "pass": 0}}, "part.pass"),
        ({"payload": {"uri": "x"}}, "payload.sha256"),
        ({"process_values": {"v": float("nan")}}, "process_values.v"),
        ({"process_values": {"v": float("inf")}}, "process_values.v"),
        ({"process_values": {f"v{i}": 1.0 for i in range(65)}}, "process_values"),
        ({"gap_ids": ["g"] * 17}, "gap_ids"),
        ({"event_id": "0" * 32}, "event_id"),
        ({"payload": None}, "payload"),
        ({"part": {"site": "a", "line": "b", "part_id": "P", "passes": 2}}, "part.passes"),
    ],
)
def test_a_broken_field_is_refused_by_its_name(changes: dict[str, Any], field: str) -> None:
    """The error names the first field that breaks its contract."""
    with pytest.raises(MalformedMessage) as refused:
        StationRecord.from_bytes(record_json(**changes))
    assert refused.value.field == field


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\xff\xfe\x00",
        b"null",
        b"[]",
        b'"text"',
        b"{",
        b"{}}",
        b'{"part": "\\ud800"}',
        b"[" * 100_000,
        b'{"a":' * 50_000,
        b"9" * RECORD_BYTES_MAX,
    ],
    ids=lambda raw: raw[:8].hex() or "empty",
)
def test_bytes_that_are_no_message_are_refused(raw: bytes) -> None:
    """Anything at all may arrive; it ends in a MalformedMessage and in nothing else."""
    for kind in MESSAGES.values():
        with pytest.raises(MalformedMessage):
            kind.from_bytes(raw)


@given(raw=st.binary(max_size=200))
@settings(max_examples=100, deadline=None)
def test_random_bytes_never_get_past_the_door(raw: bytes) -> None:
    """No random bytes make a record, and none crash."""
    with pytest.raises(MalformedMessage):
        StationRecord.from_bytes(raw)


@given(at=st.integers(0, 400), byte=st.integers(0, 255))
@settings(max_examples=100, deadline=None)
def test_one_changed_byte_is_refused_or_is_another_valid_record(at: int, byte: int) -> None:
    """A bit flip never makes a record that cannot be written back."""
    raw = bytearray(record_json())
    raw[at % len(raw)] = byte
    try:
        record = StationRecord.from_bytes(bytes(raw))
    except MalformedMessage:
        return
    assert StationRecord.from_bytes(record.to_bytes()) == record


def test_the_error_says_how_many_more_fields_are_broken() -> None:
    """Someone who mends one field knows that others wait."""
    with pytest.raises(MalformedMessage, match=r"and 1 more"):
        StationRecord.from_bytes(record_json(product="Can 3", station="Kamera 1"))


def test_ids_are_the_same_for_ever() -> None:
    """Ids written years ago must still be those that are computed today."""
    part = PartKey(site="aachen", line="cells", part_id="P/1", pass_number=2)
    assert event_id_of(part, "camera", "rgb", 7) == "4e31c10917461040c3fdf45946c53e47"
    assert verdict_id_of(part, 1) == "e40ba9cd-dcbb-545a-99fb-2dc013abfb4a"
    letter = letter_id_of("aachen.hall.cells.records.v1", 0, 5, "product")
    assert letter == "26731bbd9d23c92a59c5e02230667d93"


def test_ids_of_different_things_differ() -> None:
    """Pass, revision, station, modality and sequence all count."""
    one = PartKey(site="a", line="b", part_id="P")
    two = PartKey(site="a", line="b", part_id="P", pass_number=2)
    events = {
        event_id_of(part, station, modality, sequence)
        for part in (one, two)
        for station in ("s", "t")
        for modality in ("rgb", "ir")
        for sequence in (0, 1)
    }
    verdicts = {verdict_id_of(part, revision) for part in (one, two) for revision in (1, 2)}
    assert len(events) == 16
    assert len(verdicts) == 4


@given(part=parts)
def test_a_part_key_survives_as_text(part: PartKey) -> None:
    """The Kafka key names exactly one part, also when the part id holds slashes."""
    assert PartKey.parse(str(part)) == part


@pytest.mark.parametrize("key", ["", "a", "a/b/c", "a/b/c/x", "a/b/c/0", "A/b/c/1", "a/b//1"])
def test_a_key_of_another_form_is_refused(key: str) -> None:
    """A key that names no part is malformed, never an IndexError."""
    with pytest.raises(MalformedMessage):
        PartKey.parse(key)


@given(evidence=evidences)
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_a_digest_depends_on_the_content_alone(evidence: Evidence) -> None:
    """The same evidence has the same digest wherever it was decoded."""
    assert Evidence.from_bytes(evidence.to_bytes()).digest == evidence.digest
    other = evidence.model_copy(update={"revision": evidence.revision % 16 + 1})
    assert other.digest != evidence.digest


def test_canonical_bytes_have_a_fixed_form() -> None:
    """Declared order, no white space, absent options left out."""
    tick = Tick(log_start=3)
    assert tick.to_bytes() == b'{"kind":"tick","schema_version":1,"log_start":3}'
    assert b'"lot"' not in StationRecord.from_bytes(record_json()).to_bytes()
