"""The worker process: a consumer group assigns partitions, each is one session in one thread.

Revocation ends a session; anything unexpected ends the process, and the supervisor starts it anew.
"""

import threading
from collections.abc import Callable
from contextlib import ExitStack, closing
from typing import Final

import structlog

from connectors import metrics
from connectors.clock import Clock
from connectors.errors import Gap, SessionEnd, Unavailable
from connectors.line import Line
from connectors.ports import Committed, GroupMember, Log, LogWriter, Scorer
from ingest.policies import PolicyBook
from ingest.session import Session
from ingest.store import JoinStore

PARTITIONS_MAX: Final = 8
COMMIT_S: Final = 2.0
STOP_S: Final = 15.0
CONNECT_TRIES: Final = 100
CONNECT_AGAIN_S: Final = 0.2

logger = structlog.get_logger()


class Worker:
    """Runs the sessions of the partitions that the group assigns to this process.

    Args:
        line: The line.
        log: The broker.
        stores: Makes the join store of a partition; each session has its own connection.
        scorer: Judges evidence; shared.
        clock: Monotonic time for bounds.
        instance: Static group identity, unique among the line's workers.
    """

    def __init__(
        self,
        *,
        line: Line,
        log: Log,
        stores: Callable[[int], JoinStore],
        scorer: Scorer,
        clock: Clock,
        instance: str,
    ) -> None:
        self._line = line
        self._log = log
        self._stores = stores
        self._scorer = scorer
        self._clock = clock
        self._policies = PolicyBook(log=log, topic=line.topic("policies"), own=line.policy())
        with ExitStack() as opened:
            self._writer: LogWriter = log.writer()
            opened.callback(self._writer.close)
            self._member: GroupMember = log.member(
                group=f"{line.name}.worker", topic=line.topic("records"), instance=instance
            )
            opened.callback(self._member.close)
            self._opened = opened.pop_all()
        self._stop = threading.Event()
        self._running: dict[int, _Running] = {}
        self._committed: dict[int, Committed] = {}
        self._committed_s = 0.0
        self._unserved: list[int] = []

    def run(self, stop: threading.Event) -> None:
        """Work until `stop` is set.

        Raises:
            SessionEnd: A session ended unexpectedly; end the process at once.
        """
        self._stop = stop
        try:
            while not stop.is_set():
                owned = self._member.poll(timeout_s=0.1)
                for partition in self._running.keys() - owned:
                    self._running.pop(partition).end()
                self._start_missing(owned)
                for running in self._running.values():
                    running.check()
                self._commit()
        finally:
            with self._opened:
                for running in self._running.values():
                    running.end()
                self._commit(at_once=True)

    def _start_missing(self, owned: frozenset[int]) -> None:
        """Each owned partition has its session, as far as there is room in this process.

        Those beyond wait for the worker whose they were: two workers that take more and more from
        each other would end both.
        """
        missing = sorted(owned - self._running.keys())
        room = PARTITIONS_MAX - len(self._running)
        for partition in missing[:room]:
            self._running[partition] = self._start(partition)
        unserved = missing[room:]
        if unserved != self._unserved:
            self._unserved = unserved
            logger.warning("partitions_unserved", partitions=unserved, served=PARTITIONS_MAX)
        metrics.PARTITIONS_OWNED.set(len(self._running))
        metrics.PARTITIONS_UNSERVED.set(len(unserved))

    def _start(self, partition: int) -> "_Running":
        committed = self._member.committed(partition)
        if committed is None:
            committed = self._first_position(partition)

        def make(store: JoinStore) -> Session:
            return Session(
                line=self._line,
                partition=partition,
                committed=committed,
                log=self._log,
                store=store,
                scorer=self._scorer,
                policies=self._policies,
                writer=self._writer,
                clock=self._clock,
            )

        return _Running(partition, lambda: self._stores(partition), make)

    def _first_position(self, partition: int) -> Committed:
        """Commit where the partition begins and under which policy, before anything is read.

        A replay then starts under the same policy, whatever the line file says by then. A slot
        may speak of another topic of this name that was deleted, as a group's positions go with
        their topic: it is wiped. It costs a replay if not, and no record, since all are there.
        """
        reader = self._log.partition_reader(self._line.topic("records"), partition)
        try:
            first = Committed(offset=reader.log_start(), metadata=self._policies.own.digest)
        finally:
            reader.close()
        if first.offset == 0:
            with closing(_connected(lambda: self._stores(partition), self._stop)) as store:
                store.wipe()
        self._member.commit({partition: first})
        return first

    def _commit(self, *, at_once: bool = False) -> None:
        now_s = self._clock.monotonic_s()
        if not at_once and now_s - self._committed_s < COMMIT_S:
            return
        self._committed_s = now_s
        marks = {partition: each.watermark for partition, each in self._running.items()}
        fresh = {
            partition: mark
            for partition, mark in marks.items()
            if mark is not None and mark != self._committed.get(partition)
        }
        if not fresh:
            return
        try:
            self._member.commit(fresh)
        except Unavailable as error:
            # A watermark that is too low costs a cold start some records; `poll` says when the
            # coordinator is gone for good.
            metrics.COMMITS_REFUSED.inc()
            logger.warning("commit_refused", reason=str(error))
        else:
            self._committed.update(fresh)


class _Running:
    """A session in its thread, where it is made too: connecting takes a third of a second."""

    def __init__(
        self,
        partition: int,
        connect: Callable[[], JoinStore],
        make: Callable[[JoinStore], Session],
    ) -> None:
        self._partition = partition
        self._connect = connect
        self._make = make
        self._session: Session | None = None
        self._stop = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=f"session-{partition}", daemon=True)
        self._thread.start()

    @property
    def watermark(self) -> Committed | None:
        """Newest position that the group may commit."""
        return None if self._session is None else self._session.watermark

    def _run(self) -> None:
        try:
            self._session = self._make(_connected(self._connect, self._stop))
            self._session.run(self._stop)
        except BaseException as error:  # noqa: BLE001 - carried to the main thread, which ends on it
            self._error = error

    def check(self) -> None:
        """Raise what the session raised."""
        if self._error is not None:
            raise self._error

    def end(self) -> None:
        """The session has ended, or has had its time."""
        self._stop.set()
        self._thread.join(STOP_S)
        if self._thread.is_alive():
            raise SessionEnd(f"session {self._partition} did not end in {STOP_S} s")


def _connected(connect: Callable[[], JoinStore], stop: threading.Event) -> JoinStore:
    """A partition's store; a Redis that starts is waited for, as nothing is held yet."""
    for tries_left in reversed(range(CONNECT_TRIES)):
        try:
            return connect()
        except Gap:
            metrics.REDIS_TRIES.inc()
            if tries_left == 0 or stop.wait(CONNECT_AGAIN_S):
                raise
    raise AssertionError("the last try returns or raises")


def run_worker(
    *,
    line: Line,
    log: Log,
    stores: Callable[[int], JoinStore],
    scorer: Scorer,
    clock: Clock,
    instance: str,
    stop: threading.Event,
) -> None:
    """Work as one of the line's workers until `stop` is set; see `Worker`."""
    worker = Worker(
        line=line, log=log, stores=stores, scorer=scorer, clock=clock, instance=instance
    )
    worker.run(stop)
