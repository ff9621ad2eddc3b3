"""Payloads, part events and shown verdicts in memory."""

import threading
from collections import deque
from hashlib import sha256

from connectors.errors import PayloadCorrupt, PayloadMissing
from connectors.messages import PayloadRef, Verdict
from connectors.ports import PartEvent


class MemoryPayloadStore:
    """`connectors.ports.PayloadStore`."""

    def __init__(self) -> None:
        self._payloads: dict[str, bytes] = {}

    def put(
        self, data: bytes, *, media_type: str, units: str = "1", shape: tuple[int, ...] = ()
    ) -> PayloadRef:
        """See `PayloadStore.put`."""
        digest = sha256(data).hexdigest()
        uri = f"memory://payloads/sha256/{digest[:2]}/{digest[2:]}"
        self._payloads[uri] = bytes(data)
        return PayloadRef(
            uri=uri,
            sha256=digest,
            size_bytes=len(data),
            media_type=media_type,
            units=units,
            shape=shape,
        )

    def get(self, ref: PayloadRef) -> bytes:
        """See `PayloadStore.get`."""
        data = self._payloads.get(ref.uri)
        if data is None:
            raise PayloadMissing("payload", f"nothing lies at {ref.uri}; publish payloads first")
        if len(data) != ref.size_bytes:
            raise PayloadCorrupt("payload.size_bytes", f"{len(data)} bytes lie at {ref.uri}")
        if sha256(data).hexdigest() != ref.sha256:
            raise PayloadCorrupt("payload.sha256", f"other bytes lie at {ref.uri}")
        return data


class MemoryPartEventSource:
    """`connectors.ports.PartEventSource` fed by `offer`."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: deque[PartEvent] = deque()
        self.acknowledged: list[PartEvent] = []

    def offer(self, event: PartEvent) -> None:
        """The PLC says `event` after all earlier ones."""
        with self._changed:
            self._waiting.append(event)
            self._changed.notify_all()

    def poll(self, *, timeout_s: float) -> PartEvent | None:
        """See `PartEventSource.poll`."""
        with self._changed:
            self._changed.wait_for(lambda: bool(self._waiting), timeout_s)
            return self._waiting[0] if self._waiting else None

    def acknowledge(self, event: PartEvent) -> None:
        """See `PartEventSource.acknowledge`."""
        with self._changed:
            if self._waiting and self._waiting[0] == event:
                self.acknowledged.append(self._waiting.popleft())

    def close(self) -> None:
        """See `PartEventSource.close`."""


class MemoryVerdictSink:
    """`connectors.ports.VerdictSink` that remembers what it was told."""

    def __init__(self) -> None:
        self.shown: list[Verdict] = []
        self.without_verdict: list[tuple[str, str]] = []
        self.beats: list[bool] = []

    def show(self, verdict: Verdict) -> None:
        """See `VerdictSink.show`."""
        self.shown.append(verdict)

    def show_no_verdict(self, *, part: str, reason: str) -> None:
        """See `VerdictSink.show_no_verdict`."""
        self.without_verdict.append((part, reason))

    def beat(self, *, healthy: bool) -> None:
        """See `VerdictSink.beat`."""
        self.beats.append(healthy)

    def close(self) -> None:
        """See `VerdictSink.close`."""
