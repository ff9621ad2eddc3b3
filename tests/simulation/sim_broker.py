"""The broker: the in-memory log with Kafka's transactional semantics, each step an effect."""

from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING

from sim_workloads import RECORDS

from connectors.errors import DeadlineExceeded, Fenced, HololineError, Unavailable
from connectors.memory import MemoryLog
from connectors.memory.log import MemoryTransactionalWriter
from connectors.memory.partition import Outcome, Transaction
from connectors.ports import Committed, LogPosition, LogRecord, Outgoing

if TYPE_CHECKING:
    from sim_world import Process, World


class BrokerClock:
    """The broker's wall clock: it may step back."""

    def __init__(self, world: "World") -> None:
        self._world = world

    def now_ns(self) -> int:
        """See `Clock.now_ns`."""
        return self._world.clock.now_ns() - self._world.stepped_back_ms * 1_000_000

    def monotonic_s(self) -> float:
        """See `Clock.monotonic_s`."""
        return self._world.clock.monotonic_s()


class Broker(MemoryLog):
    """What all processes share: topics, who owns a transactional id, and one consumer group.

    Args:
        world: Told of everything that is appended.
        fencing: Whether taking a transactional id over stops its earlier owners.
    """

    def __init__(self, world: "World", *, fencing: bool) -> None:
        super().__init__(BrokerClock(world))
        self._world = world
        self._fencing = fencing
        self.on_their_way: dict[str, SimTransactionalWriter] = {}
        self.unmarked: dict[str, list[Transaction]] = {}
        """By transactional id: open in the log until the next marker of that id, whatever it is."""
        self.owner: SimMember | None = None
        self.committed: list[Committed] = []
        self.records: list[LogRecord] = []
        """Everything that was ever in the records log, what retention took included."""

    def append(self, record: Outgoing, transaction: Transaction | None = None) -> LogPosition:
        """See `MemoryLog.append`."""
        self._world.activity += 1
        position = super().append(record, transaction)
        if record.topic == RECORDS:
            self.records += self.partition(RECORDS, 0).read(position.offset, 1)[0]
        return position

    def trim(self) -> None:
        """Retention deletes the records below the committed watermark."""
        if self.committed:
            self.delete_before(RECORDS, 0, self.committed[-1].offset)

    def take_over(self, transactional_id: str, writer: MemoryTransactionalWriter) -> None:
        """A commit that is on its way lands; then see `MemoryLog.take_over`."""
        late = self.on_their_way.pop(transactional_id, None)
        if late is not None:
            late.end(Outcome.COMMITTED)
        super().take_over(transactional_id, writer)

    def publishes(self, transactional_id: str, writer: MemoryTransactionalWriter) -> bool:
        """See `MemoryLog.publishes`."""
        return not self._fencing or super().publishes(transactional_id, writer)

    def visible(self, topic: str) -> list[LogRecord]:
        """What a reader of committed records sees of partition 0 of `topic`."""
        partition = self.partition(topic, 0)
        return partition.read(partition.log_start, 2**31)[0]


