"""A dead letter is found by the beginning of its id and becomes a new record that names it."""

import base64

import pytest

from connectors.clock import ManualClock
from connectors.errors import Poison
from connectors.memory import MemoryLog
from connectors.messages import (
    RECORD_BYTES_MAX,
    DeadLetter,
    PartKey,
    PayloadRef,
    StationRecord,
    event_id_of,
    letter_id_of,
)
from connectors.ports import Outgoing
from deploy.letters import find_letter, read_letters, resubmission
from deploy.line_file import line_template, parse_line
from deploy.wiring import ensure_line_topics

LINE = parse_line(line_template())
PART = PartKey(site="demo", line="line-1", part_id="P1")
RECORD = StationRecord(
    event_id=event_id_of(PART, "camera-1", "rgb", 7),
    part=PART,
    product="can",
    station="camera-1",
    modality="rgb",
    capture_sequence=7,
    captured_at_ns=1,
    published_at_ns=2,
    payload=PayloadRef(uri="a", sha256="0" * 64, size_bytes=1, media_type="image/png"),
)


def letter(raw: bytes, *, offset: int = 3, topic: str | None = None) -> DeadLetter:
    records = topic or LINE.topic("records")
    return DeadLetter(
        letter_id=letter_id_of(records, 0, offset, "product"),
        field="product",
        reason="unknown",
        remedy="declare it",
        topic=records,
        partition=0,
        offset=offset,
        logged_at_ms=1,
        raw_base64=base64.b64encode(raw[:RECORD_BYTES_MAX]).decode(),
        raw_size_bytes=len(raw),
    )


def test_a_resubmission_is_the_same_capture_as_a_new_record_that_names_its_letter():
    """The event id is kept, so it counts once; the key is the part's, whatever it was before."""
    cause = letter(RECORD.to_bytes())
    again = resubmission(cause, LINE)
    sent = StationRecord.from_bytes(again.value or b"")
    assert sent == RECORD.model_copy(update={"caused_by": cause.letter_id})
    assert again.key == str(PART).encode()
    assert again.topic == LINE.topic("records")


@pytest.mark.parametrize(
    "refused",
    [
        letter(b"\xff"),
        letter(RECORD.to_bytes() + b" " * RECORD_BYTES_MAX),
        letter(RECORD.to_bytes(), topic=LINE.topic("verdicts")),
    ],
    ids=["malformed", "cut-off", "another-topic"],
)
def test_what_can_never_be_taken_is_not_sent_again(refused: DeadLetter):
    """It would only make the next dead letter."""
    with pytest.raises(Poison, match="publish"):
        resubmission(refused, LINE)


def test_a_letter_is_found_by_the_beginning_of_its_id():
    """One must be meant; a letter that was delivered twice is one letter."""
    log = MemoryLog(ManualClock())
    ensure_line_topics(log, LINE)
    writer = log.writer()
    first, second = letter(b"x", offset=1), letter(b"x", offset=2)
    for each in (first, first, second):
        writer.send(Outgoing(topic=LINE.topic("dead-letters"), key=None, value=each.to_bytes()))
    assert list(read_letters(log, LINE)) == [first, second]
    assert find_letter(log, LINE, second.letter_id[:8]) == second
    with pytest.raises(Poison, match="2 letters"):
        find_letter(log, LINE, "")


def test_the_policy_is_published_once_however_often_the_line_starts():
    """A worker finds the body of every digest that the log names."""
    log = MemoryLog(ManualClock())
    ensure_line_topics(log, LINE)
    ensure_line_topics(log, LINE)
    reader = log.topic_reader(LINE.topic("policies"), start={})
    (body,) = reader.poll(timeout_s=0.1, limit=10)
    assert body.key == LINE.policy().digest.encode()
    assert body.value == LINE.policy().to_bytes()
