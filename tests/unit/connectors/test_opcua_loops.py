"""The loops of `source` and `sink` keep their promises when log or worker fail them."""

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field

from connectors.clock import ManualClock, SystemClock
from connectors.errors import Backpressure, Unavailable
from connectors.line import Line, Modality, Station
from connectors.messages import (
    Closed,
    Disposition,
    Evidence,
    PartKey,
    ProductPolicy,
    StationRecord,
    Verdict,
    event_id_of,
    verdict_id_of,
)
from connectors.opcua.deadlines import LATE, NoVerdictWatch
from connectors.opcua.sink import run_sink
from connectors.opcua.source import run_source
from connectors.ports import LogPosition, LogRecord, Outgoing, PartEvent

LINE = Line(
    site="plant",
    area="cells",
    line="line1",
    modalities={"colour": Modality(kind="image", units="1")},
    stations={"plc": Station(publishes=("process",)), "camera": Station(publishes=("colour",))},
    products={"can": ProductPolicy(expected=("colour", "process"), deadline_ms=500)},
)
PART = PartKey(site="plant", line="line1", part_id="P-1")


def event(sequence: int) -> PartEvent:
    return PartEvent(
        sequence=sequence,
        part_id=f"P-{sequence}",
        pass_number=1,
        product="can",
        lot=None,
        order=None,
        operation=None,
        real_part_id=None,
        process_values={},
        captured_at_ns=1_700_000_000_000_000_000,
        gap_ids=(),
    )


@dataclass
class ScriptedSource:
    """Serves events until each is acknowledged, then ends the loop."""

    events: list[PartEvent]
    stop: threading.Event
    acknowledged: list[int] = field(default_factory=list)

    def poll(self, *, timeout_s: float) -> PartEvent | None:
        if self.events:
            return self.events[0]
        self.stop.set()
        return None

    def acknowledge(self, event: PartEvent) -> None:
        assert self.events.pop(0) is event
        self.acknowledged.append(event.sequence)

    def close(self) -> None: ...


@dataclass
class FailingWriter:
    """Refuses as scripted, then takes everything."""

    failures: list[Exception]
    raised_at_once: bool
    taken: list[Outgoing] = field(default_factory=list)

    def send(self, record: Outgoing) -> "Future[LogPosition]":
        answer: Future[LogPosition] = Future()
        if self.failures and self.raised_at_once:
            raise self.failures.pop(0)
        if self.failures:
            answer.set_exception(self.failures.pop(0))
        else:
            self.taken.append(record)
            answer.set_result(LogPosition(partition=0, offset=len(self.taken), timestamp_ms=1))
        return answer

    def flush(self, timeout_s: float) -> None: ...

    def close(self) -> None: ...


def run_source_with(writer: FailingWriter, events: list[PartEvent]) -> ScriptedSource:
    stop = threading.Event()
    source = ScriptedSource(events, stop)
    run_source(source=source, writer=writer, line=LINE, clock=SystemClock(), stop=stop)
    return source


def test_each_event_is_logged_before_it_is_acknowledged_and_in_order() -> None:
    """Done tells the PLC that the part is safe; it must not come earlier."""
    writer = FailingWriter([], raised_at_once=False)
    source = run_source_with(writer, [event(1), event(2)])
    assert source.acknowledged == [1, 2]
    keys = [outgoing.key for outgoing in writer.taken]
    assert keys == [b"plant/line1/P-1/1", b"plant/line1/P-2/1"]


def test_a_log_that_fails_is_tried_again_until_it_takes_the_event() -> None:
    """Neither a full buffer nor a missing acknowledgement loses an event or ends the loop."""
    for raised_at_once in (True, False):
        writer = FailingWriter([Unavailable("down"), Backpressure("full")], raised_at_once)
        source = run_source_with(writer, [event(1)])
        assert source.acknowledged == [1]
        assert len(writer.taken) == 1


def test_an_event_that_becomes_a_dead_letter_gets_its_done_too() -> None:
    """A malformed part id must not stop the line."""
    writer = FailingWriter([], raised_at_once=False)
    bad = event(1)
    source = run_source_with(writer, [PartEvent(**{**_fields(bad), "part_id": "x" * 10_000})])
    assert source.acknowledged == [1]
    assert writer.taken[0].topic == LINE.topic("dead-letters")


def _fields(event: PartEvent) -> dict[str, object]:
    return {name: getattr(event, name) for name in PartEvent.__dataclass_fields__}


@dataclass
class ScriptedReader:
    """Each poll takes the next step: records, or an error to raise."""

    steps: list[list[LogRecord] | Exception]
    on_empty: Callable[[], None] = lambda: None
    caught_up_after: int = 0
    polls: int = 0

    def poll(self, *, timeout_s: float, limit: int) -> list[LogRecord]:
        self.polls += 1
        if not self.steps:
            self.on_empty()
            return []
        step = self.steps.pop(0)
        if isinstance(step, Exception):
            raise step
        return step

    def positions(self) -> Mapping[int, int]:
        return {}

    def caught_up(self) -> bool:
        return self.polls > self.caught_up_after

    def close(self) -> None: ...


