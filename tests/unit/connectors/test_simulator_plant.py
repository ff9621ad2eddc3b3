"""The virtual plant at work: truths, faults, the PLC's handshake, the laboratory."""

import threading
from collections import Counter
from concurrent.futures import Future

import pytest

from connectors.clock import SystemClock
from connectors.line import Line, Modality, OpcUaNodes, Station
from connectors.memory import MemoryPayloadStore
from connectors.messages import NearlineResult, ProductPolicy, StationRecord
from connectors.ports import LogPosition
from connectors.simulator.plant import VirtualPlant
from connectors.simulator.schedule import PlantSchedule, StationFaults
from connectors.simulator.strengths import visible_in
from connectors.simulator.truth import PlantTruth

NEVER = StationFaults(drop=0, late=0, repeat=0, reorder=0)


@pytest.fixture
def line() -> Line:
    """The demo's line in a hurry."""
    policy = ProductPolicy(expected=("process", "rgb", "scan", "thermal"), deadline_ms=150)
    return Line(
        site="demo",
        area="cells",
        line="line-1",
        modalities={
            "rgb": Modality(kind="image", units="1"),
            "scan": Modality(kind="point-cloud", units="mm"),
            "thermal": Modality(kind="image", units="degC"),
            "ct": Modality(kind="volume", units="1", role="near-line"),
        },
        stations={
            "plc": Station(publishes=("process",)),
            "camera-1": Station(publishes=("rgb",)),
            "scanner-1": Station(publishes=("scan",)),
            "thermo-1": Station(publishes=("thermal",)),
            "ct-lab": Station(publishes=("ct",)),
        },
        products=dict.fromkeys(("electrode", "can", "plate"), policy),
        opcua=OpcUaNodes(process_values=("press_force_kn", "web_tension_n")),
    )


class KeptLog:
    """Keeps what is sent, in order, acknowledged at once; tells a listener first."""

    def __init__(self):
        self.records = []
        self.listener = lambda _topic: None

    def writer(self):
        return self

    def send(self, record):
        self.records.append(record)
        self.listener(record.topic)
        future = Future()
        future.set_result(LogPosition(partition=0, offset=len(self.records), timestamp_ms=1))
        return future

    def flush(self, timeout_s):
        assert timeout_s > 0

    def close(self):
        pass

    def of(self, entity, message):
        return [message.from_bytes(r.value) for r in self.records if f".{entity}." in r.topic]


class EagerPlc:
    """Says Done at once, or never."""

    def __init__(self, *, done=True):
        self.presented = []
        self.done = done

    def present(self, **data):
        self.presented.append(data)
        return self.done

    def wait_done(self, *, timeout_s):
        threading.Event().wait(min(timeout_s, 0.01))
        return self.done


def _plant(line, schedule, plc=None):
    log, store, plc = KeptLog(), MemoryPayloadStore(), plc or EagerPlc()
    plant = VirtualPlant(
        line=line,
        log=log,
        store=store,
        plc=plc,
        schedule=schedule,
        parts_per_s=50,
        clock=SystemClock(),
    )
    return plant, log, store, plc


def test_a_truth_precedes_its_records_and_names_exactly_those_that_are_sent(line):
    """Whatever the stations drop, delay or repeat, `sent` is what the log holds of the part."""
    rough = StationFaults(drop=0.3, late=0.1, repeat=0.2, reorder=0.2)
    plant, log, store, _ = _plant(line, PlantSchedule(parts=14, usual=rough, rework=0.2))
    plant.run(threading.Event())
    told, seen = {}, Counter()
    for raw in log.records:
        if raw.topic == line.topic("plant-truth"):
            truth = PlantTruth.from_bytes(raw.value)
            assert raw.key == str(truth.part).encode()
            told[str(truth.part)] = truth
        if raw.topic == line.topic("records"):
            record = StationRecord.from_bytes(raw.value)
            truth = told[str(record.part)]
            assert raw.key == str(record.part).encode()
            assert dict(raw.headers)["ce_subject"] == raw.key
            assert record.event_id in truth.sent
            assert record.payload == truth.captures[record.modality]
            assert record.captured_at_ns <= record.published_at_ns
            seen[record.event_id] += 1
    assert set(seen) == {event for truth in told.values() for event in truth.sent}
    faults = Counter(f.split(":")[0] for truth in told.values() for f in truth.faults)
    assert sum(count == 2 for count in seen.values()) == faults["repeated"] > 0
    assert plant.sent["dropped"] == faults["dropped"] == 3 * len(told) - len(seen) > 0
    assert plant.sent["records"] == seen.total()
    refs = [ref for truth in told.values() for ref in (*truth.captures.values(),)]
    assert all(len(store.get(ref)) == ref.size_bytes for ref in refs)


