"""What one session shows of itself: the metrics of its partition."""

from connectors import metrics


class Meters:
    """One partition's metrics; `close` takes what waits there off the page.

    Args:
        partition: Which.
    """

    def __init__(self, partition: int) -> None:
        self._label = str(partition)
        self._waiting = {
            "pending": metrics.RECORDS_PENDING,
            "ready": metrics.REVISIONS_READY,
            "scoring": metrics.REVISIONS_SCORING,
            "uncommitted": metrics.VERDICTS_UNCOMMITTED,
            "awaited": metrics.VERDICTS_AWAITED,
            "letters": metrics.LETTERS_WAITING,
            "parts": metrics.PARTS_HELD,
            "lag": metrics.WATERMARK_LAG,
            "paused": metrics.READING_PAUSED,
        }
        self._gauges = {name: each.labels(self._label) for name, each in self._waiting.items()}
        self._applied = metrics.RECORDS_APPLIED.labels(self._label)

    def show(self, **waiting: int) -> None:
        """So much waits now, by the names in `__init__`."""
        for name, count in waiting.items():
            self._gauges[name].set(count)

    def applied(self, records: int) -> None:
        """So many records more are joined."""
        self._applied.inc(records)

    def paused(self, full: str) -> None:
        """Reading is paused because of what is `full`."""
        metrics.READING_PAUSES.labels(self._label, full).inc()
        self.show(paused=1)

    def close(self) -> None:
        """The session has ended: nothing of it waits in this process any more."""
        for gauge in self._waiting.values():
            gauge.remove(self._label)
