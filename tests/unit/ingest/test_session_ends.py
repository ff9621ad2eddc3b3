"""What a session leaves behind when it cannot be made, or when its position is not in the log."""

from collections.abc import Callable
from typing import Any

import pytest

from connectors.clock import SystemClock
from connectors.errors import OutOfRange, Unavailable
from connectors.line import Line, Modality, Station, Topics
from connectors.memory import MemoryLog
from connectors.memory_scorer import HashScorer
from connectors.messages import ProductPolicy
from connectors.ports import Committed, Outgoing
from deploy.wiring import ensure_line_topics
from ingest import session as session_module
from ingest.memory import MemoryJoinStore
from ingest.policies import PolicyBook
from ingest.session import Session

LINE = Line(
    site="s",
    area="a",
    line="l",
    modalities={"rgb": Modality(kind="image", units="1")},
    stations={"camera": Station(publishes=("rgb",))},
    products={"can": ProductPolicy(expected=("rgb",), deadline_ms=1000)},
    topics=Topics(partitions=1),
)
RECORDS = LINE.topic("records")


def made(log: MemoryLog, store: MemoryJoinStore) -> Session:
    """A session on twins of log and Redis."""
    own = LINE.policy()
    return Session(
        line=LINE,
        partition=0,
        committed=Committed(offset=0, metadata=own.digest),
        log=log,
        store=store,
        scorer=HashScorer(),
        policies=PolicyBook(log=log, topic=LINE.topic("policies"), own=own),
        writer=log.writer(),
        clock=SystemClock(),
    )


def test_what_was_opened_is_closed_when_the_rest_cannot_be(monkeypatch: pytest.MonkeyPatch) -> None:
    """A broker that goes away meanwhile leaves no client and no connection behind."""
    log, store = MemoryLog(), MemoryJoinStore()
    ensure_line_topics(log, LINE)
    closed: list[str] = []
    open_reader: Callable[..., Any] = log.partition_reader

    def reader(topic: str, partition: int) -> Any:
        if topic == LINE.topic("verdicts"):
            raise Unavailable("the broker is gone")
        opened = open_reader(topic, partition)
        monkeypatch.setattr(opened, "close", lambda: closed.append("reader"))
        return opened

    def writer(transactional_id: str) -> Any:
        opened = type(log).transactional_writer(log, transactional_id)
        monkeypatch.setattr(opened, "close", lambda: closed.append("writer"))
        return opened

    monkeypatch.setattr(log, "partition_reader", reader)
    monkeypatch.setattr(log, "transactional_writer", writer)
    monkeypatch.setattr(store, "close", lambda: closed.append("store"))
    with pytest.raises(Unavailable):
        made(log, store)
    assert closed == ["writer", "reader", "store"]


def test_a_mark_in_a_log_that_is_gone_is_not_committed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Committed at the end, it would make the next start skip records of the new log."""
    monkeypatch.setattr(session_module, "WATERMARK_S", 0.0)
    log, store = MemoryLog(), MemoryJoinStore()
    ensure_line_topics(log, LINE)
    session = made(log, store)
    session._take_over()
    session.step()
    assert session.watermark is not None
    for _ in range(3):
        log.writer().send(Outgoing(topic=RECORDS, key=None, value=b"", partition=0))
    session._reader.seek(0)
    log.delete_before(RECORDS, 0, 2)
    with pytest.raises(OutOfRange):
        session.step()
    assert session.watermark is None
    assert store.state.token is None