def test_a_truth_says_what_is_wrong_and_where_it_shows(line):
    """A defective part's truth has its kind, its visible modalities and a mask for each in-line."""
    plant, log, store, _ = _plant(line, PlantSchedule(parts=6, defect_share=1, usual=NEVER))
    plant.run(threading.Event())
    truths = log.of("plant-truth", PlantTruth)
    for truth in truths:
        assert truth.label == "defective"
        assert truth.visible_in == visible_in(truth.product, truth.defect)
        assert truth.grade in {2.0, 4.0, 8.0}
        assert set(truth.masks) == set(truth.visible_in) - {"ct"}
        assert set(truth.captures) == {"rgb", "scan", "thermal"}
        assert all(store.get(ref).startswith(b"\x89PNG") for ref in truth.masks.values())


def test_the_plc_presents_every_part_and_later_names_those_that_were_not_read(line):
    """Process values are those that the line lists; an alias event follows each no-read."""
    plant, log, _, plc = _plant(line, PlantSchedule(parts=8, usual=NEVER, no_read=0.4, rework=0))
    plant.run(threading.Event())
    parts = [data for data in plc.presented if not data.get("real_part_id")]
    aliases = [data for data in plc.presented if data.get("real_part_id")]
    truths = log.of("plant-truth", PlantTruth)
    assert [data["part_id"] for data in parts] == [truth.part.part_id for truth in truths]
    assert set(parts[0]["process_values"]) == {"press_force_kn", "web_tension_n"}
    unread = {truth.part.part_id for truth in truths if "no_read" in truth.faults}
    assert {data["part_id"] for data in aliases} == unread
    assert unread
    assert plant.sent["handshakes"] == len(plc.presented)


def test_an_unplugged_station_captures_nothing_until_it_is_plugged_in(line):
    """From the next part on its captures are dropped, and the truths say so."""
    plant, log, _, _ = _plant(line, PlantSchedule(parts=9, usual=NEVER, rework=0))
    truths = Counter()

    def switch(topic):
        truths[topic] += topic == line.topic("plant-truth")
        if truths[topic] == 3:
            plant.unplug("scanner-1")
        if truths[topic] == 6:
            plant.plug("scanner-1")

    log.listener = switch
    plant.run(threading.Event())
    told = log.of("plant-truth", PlantTruth)
    assert [("unplugged:scan" in t.faults) for t in told] == [False] * 3 + [True] * 3 + [False] * 3
    scanned = {str(r.part) for r in log.of("records", StationRecord) if r.modality == "scan"}
    assert scanned == {str(t.part) for t in told if "unplugged:scan" not in t.faults}
    with pytest.raises(ValueError, match="camera-9"):
        plant.unplug("camera-9")


def test_the_laboratory_reports_the_chosen_parts_hours_later(line):
    """Each chosen part gets one result with a CT, the truth and the recorded probability."""
    schedule = PlantSchedule(parts=8, usual=NEVER, sampled_at_random=0.5, defect_share=0.5)
    plant, log, store, _ = _plant(line, schedule)
    plant.run(threading.Event())
    truths = {str(t.part): t for t in log.of("plant-truth", PlantTruth)}
    results = log.of("nearline", NearlineResult)
    assert 0 < len(results) == plant.sent["nearline"] < len(truths)
    last_ns = max(r.published_at_ns for r in log.of("records", StationRecord))
    for result in results:
        assert result.finding == truths[str(result.part)].label
        assert result.examined_at_ns > last_ns + 3 * 3_600_000_000_000
        assert result.payloads[0].shape == (16, 64, 64)
        assert store.get(result.payloads[0])


def test_a_stopped_plant_keeps_what_it_told_of_the_parts_inside(line):
    """After a stop no part enters, but every record that a truth announced is in the log."""
    plant, log, _, _ = _plant(line, PlantSchedule(parts=200))
    stop, truths = threading.Event(), Counter()

    def halt(topic):
        truths[topic] += 1
        if truths[line.topic("plant-truth")] == 5:
            stop.set()

    log.listener = halt
    plant.run(stop)
    told = log.of("plant-truth", PlantTruth)
    assert len(told) == 5
    seen = {record.event_id for record in log.of("records", StationRecord)}
    assert seen == {event for truth in told for event in truth.sent}


def test_the_belt_waits_for_the_plc_and_a_stop_still_ends_the_run(line):
    """Without Done no more than a few parts enter; then the plant can be stopped."""
    plant, log, _, plc = _plant(line, PlantSchedule(parts=60, usual=NEVER), EagerPlc(done=False))
    stop = threading.Event()
    runner = threading.Thread(target=plant.run, args=(stop,))
    runner.start()
    deadline = threading.Event()
    for _ in range(200):
        if plant.sent["parts"] >= 16:
            break
        deadline.wait(0.1)
    assert plant.sent["parts"] == 16
    assert len(plc.presented) == 1
    stop.set()
    runner.join(timeout=30)
    assert not runner.is_alive()
    assert plant.sent["parts"] == len(log.of("plant-truth", PlantTruth)) < 60
