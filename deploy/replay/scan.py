"""Reading a topic from a broker time on to its end as of now, without a group: no trace is left."""

from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Final

from connectors.errors import Unavailable
from connectors.ports import Log, LogRecord, PartitionReader

Progress = Callable[[str, int, int], None]
"""Takes what is read, such as ``verdicts``, how many offsets are done, and of how many."""

_RUN: Final = 2000
_POLL_S: Final = 1.0
_EMPTY_POLLS_MAX: Final = 30


def scan(
    log: Log, topic: str, partition: int, *, since_ms: int | None, progress: Progress
) -> Iterator[LogRecord]:
    """Every committed record of one partition, in order, up to its stable end as of now.

    Args:
        log: The broker.
        topic: The topic.
        partition: The partition.
        since_ms: Begin at this broker time; None: at the log's start.
        progress: Told after every run.

    Raises:
        Unavailable: The broker cannot be reached, or gives nothing more.
    """
    with closing(log.partition_reader(topic, partition)) as reader:
        end = reader.stable_end()
        start = reader.log_start() if since_ms is None else first_at(reader, since_ms)
        reader.seek(start)
        name = topic.split(".")[-2]
        empty = 0
        while (position := reader.position()) < end:
            records = reader.poll(timeout_s=_POLL_S, limit=_RUN)
            yield from (record for record in records if record.offset < end)
            empty = 0 if records or reader.position() > position else empty + 1
            if empty == _EMPTY_POLLS_MAX:
                raise Unavailable(f"{topic}[{partition}] gives nothing at {position} of {end}")
            progress(name, min(reader.position(), end) - start, end - start)


def first_at(reader: PartitionReader, time_ms: int) -> int:
    """Offset at which broker time reaches `time_ms`; the stable end when it has not yet.

    Broker time grows along a log but for steps of a broker's clock; who needs every record near
    `time_ms` asks for a little earlier.
    """
    low, high = reader.log_start(), reader.stable_end()
    end = high
    while low < high:
        middle = (low + high) // 2
        record = _at_or_after(reader, middle, end=end)
        if record is None or record.timestamp_ms >= time_ms:
            high = middle
        else:
            low = record.offset + 1
    return low


def _at_or_after(reader: PartitionReader, offset: int, *, end: int) -> LogRecord | None:
    """The first committed record from `offset` on; markers of transactions take offsets too."""
    reader.seek(offset)
    for _ in range(_EMPTY_POLLS_MAX):
        records = reader.poll(timeout_s=_POLL_S, limit=1)
        if records:
            return records[0]
        if reader.position() >= end:
            return None
    raise Unavailable(f"the log gives nothing at {offset} of {end}")
