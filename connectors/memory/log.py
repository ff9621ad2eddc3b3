"""The log in memory: what `connectors/kafka/` does against a broker, in one process."""

import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from itertools import count

from connectors.clock import Clock, SystemClock
from connectors.errors import Fenced, OutOfRange, Poison
from connectors.memory.group import Group, MemoryGroupMember
from connectors.memory.partition import Outcome, Partition, Transaction
from connectors.partitioner import murmur2_partition
from connectors.ports import LogPosition, LogRecord, Outgoing, TopicSpec


class MemoryLog:
    """A broker in this process: `connectors.ports.Log`; any thread may use it.

    Args:
        clock: Gives the log-append times.
    """

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock if clock is not None else SystemClock()
        self._topics: dict[str, list[Partition]] = {}
        self._groups: dict[tuple[str, str], Group] = {}
        self._writers: dict[str, MemoryTransactionalWriter] = {}
        self._keyless = count()
        self.changed = threading.Condition(threading.RLock())

    def ensure_topics(self, topics: Sequence[TopicSpec]) -> None:
        """See `Log.ensure_topics`."""
        with self.changed:
            for spec in topics:
                found = len(self._topics.get(spec.name, ())) or spec.partitions
                if found != spec.partitions:
                    raise Poison(
                        "topics.partitions",
                        f"topic {spec.name} has {found} partitions, the line file says "
                        f"{spec.partitions}: set it to {found}, or use a new topic",
                    )
            for spec in topics:
                self._topics.setdefault(spec.name, [Partition() for _ in range(spec.partitions)])

    def remove_topics(self, names: Sequence[str]) -> None:
        """See `Log.remove_topics`."""
        with self.changed:
            for name in names:
                self._topics.pop(name, None)

    def partition_count(self, topic: str) -> int:
        """See `Log.partition_count`."""
        return len(self._partitions(topic))

    def writer(self) -> "MemoryLogWriter":
        """See `Log.writer`."""
        return MemoryLogWriter(self)

    def transactional_writer(self, transactional_id: str) -> "MemoryTransactionalWriter":
        """See `Log.transactional_writer`."""
        return MemoryTransactionalWriter(self, transactional_id)

    def partition_reader(self, topic: str, partition: int) -> "MemoryPartitionReader":
        """See `Log.partition_reader`."""
        return MemoryPartitionReader(self, topic, partition)

    def topic_reader(self, topic: str, *, start: Mapping[int, int] | None) -> "MemoryTopicReader":
        """See `Log.topic_reader`."""
        return MemoryTopicReader(self, topic, start=start)

    def member(self, *, group: str, topic: str, instance: str) -> MemoryGroupMember:
        """See `Log.member`."""
        partitions = self.partition_count(topic)
        with self.changed:
            found = self._groups.setdefault((group, topic), Group(partitions))
        return MemoryGroupMember(found, instance)

    def delete_before(self, topic: str, partition: int, offset: int) -> None:
        """Retention has deleted what lies before `offset`."""
        with self.changed:
            self.partition(topic, partition).delete_before(offset)

    def partition(self, topic: str, partition: int) -> Partition:
        """One partition, to be used under `changed`."""
        return self._partitions(topic)[partition]

    def append(self, record: Outgoing, transaction: Transaction | None = None) -> LogPosition:
        """`record` is in the log, with the broker's time."""
        with self.changed:
            partitions = self._partitions(record.topic)
            number = record.partition
            if number is None:
                number = self._choose(record.key, len(partitions))
            logged = LogRecord(
                topic=record.topic,
                partition=number,
                offset=partitions[number].end,
                timestamp_ms=self._clock.now_ns() // 1_000_000,
                key=record.key,
                value=record.value,
                headers=record.headers,
            )
            position = partitions[number].append(logged, transaction)
            self.changed.notify_all()
            return position

    def take_over(self, transactional_id: str, writer: "MemoryTransactionalWriter") -> None:
        """`writer` alone may publish under the id; what another left open is aborted."""
        with self.changed:
            earlier = self._writers.get(transactional_id)
            if earlier is not None:
                earlier.end(Outcome.ABORTED)
            self._writers[transactional_id] = writer

    def publishes(self, transactional_id: str, writer: "MemoryTransactionalWriter") -> bool:
        """Whether `writer` still owns the id."""
        return self._writers.get(transactional_id) is writer

    def _choose(self, key: bytes | None, partitions: int) -> int:
        if key is None:
            return next(self._keyless) % partitions
        return murmur2_partition(key, partitions)

    def _partitions(self, topic: str) -> list[Partition]:
        with self.changed:
            if topic not in self._topics:
                raise Poison("topic", f"{topic} does not exist; create it with `ensure_topics`")
            return self._topics[topic]


class MemoryLogWriter:
    """`connectors.ports.LogWriter`; acknowledged at once."""

    def __init__(self, log: MemoryLog) -> None:
        self._log = log

    def send(self, record: Outgoing) -> Future[LogPosition]:
        """See `LogWriter.send`."""
        future: Future[LogPosition] = Future()
        future.set_result(self._log.append(record))
        return future

    def flush(self, timeout_s: float) -> None:
        """See `LogWriter.flush`."""

    def close(self) -> None:
        """See `LogWriter.close`."""


