"""Dead letters: delivered at least once, under a deterministic id, before anything forgets them."""

import base64
from typing import Final

import structlog

from connectors.cloudevents import headers_of
from connectors.errors import Unavailable
from connectors.line import Line
from connectors.messages import (
    RECORD_BYTES_MAX,
    DeadLetter,
    Verdict,
    letter_id_of,
)
from connectors.ports import Log, LogRecord, LogWriter, Outgoing, PartitionReader
from ingest.store import JoinStore, Letter

REMEDY: Final = "correct the sender, then: hololine dlq resubmit {letter_id}"
_BATCH: Final = 64
_FLUSH_S: Final = 10.0
_READS: Final = 10

logger = structlog.get_logger()


class DeadLetters:
    """Delivers one partition's outbox; the bytes are read again from the log.

    Args:
        log: The broker.
        line: The line.
        partition: Which partition of records.
        store: Holds the outbox.
        writer: Shared by the sessions of a worker.
    """

    def __init__(
        self, *, log: Log, line: Line, partition: int, store: JoinStore, writer: LogWriter
    ) -> None:
        self._line = line
        self._partition = partition
        self._records = line.topic("records")
        self._letters = line.topic("dead-letters")
        self._store = store
        self._writer = writer
        self._log = log

    def deliver(self) -> None:
        """Empty the outbox; letters leave it only after the broker has acknowledged them."""
        delivered_below = 0
        reader = self._log.partition_reader(self._records, self._partition)
        try:
            while True:
                waiting = self._store.letters(delivered_below=delivered_below, limit=_BATCH)
                if not waiting:
                    return
                for letter in waiting:
                    record = _record_at(reader, letter.offset)
                    self._send(_letter(letter, record, (self._records, self._partition)))
                self._writer.flush(_FLUSH_S)
                delivered_below = waiting[-1].offset + 1
        finally:
            reader.close()

    def poison(self, verdict: Verdict, reason: str) -> None:
        """An evidence that can never be scored gets a letter, before its verdict is out."""
        evidence = verdict.evidence
        raw = evidence.to_bytes()
        field = reason.split(":", 1)[-1].strip()[:128]
        offset = evidence.closed_offset
        letter_id = letter_id_of(self._records, self._partition, offset, str(verdict.verdict_id))
        self._send(
            DeadLetter(
                letter_id=letter_id,
                field=field,
                reason=reason[:512],
                remedy="publish the capture again with a higher capture_sequence",
                topic=self._records,
                partition=self._partition,
                offset=offset,
                logged_at_ms=evidence.closed_at_ms,
                key_base64=base64.b64encode(str(verdict.part).encode()).decode(),
                raw_base64=base64.b64encode(raw[:RECORD_BYTES_MAX]).decode(),
                raw_size_bytes=len(raw),
            )
        )

    def flush(self) -> None:
        """Every letter sent is acknowledged."""
        self._writer.flush(_FLUSH_S)

    def _send(self, letter: DeadLetter) -> None:
        logger.warning(
            "record_dead_lettered", field=letter.field, reason=letter.reason, offset=letter.offset
        )
        self._writer.send(
            Outgoing(
                topic=self._letters,
                key=letter.letter_id.encode(),
                value=letter.to_bytes(),
                headers=headers_of(
                    letter,
                    source=f"/{self._line.site}/{self._line.area}/{self._line.line}/worker",
                    subject=letter.letter_id,
                ),
            )
        )


def _record_at(reader: PartitionReader, offset: int) -> LogRecord | None:
    """The record at `offset`; None when retention has taken it meanwhile."""
    if offset < reader.log_start():
        return None
    reader.seek(offset)
    for _ in range(_READS):
        for record in reader.poll(timeout_s=1.0, limit=1):
            return record if record.offset == offset else None
    raise Unavailable(f"cannot read {offset} again for its dead letter")


def _letter(letter: Letter, record: LogRecord | None, at: tuple[str, int]) -> DeadLetter:
    topic, partition = at
    letter_id = letter_id_of(topic, partition, letter.offset, letter.field)
    raw = (record.value or b"") if record is not None else b""
    key = (record.key or b"") if record is not None else b""
    headers = record.headers if record is not None else ()
    return DeadLetter(
        letter_id=letter_id,
        field=letter.field,
        reason=letter.reason,
        remedy=REMEDY.format(letter_id=letter_id),
        topic=topic,
        partition=partition,
        offset=letter.offset,
        logged_at_ms=record.timestamp_ms if record is not None else 0,
        key_base64=base64.b64encode(key[:RECORD_BYTES_MAX]).decode(),
        raw_base64=base64.b64encode(raw[:RECORD_BYTES_MAX]).decode(),
        raw_size_bytes=len(raw),
        headers={name: value[:256].decode("utf-8", "replace") for name, value in headers[:16]},
    )
