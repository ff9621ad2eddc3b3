"""Verdicts into the log, and the proof that they are there.

One session's side of ``verdicts[p]``: a transactional producer that fences earlier sessions, and a
reader without a group, committed records only. What counts is what was read back.
"""

from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Final

import structlog

from connectors.clock import Clock
from connectors.cloudevents import common_headers, rfc3339
from connectors.errors import MalformedMessage, SessionEnd
from connectors.line import Line
from connectors.messages import Verdict, verdict_id_of
from connectors.metrics import COMMIT_SECONDS, VERDICTS_PUBLISHED
from connectors.ports import Headers, Log, LogPosition, LogRecord, Outgoing
from ingest.store import JoinStore, Published

READ_BACK_S_MAX: Final = 30.0
REVISION: Final = "ce_revision"
OPENED_OFFSET: Final = "ce_openedoffset"
"""CloudEvents extensions of a verdict: reading back needs no look into its value."""

TRANSACTION_MAX: Final = 512
"""Verdicts of one transaction at most."""

UNCOMMITTED_MAX: Final = 2 * TRANSACTION_MAX
"""Above this many chosen verdicts that are not committed yet, no more are asked for."""

AWAITED_MAX: Final = 4096
"""From this many committed verdicts that have yet to be read back on, no more are committed."""

_RUN: Final = 500
_SETTLE_S: Final = 0.05
"""A marker comes a few milliseconds after its transaction's end is acknowledged."""

logger = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """The verdict that was chosen for a revision, in its canonical bytes."""

    part: str
    revision: int
    opened_offset: int
    verdict: bytes


