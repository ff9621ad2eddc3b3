"""Watches committed verdicts while faults happen: how soon is each partition served again?"""

import threading
import time
from contextlib import closing
from typing import Final, Self

from connectors.errors import Unavailable
from connectors.ports import Log

_POLL_S: Final = 0.1
_AGAIN_S: Final = 0.5
_LOOK_S: Final = 0.02


class Follower:
    """Reads every verdict of a round as it is committed; a context manager.

    Args:
        log: The broker, past any relay.
        topic: The verdicts topic.
        partitions: How many partitions it has.
    """

    def __init__(self, log: Log, topic: str, *, partitions: int) -> None:
        self._log = log
        self._topic = topic
        self._latest_ms = dict.fromkeys(range(partitions), 0)
        self._positions: dict[int, int] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="follower", daemon=True)
        self.verdicts = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def served_again(
        self, since_ms: int, *, bound_s: float, noticed_s: float = 0.0
    ) -> float | None:
        """Seconds from `since_ms` until each partition had a verdict; None if one has not.

        Args:
            since_ms: Wall time of the fault, milliseconds since the epoch.
            noticed_s: What is committed sooner after it was on its way before.
            bound_s: How long to wait at most.
        """
        give_up_s = time.monotonic() + bound_s
        first_ms: dict[int, int] = {}
        while len(first_ms) < len(self._latest_ms):
            if time.monotonic() > give_up_s:
                return None
            for partition, latest_ms in self._latest_ms.items():
                if latest_ms > since_ms + noticed_s * 1e3:
                    first_ms.setdefault(partition, latest_ms)
            time.sleep(_LOOK_S)
        return (max(first_ms.values()) - since_ms) / 1e3

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._read()
            except Unavailable:
                self._stop.wait(_AGAIN_S)  # the broker is being killed: read on when it is back

    def _read(self) -> None:
        with closing(self._log.topic_reader(self._topic, start=self._positions)) as reader:
            while not self._stop.is_set():
                for record in reader.poll(timeout_s=_POLL_S, limit=1000):
                    self.verdicts += 1
                    self._positions[record.partition] = record.offset + 1
                    latest = self._latest_ms[record.partition]
                    self._latest_ms[record.partition] = max(latest, record.timestamp_ms)