class MemoryTransactionalWriter:
    """`connectors.ports.TransactionalWriter`."""

    def __init__(self, log: MemoryLog, transactional_id: str) -> None:
        self._log = log
        self._id = transactional_id
        self._transaction = Transaction(Outcome.COMMITTED)
        self._touched: set[tuple[str, int]] = set()

    def start(self) -> None:
        """See `TransactionalWriter.start`."""
        self._log.take_over(self._id, self)

    def settle(self, topic: str, partition: int) -> int:
        """See `TransactionalWriter.settle`."""
        with self._log.changed:
            record = Outgoing(topic=topic, key=None, value=b"", partition=partition)
            (position,) = self._append([record])
            self.end(Outcome.ABORTED)
        return position.offset

    def publish(self, records: Sequence[Outgoing]) -> Future[list[LogPosition]]:
        """See `TransactionalWriter.publish`."""
        future: Future[list[LogPosition]] = Future()
        try:
            with self._log.changed:
                positions = self._append(records)
                self.end(Outcome.COMMITTED)
        except Fenced as error:
            future.set_exception(error)
        else:
            future.set_result(positions)
        return future

    def close(self) -> None:
        """See `TransactionalWriter.close`."""

    def end(self, outcome: Outcome) -> None:
        """An open transaction has this outcome, and its markers are in the log."""
        if self._transaction.outcome is not Outcome.OPEN:
            return
        with self._log.changed:
            self._transaction.outcome = outcome
            for topic, partition in self._touched:
                self._log.partition(topic, partition).mark()
            self._touched.clear()
            self._log.changed.notify_all()

    def _append(self, records: Sequence[Outgoing]) -> list[LogPosition]:
        """Appended records of a transaction that is still open."""
        with self._log.changed:
            if not self._log.publishes(self._id, self):
                raise Fenced(f"{self._id} was taken over, or not started")
            self._transaction = Transaction()
            positions = [self._log.append(record, self._transaction) for record in records]
            for record, position in zip(records, positions, strict=True):
                self._touched.add((record.topic, position.partition))
            return positions


class MemoryPartitionReader:
    """`connectors.ports.PartitionReader`."""

    def __init__(self, log: MemoryLog, topic: str, partition: int) -> None:
        self._log = log
        self._partition = log.partition(topic, partition)
        self._name = f"{topic}[{partition}]"
        self._position = self._partition.log_start
        self._paused = False

    def seek(self, offset: int) -> None:
        """See `PartitionReader.seek`."""
        self._position = offset

    def poll(self, *, timeout_s: float, limit: int) -> list[LogRecord]:
        """See `PartitionReader.poll`."""
        deadline_s = time.monotonic() + timeout_s
        with self._log.changed:
            while True:
                if not self._partition.log_start <= self._position <= self._partition.end:
                    raise OutOfRange(f"{self._name} does not hold offset {self._position}")
                records: list[LogRecord] = []
                if not self._paused:
                    records, self._position = self._partition.read(self._position, limit)
                remaining_s = deadline_s - time.monotonic()
                if records or remaining_s <= 0:
                    return records
                self._log.changed.wait(remaining_s)

    def pause(self) -> None:
        """See `PartitionReader.pause`."""
        self._paused = True

    def resume(self) -> None:
        """See `PartitionReader.resume`."""
        self._paused = False

    def position(self) -> int:
        """See `PartitionReader.position`."""
        return self._position

    def log_start(self) -> int:
        """See `PartitionReader.log_start`."""
        return self._partition.log_start

    def stable_end(self) -> int:
        """See `PartitionReader.stable_end`."""
        with self._log.changed:
            return self._partition.stable_end()

    def close(self) -> None:
        """See `PartitionReader.close`."""


class MemoryTopicReader:
    """`connectors.ports.TopicReader`."""

    def __init__(self, log: MemoryLog, topic: str, *, start: Mapping[int, int] | None) -> None:
        self._log = log
        count = log.partition_count(topic)
        self._partitions = [log.partition(topic, number) for number in range(count)]
        with log.changed:
            self._positions = [
                each.stable_end() if start is None else start.get(number, each.log_start)
                for number, each in enumerate(self._partitions)
            ]

    def poll(self, *, timeout_s: float, limit: int) -> list[LogRecord]:
        """See `TopicReader.poll`."""
        deadline_s = time.monotonic() + timeout_s
        with self._log.changed:
            while True:
                records = self._read(limit)
                remaining_s = deadline_s - time.monotonic()
                if records or remaining_s <= 0:
                    return records
                self._log.changed.wait(remaining_s)

    def positions(self) -> Mapping[int, int]:
        """See `TopicReader.positions`."""
        return dict(enumerate(self._positions))

    def caught_up(self) -> bool:
        """See `TopicReader.caught_up`."""
        with self._log.changed:
            pairs = zip(self._positions, self._partitions, strict=True)
            return all(position >= each.stable_end() for position, each in pairs)

    def close(self) -> None:
        """See `TopicReader.close`."""

    def _read(self, limit: int) -> list[LogRecord]:
        records: list[LogRecord] = []
        for number, partition in enumerate(self._partitions):
            position = self._positions[number]
            if not partition.log_start <= position <= partition.end:
                position = partition.log_start
            found, self._positions[number] = partition.read(position, limit - len(records))
            records += found
        return records
