"""`hololine bench line`: from a record in the log to its verdict in the log, without scoring.

The worker is the real one, in a process of its own, on a real broker and a real Redis; only the
scorer is replaced by one that answers at once. So what is measured is all that Hololine adds.
"""

import json
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Final, Self

import psutil

from connectors.clock import SystemClock
from connectors.errors import Unavailable
from connectors.kafka import KafkaLog
from connectors.line import Line
from connectors.ports import LogRecord
from deploy.bench.child import Order, work
from deploy.bench.records import RECORDS_A_PART, bench_line, write_parts
from deploy.wiring import ensure_line_topics

RATE_RECORDS_A_SECOND: Final = 300
_BOUND_S: Final = 600.0
_START_S: Final = 60.0
_WARM_S: Final = 5.0
"""Records come so long before any counts: the broker compiles its code while it runs at first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Servers:
    """Where broker and Redis are; process ids of those that are ours, by name."""

    kafka: str
    redis: str
    pids: dict[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Throughput:
    """Records that were in the log before the worker began, through to committed verdicts."""

    records: int
    seconds: float
    records_a_second: float
    cpu_us_a_record: dict[str, float]
    """By process, its children included."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """From the closing record's broker timestamp to the verdict in a reader's hands."""

    records_a_second: float
    verdicts: int
    p50_ms: float
    p99_ms: float
    max_ms: float
    appended_p99_ms: float
    """The same to the verdict's own broker timestamp, before its transaction was committed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LineReport:
    """What the line reaches on this machine, scoring and payloads left out."""

    throughput: tuple[Throughput, ...]
    median_records_a_second: int
    latency: Latency


def measure_line(
    servers: Servers, *, records: int, runs: int, seconds: float, tell: Callable[[str], None]
) -> LineReport:
    """Both measurements; see `measure_throughput` and `measure_latency`."""
    throughput = tuple(measure_throughput(servers, records=records, tell=tell) for _ in range(runs))
    return LineReport(
        throughput=throughput,
        median_records_a_second=round(
            statistics.median(each.records_a_second for each in throughput)
        ),
        latency=measure_latency(servers, seconds=seconds, tell=tell),
    )


def measure_throughput(
    servers: Servers, *, records: int, tell: Callable[[str], None]
) -> Throughput:
    """How fast one partition is joined and published, exactly once.

    Args:
        servers: Broker and Redis.
        records: How many records lie in the log before the worker starts.
        tell: Takes what is being done, for people.
    """
    line = bench_line()
    log = KafkaLog(servers.kafka, "bench")
    ensure_line_topics(log, line)
    parts = records // RECORDS_A_PART
    tell(f"writing {parts * RECORDS_A_PART:,} records")
    write_parts(log, line, parts=parts)
    with _Worker(line, servers) as worker:
        tell("joining and publishing them")
        began_s = worker.began_s()
        before = worker.cpu_s()
        ended_s = _until_confirmed(worker, parts)
        spent = {name: after - before[name] for name, after in worker.cpu_s().items()}
    total = parts * RECORDS_A_PART
    return Throughput(
        records=total,
        seconds=round(ended_s - began_s, 3),
        records_a_second=round(total / (ended_s - began_s)),
        cpu_us_a_record={name: round(each / total * 1e6, 1) for name, each in spent.items()},
    )


def measure_latency(servers: Servers, *, seconds: float, tell: Callable[[str], None]) -> Latency:
    """How late a verdict is at `RATE_RECORDS_A_SECOND`, model and payloads left out.

    Args:
        servers: Broker and Redis.
        seconds: How long records are written at that rate, once `_WARM_S` have passed.
        tell: Takes what is being done, for people.
    """
    line = bench_line()
    log = KafkaLog(servers.kafka, "bench")
    ensure_line_topics(log, line)
    warm = int(_WARM_S * RATE_RECORDS_A_SECOND / RECORDS_A_PART)
    parts = warm + int(seconds * RATE_RECORDS_A_SECOND / RECORDS_A_PART)
    tell(f"{RATE_RECORDS_A_SECOND} records/s for {_WARM_S:g} s to warm up, then {seconds:g} s")
    with _Worker(line, servers) as worker:
        worker.began_s()
        loader = get_context("spawn").Process(
            target=_write_at_rate, args=(servers.kafka, line.to_bytes(), parts), daemon=True
        )
        loader.start()
        seen = _follow(log, line, parts)[warm:]
        loader.join(_START_S)
    return _latency(seen)


