"""Follows the line's logs on one thread: ledger, recent parts, events for the browsers."""

import asyncio
import json
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

import structlog

from connectors.clock import Clock, SystemClock
from connectors.errors import MalformedMessage, Poison, Transient
from connectors.line import Line
from connectors.messages import DeadLetter, PayloadRef, Verdict
from connectors.metrics import WEB_CLIENTS
from connectors.ports import Log, LogRecord, TopicReader
from connectors.simulator.truth import PlantTruth
from deploy.ledger import Ledger
from deploy.web.cards import Json, card, tile

PARTS_SHOWN: Final = 200
_TRUTHS_MAX: Final = 2_000
QUEUE_MAX: Final = 256
CLIENTS_MAX: Final = 64
_POLL_S: Final = 0.1
_REOPEN_S: Final = 1.0
_SNAPSHOT_S: Final = 1.0
_SNAPSHOT_SHARE: Final = 10
"""A snapshot is taken no more often than this many times what the last one took."""
_STALE_S: Final = 10.0
_BATCH: Final = 500

_log = structlog.get_logger()

Event = tuple[str, str]
"""Name and JSON data of a server-sent event."""


class Hub:
    """Hands events from the feed's thread to every browser's own bounded queue.

    A browser that falls behind loses its queue and gets one ``resync``: it then fetches the recent
    parts anew and goes on from the next snapshot.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._clients: dict[asyncio.Queue[Event], asyncio.AbstractEventLoop] = {}

    def subscribe(self) -> asyncio.Queue[Event] | None:
        """A new queue of this event loop; None when too many are open. `unsubscribe` it."""
        queue: asyncio.Queue[Event] = asyncio.Queue(maxsize=QUEUE_MAX)
        with self._lock:
            if len(self._clients) >= CLIENTS_MAX:
                return None
            self._clients[queue] = asyncio.get_running_loop()
            WEB_CLIENTS.set(len(self._clients))
        return queue

    def unsubscribe(self, queue: asyncio.Queue[Event]) -> None:
        """`queue` gets no more events."""
        with self._lock:
            self._clients.pop(queue, None)
            WEB_CLIENTS.set(len(self._clients))

    def publish(self, name: str, data: Json) -> None:
        """Every open queue gets the event soon; never blocks."""
        event = (name, json.dumps(data, separators=(",", ":")))
        with self._lock:
            clients = list(self._clients.items())
        for queue, loop in clients:
            if not loop.is_closed():
                loop.call_soon_threadsafe(_offer, queue, event)


def _offer(queue: asyncio.Queue[Event], event: Event) -> None:
    if queue.full():
        while not queue.empty():
            queue.get_nowait()
        queue.put_nowait(("resync", "{}"))
    queue.put_nowait(event)


@dataclass(slots=True)
class _Shown:
    """The committed verdicts of a recent part."""

    verdicts: list[Verdict] = field(default_factory=list)
    logged_at_ms: int = 0


@dataclass(slots=True)
class _Topic:
    """One followed topic; its reader is opened again, where it was, after the broker was away."""

    name: str
    take: Callable[[LogRecord], None]
    positions: Mapping[int, int] = field(default_factory=dict)
    reader: TopicReader | None = None
    retry_at_s: float = 0.0
    polled_at_s: float | None = None


class Feed:
    """The page's only source: committed verdicts, dead letters and, on a demo, the plant's truth.

    Args:
        line: The line to follow.
        log: Where its topics are; a topic that is not there is looked for again and again.
        clock: For pauses and staleness.
    """

    def __init__(self, *, line: Line, log: Log, clock: Clock | None = None) -> None:
        self.hub = Hub()
        self._line = line
        self._log_port = log
        self._clock = clock or SystemClock()
        self._ledger = Ledger(line)
        self._parts: OrderedDict[str, _Shown] = OrderedDict()
        self._truths: OrderedDict[str, PlantTruth] = OrderedDict()
        self._topics = [
            _Topic(line.topic("verdicts"), self._take_verdict),
            _Topic(line.topic("plant-truth"), self._take_truth),
            _Topic(line.topic("dead-letters"), self._take_letter),
        ]
        self._actions: deque[Json] = deque(maxlen=50)
        self._unplugged: set[str] = set()
        self._snapshot: Json = {}
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="web-feed", daemon=True)

    def start(self) -> None:
        """The thread follows the logs from their start."""
        self._refresh()
        self._thread.start()

    def stop(self) -> None:
        """The thread has ended and its readers are closed, within a bounded time."""
        self._stop.set()
        self._thread.join(timeout=10.0)

    def alive(self) -> bool:
        """Whether the thread still runs."""
        return self._thread.is_alive()

    def ready(self) -> bool:
        """Whether the verdict topic was read within the last ten seconds."""
        polled = self._topics[0].polled_at_s
        return polled is not None and self._clock.monotonic_s() - polled < _STALE_S

    def snapshot(self) -> Json:
        """The ledger's latest snapshot, with what people did by the buttons."""
        with self._lock:
            return self._snapshot

    def tiles(self) -> list[Json]:
        """The recent parts, the one judged last at the end."""
        with self._lock:
            return [self._tile(key) for key in self._parts]

    def card(self, key: str) -> Json | None:
        """All that is known of a recent part; None if it is not recent."""
        with self._lock:
            shown = self._parts.get(key)
            if shown is None:
                return None
            truth = self._truths.get(key)
            return card(self._line, shown.verdicts, truth, logged_at_ms=shown.logged_at_ms)

    def model_and_capture(self, key: str, modality: str) -> tuple[str, PayloadRef] | None:
        """The model that judged the part, and the plant's own capture, sent to the line or not."""
        with self._lock:
            shown, truth = self._parts.get(key), self._truths.get(key)
            if shown is None or truth is None or modality not in truth.captures:
                return None
            digest = shown.verdicts[-1].model_digest
            return (digest, truth.captures[modality]) if digest is not None else None

    def payload(self, sha256: str) -> PayloadRef | None:
        """The claim check of a payload that a recent part names; None for any other."""
        with self._lock:
            named = (ref for s in reversed(self._parts.values()) for ref in _refs(s.verdicts))
            return next((ref for ref in named if ref.sha256 == sha256), None)

    def note(
        self, action: Json, *, unplugged: str | None = None, plugged: str | None = None
    ) -> None:
        """What a button did is part of every snapshot from now on."""
        with self._lock:
            counts = {k: self._snapshot.get(k, 0) for k in ("verdicts", "parts")}
            self._actions.append({**action, **counts})
            if unplugged is not None:
                self._unplugged.add(unplugged)
            if plugged is not None:
                self._unplugged.discard(plugged)
            self._snapshot = {**self._snapshot, **self._controls()}
        self.hub.publish("snapshot", self.snapshot())

    def _run(self) -> None:
        due_s = 0.0
        while not self._stop.is_set():
            for topic in self._topics:
                self._poll(topic)
            now_s = self._clock.monotonic_s()
            if now_s >= due_s:
                self._refresh()
                took_s = self._clock.monotonic_s() - now_s
                due_s = now_s + max(_SNAPSHOT_S, _SNAPSHOT_SHARE * took_s)
        for topic in self._topics:
            if topic.reader is not None:
                topic.reader.close()

    def _poll(self, topic: _Topic) -> None:
        """Take what `topic` has; wait a little only on the verdicts, which come first."""
        if topic.reader is None and self._clock.monotonic_s() < topic.retry_at_s:
            self._stop.wait(_POLL_S / len(self._topics))
            return
        try:
            if topic.reader is None:
                topic.reader = self._log_port.topic_reader(topic.name, start=topic.positions)
            wait_s = _POLL_S if topic is self._topics[0] else 0.0
            records = topic.reader.poll(timeout_s=wait_s, limit=_BATCH)
            topic.polled_at_s = self._clock.monotonic_s()
        except (Transient, Poison) as error:
            self._reopen_later(topic, error)
            return
        for record in records:
            self._take(topic, record)

    def _reopen_later(self, topic: _Topic, error: Exception) -> None:
        _log.info("topic_not_readable", topic=topic.name, reason=str(error))
        if topic.reader is not None:
            topic.positions = dict(topic.reader.positions())
            topic.reader.close()
        topic.reader, topic.retry_at_s = None, self._clock.monotonic_s() + _REOPEN_S

    def _take(self, topic: _Topic, record: LogRecord) -> None:
        if record.value is None:
            return
        try:
            topic.take(record)
        except MalformedMessage as error:
            _log.warning(
                "record_unreadable", topic=topic.name, offset=record.offset, reason=str(error)
            )

    def _take_verdict(self, record: LogRecord) -> None:
        verdict = Verdict.from_bytes(record.value or b"")
        key = str(verdict.part)
        with self._lock:
            fresh = self._ledger.add_verdict(
                verdict,
                partition=record.partition,
                offset=record.offset,
                logged_at_ms=record.timestamp_ms,
            )
            if not fresh:
                return
            shown = self._parts.pop(key, None) or _Shown()
            shown.verdicts.append(verdict)
            shown.logged_at_ms = record.timestamp_ms
            self._parts[key] = shown
            while len(self._parts) > PARTS_SHOWN:
                self._parts.popitem(last=False)
            news = self._tile(key)
        self.hub.publish("part", news)

    def _take_truth(self, record: LogRecord) -> None:
        truth = PlantTruth.from_bytes(record.value or b"")
        key = str(truth.part)
        with self._lock:
            self._ledger.add_truth(truth, logged_at_ms=record.timestamp_ms)
            self._truths[key] = truth
            while len(self._truths) > _TRUTHS_MAX:
                self._truths.popitem(last=False)
            news = self._tile(key) if key in self._parts else None
        if news is not None:
            self.hub.publish("part", news)

    def _take_letter(self, record: LogRecord) -> None:
        letter = DeadLetter.from_bytes(record.value or b"")
        with self._lock:
            self._ledger.add_dead_letter(letter)

    def _tile(self, key: str) -> Json:
        shown = self._parts[key]
        truth = self._truths.get(key)
        return tile(shown.verdicts[-1], truth, logged_at_ms=shown.logged_at_ms)

    def _controls(self) -> Json:
        return {"unplugged": sorted(self._unplugged), "actions": list(self._actions)}

    def _refresh(self) -> None:
        with self._lock:
            self._snapshot = {**self._ledger.snapshot(), **self._controls()}
        self.hub.publish("snapshot", self.snapshot())


def _refs(verdicts: list[Verdict]) -> list[PayloadRef]:
    views = [view.payload for v in verdicts for view in v.views]
    return views + [i.payload for v in verdicts for i in v.evidence.items if i.payload is not None]
