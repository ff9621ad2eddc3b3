"""Dead letters: delivered at least once, under a deterministic id, before anything forgets them."""

import base64
from concurrent.futures import Future
from typing import Final

import structlog

from connectors.clock import Clock
from connectors.cloudevents import headers_of
from connectors.errors import Unavailable
from connectors.line import Line
from connectors.messages import (
    RECORD_BYTES_MAX,
    DeadLetter,
    Verdict,
    letter_id_of,
)
from connectors.metrics import LETTERS_SENT
from connectors.ports import Log, LogPosition, LogRecord, LogWriter, Outgoing, PartitionReader
from ingest.store import JoinStore, Letter

REMEDY: Final = "correct the sender, then: hololine dlq resubmit {letter_id}"
BATCH_MAX: Final = 64
"""Letters that wait for the broker's acknowledgement at once."""
AGAIN_S: Final = 1.0
"""A batch that the broker refused is sent again after this."""
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
        clock: For the pause before a batch is sent again.
    """

    def __init__(
        self,
        *,
        log: Log,
        line: Line,
        partition: int,
        store: JoinStore,
        writer: LogWriter,
        clock: Clock,
    ) -> None:
        self._line = line
        self._partition = partition
        self._records = line.topic("records")
        self._letters = line.topic("dead-letters")
        self._store = store
        self._writer = writer
        self._log = log
        self._clock = clock
        self._reader: PartitionReader | None = None
        self._sent: list[tuple[Letter, Future[LogPosition]]] = []
        self._poison: list[Future[LogPosition]] = []
        self._again_s = 0.0

    def step(self, waiting: int) -> int:
        """A batch of the outbox is under way; how many letters wait now, of `waiting` before.

        They leave the outbox once the broker has acknowledged them; those that it has not in time
        are sent again. It never waits for an acknowledgement.
        """
        if not all(sent.done() for _, sent in self._sent):
            return waiting
        delivered = self._settle()
        if self._clock.monotonic_s() < self._again_s:
            return waiting
        below = delivered[-1].offset + 1 if delivered else 0
        letters = self._store.letters(delivered_below=below, limit=BATCH_MAX)
        self._sent = [(letter, self._send(self._whole(letter))) for letter in letters]
        return max(len(letters), waiting - len(delivered)) if letters else 0

    def close(self) -> None:
        """Free the sockets; what was not acknowledged stays in the outbox."""
        if self._reader is not None:
            self._reader.close()

    def _settle(self) -> list[Letter]:
        """The letters of the last batch, if the broker has all of them."""
        batch, self._sent = self._sent, []
        try:
            for _, sent in batch:
                sent.result()
        except Unavailable as error:
            logger.warning("letters_not_acknowledged", letters=len(batch), reason=str(error))
            self._again_s = self._clock.monotonic_s() + AGAIN_S
            return []
        return [letter for letter, _ in batch]

    def _whole(self, letter: Letter) -> DeadLetter:
        """`letter` with the bytes that it is about."""
        if self._reader is None:
            self._reader = self._log.partition_reader(self._records, self._partition)
        record = _record_at(self._reader, letter.offset)
        return _letter(letter, record, (self._records, self._partition))

    def poison(self, verdict: Verdict, reason: str) -> None:
        """An evidence that can never be scored gets a letter, before its verdict is out."""
        evidence = verdict.evidence
        raw = evidence.to_bytes()
        field = _field_of(reason)
        offset = evidence.closed_offset
        letter_id = letter_id_of(self._records, self._partition, offset, str(verdict.verdict_id))
        letter = DeadLetter(
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
        self._poison.append(self._send(letter))

    def flush(self) -> None:
        """Every letter about poison is acknowledged.

        Raises:
            Unavailable: One is not: its verdict must not go out.
        """
        self._writer.flush(_FLUSH_S)
        sent, self._poison = self._poison, []
        for each in sent:
            each.result(0)

    def _send(self, letter: DeadLetter) -> Future[LogPosition]:
        logger.warning(
            "record_dead_lettered", field=letter.field, reason=letter.reason, offset=letter.offset
        )
        LETTERS_SENT.inc()
        return self._writer.send(
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


def _field_of(reason: str) -> str:
    """``payload.shape`` of ``payload_unreadable:rgb: payload.shape: ...``; else all evidence."""
    return reason.partition(": ")[2].partition(":")[0][:128] or "evidence"


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
