"""Whatever is stuck downstream, a session's queues stay at their limits, and nothing is lost."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

import pytest

from connectors import metrics
from connectors.clock import ManualClock
from connectors.cloudevents import headers_of
from connectors.line import Line, Modality, Station, Topics
from connectors.memory import MemoryLog
from connectors.memory_scorer import HashScorer
from connectors.messages import (
    PartKey,
    PayloadRef,
    ProductPolicy,
    StationRecord,
    Verdict,
    event_id_of,
)
from connectors.ports import Committed, LogPosition, LogWriter, Outgoing, SealedEvidence
from deploy.wiring import ensure_line_topics
from ingest import letters, publisher, session
from ingest.memory import MemoryJoinStore
from ingest.policies import PolicyBook
from ingest.session import Session

LINE = Line(
    site="s",
    area="a",
    line="l",
    modalities={"rgb": Modality(kind="image", units="1")},
    stations={"camera": Station(publishes=("rgb",))},
    products={"can": ProductPolicy(expected=("rgb",), deadline_ms=10_000_000)},
    topics=Topics(partitions=1),
)
REF = PayloadRef(uri="sha256/00", sha256="0" * 64, size_bytes=1, media_type="image/png")
RECORDS = LINE.topic("records")
LETTERS = LINE.topic("dead-letters")
PARTS = 600
ROUNDS = 300
LEASE, BATCHES, RUN, READY, OUTBOX, UNCOMMITTED, AWAITED, TRANSACTION = 8, 4, 16, 64, 48, 32, 40, 16


class Stuck:
    """A scorer, or a writer, that answers only after `release`; until then it only listens."""

    def __init__(self, answer: Callable[[Any], Any]) -> None:
        self._answer = answer
        self._asked: list[tuple[Any, Future[Any]]] | None = []

    def ask(self, question: Any) -> "Future[Any]":
        """A future of the answer."""
        if self._asked is None:
            return self._answer(question)
        self._asked.append((question, Future()))
        return self._asked[-1][1]

    def release(self) -> None:
        """What was asked is answered, and whatever is asked from now on."""
        asked, self._asked = self._asked or [], None
        for question, future in asked:
            future.set_result(self._answer(question).result(0))


class StuckScorer(Stuck):
    """See `Stuck`."""

    def __init__(self) -> None:
        super().__init__(HashScorer().score)

    def score(self, batch: Sequence[SealedEvidence]) -> "Future[list[bytes]]":
        """See `Scorer.score`."""
        return self.ask(batch)


class StuckLetters(Stuck):
    """A writer whose dead letters alone wait for `release`."""

    def __init__(self, writer: LogWriter) -> None:
        super().__init__(writer.send)
        self._writer = writer

    def send(self, record: Outgoing) -> "Future[LogPosition]":
        """See `LogWriter.send`."""
        return self.ask(record) if record.topic == LETTERS else self._writer.send(record)

    def flush(self, timeout_s: float) -> None:
        """See `LogWriter.flush`."""

    def close(self) -> None:
        """See `LogWriter.close`."""


class World:
    """One session on twins of log and Redis, stepped by hand."""

    def __init__(self, scorer: Any = None) -> None:
        self.clock = ManualClock()
        self.log = MemoryLog(self.clock)
        ensure_line_topics(self.log, LINE)
        self.scorer = scorer if scorer is not None else HashScorer()
        self.letters = StuckLetters(self.log.writer())
        self.store = MemoryJoinStore()
        own = LINE.policy()
        self.session = Session(
            line=LINE,
            partition=0,
            committed=Committed(offset=0, metadata=own.digest),
            log=self.log,
            store=self.store,
            scorer=self.scorer,
            policies=PolicyBook(log=self.log, topic=LINE.topic("policies"), own=own),
            writer=self.letters,
            clock=self.clock,
        )
        self.session._take_over()

    def write(self, parts: int, *, key: bytes | None = None) -> None:
        """So many parts of one record each; under a wrong `key` each is a dead letter."""
        writer = self.log.writer()
        for number in range(parts):
            part = PartKey(site="s", line="l", part_id=f"p{number}")
            record = StationRecord(
                event_id=event_id_of(part, "camera", "rgb", 1),
                part=part,
                product="can",
                station="camera",
                modality="rgb",
                capture_sequence=1,
                captured_at_ns=self.clock.now_ns(),
                published_at_ns=self.clock.now_ns(),
                payload=REF,
            )
            writer.send(
                Outgoing(
                    topic=RECORDS,
                    key=key or str(part).encode(),
                    value=record.to_bytes(),
                    headers=headers_of(record, source="/t", subject="t"),
                    partition=0,
                )
            )

    def step(self, rounds: int = ROUNDS) -> None:
        """So many rounds, within which limits hold."""
        for _ in range(rounds):
            self.session.step()
            self.clock.advance_s(0.01)
            assert shown("records_pending") <= RUN
            assert shown("revisions_ready") <= READY + RUN
            assert shown("revisions_scoring") <= BATCHES * LEASE
            assert shown("verdicts_uncommitted") <= UNCOMMITTED + BATCHES * LEASE
            assert shown("verdicts_awaited") <= AWAITED + TRANSACTION
            assert shown("letters_waiting") <= OUTBOX + RUN

    def published(self) -> list[str]:
        """The parts of all verdicts in the log."""
        reader = self.log.partition_reader(LINE.topic("verdicts"), 0)
        records = reader.poll(timeout_s=0.0, limit=10 * PARTS)
        return [Verdict.from_bytes(record.value or b"").part.part_id for record in records]


def shown(name: str) -> float:
    value = metrics.REGISTRY.get_sample_value(f"hololine_{name}", {"partition": "0"})
    assert value is not None, name
    return value


def pauses(full: str) -> float:
    labels = {"partition": "0", "full": full}
    return metrics.REGISTRY.get_sample_value("hololine_reading_pauses_total", labels) or 0.0


@pytest.fixture(autouse=True)
def _small_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """The limits themselves are other tests' matter: here it is that they hold."""
    for module, limits in (
        (session, {"LEASE_MAX": LEASE, "BATCHES_IN_FLIGHT_MAX": BATCHES, "READY_MAX": READY}),
        (session, {"RUN_RECORDS_MAX": RUN, "OUTBOX_MAX": OUTBOX}),
        (publisher, {"UNCOMMITTED_MAX": UNCOMMITTED, "AWAITED_MAX": AWAITED}),
        (publisher, {"TRANSACTION_MAX": TRANSACTION}),
        (session, {"_POLL_BUSY_S": 0.0, "_POLL_IDLE_S": 0.0}),
        (letters, {"BATCH_MAX": 8}),
    ):
        for name, limit in limits.items():
            monkeypatch.setattr(module, name, limit)


