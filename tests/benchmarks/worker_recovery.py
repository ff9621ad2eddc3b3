"""How soon a partition has verdicts again after its worker was killed.

    python tests/benchmarks/worker_recovery.py [--kills 20] [--parts-a-second 50] [--json]

The real worker process under the real supervisor, on embedded Kafka, Redis and Ray; scorers are
Serve replicas that answer a hash of the evidence. Parts are written all the time. From SIGKILL to
the first verdict, in the hands of a `read_committed` reader, on a part whose records were written
after the kill: so a transaction that the dead worker had sent is not taken for recovery. Between
two kills lie 4 to 8 seconds of work, except for every fifth, which strikes a second after verdicts
are back: its successor's successor has not finished its imports.
"""

import argparse
import json
import os
import random
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from connectors.kafka import KafkaLog
from connectors.line import Line
from connectors.memory_scorer import HashScorer
from connectors.messages import Evidence
from deploy.bench.records import bench_line, write_parts
from deploy.embedded import Addresses, EmbeddedStack
from deploy.supervisor import Supervisor
from deploy.wiring import ensure_line_topics

WORKER: Final = "worker-1"
BOUND_S: Final = 60.0
EVENTS: Final = ("process_started", "ray_joined", "session_started")
"""Lines of the worker's log, in their order, that end a phase."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovery:
    """One kill."""

    soon: bool
    """Whether it struck a second after the one before had been recovered from."""
    total_s: float
    phases_s: dict[str, float]


@dataclass(slots=True)
class Verdicts:
    """Reads committed verdicts all the time: when each part's verdict was first seen."""

    log: KafkaLog
    line: Line
    seen_s: dict[int, float] = field(default_factory=dict)
    ended: threading.Event = field(default_factory=threading.Event)

    def follow(self) -> None:
        """Read until `ended`."""
        with closing(self.log.topic_reader(self.line.topic("verdicts"), start={})) as reader:
            while not self.ended.is_set():
                for record in reader.poll(timeout_s=0.02, limit=500):
                    number = int((record.key or b"").split(b"part-")[1].split(b"/")[0])
                    self.seen_s.setdefault(number, time.time())

    def first_of(self, numbers: range) -> float | None:
        """When the first verdict on any of these parts was seen."""
        times = [self.seen_s[n] for n in numbers if n in self.seen_s]
        return min(times, default=None)


class HashJudge:
    """A scorer replica without a model."""

    def __init__(self) -> None:
        self._scorer = HashScorer("bench")

    def score(self, batch: list[bytes]) -> list[bytes]:
        """One verdict's bytes per evidence's bytes, in order."""
        return [self._scorer.verdict(Evidence.from_bytes(raw)).to_bytes() for raw in batch]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--parts-a-second", type=float, default=50.0)
    parser.add_argument("--seed", type=int, default=6, help="of the pauses between kills")
    parser.add_argument("--json", action="store_true", help="print it for a machine")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="hl-recovery-") as folder:
        recoveries = measure(Path(folder), given)
    figures = report(recoveries, given)
    sys.stdout.write((json.dumps(figures, indent=2) if given.json else shown(figures)) + "\n")


def measure(folder: Path, given: argparse.Namespace) -> list[Recovery]:
    """What each kill cost."""
    line = bench_line()
    with EmbeddedStack(folder, on_progress=told) as stack:
        environment = {**os.environ, **stack.addresses.environment()}
        environment["HOLOLINE_DATA_FOLDER"] = str(folder)
        os.environ.update(environment)
        log = KafkaLog(stack.addresses.kafka, "recovery")
        ensure_line_topics(log, line)
        path = folder / "line.yaml"
        path.write_bytes(line.to_bytes())  # JSON is YAML too
        with (
            judges(stack.addresses),
            Supervisor(folder, env=environment, line_path=path) as supervisor,
            following(log, line) as verdicts,
        ):
            supervisor.add("worker", instance=WORKER)
            return list(struck(supervisor, verdicts, folder / "logs" / f"{WORKER}.log", given))


@contextmanager
def judges(addresses: Addresses) -> Iterator[None]:
    """Two replicas of `HashJudge` stand where the line's scorers do."""
    from ray import serve

    from inference.serve import APP, DEPLOYMENT, join_ray, leave_ray

    join_ray(addresses.ray)
    serve.start(proxy_location="Disabled", logging_config={"log_level": "WARNING"})
    judge = serve.deployment(
        HashJudge,
        name=DEPLOYMENT,
        num_replicas=2,
        max_ongoing_requests=1,
        ray_actor_options={"num_cpus": 0.1},
    )
    serve.run(judge.bind(), name=APP, route_prefix=None)
    yield
    leave_ray()


@contextmanager
def following(log: KafkaLog, line: Line) -> Iterator[Verdicts]:
    """Verdicts are read meanwhile, by a thread."""
    verdicts = Verdicts(log, line)
    thread = threading.Thread(target=verdicts.follow, daemon=True)
    thread.start()
    yield verdicts
    verdicts.ended.set()
    thread.join(BOUND_S)