class SimTransactionalWriter(MemoryTransactionalWriter):
    """A transaction is two effects: its records are appended, then it ends.

    Args:
        process: Who publishes.
        broker: Where.
        transactional_id: As whom.
    """

    def __init__(self, process: "Process", broker: Broker, transactional_id: str) -> None:
        super().__init__(broker, transactional_id)
        self._process = process
        self._broker = broker
        self._name = transactional_id

    def start(self) -> None:
        """See `TransactionalWriter.start`."""
        self._process.effect("txn.start", super().start)
        self._process.world.activity += 1

    def settle(self, topic: str, partition: int) -> int:
        """See `TransactionalWriter.settle`."""
        if self._process.world.off.settling:
            return -1
        record = Outgoing(topic=topic, key=None, value=b"", partition=partition)
        (position,) = self._process.effect("settle.append", lambda: self._append([record]))
        self._process.effect("settle.end", lambda: self.end(Outcome.ABORTED))
        return position.offset

    def end(self, outcome: Outcome) -> None:
        """See `MemoryTransactionalWriter.end`; the marker ends what was never marked too."""
        if self._transaction.outcome is Outcome.OPEN:
            for left in self._broker.unmarked.pop(self._name, ()):
                left.outcome = outcome
        super().end(outcome)

    def publish(self, records: Sequence[Outgoing]) -> "Future[list[LogPosition]]":
        """See `TransactionalWriter.publish`; the answer comes with the next round."""
        future: Future[list[LogPosition]] = Future()
        try:
            positions = self._process.effect("txn.append", lambda: self._append(records))
            if self._process.world.workload.ends_early:
                self._end()
                self._process.later.append(lambda: future.set_result(positions))
            else:
                self._process.later.append(lambda: self._finish(future, positions))
        except HololineError as error:
            future.set_exception(error)
        return future

    def _finish(self, future: "Future[list[LogPosition]]", positions: list[LogPosition]) -> None:
        try:
            self._end()
        except HololineError as error:
            future.set_exception(error)
        else:
            future.set_result(positions)

    def _end(self) -> None:
        self._process.effect(
            "txn.end", self._commit, torn=self._tear, late=self._leave, unmarked=self._forget
        )

    def _commit(self) -> None:
        self._refuse_if_fenced()
        self.end(Outcome.COMMITTED)

    def _refuse_if_fenced(self) -> None:
        if self._transaction.outcome is Outcome.ABORTED:
            raise Fenced(f"{self._name} was taken over")

    def _tear(self) -> None:
        self.end(Outcome.ABORTED)

    def _leave(self) -> None:
        self._broker.on_their_way[self._name] = self
        raise DeadlineExceeded("the commit is on its way")

    def _forget(self) -> None:
        self._refuse_if_fenced()  # what a broker refuses it does not decide, so cannot forget
        self._broker.unmarked.setdefault(self._name, []).append(self._transaction)
        self._transaction = Transaction(Outcome.COMMITTED)
        self._touched.clear()
        raise DeadlineExceeded("the broker died under the commit")


class SimWriter:
    """`LogWriter` whose records land with the next round or flush, one by one.

    Args:
        process: Who writes.
        broker: Where.
    """

    def __init__(self, process: "Process", broker: Broker) -> None:
        self._process = process
        self._broker = broker
        self._waiting: deque[tuple[Outgoing, Future[LogPosition]]] = deque()

    def send(self, record: Outgoing) -> "Future[LogPosition]":
        """See `LogWriter.send`."""
        future: Future[LogPosition] = Future()
        self._waiting.append((record, future))
        return future

    def land(self) -> bool:
        """What waits is in the log; whether all of it was acknowledged."""
        acknowledged = True
        while self._waiting:
            record, future = self._waiting.popleft()
            try:
                position = self._process.effect(
                    "writer.land", lambda record=record: self._broker.append(record)
                )
            except Unavailable as error:
                acknowledged = False
                future.set_exception(error)
            else:
                future.set_result(position)
        return acknowledged

    def flush(self, timeout_s: float) -> None:
        """See `LogWriter.flush`."""
        if not self.land():
            raise Unavailable(f"not acknowledged in {timeout_s} s")

    def close(self) -> None:
        """See `LogWriter.close`."""


