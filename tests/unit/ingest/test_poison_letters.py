"""A part that cannot be scored has a letter that names the field, as every other letter does."""

from concurrent.futures import Future

import pytest

from connectors.clock import ManualClock
from connectors.errors import Unavailable
from connectors.line import Line, Modality, Station
from connectors.memory import MemoryLog
from connectors.memory_scorer import HashScorer
from connectors.messages import Closed, DeadLetter, Evidence, PartKey, ProductPolicy
from deploy.wiring import ensure_line_topics
from ingest.letters import DeadLetters
from ingest.memory import MemoryJoinStore

LINE = Line(
    site="s",
    area="a",
    line="l",
    modalities={"rgb": Modality(kind="image", units="1")},
    stations={"camera": Station(publishes=("rgb",))},
    products={"can": ProductPolicy(expected=("rgb",), deadline_ms=1000)},
)
EVIDENCE = Evidence(
    part=PartKey(site="s", line="l", part_id="P1"),
    revision=1,
    product="can",
    closed=Closed.COMPLETE,
    opened_offset=3,
    opened_at_ms=1,
    closed_offset=4,
    closed_at_ms=2,
    items=(),
    policy_digest=LINE.policy().digest,
    policy=LINE.products["can"],
)


@pytest.mark.parametrize(
    ("reason", "field"),
    [
        ("payload_unreadable:rgb: payload.shape: (8, 8, 3): too small", "payload.shape"),
        ("payload_unreadable:rgb: payload: nothing lies at file:///x", "payload"),
        ("poison:killed_three_replicas", "evidence"),
    ],
)
def test_the_letter_of_an_unreadable_payload_names_its_field(reason: str, field: str) -> None:
    """`hololine dlq ls --field payload` finds it."""
    log = MemoryLog(ManualClock())
    ensure_line_topics(log, LINE)
    letters = DeadLetters(
        log=log,
        line=LINE,
        partition=0,
        store=MemoryJoinStore(),
        writer=log.writer(),
        clock=ManualClock(),
    )
    letters.poison(HashScorer().verdict(EVIDENCE), reason)
    reader = log.partition_reader(LINE.topic("dead-letters"), 0)
    (record,) = reader.poll(timeout_s=1.0, limit=9)
    letter = DeadLetter.from_bytes(record.value or b"")
    assert (letter.field, letter.reason, letter.offset) == (field, reason, 4)


def test_a_verdict_waits_for_the_letter_about_its_poison(monkeypatch: pytest.MonkeyPatch) -> None:
    """A broker that refuses dead letters alone: flushed is not acknowledged."""
    log = MemoryLog(ManualClock())
    ensure_line_topics(log, LINE)
    writer = log.writer()
    refused: Future[object] = Future()
    refused.set_exception(Unavailable("dead-letters: not acknowledged"))
    monkeypatch.setattr(writer, "send", lambda _: refused)
    letters = DeadLetters(
        log=log,
        line=LINE,
        partition=0,
        store=MemoryJoinStore(),
        writer=writer,
        clock=ManualClock(),
    )
    letters.poison(HashScorer().verdict(EVIDENCE), "poison:killed_three_replicas")
    with pytest.raises(Unavailable, match="not acknowledged"):
        letters.flush()
