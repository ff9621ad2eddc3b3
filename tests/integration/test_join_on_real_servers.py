"""The worker joins through real Kafka and Redis, and starts over from whatever it finds there."""

import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import redis

from connectors.clock import SystemClock
from connectors.cloudevents import headers_of
from connectors.errors import SessionEnd
from connectors.kafka import KafkaLog
from connectors.line import Line, Modality, Station, Topics
from connectors.memory_scorer import HashScorer
from connectors.messages import (
    DeadLetter,
    Message,
    PartKey,
    PayloadRef,
    ProductPolicy,
    StationRecord,
    Verdict,
    event_id_of,
)
from connectors.ports import LogWriter, Outgoing, TopicReader
from deploy.wiring import ensure_line_topics
from ingest.service import Worker
from ingest.store import RedisJoinStore
from waiting import beside

pytestmark = pytest.mark.integration

BOUND_S = 60.0
REF = PayloadRef(uri="sha256/00", sha256="0" * 64, size_bytes=1, media_type="image/png")


@pytest.fixture
def line() -> Line:
    """A line of its own for each test: its topics and keys collide with nobody's."""
    return Line(
        site="t",
        area=f"a{uuid.uuid4().hex[:8]}",
        line="l",
        modalities={
            "rgb": Modality(kind="image", units="1"),
            "scan": Modality(kind="point-cloud", units="mm"),
        },
        stations={
            "plc": Station(publishes=("process",)),
            "camera": Station(publishes=("rgb",)),
            "scanner": Station(publishes=("scan",)),
        },
        products={
            "can": ProductPolicy(
                expected=("process", "rgb", "scan"), deadline_ms=700, late_horizon_ms=60_000
            )
        },
        topics=Topics(partitions=2),
    )


@pytest.fixture
def log(kafka_address: str, line: Line) -> KafkaLog:
    """The broker with the line's topics."""
    log = KafkaLog(kafka_address, "test")
    ensure_line_topics(log, line)
    return log


@contextmanager
def working(
    line: Line, log: KafkaLog, redis_url: str, errors: list[BaseException]
) -> Iterator[None]:
    """A worker runs; what ends it unexpectedly goes to `errors`."""
    worker = Worker(
        line=line,
        log=log,
        stores=lambda p: RedisJoinStore(redis_url, f"{line.name}.p{p}"),
        scorer=HashScorer(),
        clock=SystemClock(),
        instance="w1",
    )

    def run(stop: threading.Event) -> None:
        try:
            worker.run(stop)
        except SessionEnd as error:
            errors.append(error)

    with beside(run):
        yield


def send(writer: LogWriter, line: Line, part_id: str, *items: str, sequence: int = 1) -> None:
    """Stations publish these items of a part."""
    part = PartKey(site=line.site, line=line.line, part_id=part_id)
    now_ns = SystemClock().now_ns()
    owners = line.owners()
    for item in items:
        record = StationRecord(
            event_id=event_id_of(part, owners[item], item, sequence),
            part=part,
            product="can",
            station=owners[item],
            modality=item,
            capture_sequence=sequence,
            captured_at_ns=now_ns,
            published_at_ns=now_ns,
            payload=None if item == "process" else REF,
        )
        put(writer, line, record, str(part).encode())
    writer.flush(BOUND_S)


def put(writer: LogWriter, line: Line, message: Message, key: bytes) -> None:
    """Append a message to the records."""
    headers = headers_of(message, source="/test", subject="test")
    topic = line.topic("records")
    writer.send(Outgoing(topic=topic, key=key, value=message.to_bytes(), headers=headers))


class Follower:
    """Collects what a `read_committed` reader sees."""

    def __init__(self, reader: TopicReader) -> None:
        self._reader = reader
        self.values: list[bytes] = []

    def until(self, enough: Callable[[list[bytes]], bool]) -> list[bytes]:
        """Read until `enough`; bounded."""
        clock = SystemClock()
        give_up_s = clock.monotonic_s() + BOUND_S
        while not enough(self.values):
            assert clock.monotonic_s() < give_up_s, f"only {len(self.values)} came"
            self.values += [r.value or b"" for r in self._reader.poll(timeout_s=0.2, limit=500)]
        return self.values


def test_parts_are_joined_judged_and_published_once(
    line: Line, log: KafkaLog, redis_url: str
) -> None:
    """Complete, short, late and repeated: right revisions, right evidence, each once."""
    errors: list[BaseException] = []
    verdicts = Follower(log.topic_reader(line.topic("verdicts"), start={}))
    letters = Follower(log.topic_reader(line.topic("dead-letters"), start={}))
    writer = log.writer()
    with working(line, log, redis_url, errors):
        for i in range(20):
            send(writer, line, f"full-{i}", "scan", "rgb", "process", "rgb")
        send(writer, line, "short", "process", "rgb")
        verdicts.until(lambda seen: len(seen) >= 21)
        send(writer, line, "short", "scan")
        writer.send(Outgoing(topic=line.topic("records"), key=b"x", value=b"\xff{", partition=0))
        verdicts.until(lambda seen: len(seen) >= 22)
        letters.until(lambda seen: len(seen) >= 1)
    writer.close()
    assert errors == []
    seen = [Verdict.from_bytes(raw) for raw in verdicts.values]
    by_part = {(v.part.part_id, v.revision): v for v in seen}
    assert len(by_part) == len(seen) == 22
    assert by_part["full-3", 1].evidence.closed == "complete"
    assert by_part["short", 1].evidence.missing == ("scan",)
    assert by_part["short", 2].evidence.late == ("scan",)
    assert by_part["short", 2].supersedes == by_part["short", 1].verdict_id
    letter = DeadLetter.from_bytes(letters.values[0])
    assert (letter.field, letter.topic) == ("body", line.topic("records"))


def test_a_lost_redis_ends_the_session_and_the_next_publishes_nothing_twice(
    line: Line, log: KafkaLog, redis_url: str
) -> None:
    """FLUSHALL without traffic is noticed; the start replays the log and finishes what was open."""
    errors: list[BaseException] = []
    verdicts = Follower(log.topic_reader(line.topic("verdicts"), start={}))
    writer = log.writer()
    with working(line, log, redis_url, errors):
        send(writer, line, "done", "scan", "rgb", "process")
        verdicts.until(lambda seen: len(seen) >= 1)
        send(writer, line, "open", "rgb")
        with redis.Redis.from_url(redis_url) as client:
            client.flushall()
        clock = SystemClock()
        give_up_s = clock.monotonic_s() + BOUND_S
        while not errors and clock.monotonic_s() < give_up_s:
            verdicts.until(lambda _: True)
            threading.Event().wait(0.05)
    assert len(errors) == 1
    with working(line, log, redis_url, errors):
        send(writer, line, "open", "scan", "process")
        send(writer, line, "next", "scan", "rgb", "process")
        keys = {"done", "open", "next"}
        verdicts.until(lambda seen: {Verdict.from_bytes(r).part.part_id for r in seen} == keys)
    writer.close()
    assert len(errors) == 1
    seen = [Verdict.from_bytes(raw) for raw in verdicts.values]
    assert len({(v.part.part_id, v.revision) for v in seen}) == len(seen)
    assert [v.revision for v in seen if v.part.part_id == "done"] == [1]
