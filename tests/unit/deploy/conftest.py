"""A whole line in memory: the worker's own session, a hash for a scorer, a clock that is told."""

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from connectors.clock import ManualClock
from connectors.line import Line, Modality, Station, Topics
from connectors.memory import MemoryLog
from connectors.memory_scorer import HashScorer
from connectors.messages import (
    Evidence,
    Message,
    PartKey,
    PayloadRef,
    ProductPolicy,
    StationRecord,
    Verdict,
    event_id_of,
)
from connectors.ports import Committed, LogPosition, Outgoing
from deploy.wiring import ensure_line_topics, read_all
from ingest.memory import MemoryJoinStore
from ingest.policies import PolicyBook
from ingest.session import Session

REF = PayloadRef(uri="sha256/00", sha256="0" * 64, size_bytes=1, media_type="image/png")
ROUNDS = 12
"""Rounds of a session in which all that lies in the log is joined, judged and published."""


def make_line(**policy: object) -> Line:
    facts = {"deadline_ms": 1_000, "late_horizon_ms": 5_000, **policy}
    return Line(
        site="s",
        area="a",
        line="l",
        modalities={
            "rgb": Modality(kind="image", units="1"),
            "scan": Modality(kind="point-cloud", units="mm"),
        },
        stations={
            "plc": Station(publishes=("process",)),
            "camera": Station(publishes=("rgb",)),
            "scanner": Station(publishes=("scan",)),
        },
        products={"can": ProductPolicy(**{"expected": ("process", "rgb", "scan"), **facts})},
        topics=Topics(partitions=1),
    )


class HashJudge:
    """A `Judge` whose bundles are the salts of `HashScorer`."""

    def judge(self, evidence: Evidence, digest: str | None) -> Verdict:
        return HashScorer(digest or "").verdict(evidence)

    def candidates(self, verdict: Verdict) -> list[str | None]:
        return [verdict.model_digest]

    def champion(self, product: str) -> str | None:
        return "salt"


@dataclass
class LineInMemory:
    """Stations and one worker on a log in memory."""

    line: Line = field(default_factory=make_line)
    clock: ManualClock = field(default_factory=ManualClock)
    judge: HashJudge = field(default_factory=HashJudge)
    salt: str = "salt"

    def __post_init__(self) -> None:
        self.log = MemoryLog(self.clock)
        ensure_line_topics(self.log, self.line)
        self.writer = self.log.writer()
        self.store = MemoryJoinStore()
        self.session = self.start(self.line)

    def start(self, line: Line) -> Session:
        """The worker starts anew with this line file."""
        ensure_line_topics(self.log, line)
        policies = PolicyBook(log=self.log, topic=line.topic("policies"), own=line.policy())
        self.session = Session(
            line=line,
            partition=0,
            committed=Committed(offset=0, metadata=line.policy().digest),
            log=self.log,
            store=self.store,
            scorer=HashScorer(self.salt),
            policies=policies,
            writer=self.writer,
            clock=self.clock,
        )
        self.session._take_over()
        return self.session

    def part(self, part_id: str, number: int = 1) -> PartKey:
        return PartKey(site="s", line="l", part_id=part_id, pass_number=number)

    def send(
        self, part_id: str, *items: str, sequence: int = 1, number: int = 1, **more: object
    ) -> None:
        """Stations publish these items, a millisecond apart."""
        part, owners = self.part(part_id, number), self.line.owners()
        for item in items:
            station = owners.get(item, "camera")
            record = StationRecord(
                event_id=event_id_of(part, station, item, sequence),
                part=part,
                product="can",
                station=station,
                modality=item,
                capture_sequence=sequence,
                captured_at_ns=self.clock.now_ns(),
                published_at_ns=self.clock.now_ns(),
                payload=None if item == "process" else REF,
                **more,
            )
            self.put(record, str(part))

    def put(self, message: Message, key: str) -> LogPosition:
        """A message is appended to the records."""
        self.clock.advance_s(0.001)
        topic = self.line.topic("records")
        outgoing = Outgoing(topic=topic, key=key.encode(), value=message.to_bytes())
        return self.writer.send(outgoing).result(1.0)

    def work(self, *, after_s: float = 0.0) -> None:
        """Time passes, then the worker does all that there is to do."""
        self.clock.advance_s(after_s)
        for _ in range(ROUNDS):
            self.session.step()

    def verdicts(self) -> list[Verdict]:
        found = read_all(self.log, self.line.topic("verdicts"))
        return [Verdict.from_bytes(record.value or b"") for record in found]

    def ends(self) -> dict[str, int]:
        """Where each topic ends: whoever writes moves one."""
        entities = ("records", "verdicts", "dead-letters", "policies", "nearline")
        topics = [self.line.topic(entity) for entity in entities]
        return {topic: self.log.partition_reader(topic, 0).stable_end() for topic in topics}


@pytest.fixture
def line_in_memory() -> LineInMemory:
    return LineInMemory()


@pytest.fixture(scope="session")
def line_with() -> Callable[..., Line]:
    """Returns a maker of the same line with another policy."""
    return make_line
