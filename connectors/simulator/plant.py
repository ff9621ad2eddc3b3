"""The virtual plant at work: parts enter, stations publish, the PLC presents, the laboratory tells.

One thread keeps plant time and publishes; one renders parts ahead of it; one is the PLC's. When
rendering or the PLC's handshake falls behind, the belt waits: plant time stands still.
"""

import threading
from collections import Counter, deque
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final, Protocol

import cv2

from connectors.clock import Clock
from connectors.cloudevents import headers_of
from connectors.line import Line
from connectors.messages import Message, NearlineResult, StationRecord, event_id_of
from connectors.ports import Headers, Log, LogPosition, Outgoing, PayloadStore
from connectors.simulator.body import stream
from connectors.simulator.rendering import Rendered, render
from connectors.simulator.schedule import Action, PlannedPart, PlantSchedule, plan
from connectors.simulator.strengths import visible_in
from connectors.simulator.truth import PlantTruth

_RENDERED_AHEAD: Final = 8
_RENDER_TIMEOUT_S: Final = 60.0
_HANDSHAKES_WAITING: Final = 16
_HANDSHAKE_POLL_S: Final = 0.5
_UNACKED_MAX: Final = 256
_ACK_TIMEOUT_S: Final = 60.0
_HOURS_TO_RESULT: Final = (4.0, 30.0)


class PartPresenter(Protocol):
    """What the plant needs of its PLC; see `connectors.simulator.plc.Plc`."""

    def present(
        self,
        *,
        part_id: str,
        product: str,
        pass_number: int = 1,
        lot: str = "",
        order: str = "",
        operation: str = "",
        real_part_id: str = "",
        process_values: Mapping[str, float] | None = None,
        timeout_s: float,
    ) -> bool:
        """Present a part; whether its handshake completed in time."""
        ...

    def wait_done(self, *, timeout_s: float) -> bool:
        """Whether the handshake of the part that is presented now completed in time."""
        ...


