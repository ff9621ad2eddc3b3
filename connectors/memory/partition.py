"""One partition in memory: records, transaction markers, log start and last stable offset."""

from bisect import bisect_left
from dataclasses import dataclass
from enum import Enum, auto

from connectors.ports import LogPosition, LogRecord


class Outcome(Enum):
    """How far a transaction has come."""

    OPEN = auto()
    COMMITTED = auto()
    ABORTED = auto()


@dataclass(slots=True)
class Transaction:
    """What a transactional writer has appended since it began."""

    outcome: Outcome = Outcome.OPEN


@dataclass(frozen=True, slots=True)
class _Entry:
    offset: int
    record: LogRecord | None  # None: a transaction's marker
    transaction: Transaction | None = None

    def visible(self) -> bool:
        return self.record is not None and (
            self.transaction is None or self.transaction.outcome is Outcome.COMMITTED
        )


class Partition:
    """An append-only list of entries; its owner brings the lock."""

    def __init__(self) -> None:
        self.log_start = 0
        self.end = 0
        self._entries: list[_Entry] = []
        self._open: list[tuple[int, Transaction]] = []

    def append(self, record: LogRecord, transaction: Transaction | None) -> LogPosition:
        """`record`, whose offset is `end`, is the last entry."""
        self._entries.append(_Entry(self.end, record, transaction))
        if transaction is not None and all(transaction is not each for _, each in self._open):
            self._open.append((self.end, transaction))
        self.end += 1
        return LogPosition(
            partition=record.partition, offset=record.offset, timestamp_ms=record.timestamp_ms
        )

    def mark(self) -> None:
        """A transaction's marker is the last entry; like Kafka's it takes an offset."""
        self._entries.append(_Entry(self.end, None))
        self.end += 1

    def stable_end(self) -> int:
        """One past the last entry before the first open transaction."""
        self._open = [each for each in self._open if each[1].outcome is Outcome.OPEN]
        return self._open[0][0] if self._open else self.end

    def read(self, start: int, limit: int) -> tuple[list[LogRecord], int]:
        """Up to `limit` committed records from `start` on, and the position after them."""
        stable_end = self.stable_end()
        records: list[LogRecord] = []
        position = start
        for index in range(self._index(start), self._index(stable_end)):
            entry = self._entries[index]
            if entry.visible() and entry.record is not None:
                if len(records) == limit:
                    return records, position
                records.append(entry.record)
            position = entry.offset + 1
        return records, max(start, stable_end)

    def delete_before(self, offset: int) -> None:
        """The log starts at `offset`."""
        self.log_start = min(max(self.log_start, offset), self.end)
        del self._entries[: self._index(self.log_start)]

    def _index(self, offset: int) -> int:
        return bisect_left(self._entries, offset, key=lambda entry: entry.offset)
