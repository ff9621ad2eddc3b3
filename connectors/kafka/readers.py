"""Reading by position: one partition, or all of a topic; committed records only, no group."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

from kafka import KafkaConsumer, TopicPartition, errors

from connectors.errors import OutOfRange, Unavailable
from connectors.kafka.client import ANSWER_TIMEOUT_S, CLOSE_TIMEOUT_S, Brokers, connect, translated
from connectors.kafka.decoding import decode_with_ours
from connectors.kafka.refusals import refused
from connectors.ports import LogRecord

FETCH_WAIT_MS: Final = 100
"""How long the broker holds an empty fetch; other questions on the connection wait behind it."""

COMMITTED: Final = "read_committed"
UNCOMMITTED: Final = "read_uncommitted"

PROBE_INTERVAL_S: Final = 5.0
"""An idle reader asks the broker something this often, as empty polls hide that it is gone."""

_ANSWER_MS: Final = int(ANSWER_TIMEOUT_S * 1000)


class _Reader:
    def __init__(
        self,
        brokers: Brokers,
        *,
        partitions: Sequence[TopicPartition],
        reset: str,
        isolation: str = COMMITTED,
    ) -> None:
        self._partitions = partitions
        self._consumer: Any = connect(
            KafkaConsumer,
            brokers,
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset=reset,
            isolation_level=isolation,
            fetch_max_wait_ms=FETCH_WAIT_MS,
            metrics_enabled=False,
        )
        decode_with_ours(self._consumer)
        self._consumer.assign(partitions)
        self._answered_s = time.monotonic()

    def poll(self, *, timeout_s: float, limit: int) -> list[LogRecord]:
        try:
            batches = self._consumer.poll(timeout_ms=timeout_s * 1000, max_records=limit)
        except errors.OffsetOutOfRangeError as error:
            raise OutOfRange(f"the log does not hold the position: {error}") from error
        except errors.KafkaError as error:
            what = "could not read the log"
            raise refused(error, what) or Unavailable(f"{what}: {error}") from error
        if batches:
            self._answered_s = time.monotonic()
        elif time.monotonic() - self._answered_s > PROBE_INTERVAL_S:
            self._stable_ends()
        return [record for batch in batches.values() for record in batch]

    def close(self) -> None:
        self._consumer.close(autocommit=False, timeout_ms=int(CLOSE_TIMEOUT_S * 1000))

    @contextmanager
    def _closed_on_failure(self) -> Iterator[None]:
        """No connection is left of a reader that could not be made whole."""
        try:
            yield
        except BaseException:
            self.close()
            raise

    def _log_starts(self) -> dict[TopicPartition, int]:
        with translated("could not ask for the start of the log"):
            starts: dict[TopicPartition, int] = self._consumer.beginning_offsets(
                self._partitions, timeout_ms=_ANSWER_MS
            )
        self._answered_s = time.monotonic()
        return starts

    def _stable_ends(self) -> dict[TopicPartition, int]:
        with translated("could not ask for the end of the log"):
            ends: dict[TopicPartition, int] = self._consumer.end_offsets(
                self._partitions, timeout_ms=_ANSWER_MS
            )
        self._answered_s = time.monotonic()
        return ends

    def _position(self, partition: TopicPartition) -> int:
        with translated("could not tell the position"):
            position: int | None = self._consumer.position(partition, timeout_ms=_ANSWER_MS)
        if position is None:
            raise Unavailable(f"the position in {partition} is not known yet")
        return position


class KafkaPartitionReader(_Reader):
    """`connectors.ports.PartitionReader`, for one thread."""

    def __init__(
        self,
        brokers: Brokers,
        *,
        topic: str,
        partition: int,
        isolation: str = COMMITTED,
    ) -> None:
        self._partition = TopicPartition(topic, partition)
        super().__init__(brokers, partitions=[self._partition], reset="none", isolation=isolation)
        with self._closed_on_failure():
            self.seek(self.log_start())

    def seek(self, offset: int) -> None:
        """See `PartitionReader.seek`."""
        self._consumer.seek(self._partition, offset)

    def pause(self) -> None:
        """See `PartitionReader.pause`."""
        self._consumer.pause(self._partition)

    def resume(self) -> None:
        """See `PartitionReader.resume`."""
        self._consumer.resume(self._partition)

    def position(self) -> int:
        """See `PartitionReader.position`."""
        return self._position(self._partition)

    def log_start(self) -> int:
        """See `PartitionReader.log_start`."""
        return self._log_starts()[self._partition]

    def stable_end(self) -> int:
        """See `PartitionReader.stable_end`."""
        return self._stable_ends()[self._partition]


class KafkaTopicReader(_Reader):
    """`connectors.ports.TopicReader`, for one thread.

    A position that retention has overtaken moves to the log's start.
    """

    def __init__(
        self,
        brokers: Brokers,
        *,
        topic: str,
        partitions: int,
        start: Mapping[int, int] | None,
    ) -> None:
        assigned = [TopicPartition(topic, number) for number in range(partitions)]
        super().__init__(brokers, partitions=assigned, reset="earliest")
        with self._closed_on_failure():
            origins = self._stable_ends() if start is None else self._log_starts()
        for partition, origin in origins.items():
            wanted = origin if start is None else start.get(partition.partition, origin)
            self._consumer.seek(partition, wanted)

    def positions(self) -> Mapping[int, int]:
        """See `TopicReader.positions`."""
        return {each.partition: self._position(each) for each in self._partitions}

    def caught_up(self) -> bool:
        """See `TopicReader.caught_up`."""
        positions = self.positions()
        return all(positions[each.partition] >= end for each, end in self._stable_ends().items())