def _latency(seen: Sequence[tuple[float, LogRecord]]) -> Latency:
    arrived, appended = [], []
    for read_ms, record in seen:
        closed_ms = json.loads(record.value or b"")["evidence"]["closed_at_ms"]
        arrived.append(read_ms - closed_ms)
        appended.append(float(record.timestamp_ms - closed_ms))
    span_s = (seen[-1][1].timestamp_ms - seen[0][1].timestamp_ms) / 1e3
    return Latency(
        records_a_second=round((len(seen) - 1) * RECORDS_A_PART / span_s, 1),
        verdicts=len(seen),
        p50_ms=round(statistics.median(arrived), 1),
        p99_ms=round(statistics.quantiles(arrived, n=100)[98], 1),
        max_ms=round(max(arrived), 1),
        appended_p99_ms=round(statistics.quantiles(appended, n=100)[98], 1),
    )


def _write_at_rate(kafka: str, line: bytes, parts: int) -> None:
    log = KafkaLog(kafka, "bench-load")
    write_parts(log, Line.from_bytes(line), parts=parts, a_second=RATE_RECORDS_A_SECOND)


def _follow(log: KafkaLog, line: Line, wanted: int) -> list[tuple[float, LogRecord]]:
    """Every verdict with the wall time (ms) at which it was in our hands."""
    seen: list[tuple[float, LogRecord]] = []
    clock = SystemClock()
    give_up_s = time.monotonic() + _BOUND_S
    with closing(log.partition_reader(line.topic("verdicts"), 0)) as reader:
        while len(seen) < wanted:
            if time.monotonic() > give_up_s:
                raise Unavailable(f"only {len(seen)} of {wanted} verdicts came")
            records = reader.poll(timeout_s=0.2, limit=500)
            now_ms = clock.now_ns() / 1e6
            seen += [(now_ms, record) for record in records]
    return seen


def _until_confirmed(worker: "_Worker", wanted: int) -> float:
    """Monotonic time at which `wanted` verdicts are confirmed by the worker."""
    give_up_s = time.monotonic() + _BOUND_S
    while worker.confirmed() < wanted:
        worker.check()
        if time.monotonic() > give_up_s:
            raise Unavailable(f"{worker.confirmed()} of {wanted} verdicts in {_BOUND_S:.0f} s")
        time.sleep(0.01)
    return time.monotonic()


class _Worker:
    """The worker process, for as long as the context."""

    def __init__(self, line: Line, servers: Servers) -> None:
        context = get_context("spawn")
        self._pids = dict(servers.pids)
        self._began = context.Value("d", 0.0)
        self._confirmed = context.Value("q", 0)
        self._stop = context.Event()
        order = Order(line=line.to_bytes(), kafka=servers.kafka, redis=servers.redis)
        self._process = context.Process(
            target=work, args=(order, self._began, self._confirmed, self._stop), daemon=True
        )

    def __enter__(self) -> Self:
        self._process.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._process.join(_START_S)
        self._process.kill()

    def began_s(self) -> float:
        """Monotonic time at which it took the partition over."""
        give_up_s = time.monotonic() + _START_S
        while not self._began.value:
            self.check()
            if time.monotonic() > give_up_s:
                raise Unavailable(f"the worker did not begin within {_START_S:.0f} s")
            time.sleep(0.001)
        return float(self._began.value)

    def confirmed(self) -> int:
        """Verdicts that it has published and read back."""
        return int(self._confirmed.value)

    def check(self) -> None:
        """Raise if it has ended."""
        if not self._process.is_alive():
            raise Unavailable(f"the worker ended with {self._process.exitcode}; see above")

    def cpu_s(self) -> dict[str, float]:
        """CPU seconds so far of the worker and of the servers that are ours."""
        pids = {"worker": self._process.pid or 0, **self._pids}
        return {name: _tree_cpu_s(pid) for name, pid in pids.items()}


def _tree_cpu_s(pid: int) -> float:
    root = psutil.Process(pid)
    times = [each.cpu_times() for each in (root, *root.children(recursive=True))]
    return float(sum(each.user + each.system for each in times))