def test_while_no_scorer_answers_reading_stops_and_later_every_part_is_judged_once() -> None:
    """A stuck replica costs time; the worker's memory does not grow with the backlog."""
    world, before = World(StuckScorer()), pauses("ready")
    world.write(PARTS)
    world.step()
    stood = world.session._reader.position()
    assert (shown("reading_paused"), pauses("ready")) == (1, before + 1)
    assert stood < PARTS / 2
    probed = world.store.state.seq
    world.write(PARTS)
    world.step()
    assert world.session._reader.position() == stood
    assert world.store.state.seq > probed
    world.scorer.release()
    world.step()
    assert sorted(world.published()) == sorted(f"p{number}" for number in range(PARTS))
    assert shown("reading_paused") == 0
    for waiting in ("revisions_ready", "revisions_scoring", "verdicts_awaited", "parts_held"):
        assert shown(waiting) == (PARTS if waiting == "parts_held" else 0)


def test_a_paused_session_reads_on_once_half_of_its_backlog_is_gone(monkeypatch) -> None:
    """Hysteresis: a scorer a little too slow does not make it pause and resume at every record."""
    world, before = World(StuckScorer()), pauses("ready")
    world.write(PARTS)
    world.step(50)
    monkeypatch.setattr(session, "READY_MAX", 2 * int(shown("revisions_ready")) - 2)
    world.step(50)
    assert (shown("reading_paused"), pauses("ready")) == (1, before + 1)
    monkeypatch.setattr(session, "READY_MAX", 2 * int(shown("revisions_ready")))
    world.session._read()
    assert shown("reading_paused") == 0


def test_dead_letters_that_are_not_acknowledged_stop_reading_and_not_the_verdicts() -> None:
    """What is judged is published, whatever becomes of the letters; then each letter is there."""
    world, before = World(), pauses("outbox")
    world.write(20)
    world.write(PARTS, key=b"wrong")
    world.write(20)
    world.step()
    assert (shown("reading_paused"), pauses("outbox")) == (1, before + 1)
    assert len(world.published()) == 20
    world.letters.release()
    world.step()
    assert shown("letters_waiting") == shown("reading_paused") == 0
    reader = world.log.partition_reader(LETTERS, 0)
    assert len({r.key for r in reader.poll(timeout_s=0.0, limit=10 * PARTS)}) == PARTS


def test_while_no_transaction_ends_verdicts_do_not_pile_up() -> None:
    """A slow broker stops leasing, and that stops reading."""
    world = World()
    writer = world.session._publisher._writer
    stuck = Stuck(writer.publish)
    writer.publish = stuck.ask
    world.write(PARTS)
    world.step()
    assert shown("reading_paused") == 1
    assert world.published() == []
    stuck.release()
    world.step()
    assert len(world.published()) == PARTS


def test_while_nothing_is_read_back_no_more_is_committed(monkeypatch) -> None:
    """What has to be remembered until it is seen in the log is bounded too."""
    world = World()
    reader = world.session._publisher._reader
    with monkeypatch.context() as patch:
        patch.setattr(reader, "poll", lambda **_: [])
        world.write(PARTS)
        world.step()
        assert shown("verdicts_awaited") >= AWAITED
        assert len(world.published()) < PARTS / 2
    world.step()
    assert len(world.published()) == PARTS
