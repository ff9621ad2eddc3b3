"""What a PLC says becomes a record, an alias or a dead letter that names the field; no error."""

import base64
import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.line import Line, Modality, OpcUaNodes, Station
from connectors.messages import (
    RECORD_BYTES_MAX,
    Alias,
    DeadLetter,
    ProductPolicy,
    StationRecord,
    event_id_of,
)
from connectors.opcua.records import record_of
from connectors.ports import Outgoing, PartEvent

LINE = Line(
    site="plant",
    area="cells",
    line="line1",
    modalities={"colour": Modality(kind="image", units="1")},
    stations={"plc": Station(publishes=("process",)), "camera": Station(publishes=("colour",))},
    products={"can": ProductPolicy(expected=("colour", "process"), deadline_ms=500)},
    opcua=OpcUaNodes(process_values=("speed",)),
)
NOW_NS = 1_700_000_000_000_000_000


def event(**changes: object) -> PartEvent:
    fields: dict[str, object] = {
        "sequence": 7,
        "part_id": "P-1",
        "pass_number": 2,
        "product": "can",
        "lot": "L1",
        "order": None,
        "operation": None,
        "real_part_id": None,
        "process_values": {"speed": 1.5},
        "captured_at_ns": NOW_NS,
        "gap_ids": ("opcua:1-2",),
    }
    return PartEvent(**{**fields, **changes})  # type: ignore[arg-type]


def made(source: PartEvent) -> Outgoing:
    return record_of(source, LINE, station="plc", published_at_ns=NOW_NS + 5)


def test_a_part_event_becomes_the_process_record_under_its_part_key() -> None:
    """Every value the PLC gave is in the record, and the event id is the deterministic one."""
    outgoing = made(event())
    record = StationRecord.from_bytes(outgoing.value or b"")
    assert outgoing.topic == "plant.cells.line1.records.v1"
    assert outgoing.key == b"plant/line1/P-1/2"
    assert record.event_id == event_id_of(record.part, "plc", "process", 7)
    assert record.process_values == {"speed": 1.5}
    assert (record.product, record.lot, record.gap_ids) == ("can", "L1", ("opcua:1-2",))
    assert (record.captured_at_ns, record.published_at_ns) == (NOW_NS, NOW_NS + 5)
    assert dict(outgoing.headers)["ce_type"] == b"hololine.station-record.v1"


def test_an_event_with_a_real_part_id_becomes_an_alias_under_the_tracking_id() -> None:
    """The tracked part keeps its key; the alias names the real id."""
    outgoing = made(event(part_id="TRACK-9", real_part_id="P-77"))
    alias = Alias.from_bytes(outgoing.value or b"")
    assert outgoing.key == b"plant/line1/TRACK-9/2"
    assert (alias.part.part_id, alias.real_part_id) == ("TRACK-9", "P-77")


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("part_id", {"part_id": "x" * 10_000}),
        ("part_id", {"part_id": "Zellgehäuse"}),
        ("part_id", {"part_id": ""}),
        ("pass", {"pass_number": -1}),
        ("pass", {"pass_number": 0}),
        ("product", {"product": "No Such Slug"}),
        ("lot", {"lot": "L" * 129}),
        ("real_part_id", {"real_part_id": "ü"}),
        ("process_values.speed", {"process_values": {"speed": math.nan}}),
        ("process_values.speed", {"process_values": {"speed": math.inf}}),
        ("capture_sequence", {"sequence": -1}),
    ],
)
def test_a_value_that_breaks_its_contract_becomes_a_dead_letter_that_names_it(
    field: str, changes: dict[str, object]
) -> None:
    """Nothing is repaired and nothing is silent: the letter keeps the bytes and says what to do."""
    broken = event(**changes)
    outgoing = made(broken)
    letter = DeadLetter.from_bytes(outgoing.value or b"")
    assert outgoing.topic == "plant.cells.line1.dead-letters.v1"
    assert letter.field == field
    assert (letter.topic, letter.partition, letter.offset) == ("opcua", 0, broken.sequence)
    assert letter.remedy
    said = json.loads(base64.b64decode(letter.raw_base64))
    assert said["part_id"] == broken.part_id


def test_the_same_event_refused_twice_has_one_letter_id_and_another_moment_has_another() -> None:
    """A PLC that counts anew after a restart must not hide a letter behind an older one."""

    def letter_id(source: PartEvent) -> str:
        return DeadLetter.from_bytes(made(source).value or b"").letter_id

    assert letter_id(event(part_id="")) == letter_id(event(part_id=""))
    assert letter_id(event(part_id="")) != letter_id(event(part_id="", captured_at_ns=NOW_NS + 1))


texts = st.text(max_size=300)


@settings(deadline=None, derandomize=True)
@given(
    st.builds(
        PartEvent,
        sequence=st.integers(min_value=0, max_value=2**32 - 1),
        part_id=texts,
        pass_number=st.integers(min_value=-(2**31), max_value=2**31),
        product=texts,
        lot=st.none() | texts,
        order=st.none() | texts,
        operation=st.none() | texts,
        real_part_id=st.none() | texts,
        process_values=st.dictionaries(texts, st.floats(), max_size=80),
        captured_at_ns=st.integers(min_value=-5, max_value=2**64),
        gap_ids=st.tuples(st.just("opcua:1-2")),
    )
)
def test_nothing_that_a_plc_can_say_raises(source: PartEvent) -> None:
    """The handshake must end whatever the nodes hold, and records keep their size limit."""
    outgoing = made(source)
    assert outgoing.topic in (LINE.topic("records"), LINE.topic("dead-letters"))
    if outgoing.topic == LINE.topic("records"):
        assert len(outgoing.value or b"") <= RECORD_BYTES_MAX
