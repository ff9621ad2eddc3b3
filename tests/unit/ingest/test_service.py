"""What the worker process does with the partitions that the group gives it."""

import threading
from collections.abc import Iterator
from contextlib import closing
from functools import partial

import pytest
import structlog

from connectors import metrics
from connectors.clock import SystemClock
from connectors.errors import Fenced, Gap, Unavailable
from connectors.line import Line, Modality, Station, Topics
from connectors.memory import MemoryLog
from connectors.memory_scorer import HashScorer
from connectors.messages import ProductPolicy
from connectors.ports import Committed, Outgoing
from deploy.wiring import ensure_line_topics
from ingest import broker_time, service
from ingest.memory import MemoryJoinStore
from ingest.service import PARTITIONS_MAX, Worker
from waiting import until

BOUND_S = 30.0
LINE = Line(
    site="s",
    area="a",
    line="l",
    modalities={"rgb": Modality(kind="image", units="1")},
    stations={"camera": Station(publishes=("rgb",))},
    products={"can": ProductPolicy(expected=("rgb",), deadline_ms=1000)},
    topics=Topics(partitions=PARTITIONS_MAX + 2),
)


class Shift:
    """One worker at work in a thread, on a log in memory."""

    def __init__(self) -> None:
        self.log = MemoryLog()
        ensure_line_topics(self.log, LINE)
        self.stores = {partition: MemoryJoinStore() for partition in range(LINE.topics.partitions)}
        self.worker = Worker(
            line=LINE,
            log=self.log,
            stores=lambda partition: self.stores[partition],
            scorer=HashScorer(),
            clock=SystemClock(),
            instance="worker-1",
        )
        self.error: BaseException | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def begin(self) -> None:
        self._thread.start()

    def end(self) -> None:
        self._stop.set()
        self._thread.join(BOUND_S)

    def _run(self) -> None:
        try:
            self.worker.run(self._stop)
        except BaseException as error:  # noqa: BLE001 - the test looks at it
            self.error = error


@pytest.fixture
def shift() -> Iterator[Shift]:
    made = Shift()
    yield made
    made.end()


def shown(name: str) -> float:
    return metrics.REGISTRY.get_sample_value(f"hololine_{name}") or 0.0


def test_a_worker_serves_what_it_can_of_too_many_partitions(shift: Shift) -> None:
    """While another worker is away its partitions wait; those that run go on."""
    shift.begin()
    until(lambda: shown("partitions_unserved") == 2)
    assert shown("partitions_owned") == PARTITIONS_MAX
    until(lambda: sum(bool(store.state.token) for store in shift.stores.values()) == PARTITIONS_MAX)
    shift.end()
    assert shift.error is None


def test_a_watermark_that_is_not_taken_is_offered_again(shift: Shift, monkeypatch) -> None:
    """A rebalance at the wrong moment ends no session: the watermark only saves work."""
    monkeypatch.setattr(service, "COMMIT_S", 0.01)
    monkeypatch.setattr(broker_time, "IDLE_S", 0.1)  # ticks move the watermark
    member, refusals = shift.worker._member, [Unavailable("the group is rebalancing")] * 3
    commit, taken = member.commit, []

    def reluctant(positions: dict) -> None:
        if len(taken) >= LINE.topics.partitions and refusals:
            raise refusals.pop()
        commit(positions)
        taken.append(positions)

    monkeypatch.setattr(member, "commit", reluctant)
    before = shown("commits_refused_total")
    shift.begin()
    until(lambda: not refusals)
    until(lambda: len(taken) > LINE.topics.partitions)
    shift.end()
    assert shift.error is None
    assert shown("commits_refused_total") == before + 3


def test_a_redis_that_is_starting_is_waited_for(shift: Shift, monkeypatch) -> None:
    """Nothing is held yet: a process that ended and began anew would only come later."""
    monkeypatch.setattr(service, "CONNECT_AGAIN_S", 0.001)
    refusals = [Gap("connecting: Redis did not answer")] * 3
    stores = shift.worker._stores

    def starting(partition: int) -> MemoryJoinStore:
        if refusals:
            raise refusals.pop()
        return stores(partition)

    monkeypatch.setattr(shift.worker, "_stores", starting)
    before = shown("redis_tries_total")
    shift.begin()
    until(lambda: sum(bool(store.state.token) for store in shift.stores.values()) == PARTITIONS_MAX)
    shift.end()
    assert shift.error is None
    assert shown("redis_tries_total") == before + 3


@pytest.mark.parametrize("deleted", [0, 1])
def test_a_slot_is_wiped_at_a_first_start_only_if_the_whole_log_is_there(
    shift: Shift, monkeypatch: pytest.MonkeyPatch, deleted: int
) -> None:
    """It may be of another log of this name; where records are gone, it may be all that is left."""
    wiped: list[int] = []
    topic = LINE.topic("records")
    with closing(shift.log.writer()) as writer:
        for partition, store in shift.stores.items():
            writer.send(Outgoing(topic=topic, key=None, value=b"", partition=partition))
            shift.log.delete_before(topic, partition, deleted)
            monkeypatch.setattr(store, "wipe", partial(wiped.append, partition))
    shift.begin()
    until(lambda: sum(bool(store.state.token) for store in shift.stores.values()) == PARTITIONS_MAX)
    shift.end()
    assert len(wiped) == (0 if deleted else PARTITIONS_MAX)


def test_a_position_beyond_the_log_begins_at_its_start_and_is_said_aloud(
    shift: Shift, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The topic was deleted and created again under a worker that ran: nothing of it is skipped."""
    topic = LINE.topic("records")
    with closing(shift.log.writer()) as writer:
        for partition in shift.stores:
            writer.send(Outgoing(topic=topic, key=None, value=b"", partition=partition))
    beyond = Committed(offset=50, metadata="of another log")
    monkeypatch.setattr(shift.worker._member, "committed", lambda _: beyond)
    with structlog.testing.capture_logs() as said:
        shift.begin()
        until(lambda: sum(store.state.applied >= 0 for store in shift.stores.values()) > 0)
        shift.end()
    found = [each for each in said if each["event"] == "committed_beyond_the_log"]
    assert found
    assert found[0] | {"committed": 50, "log_start": 0, "log_level": "error"} == found[0]
    assert shift.error is None


def test_a_redis_that_stays_away_ends_the_process(shift: Shift, monkeypatch) -> None:
    """The wait is bounded, and its end says why."""
    monkeypatch.setattr(service, "CONNECT_AGAIN_S", 0.001)
    monkeypatch.setattr(service, "CONNECT_TRIES", 5)

    def away(_: int) -> MemoryJoinStore:
        raise Gap("connecting: Redis did not answer")

    monkeypatch.setattr(shift.worker, "_stores", away)
    shift.begin()
    until(lambda: shift.error is not None)
    assert "Redis did not answer" in str(shift.error)


def test_a_worker_that_the_group_has_fenced_ends(shift: Shift, monkeypatch) -> None:
    """Two processes under one name: the older one goes."""
    monkeypatch.setattr(service, "COMMIT_S", 0.01)
    commit, taken = shift.worker._member.commit, []

    def fenced(positions: dict) -> None:
        if len(taken) >= PARTITIONS_MAX:
            raise Fenced("another member has joined as worker-1")
        commit(positions)
        taken.append(positions)

    monkeypatch.setattr(shift.worker._member, "commit", fenced)
    shift.begin()
    until(lambda: shift.error is not None)
    assert isinstance(shift.error, Fenced)