class SimReader:
    """`PartitionReader` that never waits: an empty poll takes simulated time.

    Args:
        process: Who reads.
        broker: Where.
        topic: Which topic; its entity names the effects.
        partition: Which partition.
    """

    def __init__(self, process: "Process", broker: Broker, topic: str, partition: int) -> None:
        self._process = process
        self._inner = MemoryLog.partition_reader(broker, topic, partition)
        self._entity = topic.split(".")[-2]
        self.position = self._inner.position
        self.log_start = self._inner.log_start
        self.pause = self._inner.pause
        self.resume = self._inner.resume
        self.close = self._inner.close

    def seek(self, offset: int) -> None:
        """See `PartitionReader.seek`; without read-back, verdicts are read from their end."""
        skipped = self._process.world.off.read_back and self._entity == "verdicts"
        self._inner.seek(self._inner.stable_end() if skipped else offset)

    def poll(self, *, timeout_s: float, limit: int) -> list[LogRecord]:
        """See `PartitionReader.poll`."""
        records = self._process.effect(
            f"{self._entity}.poll", lambda: self._inner.poll(timeout_s=0.0, limit=limit)
        )
        if records:
            self._process.world.activity += 1
        else:
            self._process.world.clock.advance_s(timeout_s)
        return records

    def stable_end(self) -> int:
        """See `PartitionReader.stable_end`."""
        return self._process.effect(f"{self._entity}.end", self._inner.stable_end)


class SimTopicReader:
    """`TopicReader` that never waits."""

    def __init__(self, process: "Process", broker: Broker, topic: str) -> None:
        self._process = process
        self._inner = MemoryLog.topic_reader(broker, topic, start={})
        self.positions = self._inner.positions
        self.caught_up = self._inner.caught_up
        self.close = self._inner.close

    def poll(self, *, timeout_s: float, limit: int) -> list[LogRecord]:
        """See `TopicReader.poll`."""
        return self._process.effect(
            "policies.poll", lambda: self._inner.poll(timeout_s=0.0, limit=limit)
        )


class SimMember:
    """`GroupMember`: each poll is one round of the worker.

    It does not notice that it was replaced, as a process whose heartbeat is late would not; what
    it commits is refused then.
    """

    def __init__(self, process: "Process", broker: Broker) -> None:
        self._process = process
        self._broker = broker
        self._joined = False

    def poll(self, *, timeout_s: float) -> frozenset[int]:
        """See `GroupMember.poll`."""
        if self._joined:
            self._process.round()
        else:
            self._process.effect("group.join", self._join)
            self._joined = True
        return frozenset({0})

    def committed(self, partition: int) -> Committed | None:
        """See `GroupMember.committed`."""
        return self._process.effect(
            "group.committed",
            lambda: self._broker.committed[-1] if self._broker.committed else None,
        )

    def commit(self, positions: Mapping[int, Committed]) -> None:
        """See `GroupMember.commit`."""
        self._process.effect("group.commit", lambda: self._commit(positions[0]))

    def close(self) -> None:
        """See `GroupMember.close`."""

    def _join(self) -> None:
        self._broker.owner = self

    def _commit(self, position: Committed) -> None:
        if self._broker.owner is not self:
            raise Fenced("another member has joined with this identity")
        self._broker.committed.append(position)
        self._process.world.activity += 1


class ProcessLog:
    """The broker as one process reaches it: `connectors.ports.Log`.

    Args:
        process: Whose effects they are.
        broker: What is reached.
    """

    def __init__(self, process: "Process", broker: Broker) -> None:
        self._process = process
        self._broker = broker
        self.partition_count = broker.partition_count

    def writer(self) -> SimWriter:
        """See `Log.writer`."""
        writer = SimWriter(self._process, self._broker)
        self._process.writers.append(writer)
        return writer

    def transactional_writer(self, transactional_id: str) -> SimTransactionalWriter:
        """See `Log.transactional_writer`."""
        return SimTransactionalWriter(self._process, self._broker, transactional_id)

    def partition_reader(self, topic: str, partition: int) -> SimReader:
        """See `Log.partition_reader`."""
        return SimReader(self._process, self._broker, topic, partition)

    def topic_reader(self, topic: str, *, start: Mapping[int, int] | None) -> SimTopicReader:
        """See `Log.topic_reader`."""
        return SimTopicReader(self._process, self._broker, topic)

    def member(self, *, group: str, topic: str, instance: str) -> SimMember:
        """See `Log.member`."""
        return SimMember(self._process, self._broker)
