"""`hololine bench join`: the join alone, in this process against a real Redis.

Runs of records go to the scripts as a worker sends them. What is measured: the intake of raw bytes,
APPLY, LEASE, CHOOSE and CONFIRM; APPLY again while ever more parts are open; and what a part costs.
"""

import statistics
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import redis

from connectors.clock import SystemClock
from connectors.cloudevents import headers_of
from connectors.line import Line
from connectors.messages import PROCESS_ITEM
from connectors.ports import LogRecord
from deploy.bench.records import RECORDS_A_PART, bench_line, records_of
from ingest.events import Event, TickEvent
from ingest.intake import Intake
from ingest.joiner import Capture
from ingest.policies import PolicyBook
from ingest.session import LEASE_MAX, RUN_RECORDS_MAX
from ingest.store import JoinStore, Published, RedisJoinStore

_VERDICT: Final = b"v" * 2_000
"""As large as a verdict on three captures."""

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What one step of the join costs a record."""

    records_a_second: int
    """Of the median run."""
    slowest_a_second: int
    fastest_a_second: int
    client_us: float
    """CPU of this process."""
    server_us: float
    """CPU of Redis."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """APPLY while so many parts are open."""

    open_parts: int
    apply: Step
    tick_ms: float
    """One tick that closes nothing."""
    bytes_a_part: int
    """Memory of Redis per open part with two of its three records."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinReport:
    """What the join reaches on this machine."""

    server: str
    record_bytes: int
    steps: dict[str, Step]
    join_records_a_second: int
    """APPLY, LEASE, CHOOSE and CONFIRM together, one after another."""
    held: tuple[Held, ...]
    flat: float
    """CPU of client and server per record at the most open parts, over that at the fewest."""


class _Bench:
    """A slot of its own on a Redis, and records to join there."""

    def __init__(self, url: str, *, parts: int) -> None:
        self.client: Any = redis.Redis.from_url(url)
        self._url = url
        self.line = bench_line()
        self.intake = Intake(line=self.line, partitions=1, policies=_own_policies(self.line))
        self.records = list(_log_records(self.line, parts))
        self.events = [self.intake.read(record) for record in self.records]

    @contextmanager
    def store(self, slot: str | None = None) -> Iterator[JoinStore]:
        """An empty slot that is ours; its keys are gone afterwards."""
        store = RedisJoinStore(self._url, slot or f"{self.line.name}.{uuid.uuid4().hex}")
        policy = self.line.policy()
        store.takeover("bench")
        store.reset("bench", applied=-1, policy=policy.digest, body=policy.to_bytes().decode())
        with closing(store):
            try:
                yield store
            finally:
                store.wipe()

    def server_cpu_s(self) -> float:
        """CPU seconds that Redis has used."""
        used = self.client.info("cpu")
        return float(used["used_cpu_user"]) + float(used["used_cpu_sys"])

    def held_bytes(self, slot: str) -> int:
        """Memory that Redis holds for a slot's keys, every field of them counted."""
        keys = self.client.scan_iter(match=f"hololine:{{{slot}}}:*", count=1_000)
        return sum(int(self.client.memory_usage(key, samples=0) or 0) for key in keys)


