"""Dead letters read back, and made into new records."""

import base64
from collections.abc import Iterator

from connectors.cloudevents import headers_of
from connectors.errors import MalformedMessage, Poison
from connectors.line import Line
from connectors.messages import RECORD_BYTES_MAX, DeadLetter, StationRecord
from connectors.ports import Log, Outgoing
from deploy.wiring import read_all


def read_letters(log: Log, line: Line) -> Iterator[DeadLetter]:
    """Every dead letter that the topic holds now, each id once."""
    seen: set[str] = set()
    for record in read_all(log, line.topic("dead-letters")):
        letter = DeadLetter.from_bytes(record.value or b"")
        if letter.letter_id not in seen:
            seen.add(letter.letter_id)
            yield letter


def find_letter(log: Log, line: Line, prefix: str) -> DeadLetter:
    """The one letter whose id begins with `prefix`.

    Raises:
        Poison: None does, or more than one.
    """
    found = [letter for letter in read_letters(log, line) if letter.letter_id.startswith(prefix)]
    if len(found) != 1:
        problem = "no letter has this id" if not found else f"{len(found)} letters begin so"
        raise Poison("letter", f"{prefix!r}: {problem}; `hololine dlq ls` lists them")
    return found[0]


def resubmission(letter: DeadLetter, line: Line) -> Outgoing:
    """The refused record as a new one, caused by `letter` and keyed by its part.

    Raises:
        Poison: The bytes can never be taken: they were too many, are no record, or were not a
            station's.
    """
    if letter.topic != line.topic("records") or letter.raw_size_bytes > RECORD_BYTES_MAX:
        raise Poison(
            "letter",
            f"only records of at most {RECORD_BYTES_MAX} bytes from {line.topic('records')} can be "
            "sent again; this one came another way or is cut off: publish it anew at its source",
        )
    try:
        record = StationRecord.from_bytes(base64.b64decode(letter.raw_base64))
    except MalformedMessage as error:
        raise Poison(
            error.field, f"{error.reason}; the bytes themselves are wrong: publish a corrected one"
        ) from error
    again = record.model_copy(update={"caused_by": letter.letter_id})
    return Outgoing(
        topic=letter.topic,
        key=str(again.part).encode(),
        value=again.to_bytes(),
        headers=headers_of(
            again,
            source=f"/{line.site}/{line.area}/{line.line}/dlq",
            subject=str(again.part),
            time_ns=again.captured_at_ns,
        ),
    )