@dataclass
class RecordingSink:
    """Remembers what it is told."""

    shown: list[str] = field(default_factory=list)
    missing: list[tuple[str, str]] = field(default_factory=list)
    beats: list[bool] = field(default_factory=list)

    def show(self, verdict: Verdict) -> None:
        self.shown.append(verdict.verdict_id)

    def show_no_verdict(self, *, part: str, reason: str) -> None:
        self.missing.append((part, reason))

    def beat(self, *, healthy: bool) -> None:
        self.beats.append(healthy)

    def close(self) -> None: ...


def verdict_record(revision: int) -> LogRecord:
    evidence = Evidence(
        part=PART,
        revision=revision,
        product="can",
        closed=Closed.COMPLETE,
        opened_offset=0,
        opened_at_ms=1,
        closed_offset=1,
        closed_at_ms=2,
        items=(),
        policy_digest="0" * 64,
        policy=LINE.products["can"],
    )
    verdict = Verdict(
        verdict_id=verdict_id_of(PART, revision),
        part=PART,
        revision=revision,
        product="can",
        disposition=Disposition.ACCEPT,
        false_reject_rate=0.01,
        promise_valid=False,
        evidence_digest=evidence.digest,
        evidence=evidence,
    )
    return log_record("verdicts", verdict.to_bytes(), timestamp_ms=2)


def part_record(clock: ManualClock) -> LogRecord:
    record = StationRecord(
        event_id=event_id_of(PART, "plc", "process", 1),
        part=PART,
        product="can",
        station="plc",
        modality="process",
        capture_sequence=1,
        captured_at_ns=clock.now_ns(),
        published_at_ns=clock.now_ns(),
    )
    return log_record("records", record.to_bytes(), timestamp_ms=clock.now_ns() // 1_000_000)


def log_record(entity: str, value: bytes, *, timestamp_ms: int) -> LogRecord:
    return LogRecord(
        topic=LINE.topic(entity),
        partition=0,
        offset=0,
        timestamp_ms=timestamp_ms,
        key=str(PART).encode(),
        value=value,
    )


def run_sink_with(
    *, records: ScriptedReader, verdicts: ScriptedReader, clock: ManualClock, rounds: int = 8
) -> RecordingSink:
    """Runs `rounds` rounds, 200 ms each by the sink's clock."""
    stop = threading.Event()
    sink = RecordingSink()
    left = [rounds]
    plain = verdicts.poll

    def poll(*, timeout_s: float, limit: int) -> list[LogRecord]:
        clock.advance_s(0.2)
        left[0] -= 1
        if left[0] == 0:
            stop.set()
        return plain(timeout_s=timeout_s, limit=limit)

    verdicts.poll = poll  # type: ignore[method-assign]
    run_sink(
        sink=sink,
        records=records,
        verdicts=verdicts,
        watch=NoVerdictWatch(products=LINE.products, grace_ms=100, clock=clock),
        clock=clock,
        stop=stop,
    )
    return sink


def test_a_verdict_is_shown_once_and_silences_the_watch() -> None:
    """The log delivers at least once; the PLC sees each revision once."""
    clock = ManualClock()
    sink = run_sink_with(
        records=ScriptedReader([[part_record(clock)]]),
        verdicts=ScriptedReader([[], [verdict_record(1), verdict_record(1)], [verdict_record(2)]]),
        clock=clock,
    )
    assert sink.shown == [verdict_id_of(PART, 1), verdict_id_of(PART, 2)]
    assert sink.missing == []


def test_a_part_without_a_verdict_is_said_even_while_the_log_is_away() -> None:
    """The promise to the PLC is never silence; the beats say that the log is away."""
    clock = ManualClock()
    away: list[list[LogRecord] | Exception] = [[], *[Unavailable("no broker") for _ in range(6)]]
    sink = run_sink_with(
        records=ScriptedReader([[part_record(clock)]]), verdicts=ScriptedReader(away), clock=clock
    )
    assert sink.missing == [(str(PART), LATE)]
    assert False in sink.beats


def test_after_a_start_old_verdicts_are_read_before_parts_are_called_late() -> None:
    """A restarted sink must not say NO_VERDICT of parts that were judged long ago."""
    clock = ManualClock()
    opened = part_record(clock)
    clock.advance_s(60)
    sink = run_sink_with(
        records=ScriptedReader([[opened]]),
        verdicts=ScriptedReader([[], [], [verdict_record(1)]], caught_up_after=2),
        clock=clock,
    )
    assert sink.shown
    assert sink.missing == []


def test_of_a_long_history_only_the_last_verdict_of_each_part_is_shown() -> None:
    """A restart must not replay a week in front of the PLC before it becomes current."""
    clock = ManualClock()
    sink = run_sink_with(
        records=ScriptedReader([]),
        verdicts=ScriptedReader(
            [[verdict_record(1), verdict_record(2)], [verdict_record(3)], [verdict_record(4)]],
            caught_up_after=1,
        ),
        clock=clock,
    )
    assert sink.shown == [verdict_id_of(PART, 3), verdict_id_of(PART, 4)]


def test_bytes_that_are_no_message_do_not_end_the_sink() -> None:
    """The worker answers for them; the sink goes on."""
    clock = ManualClock()
    junk = log_record("verdicts", b"\xff{", timestamp_ms=1)
    sink = run_sink_with(
        records=ScriptedReader([[junk]]),
        verdicts=ScriptedReader([[junk, verdict_record(1)]]),
        clock=clock,
    )
    assert sink.shown == [verdict_id_of(PART, 1)]
    assert all(sink.beats)