class VirtualPlant:
    """A line that makes parts and mistakes, in real time.

    Args:
        line: Names topics and stations, and the process values that the PLC has nodes for.
        log: Where records, truths and near-line results go.
        store: Where captures go.
        plc: Presents each part under its handshake; the plant starts and stops none.
        schedule: What happens.
        parts_per_s: How fast parts enter, while nothing holds the belt up.
        clock: Tells plant time and dates captures.

    Raises:
        ValueError: The line makes a product that the plant cannot.
    """

    def __init__(
        self,
        *,
        line: Line,
        log: Log,
        store: PayloadStore,
        plc: PartPresenter,
        schedule: PlantSchedule,
        parts_per_s: float,
        clock: Clock,
    ) -> None:
        self.sent: Counter[str] = Counter()
        """How many ``parts``, ``records``, ``handshakes``, ``dropped`` captures and ``nearline``
        results so far."""
        self._line = line
        self._plc = plc
        self._store = store
        self._clock = clock
        self._plan = plan(schedule, line=line, parts_per_s=parts_per_s)
        self._writer = log.writer()
        self._renderer = ThreadPoolExecutor(1, thread_name_prefix="plant-render")
        self._plc_thread = ThreadPoolExecutor(1, thread_name_prefix="plant-plc")
        self._upcoming = iter(self._plan.parts)
        self._ahead: deque[Future[Rendered]] = deque()
        self._handshakes: deque[Future[None]] = deque()
        self._unacked: deque[Future[LogPosition]] = deque()
        self._unplugged: frozenset[str] = frozenset()
        self._started_s = 0.0
        self._inside: dict[int, tuple[Rendered, frozenset[str]]] = {}
        self._repeats: dict[str, StationRecord] = {}
        self._stop = threading.Event()
        self._ended = threading.Event()

    def unplug(self, station: str) -> None:
        """From the next part on, `station` captures nothing.

        Raises:
            ValueError: The line has no such station.
        """
        if station not in self._line.stations:
            raise ValueError(f"station {station!r} is none of {sorted(self._line.stations)}")
        self._unplugged |= {station}

    def plug(self, station: str) -> None:
        """From the next part on, `station` captures again."""
        self._unplugged -= {station}

    def run(self, stop: threading.Event) -> None:
        """The whole plan has happened, near-line results included, and the log has all of it.

        Once `stop` is set no part enters any more; what belongs to the parts that have entered is
        published at once, so that the truths told of them hold.

        Raises:
            Unavailable: The log did not take a record in time.
        """
        cv2.setNumThreads(1)  # one part at a time leaves the other cores to the line
        self._stop = stop
        try:
            self._started_s = self._clock.monotonic_s()
            for action in self._plan.actions:
                self._perform(action, self._plan.parts[action.part])
            self._report_nearline()
            self._drain(self._handshakes, keep=0)
            self._writer.flush(_ACK_TIMEOUT_S)
            self._drain(self._unacked, keep=0)
        finally:
            self._ended.set()
            self._renderer.shutdown(cancel_futures=True)
            self._plc_thread.shutdown(cancel_futures=True)
            self._writer.close()

    def _perform(self, action: Action, part: PlannedPart) -> None:
        if action.kind == "enter":
            self._render_ahead()
        self._stop.wait(max(0.0, self._started_s + action.at_s - self._clock.monotonic_s()))
        if action.kind == "enter" and not self._stop.is_set():
            rendered = self._ahead.popleft().result(_RENDER_TIMEOUT_S)
            self._drain(self._handshakes, keep=_HANDSHAKES_WAITING - 1)
            self._hold_belt(action.at_s)
            self._enter(action, part=part, rendered=rendered)
            shake = self._plc_thread.submit(self._present, part, rendered.process_values)
            self._handshakes.append(shake)
        elif action.kind == "alias" and action.part in self._inside:
            self._handshakes.append(self._plc_thread.submit(self._present_alias, part))
        elif action.kind == "publish" and action.part in self._inside:
            self._publish(action, part=part)

    def _render_ahead(self) -> None:
        while len(self._ahead) < _RENDERED_AHEAD and (part := next(self._upcoming, None)):
            self._ahead.append(self._renderer.submit(render, part, self._store))

    def _hold_belt(self, at_s: float) -> None:
        """Plant time stood still for as long as this part is overdue."""
        overdue_s = self._clock.monotonic_s() - self._started_s - at_s
        self._started_s += max(0.0, overdue_s)

    def _enter(self, action: Action, *, part: PlannedPart, rendered: Rendered) -> None:
        """The part is on the belt, and its truth is told."""
        unplugged, owners = self._unplugged, self._line.owners()
        dark = {m for m in part.captures if owners[m] in unplugged}
        self._inside[action.part] = rendered, frozenset(dark)
        sent = {
            event_id_of(part.key, a.station, a.modality, a.capture_sequence)
            for a in self._plan.publications[action.part]
            if a.modality not in dark
        }
        truth = PlantTruth(
            part=part.key,
            product=part.product,
            label="good" if part.defect is None else "defective",
            defect=part.defect,
            grade=part.grade if part.defect is not None else 0.0,
            visible_in=() if part.defect is None else visible_in(part.product, part.defect),
            captures=rendered.captures,
            masks=rendered.masks,
            sent=tuple(sorted(sent)),
            faults=(*part.faults, *(f"unplugged:{m}" for m in sorted(dark))),
        )
        self._send("plant-truth", truth, part=part, headers=())
        self.sent["parts"] += 1
        self.sent["dropped"] += len(part.captures) - len(sent)

    def _publish(self, action: Action, *, part: PlannedPart) -> None:
        rendered, dark = self._inside[action.part]
        if action.modality in dark:
            return
        event_id = event_id_of(part.key, action.station, action.modality, action.capture_sequence)
        now_ns = self._clock.now_ns()
        record = self._repeats.get(event_id) or StationRecord(
            event_id=event_id,
            part=part.key,
            product=part.product,
            station=action.station,
            modality=action.modality,
            capture_sequence=action.capture_sequence,
            captured_at_ns=now_ns - int(action.waited_s * 1e9),
            published_at_ns=now_ns,
            lot=part.lot,
            order=part.order,
            operation=part.operation,
            payload=rendered.captures[action.modality],
        )
        if part.captures[action.modality] == "repeated":
            self._repeats[event_id] = record
        headers = headers_of(
            record,
            source=self._source(action.station),
            subject=str(part.key),
            time_ns=record.captured_at_ns,
        )
        self._send("records", record, part=part, headers=headers)
        self.sent["records"] += 1

    def _present(self, part: PlannedPart, process_values: Mapping[str, float]) -> None:
        """The PLC has presented `part` and was told Done, or the plant stops."""
        done = self._plc.present(
            part_id=part.key.part_id,
            product=part.product,
            pass_number=part.key.pass_number,
            lot=part.lot,
            order=part.order,
            operation=part.operation,
            process_values={n: process_values[n] for n in self._line.opcua.process_values},
            timeout_s=_HANDSHAKE_POLL_S,
        )
        self._await_done(done=done)

    def _present_alias(self, part: PlannedPart) -> None:
        """The PLC has told the real id of a part that was not read."""
        done = self._plc.present(
            part_id=part.key.part_id,
            product=part.product,
            pass_number=part.key.pass_number,
            real_part_id=part.real_part_id or "",
            timeout_s=_HANDSHAKE_POLL_S,
        )
        self._await_done(done=done)

    def _await_done(self, *, done: bool) -> None:
        while not (done or self._stop.is_set() or self._ended.is_set()):
            done = self._plc.wait_done(timeout_s=_HANDSHAKE_POLL_S)
        self.sent["handshakes"] += done

    def _report_nearline(self) -> None:
        """The laboratory has told what it found in each part it got, hours of plant time later."""
        for index, (rendered, _) in self._inside.items():
            part = self._plan.parts[index]
            if part.selection is None or rendered.volume is None:
                continue
            hours = stream("laboratory", part.seed, str(part.key)).uniform(*_HOURS_TO_RESULT)
            result = NearlineResult(
                part=part.key,
                product=part.product,
                method="CT",
                finding="good" if part.defect is None else "defective",
                defect_kind=part.defect,
                payloads=(rendered.volume,),
                selection=part.selection,
                examined_at_ns=self._clock.now_ns() + int(hours * 3.6e12),
            )
            headers = headers_of(
                result,
                source=self._source("laboratory"),
                subject=str(part.key),
                time_ns=result.examined_at_ns,
            )
            self._send("nearline", result, part=part, headers=headers)
            self.sent["nearline"] += 1

    def _source(self, station: str) -> str:
        return f"/{self._line.site}/{self._line.area}/{self._line.line}/{station}"

    def _send(self, entity: str, message: Message, *, part: PlannedPart, headers: Headers) -> None:
        record = Outgoing(
            topic=self._line.topic(entity),
            key=str(part.key).encode(),
            value=message.to_bytes(),
            headers=headers,
        )
        self._drain(self._unacked, keep=_UNACKED_MAX - 1)
        self._unacked.append(self._writer.send(record))

    @staticmethod
    def _drain(waiting: deque[Future[Any]], *, keep: int) -> None:
        """At most `keep` are still waited for; one that failed raises here."""
        while waiting and (len(waiting) > keep or waiting[0].done()):
            waiting.popleft().result()