def measure_join(
    url: str, *, records: int, open_parts: Sequence[int], runs: int, tell: Tell
) -> JoinReport:
    """Say how fast records are joined, alone and among open parts.

    Args:
        url: A Redis; keys of a slot of its own are written there, and removed.
        records: How many records a run joins.
        open_parts: Numbers of open parts among which APPLY is measured too.
        runs: How often each step is measured.
        tell: Takes what is being done, for people.
    """
    tell("making records")
    bench = _Bench(url, parts=max(1, records // RECORDS_A_PART))
    takes: dict[str, list[tuple[float, float, float]]] = {}
    for run in range(runs):
        tell(f"run {run + 1} of {runs}")
        for name, cost in _one_run(bench):
            takes.setdefault(name, []).append(cost)
    steps = {name: _step(costs, len(bench.records)) for name, costs in takes.items()}
    joined = [sum(cost[0] for cost in each) for each in zip(*list(takes.values())[1:], strict=True)]
    held = tuple(_held(bench, count, tell) for count in sorted(open_parts))
    info = bench.client.info("server")
    name = "valkey" if "valkey_version" in info else "redis"
    costs_us = [each.apply.client_us + each.apply.server_us for each in held]
    return JoinReport(
        server=f"{name} {info.get('valkey_version', info['redis_version'])}",
        record_bytes=round(statistics.mean(len(r.value or b"") for r in bench.records)),
        steps=steps,
        join_records_a_second=round(len(bench.records) / statistics.median(joined)),
        held=held,
        flat=round(costs_us[-1] / costs_us[0], 2) if held else 1.0,
    )


def _one_run(bench: _Bench) -> Iterator[tuple[str, tuple[float, float, float]]]:
    """Each step of one join of all records: its seconds, and CPU seconds here and in Redis."""
    yield "intake", _taken(bench, lambda: [bench.intake.read(r) for r in bench.records])
    with bench.store() as store:
        yield "apply", _taken(bench, lambda: _apply(store, bench.events))
        leased: list[Any] = []
        yield "lease", _taken(bench, lambda: leased.extend(_lease_all(store)))
        offers = [(one.part, one.revision, _VERDICT) for one in leased]
        yield "choose", _taken(bench, lambda: [store.choose(run) for run in _runs(offers)])
        published = [
            Published(
                part=one.part, revision=one.revision, opened_offset=one.frozen["opened_offset"]
            )
            for one in leased
        ]

        def confirm() -> None:
            for pub, run in enumerate(_runs(published), start=1):
                store.confirm(run, pub=pub)
            store.lease(0)  # the last confirmation is answered

        yield "confirm", _taken(bench, confirm)


def _held(bench: _Bench, count: int, tell: Tell) -> Held:
    """APPLY of whole parts beside `count` open ones."""
    tell(f"opening {count:,} parts")
    whole = len(bench.events)
    slot = f"{bench.line.name}.{uuid.uuid4().hex}"
    with bench.store(slot) as store:
        offset = _open_parts(store, bench, count)
        held_bytes = bench.held_bytes(slot)
        now_ms = bench.records[0].timestamp_ms
        moved = [
            event._replace(offset=offset + number) if isinstance(event, Capture) else event
            for number, event in enumerate(bench.events)
        ]
        tell(f"joining beside {count:,} open parts")
        half = whole // 2
        costs = [_taken(bench, partial(_apply, store, run)) for run in (moved[:half], moved[half:])]
        began_s = time.perf_counter()
        store.apply([TickEvent(offset=offset + whole, logged_at_ms=now_ms, log_start=0)])
        tick_ms = (time.perf_counter() - began_s) * 1e3
    return Held(
        open_parts=count,
        apply=_step(costs, half),
        tick_ms=round(tick_ms, 2),
        bytes_a_part=round(held_bytes / count),
    )


def _open_parts(store: JoinStore, bench: _Bench, count: int) -> int:
    """`count` parts have two of their three records; the next free offset."""
    offset, run = 0, list[Event]()
    template = [e for e in bench.events[:RECORDS_A_PART] if isinstance(e, Capture)]
    for number in range(count):
        for event in template:
            if event.item == PROCESS_ITEM:
                continue
            part = f"{bench.line.site}/{bench.line.line}/open-{number:09d}/1"
            run.append(
                event._replace(offset=offset, part=part, event_id=f"{number:016x}{event.item}")
            )
            offset += 1
        if len(run) >= RUN_RECORDS_MAX:
            store.apply(run)
            run = []
    if run:
        store.apply(run)
    return offset


def _apply(store: JoinStore, events: Sequence[Event]) -> None:
    for start in range(0, len(events), RUN_RECORDS_MAX):
        store.apply(events[start : start + RUN_RECORDS_MAX])


def _lease_all(store: JoinStore) -> Iterator[Any]:
    while leased := store.lease(LEASE_MAX)[0]:
        yield from leased


def _runs(items: Sequence[Any]) -> Iterator[Sequence[Any]]:
    for start in range(0, len(items), LEASE_MAX):
        yield items[start : start + LEASE_MAX]


def _taken(bench: _Bench, work: Callable[[], object]) -> tuple[float, float, float]:
    """Seconds, and CPU seconds of this process and of Redis, that `work` took."""
    server, client, began_s = bench.server_cpu_s(), time.process_time(), time.perf_counter()
    work()
    seconds, spent = time.perf_counter() - began_s, time.process_time() - client
    return seconds, spent, bench.server_cpu_s() - server


def _step(costs: Sequence[tuple[float, float, float]], records: int) -> Step:
    seconds = [each[0] for each in costs]
    return Step(
        records_a_second=round(records / statistics.median(seconds)),
        slowest_a_second=round(records / max(seconds)),
        fastest_a_second=round(records / min(seconds)),
        client_us=round(statistics.median(each[1] for each in costs) / records * 1e6, 2),
        server_us=round(statistics.median(each[2] for each in costs) / records * 1e6, 2),
    )


def _log_records(line: Line, parts: int) -> Iterator[LogRecord]:
    now_ms, offset = SystemClock().now_ns() // 1_000_000, 0
    for number in range(parts):
        for record in records_of(line, number):
            key = str(record.part)
            yield LogRecord(
                topic=line.topic("records"),
                partition=0,
                offset=offset,
                timestamp_ms=now_ms,
                key=key.encode(),
                value=record.to_bytes(),
                headers=headers_of(record, source="/bench", subject=key),
            )
            offset += 1


def _own_policies(line: Line) -> PolicyBook:
    from connectors.memory import MemoryLog

    return PolicyBook(log=MemoryLog(), topic=line.topic("policies"), own=line.policy())
