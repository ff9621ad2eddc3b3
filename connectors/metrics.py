"""Every metric of the line's processes, named once; a part id is never a label.

`serve_metrics` shows them, with memory and CPU of the process, at ``/metrics`` in Prometheus's
text. What has a limit stands in the table of bounds in `ingest/README.md`.
"""

from typing import Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    start_http_server,
)

HOST: Final = "127.0.0.1"
REGISTRY: Final = CollectorRegistry()
ProcessCollector(registry=REGISTRY)

_PARTITION: Final = ("partition",)
_SECONDS: Final = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)


def _counter(name: str, says: str, *labels: str) -> Counter:
    return Counter(f"hololine_{name}", says, labels, registry=REGISTRY)


def _gauge(name: str, says: str, *labels: str) -> Gauge:
    return Gauge(f"hololine_{name}", says, labels, registry=REGISTRY)


def _seconds(name: str, says: str, *labels: str) -> Histogram:
    return Histogram(f"hololine_{name}", says, labels, buckets=_SECONDS, registry=REGISTRY)


RECORDS_APPLIED: Final = _counter("records_applied", "Records joined", *_PARTITION)
RECORDS_PENDING: Final = _gauge(
    "records_pending", "Records read and not joined yet: a tick closes parts in slices", *_PARTITION
)
READING_PAUSED: Final = _gauge(
    "reading_paused", "1 while records are not read: too much waits downstream", *_PARTITION
)
READING_PAUSES: Final = _counter(
    "reading_pauses", "How often reading was paused, by what was full", *_PARTITION, "full"
)
REVISIONS_READY: Final = _gauge(
    "revisions_ready", "Revisions that wait to be leased to the scorer", *_PARTITION
)
REVISIONS_SCORING: Final = _gauge("revisions_scoring", "Revisions that the scorer has", *_PARTITION)
VERDICTS_UNCOMMITTED: Final = _gauge(
    "verdicts_uncommitted", "Verdicts chosen that wait for a transaction", *_PARTITION
)
VERDICTS_AWAITED: Final = _gauge(
    "verdicts_awaited", "Verdicts committed that have yet to be read back", *_PARTITION
)
VERDICTS_PUBLISHED: Final = _counter("verdicts_published", "Verdicts committed", *_PARTITION)
LETTERS_WAITING: Final = _gauge(
    "letters_waiting", "Dead letters in the outbox, not acknowledged yet", *_PARTITION
)
LETTERS_SENT: Final = _counter("letters_sent", "Dead letters sent, again after a failure included")
PARTS_HELD: Final = _gauge(
    "parts_held",
    "Parts that have state: open, or closed and within their late-data horizon",
    *_PARTITION,
)
WATERMARK_LAG: Final = _gauge(
    "watermark_lag_records", "Records that a cold start would read again", *_PARTITION
)
SESSION_STARTS: Final = _counter("session_starts", "Takeovers; cold: Redis held nothing", "kind")
SESSION_ENDS: Final = _counter("session_ends", "Sessions that ended, by what ended them", "reason")
REDIS_TRIES: Final = _counter(
    "redis_tries", "Connections for a session that Redis did not take; asked again"
)
APPLY_SECONDS: Final = _seconds("apply_seconds", "One run of records joined in Redis")
COMMIT_SECONDS: Final = _seconds("commit_seconds", "One transaction of verdicts, to its commit")
SCORING_BATCHES: Final = _gauge("scoring_batches", "Batches that no scorer has answered yet")
SCORING_TRIES: Final = _gauge("scoring_tries", "Micro-batches at a scorer at this moment")
SCORING_RETRIES: Final = _counter(
    "scoring_retries", "Tries that brought no verdicts, by why", "reason"
)
RECORDS_UNACKNOWLEDGED: Final = _gauge(
    "records_unacknowledged", "Ticks, policies and dead letters that the broker has yet to confirm"
)
PARTITIONS_OWNED: Final = _gauge("partitions_owned", "Partitions whose sessions run here")
PARTITIONS_UNSERVED: Final = _gauge(
    "partitions_unserved", "Partitions that the group assigned here and that are too many"
)
COMMITS_REFUSED: Final = _counter(
    "commits_refused", "Watermarks that the group's coordinator did not take; the next may do"
)
SINK_PARTS_WAITING: Final = _gauge(
    "sink_parts_waiting", "Parts whose verdict the sink expects within their deadline"
)
ARCHIVE_WAITING: Final = _gauge("archive_waiting", "Messages read and not archived yet")
WEB_CLIENTS: Final = _gauge("web_clients", "Browsers that follow the page")
POLICIES_HELD: Final = _gauge("policies_held", "Policies that are known by their digest")


def serve_metrics(port: int) -> int:
    """`REGISTRY` is shown at ``http://127.0.0.1:<port>/metrics`` until this process ends.

    Args:
        port: 0 takes a free one.

    Returns:
        The port.

    Raises:
        OSError: The port is taken.
    """
    server, _ = start_http_server(port, addr=HOST, registry=REGISTRY)
    return int(server.server_port)