class Publisher:
    """Publishes chosen verdicts of one partition and confirms them in the store.

    Args:
        log: The broker.
        line: The line.
        partition: Which partition of records and verdicts.
        store: Where confirmations go.
        clock: For the bound on read-back.
    """

    def __init__(
        self, *, log: Log, line: Line, partition: int, store: JoinStore, clock: Clock
    ) -> None:
        self._topic = line.topic("verdicts")
        source = f"/{line.site}/{line.area}/{line.line}/worker"
        self._headers = common_headers(Verdict, source=source)
        self._partition = partition
        self._store = store
        self._clock = clock
        with ExitStack() as opened:
            self._writer = log.transactional_writer(f"{line.name}.p{partition}")
            opened.callback(self._writer.close)
            self._reader = log.partition_reader(self._topic, partition)
            opened.callback(self._reader.close)
            self._opened = opened.pop_all()
        self._chosen: list[Chosen] = []
        self._committing: Future[list[LogPosition]] | None = None
        self._committing_since_s = 0.0
        self._awaited: dict[int, float] = {}
        self._early: set[int] = set()
        self._settled_at = -1
        self._published = VERDICTS_PUBLISHED.labels(str(partition))

    def fence(self) -> None:
        """Earlier sessions can publish no more, and what they left open is settled."""
        self._writer.start()
        self._settled_at = self._writer.settle(self._topic, self._partition)

    def read_back(self, *, start: int) -> None:
        """Confirm everything from `start` to the stable end, before anything new is published.

        Nothing of an earlier session's is behind that end: it has passed the fence.
        """
        self._reader.seek(max(start, self._reader.log_start()))
        give_up_s = self._clock.monotonic_s() + READ_BACK_S_MAX
        while (end := self._reader.stable_end()) <= self._settled_at:
            if not self._confirm(timeout_s=_SETTLE_S) and self._clock.monotonic_s() > give_up_s:
                raise SessionEnd(f"a transaction stands open at {end}, before {self._settled_at}")
        while self._reader.position() < end:
            if self._confirm(timeout_s=0.2):
                give_up_s = self._clock.monotonic_s() + READ_BACK_S_MAX
            elif self._clock.monotonic_s() > give_up_s:
                raise SessionEnd(f"read-back stands at {self._reader.position()} of {end}")

    def publish(self, chosen: Sequence[Chosen]) -> None:
        """The chosen verdicts go out with the next transaction, each under its chosen bytes."""
        self._chosen += chosen

    def step(self) -> None:
        """Settle the transaction that has ended, begin the next, confirm what has come back.

        Raises:
            SessionEnd: A commit failed or its outcome is unknown; or an acknowledged verdict is
                absent from the log, or late to come back.
        """
        if self._committing is not None and self._committing.done():
            done, self._committing = self._committing, None
            now_s = self._clock.monotonic_s()
            acknowledged = {position.offset for position in done.result()}
            self._awaited.update(dict.fromkeys(acknowledged - self._early, now_s))
            self._early.clear()
            self._published.inc(len(acknowledged))
            COMMIT_SECONDS.observe(now_s - self._committing_since_s)
        if self._committing is None and self._chosen and len(self._awaited) < AWAITED_MAX:
            self._commit(self._chosen[:TRANSACTION_MAX])
            del self._chosen[:TRANSACTION_MAX]
        self._confirm_awaited()

    def _commit(self, chosen: Sequence[Chosen]) -> None:
        time = rfc3339(self._clock.now_ns()).encode()
        records = [
            Outgoing(
                topic=self._topic,
                key=one.part.encode(),
                value=one.verdict,
                headers=self._headers_of(one, time),
                partition=self._partition,
            )
            for one in chosen
        ]
        self._committing = self._writer.publish(records)
        self._committing_since_s = self._clock.monotonic_s()

    def _confirm_awaited(self) -> None:
        if not self._awaited:
            return
        self._confirm(timeout_s=0.0)
        oldest = min(self._awaited, default=None)
        if oldest is None:
            return
        if self._reader.position() > oldest:
            raise SessionEnd(f"verdict at offset {oldest} was acknowledged and is not in the log")
        if self._clock.monotonic_s() - self._awaited[oldest] > READ_BACK_S_MAX:
            raise SessionEnd(f"verdict at offset {oldest} did not come back")

    @property
    def uncommitted(self) -> int:
        """Chosen verdicts that wait for a transaction."""
        return len(self._chosen)

    @property
    def awaited(self) -> int:
        """Committed verdicts that have yet to be read back."""
        return len(self._awaited)

    @property
    def has_room(self) -> bool:
        """Whether more verdicts may be asked for."""
        return len(self._chosen) < UNCOMMITTED_MAX

    @property
    def waiting(self) -> bool:
        """Whether verdicts have yet to be committed or read back."""
        return bool(self._chosen or self._committing or self._awaited)

    def close(self) -> None:
        """Free threads and sockets."""
        self._opened.close()

    def _confirm(self, *, timeout_s: float) -> bool:
        records = self._reader.poll(timeout_s=timeout_s, limit=_RUN)
        published = []
        for record in records:
            if self._awaited.pop(record.offset, None) is None and self._committing is not None:
                self._early.add(record.offset)  # it may come back before its acknowledgement
            try:
                published.append(_published(record))
            except MalformedMessage as error:
                logger.warning("foreign_verdict", offset=record.offset, reason=str(error))
        if records:
            self._store.confirm(published, pub=self._reader.position())
        return bool(records)

    def _headers_of(self, one: Chosen, time: bytes) -> Headers:
        part = one.part.encode()
        return (
            *self._headers,
            ("ce_id", verdict_id_of(one.part, one.revision).encode()),
            ("ce_subject", part),
            ("ce_partitionkey", part),
            ("ce_time", time),
            (REVISION, str(one.revision).encode()),
            (OPENED_OFFSET, str(one.opened_offset).encode()),
        )


def _published(record: LogRecord) -> Published:
    """What a verdict in the log says of itself: by its headers, else by its value."""
    headers = dict(record.headers)
    try:
        return Published(
            part=(record.key or b"").decode("ascii"),
            revision=int(headers[REVISION]),
            opened_offset=int(headers[OPENED_OFFSET]),
        )
    except (KeyError, ValueError):
        verdict = Verdict.from_bytes(record.value or b"")
    return Published(
        part=str(verdict.part),
        revision=verdict.revision,
        opened_offset=verdict.evidence.opened_offset,
    )
