"""The `source` process: part events of a PLC become records in the log.

The handshake is in `connectors/opcua/README.md`. The PLC's Done node is the source's only memory:
what was not acknowledged there is read again, after any loss on either side.
"""

import threading
from typing import Any, Final

import structlog

from connectors.clock import Clock
from connectors.errors import Transient, Unavailable
from connectors.line import Line
from connectors.messages import PROCESS_ITEM
from connectors.opcua.client import PlcLink, Snapshot
from connectors.opcua.nodes import (
    BUSY,
    DONE,
    LOT,
    OPERATION,
    ORDER,
    PART_ID,
    PASS,
    PRODUCT,
    REAL_PART_ID,
    TRIGGER,
)
from connectors.opcua.records import record_of
from connectors.ports import LogWriter, PartEvent, PartEventSource

_BACKOFF_MIN_S: Final = 0.1
_BACKOFF_MAX_S: Final = 5.0
_WAIT_S: Final = 0.05
_GAPS_MAX: Final = 15
_SEQUENCE_MAX: Final = 2**32 - 1
_POLL_S: Final = 0.5
_ACK_TIMEOUT_S: Final = 30.0

log = structlog.get_logger(__name__)


class OpcUaPartEventSource:
    """Part events from an OPC UA server; see `PartEventSource`.

    It supervises its own connection: without a heartbeat for `line.opcua.heartbeat_max_age_ms`,
    or after any failed call, it connects anew, for ever, at most 5 s apart. `poll` may take longer
    than its timeout by one attempt to connect (10 s).

    Args:
        endpoint: The PLC's URL, ``opc.tcp://host:port/...``.
        line: Names the folder of its nodes.
        clock: Measures ages and dates gaps.
    """

    def __init__(self, *, endpoint: str, line: Line, clock: Clock) -> None:
        self._endpoint = endpoint
        self._nodes = line.opcua
        self._clock = clock
        self._link: PlcLink | None = None
        self._pending: PartEvent | None = None
        self._lost_at_ns: int | None = None
        self._gaps: list[tuple[int, int]] = []
        self._backoff_s = _BACKOFF_MIN_S
        self._next_attempt_s = clock.monotonic_s()
        self._complaint = ""
        self._closed = threading.Event()

    def poll(self, *, timeout_s: float) -> PartEvent | None:
        """See `PartEventSource.poll`."""
        deadline_s = self._clock.monotonic_s() + timeout_s
        while not self._closed.is_set():
            self._step()
            if self._pending is not None:
                return self._pending
            remaining_s = deadline_s - self._clock.monotonic_s()
            if remaining_s <= 0.0:
                return None
            waiter = self._closed if self._link is None else self._link.news
            waiter.wait(min(remaining_s, _WAIT_S))
        return None

    def acknowledge(self, event: PartEvent) -> None:
        """See `PartEventSource.acknowledge`; if the PLC is lost now, `poll` returns it again."""
        if self._link is None or event != self._pending:
            return
        try:
            self._link.write({BUSY: False, DONE: event.sequence})
        except Unavailable as error:
            self._lose(str(error))
            return
        self._pending = None
        self._gaps.clear()
        self._link.news.set()

    def close(self) -> None:
        """See `PartEventSource.close`."""
        self._closed.set()
        if self._link is not None:
            self._link.close()
            self._link = None

    def _step(self) -> None:
        """Do what is due: connect, read what is news, or notice that the PLC is silent."""
        try:
            if self._link is None:
                self._connect()
                return
            self._check(self._link)
            if self._pending is None and self._link.news.is_set():
                self._link.news.clear()
                self._take(self._link)
        except Unavailable as error:
            self._lose(str(error))

    def _check(self, link: PlcLink) -> None:
        if not link.alive:
            raise Unavailable("the PLC has closed the connection")
        if self._age_s(link) * 1000 > self._nodes.heartbeat_max_age_ms:
            raise Unavailable(f"no heartbeat for {self._nodes.heartbeat_max_age_ms} ms")

    def _connect(self) -> None:
        if self._clock.monotonic_s() < self._next_attempt_s:
            return
        self._link = PlcLink(endpoint=self._endpoint, nodes=self._nodes, clock=self._clock)
        self._backoff_s = _BACKOFF_MIN_S
        self._complaint = ""
        log.info("plc_connected", endpoint=self._endpoint)
        if self._lost_at_ns is not None:
            self._add_gap(self._lost_at_ns, self._clock.now_ns())
            self._lost_at_ns = None

    def _lose(self, reason: str) -> None:
        """Drop the connection; whatever was pending is read again from the PLC."""
        if self._link is not None:
            self._lost_at_ns = self._clock.now_ns() - int(self._age_s(self._link) * 1e9)
            self._link.close()
        self._link = self._pending = None
        self._next_attempt_s = self._clock.monotonic_s() + self._backoff_s
        self._backoff_s = min(2 * self._backoff_s, _BACKOFF_MAX_S)
        if reason != self._complaint:
            log.warning("plc_lost", endpoint=self._endpoint, reason=reason)
            self._complaint = reason

    def _take(self, link: PlcLink) -> None:
        """Read the nodes; an unacknowledged trigger becomes the pending event."""
        snapshot = link.read()
        if snapshot is None:
            link.news.set()
            return
        sequence, done = snapshot.values[TRIGGER], snapshot.values[DONE]
        if not isinstance(sequence, int) or not isinstance(done, int):
            raise Unavailable(f"Trigger is {sequence!r} and Done is {done!r}: both must be UInt32")
        if sequence in (0, done):
            return
        link.write({BUSY: True})
        self._pending = self._event_of(snapshot, sequence=sequence, done=done)

    def _event_of(self, snapshot: Snapshot, *, sequence: int, done: int) -> PartEvent:
        read = snapshot.values.get
        captured_at_ns = snapshot.triggered_at_ns or self._clock.now_ns()
        gaps = list(self._gaps)
        if sequence != (1 if done == _SEQUENCE_MAX else done + 1):
            gaps.append((snapshot.done_at_ns or captured_at_ns, captured_at_ns))
        return PartEvent(
            sequence=sequence,
            part_id=_text(read(PART_ID)),
            pass_number=_whole(read(PASS, 1)),
            product=_text(read(PRODUCT)),
            lot=_text(read(LOT)) or None,
            order=_text(read(ORDER)) or None,
            operation=_text(read(OPERATION)) or None,
            real_part_id=_text(read(REAL_PART_ID)) or None,
            process_values={name: _real(read(name)) for name in self._nodes.process_values},
            captured_at_ns=captured_at_ns,
            gap_ids=tuple(f"opcua:{from_ns}-{to_ns}" for from_ns, to_ns in gaps),
        )

    def _add_gap(self, from_ns: int, to_ns: int) -> None:
        if len(self._gaps) == _GAPS_MAX:
            from_ns = self._gaps.pop()[0]
        self._gaps.append((from_ns, to_ns))

    def _age_s(self, link: PlcLink) -> float:
        return self._clock.monotonic_s() - link.heartbeat_at_s


