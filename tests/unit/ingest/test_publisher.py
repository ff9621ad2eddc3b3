"""What counts is what was read back, in whatever order acknowledgement and reading come."""

from concurrent.futures import Future

import pytest

from connectors.clock import ManualClock
from connectors.errors import SessionEnd
from connectors.line import Line, Modality, Station
from connectors.memory import MemoryLog
from connectors.messages import ProductPolicy
from connectors.ports import LogPosition, Outgoing
from deploy.wiring import ensure_line_topics
from ingest.memory import MemoryJoinStore
from ingest.publisher import Chosen, Publisher

LINE = Line(
    site="s",
    area="a",
    line="l",
    modalities={"rgb": Modality(kind="image", units="1")},
    stations={"camera": Station(publishes=("rgb",))},
    products={"can": ProductPolicy(expected=("rgb",), deadline_ms=1000)},
)


def chosen(part: str) -> Chosen:
    return Chosen(part=f"s/l/{part}/1", revision=1, opened_offset=0, verdict=b"{}")


@pytest.fixture
def log() -> MemoryLog:
    log = MemoryLog(ManualClock())
    ensure_line_topics(log, LINE)
    return log


@pytest.fixture
def publisher(log: MemoryLog) -> Publisher:
    store = MemoryJoinStore()
    store.reset("t", applied=-1, policy="p", body=LINE.policy().to_bytes().decode())
    made = Publisher(log=log, line=LINE, partition=0, store=store, clock=ManualClock())
    made.fence()
    return made


def test_a_verdict_that_is_read_back_before_its_acknowledgement_is_not_missed(
    publisher: Publisher,
) -> None:
    """While one transaction is confirmed, the next has committed and is read along."""
    publisher.publish([chosen("A")])
    publisher.step()
    publisher.publish([chosen("B")])
    for _ in range(3):
        publisher.step()
    assert not publisher.waiting


def test_an_acknowledged_verdict_that_is_not_in_the_log_ends_the_session(
    publisher: Publisher, log: MemoryLog
) -> None:
    """A broker that says so and has it not cannot be published to any further."""
    torn: Future[list[LogPosition]] = Future()
    torn.set_result([LogPosition(partition=0, offset=0, timestamp_ms=1)])
    publisher._writer.publish = lambda _records: torn
    publisher.publish([chosen("A")])
    publisher.step()
    topic = LINE.topic("verdicts")
    log.writer().send(Outgoing(topic=topic, key=b"x", value=b"{}", partition=0))
    log.delete_before(topic, 0, 1)
    publisher._reader.seek(1)
    with pytest.raises(SessionEnd, match="acknowledged and is not in the log"):
        publisher.step()