def struck(
    supervisor: Supervisor, verdicts: Verdicts, worker_log: Path, given: argparse.Namespace
) -> Iterator[Recovery]:
    """Kill the worker again and again while parts come in."""
    rng = random.Random(given.seed)
    writer = Writer(verdicts.log, verdicts.line, given.parts_a_second)
    until(lambda: verdicts.seen_s)
    for kill in range(given.kills):
        soon = kill % 5 == 4
        time.sleep(1.0 if soon else rng.uniform(4.0, 8.0))
        killed_s = time.time()
        supervisor.kill(WORKER)
        first = writer.next_number()
        until(lambda first=first: verdicts.first_of(range(first, writer.next_number())))
        back_s = verdicts.first_of(range(first, writer.next_number())) or 0.0
        recovery = Recovery(
            soon=soon,
            total_s=round(back_s - killed_s, 3),
            phases_s=phases(worker_log, killed_s, back_s),
        )
        told(f"kill {kill + 1}: {recovery.total_s:.2f} s {recovery.phases_s}")
        for row in complaints(worker_log, killed_s):
            told(f"  {row}")
        yield recovery
    writer.stop()
    until(lambda: len(verdicts.seen_s) == writer.next_number())


class Writer:
    """Writes parts at a steady rate, in a thread, a tenth of a second's worth at a time."""

    def __init__(self, log: KafkaLog, line: Line, parts_a_second: float) -> None:
        self._next = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(
            target=self._write, args=(log, line, max(1, round(parts_a_second / 10))), daemon=True
        )
        self._thread.start()

    def next_number(self) -> int:
        """The number of the first part that is not being written yet."""
        return self._next

    def stop(self) -> None:
        """No part is written any more."""
        self._ended.set()
        self._thread.join(BOUND_S)

    def _write(self, log: KafkaLog, line: Line, parts: int) -> None:
        while not self._ended.wait(0.1):
            first, self._next = self._next, self._next + parts
            write_parts(log, line, parts=parts, first=first)


def phases(worker_log: Path, killed_s: float, back_s: float) -> dict[str, float]:
    """Seconds from each event to the next, by the event that ends them."""
    at_s = {"killed": killed_s}
    for row in worker_log.read_text(encoding="utf-8").splitlines():
        with suppress(ValueError, KeyError):
            told_of = json.loads(row)
            moment_s = datetime.fromisoformat(told_of["timestamp"]).timestamp()
            if moment_s > killed_s and told_of["event"] in EVENTS:
                at_s.setdefault(told_of["event"], moment_s)
    at_s["first_verdict"] = back_s
    moments = sorted(at_s.items(), key=lambda each: each[1])
    return {
        name: round(moment_s - before_s, 3) for (_, before_s), (name, moment_s) in pairwise(moments)
    }


def complaints(worker_log: Path, since_s: float) -> Iterator[str]:
    """What the worker said of ends that were not asked for."""
    for row in worker_log.read_text(encoding="utf-8").splitlines():
        with suppress(ValueError, KeyError):
            told_of = json.loads(row)
            moment_s = datetime.fromisoformat(told_of["timestamp"]).timestamp()
            if moment_s > since_s and told_of["level"] in {"error", "critical"}:
                yield row


def until(condition: Callable[[], Any]) -> None:
    """`condition` has become true.

    Raises:
        TimeoutError: Not within `BOUND_S`.
    """
    give_up_s = time.monotonic() + BOUND_S
    while not condition():
        if time.monotonic() > give_up_s:
            raise TimeoutError(f"not within {BOUND_S:.0f} s; the worker's log may say why")
        time.sleep(0.005)


def report(recoveries: Sequence[Recovery], given: argparse.Namespace) -> dict[str, Any]:
    """All figures."""
    totals = sorted(each.total_s for each in recoveries)
    soon = [each.total_s for each in recoveries if each.soon]
    names = dict.fromkeys(name for each in recoveries for name in each.phases_s)
    return {
        "kills": len(totals),
        "seed": given.seed,
        "cpus": os.cpu_count(),
        "p50_s": round(statistics.median(totals), 3),
        "p99_s": totals[max(0, -(-99 * len(totals) // 100) - 1)],
        "max_s": totals[-1],
        "soon_p50_s": round(statistics.median(soon), 3) if soon else None,
        "phases_p50_s": {
            name: round(statistics.median(e.phases_s.get(name, 0.0) for e in recoveries), 3)
            for name in names
        },
    }


def shown(figures: dict[str, Any]) -> str:
    """The figures for people."""
    phases = ", ".join(f"{name} {each:.2f}" for name, each in figures["phases_p50_s"].items())
    return (
        f"{figures['kills']} kills: median {figures['p50_s']:.2f} s, p99 {figures['p99_s']:.2f} s; "
        f"soon after another: median {figures['soon_p50_s'] or 0.0:.2f} s\nphases, s: {phases}"
    )


def told(line: str) -> None:
    sys.stderr.write(line + "\n")


if __name__ == "__main__":
    main()