def run_source(
    *, source: PartEventSource, writer: LogWriter, line: Line, clock: Clock, stop: threading.Event
) -> None:
    """Log every part event, then acknowledge it to the PLC, until `stop` is set.

    While the log is unavailable the event is tried again without end, at most 5 s apart, and the
    PLC gets no Done. A sent twice record has the same event id, so it counts once.
    """
    station = line.owners().get(PROCESS_ITEM, "plc")
    backoff_s = _BACKOFF_MIN_S
    while not stop.is_set():
        event = source.poll(timeout_s=_POLL_S)
        if event is None:
            continue
        outgoing = record_of(event, line, station=station, published_at_ns=clock.now_ns())
        try:
            writer.send(outgoing).result(_ACK_TIMEOUT_S)
        except (Transient, TimeoutError) as error:
            log.warning("log_unavailable", reason=str(error), retry_after_s=backoff_s)
            stop.wait(backoff_s)
            backoff_s = min(2 * backoff_s, _BACKOFF_MAX_S)
            continue
        backoff_s = _BACKOFF_MIN_S
        source.acknowledge(event)


def _text(value: Any) -> str:
    return "" if value is None else str(value)


def _whole(value: Any) -> int:
    """A whole number as it is; anything else is 0, which no pass is."""
    return value if isinstance(value, int) else 0


def _real(value: Any) -> float:
    """A number as it is; anything else is NaN, which no process value is."""
    return float(value) if isinstance(value, int | float) else float("nan")
