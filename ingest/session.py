"""One partition's session: takeover, then the loop that joins, judges and publishes.

One thread issues every script. Anything unexpected ends the session, and with it the process: the
start is the one recovery path, so there is no second one to get wrong.
"""

import threading
import uuid
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Final

import structlog

from connectors.clock import Clock
from connectors.errors import Backpressure, OutOfRange
from connectors.line import Line
from connectors.messages import Disposition, PolicyChange, Verdict
from connectors.metrics import APPLY_SECONDS, SESSION_ENDS, SESSION_STARTS
from connectors.ports import Committed, Log, LogWriter, Outgoing, Scorer, SealedEvidence
from ingest.broker_time import Ticker
from ingest.events import Event
from ingest.evidence import sealed_of
from ingest.intake import Intake
from ingest.letters import DeadLetters
from ingest.meters import Meters
from ingest.policies import PolicyBook
from ingest.publisher import Chosen, Publisher
from ingest.store import Applied, JoinStore, Leased

RUN_RECORDS_MAX: Final = 512
LEASE_MAX: Final = 256
BATCHES_IN_FLIGHT_MAX: Final = 8
READY_MAX: Final = 4096
"""From this many unjudged revisions on reading is paused, until half of them are leased."""
OUTBOX_MAX: Final = 1024
"""From this many undelivered dead letters on reading is paused, until half are delivered."""
FULL_AGAIN_S: Final = 1.0
"""A store without memory for a run of records is asked again after so long."""
POLICY_S_MAX: Final = 10.0
"""A policy change that is not acknowledged within this is tried again by the next session."""
PROBE_S: Final = 1.0
WATERMARK_S: Final = 1.0
POISON_REASONS: Final = ("payload_", "poison:")
_UNDECIDABLE: Final = f'"disposition":"{Disposition.UNDECIDABLE}"'.encode()
"""In canonical bytes this stands for nothing else: quotes inside of text are escaped."""
_POLL_BUSY_S: Final = 0.002
_POLL_IDLE_S: Final = 0.02
_PATIENCE: Final = 0.05
"""An answer that is awaited is looked for again after this share of the time that passed so far."""
_UNKNOWN: Final = Applied(taken=0, applied=-1, ready=1, outbox=1, next_due_ms=0)

logger = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Judging:
    """A batch that the scorer has."""

    leased: list[Leased]
    answer: "Future[list[bytes]]"


