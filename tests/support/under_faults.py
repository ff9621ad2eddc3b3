"""A line whose real workers are kept up over servers that fail, held against the proof's oracle."""

import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from typing import Any

from kafka import KafkaAdminClient

import waiting
from connectors.clock import SystemClock
from connectors.errors import SessionEnd, Transient
from connectors.kafka import KafkaLog
from connectors.line import Line
from connectors.memory_scorer import HashScorer
from connectors.ports import Outgoing
from deploy.embedded import EmbeddedStack
from deploy.prove.line_up import proof_line
from deploy.prove.load import Sender
from deploy.prove.reading import Watch, check_round
from deploy.prove.rounds import Round
from deploy.prove.stories import Stories, timed
from deploy.wiring import ensure_line_topics
from ingest.service import Worker
from ingest.store import RedisJoinStore

PARTITIONS = range(2)
PARTS_A_SECOND = 40.0
PARTS_MAX = 10_000
MODEL = secrets.token_hex(32)


class Site:
    """A broker cluster and a Redis of this module, and a line of its own for each test."""

    def __init__(self, stack: EmbeddedStack) -> None:
        self.stack = stack
        self.redis_url = stack.addresses.redis
        """Where sessions that start from now on find Redis."""
        self.log = KafkaLog(stack.addresses.kafka, "faults")
        self._began_at_ms = 0
        self._seed = 0
        self.line = proof_line(partitions=len(PARTITIONS))

    def new_line(self) -> Line:
        """Its topics are there."""
        self.line = proof_line(partitions=len(PARTITIONS), late_horizon_ms=2_000)
        self._began_at_ms = SystemClock().now_ns() // 1_000_000
        ensure_line_topics(self.log, self.line)
        return self.line

    def admin(self) -> Any:
        """The broker's administrator."""
        return closing(KafkaAdminClient(bootstrap_servers=self.stack.addresses.kafka.split(",")))

    def leader(self, topic: str, partition: int) -> int:
        """Which broker, from 0, leads a partition."""
        with self.admin() as admin:
            (found,) = admin.describe_topics([topic])
        leaders = {each["partition_index"]: each["leader_id"] for each in found["partitions"]}
        return int(leaders[partition]) - 1

    def send(self, parts: int) -> None:
        """These parts' records are in the log, sent as stations do."""
        self._send(parts, threading.Event())

    @contextmanager
    def sending(self) -> Iterator[None]:
        """Stations send for as long as the context does something to the brokers."""
        with waiting.beside(lambda stop: self._send(PARTS_MAX, stop)):
            yield

    def _send(self, parts: int, stop: threading.Event) -> None:
        topic = self.line.topic("records")
        sender = Sender(self.log, topic)
        self._seed += 1
        stories = Stories(self.line, seed=self._seed, now_ns=SystemClock().now_ns)
        began_s = time.monotonic()
        for at_s, _, send in timed(stories, parts=parts, a_second=PARTS_A_SECOND):
            if stop.wait(max(0.0, began_s + at_s - time.monotonic())):
                break
            sender.send(
                Outgoing(
                    topic=topic,
                    key=send.key,
                    value=send.value,
                    headers=send.headers,
                    partition=send.partition,
                )
            )
        sender.finish()

    def judges_on(self) -> None:
        """More verdicts are committed in every partition than were before."""
        before: list[int] = []

        def more() -> bool:
            ends = self._ends()
            before.extend(ends[len(before) :])
            return all(now > then for now, then in zip(ends, before, strict=True))

        until(more)

    def _ends(self) -> list[int]:
        ends = []
        for partition in PARTITIONS:
            topic = self.line.topic("verdicts")
            with closing(self.log.partition_reader(topic, partition)) as reader:
                ends.append(reader.stable_end())
        return ends

    def answered(self) -> None:
        """Every record is in a verdict or a letter, each once, as the oracle says."""
        as_json = self.line.model_dump(mode="json", by_alias=True)
        watch = Watch(self.log, as_json, self.line.policy().digest)
        with closing(watch):
            until(lambda: watch.step().done)
        findings = check_round(self.log, self._round(as_json)).findings
        assert not findings.counts, findings
        assert findings.seen["verdicts"] > 0

    def _round(self, as_json: dict[str, Any]) -> Round:
        return Round(
            number=1,
            seed=1,
            name="test",
            line=as_json,
            first_policy=self.line.policy().digest,
            scorer="hash",
            models=(MODEL,),
            guarded=True,
            brokers=3,
            own_servers=True,
            parts=0,
            records=0,
            began_at_ms=self._began_at_ms,
            seconds=0.0,
            drained=True,
            faults=(),
        )


def until(true: Callable[[], bool]) -> None:
    """It becomes true in bounded time, over a broker that is away for a while."""

    def holds() -> bool:
        with suppress(Transient):
            return true()
        return False

    waiting.until(holds)


def sessions(said: Sequence[Mapping[str, Any]]) -> int:
    """How many sessions have started."""
    return sum(each["event"] == "session_started" for each in said)


@contextmanager
def kept_up(site: Site, instance: str = "w1") -> Iterator[list[str]]:
    """A worker that is started anew whenever it ends, as a supervisor does; why it ended."""
    ends: list[str] = []

    def run(stop: threading.Event) -> None:
        while not stop.is_set():
            try:
                Worker(
                    line=site.line,
                    log=site.log,
                    stores=lambda p: RedisJoinStore(site.redis_url, f"{site.line.name}.p{p}"),
                    scorer=HashScorer(salt=MODEL),
                    clock=SystemClock(),
                    instance=instance,
                ).run(stop)
            except (SessionEnd, Transient) as error:
                ends.append(type(error).__name__)

    with waiting.beside(run):
        yield ends
