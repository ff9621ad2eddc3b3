"""When to write a tick: the worker's estimate of broker time.

It decides only when a tick is *written*. What a tick closes is decided by the broker's timestamp of
that record, so a worker whose clock is wrong writes ticks early or late and changes no verdict.
"""

from collections.abc import Callable
from concurrent.futures import Future
from typing import Final

from connectors.clock import Clock
from connectors.errors import Unavailable
from connectors.messages import Tick
from connectors.ports import LogPosition, LogWriter, Outgoing

IDLE_S: Final = 10.0
"""A tick at least this often: markers below the log's start go, and the estimate stays fresh."""
RETRY_S: Final = 0.25


class Ticker:
    """Writes ticks into one partition: one in flight at a time.

    Args:
        writer: Idempotent, not transactional.
        topic: The records topic.
        partition: The partition.
        clock: Only its monotonic time is used.
    """

    def __init__(self, *, writer: LogWriter, topic: str, partition: int, clock: Clock) -> None:
        self._writer = writer
        self._topic = topic
        self._partition = partition
        self._clock = clock
        self._in_flight: Future[LogPosition] | None = None
        self._awaited_offset: int | None = None
        self._written_s = -IDLE_S
        self._broker_minus_monotonic_ms: float | None = None

    def heard(self, timestamp_ms: int) -> None:
        """A record with this broker timestamp was just read: broker time is at least that."""
        ahead_ms = timestamp_ms - self._clock.monotonic_s() * 1e3
        known = self._broker_minus_monotonic_ms
        if known is None or ahead_ms > known:
            self._broker_minus_monotonic_ms = ahead_ms

    def step(self, *, next_due_ms: int | None, applied: int, log_start: Callable[[], int]) -> None:
        """Write a tick if one is due and none is on its way."""
        self._settle(applied)
        if self._in_flight is not None or self._awaited_offset is not None:
            return
        waited_s = self._clock.monotonic_s() - self._written_s
        if waited_s < RETRY_S or not (waited_s >= IDLE_S or self._is_due(next_due_ms)):
            return
        tick = Tick(log_start=log_start())
        self._in_flight = self._writer.send(
            Outgoing(topic=self._topic, key=None, value=tick.to_bytes(), partition=self._partition)
        )
        self._written_s = self._clock.monotonic_s()

    def _is_due(self, next_due_ms: int | None) -> bool:
        if next_due_ms is None:
            return False
        if self._broker_minus_monotonic_ms is None:
            return True
        now_ms = self._clock.monotonic_s() * 1e3 + self._broker_minus_monotonic_ms
        return now_ms >= next_due_ms

    def _settle(self, applied: int) -> None:
        if self._in_flight is not None and self._in_flight.done():
            done, self._in_flight = self._in_flight, None
            try:
                position = done.result()
            except Unavailable:
                return  # not written, or written late: another tick changes nothing
            self._awaited_offset = position.offset
            # An acknowledged write tells broker time exactly: a clock that was ahead is set back.
            now_ms = self._clock.monotonic_s() * 1e3
            self._broker_minus_monotonic_ms = position.timestamp_ms - now_ms
        if self._awaited_offset is not None and applied >= self._awaited_offset:
            self._awaited_offset = None