class Session:
    """Owns one partition until `run` returns or raises.

    Args:
        line: The line.
        partition: Which partition of records and verdicts.
        committed: The group's committed position, and the policy in force there.
        log: The broker.
        store: The partition's join state.
        scorer: Judges evidence.
        policies: Bodies of policies.
        writer: Shared idempotent writer of ticks, policies and dead letters.
        clock: Monotonic time for bounds; wall time never decides anything.
    """

    def __init__(
        self,
        *,
        line: Line,
        partition: int,
        committed: Committed,
        log: Log,
        store: JoinStore,
        scorer: Scorer,
        policies: PolicyBook,
        writer: LogWriter,
        clock: Clock,
    ) -> None:
        self.partition = partition
        self._records = line.topic("records")
        self._committed = committed
        self._store = store
        self._scorer = scorer
        self._policies = policies
        self._writer = writer
        self._clock = clock
        with ExitStack() as opened:  # what was opened is closed when what follows fails
            opened.callback(store.close)
            self._reader = log.partition_reader(self._records, partition)
            opened.callback(self._reader.close)
            self._intake = Intake(
                line=line, partitions=log.partition_count(self._records), policies=policies
            )
            self._publisher = Publisher(
                log=log, line=line, partition=partition, store=store, clock=clock
            )
            opened.callback(self._publisher.close)
            self._letters = DeadLetters(
                log=log, line=line, partition=partition, store=store, writer=writer, clock=clock
            )
            opened.callback(self._letters.close)
            self._meters = Meters(partition)
            opened.callback(self._meters.close)
            self._opened = opened.pop_all()
        self._ticker = Ticker(writer=writer, topic=self._records, partition=partition, clock=clock)
        self._pending: list[Event] = []
        self._judging: list[Judging] = []
        self._state = _UNKNOWN
        self._paused = self._full = False
        self._asked_s = self._probed_s = self._marked_s = self._moved_s = 0.0
        self.watermark: Committed | None = None
        """Newest position that the group may commit; read by the worker's main thread."""

    def run(self, stop: threading.Event) -> None:
        """Take over, then work until `stop` is set.

        Raises:
            SessionEnd: What this session believed is no longer true; end the process.
        """
        try:
            self._take_over()
            while not stop.is_set():
                self.step()
            SESSION_ENDS.labels("stopped").inc()
        except BaseException as error:
            SESSION_ENDS.labels(type(error).__name__).inc()
            raise
        finally:
            self._opened.close()

    def step(self) -> None:
        """One round: read, apply, lease, publish, confirm, deliver, tick, mark."""
        self._read()
        self._apply()
        self._lease()
        self._publish()
        self._publisher.step()
        if self._state.outbox:
            self._state = replace(self._state, outbox=self._letters.step(self._state.outbox))
        self._ticker.step(
            next_due_ms=self._state.next_due_ms,
            applied=self._state.applied,
            log_start=self._reader.log_start,
        )
        self._mark()
        self._meters.show(
            pending=len(self._pending),
            ready=self._state.ready,
            scoring=sum(len(judging.leased) for judging in self._judging),
            uncommitted=self._publisher.uncommitted,
            awaited=self._publisher.awaited,
            letters=self._state.outbox,
        )

    def _take_over(self) -> None:
        token = uuid.uuid4().hex
        self._publisher.fence()
        slot = self._store.takeover(token)
        if slot is None:
            self._start_cold(token)
        else:
            self._publisher.read_back(start=slot.pub)
            # What waits in the slot is not known yet: 1 makes the first round look.
            self._state = replace(_UNKNOWN, applied=slot.applied)
        self._reader.seek(self._state.applied + 1)
        own = self._policies.own.digest
        if (slot.policy if slot is not None else self._committed.metadata) != own:
            change = PolicyChange(policy_digest=own).to_bytes()
            sent = self._writer.send(
                Outgoing(topic=self._records, key=None, value=change, partition=self.partition)
            )
            self._writer.flush(POLICY_S_MAX)
            sent.result(0)
        SESSION_STARTS.labels("cold" if slot is None else "warm").inc()
        logger.info(
            "session_started",
            partition=self.partition,
            cold=slot is None,
            applied=self._state.applied,
        )

    def _start_cold(self, token: str) -> None:
        start = self._first_held()
        policy = self._policies.find(self._committed.metadata) or self._policies.own
        body = policy.to_bytes().decode()
        self._store.reset(token, applied=start - 1, policy=policy.digest, body=body)
        self._state = replace(_UNKNOWN, applied=start - 1)
        self._publisher.read_back(start=0)

    def _first_held(self) -> int:
        """Where to begin: the committed position, if the log holds it.

        A committed position beyond the log's end is another log's: the topic was deleted and
        created again under a worker that ran, or an unclean election cut it.
        """
        committed, start = self._committed.offset, self._reader.log_start()
        end = self._reader.stable_end()
        if start <= committed <= end:
            return committed
        logger.error(
            "records_lost_to_retention" if committed < start else "committed_beyond_the_log",
            partition=self.partition,
            committed=committed,
            log_start=start,
            log_end=end,
        )
        return start

    def _read(self) -> None:
        if self._pending and not self._full:
            return
        self._throttle()
        try:
            records = self._reader.poll(timeout_s=self._patience_s(), limit=RUN_RECORDS_MAX)
        except OutOfRange:
            # The slot believes in a position that the log does not hold, and so does the mark.
            self._store.wipe()
            self.watermark = None
            raise
        if records:
            self._moved_s = self._clock.monotonic_s()
        for record in records:
            self._pending.append(self._intake.read(record))
            self._ticker.heard(record.timestamp_ms)

    def _patience_s(self) -> float:
        """How long to wait for records: answers that come meanwhile have to wait as long."""
        if not (self._judging or self._publisher.waiting):
            return _POLL_IDLE_S
        passed_s = self._clock.monotonic_s() - self._moved_s
        return min(max(passed_s * _PATIENCE, _POLL_BUSY_S), _POLL_IDLE_S)

    def _throttle(self) -> None:
        """Reading is paused while too much waits downstream; it goes on once half of it is gone."""
        waiting = (
            ("ready", self._state.ready, READY_MAX),
            ("outbox", self._state.outbox, OUTBOX_MAX),
            ("redis", int(self._full), 1),
        )
        if self._paused:
            if all(count <= limit // 2 for _, count, limit in waiting):
                self._paused = False
                self._reader.resume()
                self._meters.show(paused=0)
            return
        full = next((name for name, count, limit in waiting if count >= limit), None)
        if full is not None:
            self._paused = True
            self._reader.pause()
            self._meters.paused(full)
            logger.warning("reading_paused", partition=self.partition, full=full)

    def _apply(self) -> None:
        now_s = self._clock.monotonic_s()
        if not self._pending or (self._full and now_s - self._asked_s < FULL_AGAIN_S):
            return
        self._asked_s = now_s
        try:
            with APPLY_SECONDS.time():
                self._state = self._store.apply(self._pending)
        except Backpressure as error:
            if not self._full:
                logger.warning("redis_full", partition=self.partition, reason=str(error))
            self._full = True
            return
        self._full = False
        self._meters.applied(self._state.taken)
        self._pending = self._pending[self._state.taken :]

    def _lease(self) -> None:
        now_s = self._clock.monotonic_s()
        room = len(self._judging) < BATCHES_IN_FLIGHT_MAX and self._publisher.has_room
        wanted = LEASE_MAX if self._state.ready and room else 0
        if not wanted and now_s - self._probed_s < PROBE_S:
            return
        self._probed_s = now_s
        leased, left = self._store.lease(wanted)
        self._state = replace(self._state, ready=left)
        self._judge(leased)

    def _judge(self, leased: Sequence[Leased]) -> None:
        groups: dict[tuple[str, ...], list[tuple[Leased, SealedEvidence]]] = {}
        for one in leased:
            sealed = sealed_of(one, self._policies)
            groups.setdefault((sealed.product, *sealed.modalities), []).append((one, sealed))
        for group in groups.values():
            answer = self._scorer.score([sealed for _, sealed in group])
            self._judging.append(Judging(leased=[one for one, _ in group], answer=answer))

    def _publish(self) -> None:
        done: list[Judging] = []
        waiting: list[Judging] = []
        for judging in self._judging:
            (done if judging.answer.done() else waiting).append(judging)
        if not done:
            return
        self._judging = waiting
        self._moved_s = self._clock.monotonic_s()
        leased = [one for judging in done for one in judging.leased]
        verdicts = [raw for judging in done for raw in judging.answer.result()]
        offers = [(one.part, one.revision, raw) for one, raw in zip(leased, verdicts, strict=True)]
        chosen = [
            Chosen(
                part=one.part,
                revision=one.revision,
                opened_offset=one.frozen["opened_offset"],
                verdict=choice.verdict,
            )
            for one, choice in zip(leased, self._store.choose(offers), strict=True)
            if choice.verdict is not None
        ]
        self._tell_of_poison(chosen)
        if chosen:
            self._publisher.publish(chosen)

    def _tell_of_poison(self, chosen: Sequence[Chosen]) -> None:
        poisoned = False
        for one in chosen:
            if _UNDECIDABLE not in one.verdict:
                continue
            verdict = Verdict.from_bytes(one.verdict)
            for reason in verdict.reasons:
                if reason.startswith(POISON_REASONS):
                    self._letters.poison(verdict, reason)
                    poisoned = True
        if poisoned:
            self._letters.flush()

    def _mark(self) -> None:
        now_s = self._clock.monotonic_s()
        if now_s - self._marked_s < WATERMARK_S:
            return
        self._marked_s = now_s
        mark = self._store.watermark()
        self.watermark = Committed(offset=mark.offset, metadata=mark.policy)
        self._meters.show(parts=mark.parts, lag=self._state.applied + 1 - mark.offset)
