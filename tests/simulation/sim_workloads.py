"""Small workloads: each shows what some guard is there for."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from connectors.line import Line, Modality, Station, Topics
from connectors.messages import (
    Alias,
    ForceClose,
    Message,
    PartKey,
    PayloadRef,
    PolicyChange,
    ProductPolicy,
    StationRecord,
    Tick,
    event_id_of,
)
from connectors.ports import Outgoing

DEADLINE_MS: Final = 1_000
HORIZON_MS: Final = 1_000

TRIM: Final = "trim"
"""In a stage: retention deletes what lies below the committed watermark."""

Send = Callable[[int], Outgoing]
Step = Send | float | str
Stage = Sequence[Step]

_REF: Final = PayloadRef(uri="sha256/00", sha256="0" * 64, size_bytes=1, media_type="image/png")


def _line(expected: tuple[str, ...]) -> Line:
    return Line(
        site="s",
        area="a",
        line="l",
        modalities={
            "rgb": Modality(kind="image", units="1"),
            "scan": Modality(kind="point-cloud", units="mm"),
        },
        stations={"camera": Station(publishes=("rgb",)), "scanner": Station(publishes=("scan",))},
        products={
            "can": ProductPolicy(
                expected=expected, deadline_ms=DEADLINE_MS, late_horizon_ms=HORIZON_MS
            )
        },
        topics=Topics(partitions=1),
    )


LINE: Final = _line(("rgb", "scan"))
SCAN_ALONE: Final = _line(("scan",))
BODIES: Final = {line.policy().digest: line.policy().to_bytes() for line in (LINE, SCAN_ALONE)}
RECORDS: Final = LINE.topic("records")


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """What is sent, stage by stage: the next one once the last has come to rest."""

    name: str
    stages: tuple[Stage, ...]
    preloaded: bool = True  # the first stage lies in the log before any process starts
    slow: bool = False  # the scorer takes a round a call, and answers the newest first
    ends_early: bool = False  # a transaction ends at the broker before its future is done
    successors_line: Line = LINE  # what processes after the first were started with

    def line_of(self, process: int) -> Line:
        """The line file that this process was started with."""
        return self.successors_line if process else LINE


def capture(part_id: str, modality: str, sequence: int = 1) -> Send:
    """A station publishes one capture."""
    part = PartKey(site="s", line="l", part_id=part_id)
    station = {"rgb": "camera", "scan": "scanner"}[modality]

    def send(now_ns: int) -> Outgoing:
        return _keyed(
            part,
            StationRecord(
                event_id=event_id_of(part, station, modality, sequence),
                part=part,
                product="can",
                station=station,
                modality=modality,
                capture_sequence=sequence,
                captured_at_ns=now_ns,
                published_at_ns=now_ns,
                payload=_REF,
            ),
        )

    return send


def alias(part_id: str, real_part_id: str) -> Send:
    """Somebody reads the real id of a tracked part."""
    part = PartKey(site="s", line="l", part_id=part_id)
    return lambda now_ns: _keyed(
        part, Alias(part=part, real_part_id=real_part_id, published_at_ns=now_ns)
    )


def force(part_id: str) -> Send:
    """An operator closes a join."""
    part = PartKey(site="s", line="l", part_id=part_id)
    return lambda now_ns: _keyed(
        part, ForceClose(part=part, requested_by="operator", published_at_ns=now_ns)
    )


def policy(line: Line) -> Send:
    """A worker that was started with another line file tells so."""
    change = PolicyChange(policy_digest=line.policy().digest)
    return lambda _: Outgoing(topic=RECORDS, key=None, value=change.to_bytes(), partition=0)


def tick(_: int) -> Outgoing:
    """An earlier worker lets log time pass."""
    return Outgoing(topic=RECORDS, key=None, value=Tick(log_start=0).to_bytes(), partition=0)


def rubbish(_: int) -> Outgoing:
    """Something that is no message."""
    return Outgoing(topic=RECORDS, key=b"x", value=b"rubbish", partition=0)


def _keyed(part: PartKey, message: Message) -> Outgoing:
    return Outgoing(topic=RECORDS, key=str(part).encode(), value=message.to_bytes(), partition=0)


BEYOND_S: Final = (DEADLINE_MS + HORIZON_MS) / 1e3 + 0.5

WORKLOADS: Final = {
    one.name: one
    for one in (
        Workload(
            name="late",  # complete; the second one by deadline, then late
            stages=(
                [capture("a", "rgb"), capture("a", "rgb"), capture("a", "scan")],
                [capture("b", "rgb"), 1.3, capture("c", "scan"), capture("b", "scan")],
            ),
        ),
        Workload(
            name="revisions",  # two revisions are ready at once, and their answers change places
            stages=([capture("a", "rgb"), force("a"), capture("a", "scan")],),
            slow=True,
        ),
        Workload(
            name="two",
            stages=(
                [capture("a", "rgb"), capture("b", "scan"), capture("a", "scan")],
                [capture("b", "rgb"), capture("a", "scan"), capture("b", "rgb", 2)],
            ),
            slow=True,
            ends_early=True,
        ),
        Workload(
            name="horizon",  # evicted, then late beyond the horizon, beside a part that lives on
            stages=(
                [capture("a", "rgb"), capture("a", "scan")],
                [BEYOND_S, capture("b", "rgb")],
                [capture("a", "rgb", 2), capture("b", "scan")],
            ),
            ends_early=True,
        ),
        Workload(
            name="span",  # evicted beside a part that opened between its last item and its repeat
            stages=(
                [
                    *(capture("a", "rgb"), capture("a", "scan"), 0.7),
                    *(capture("b", "rgb"), capture("a", "rgb"), 1.4, tick),
                ],
            ),
        ),
        Workload(
            name="trimmed",  # retention has deleted what a rolled-back server wants to go on from
            stages=(
                [capture("a", "rgb"), capture("a", "scan")],
                [BEYOND_S, tick],
                [2.1, capture("b", "rgb")],
                [TRIM, capture("c", "rgb"), capture("b", "scan"), capture("c", "scan")],
            ),
        ),
        Workload(
            name="letters",  # two letters, and a part that no model can judge
            stages=(
                [rubbish, capture("poison", "rgb"), capture("poison", "scan")],
                [capture("poison", "rgb", 0)],
            ),
        ),
        Workload(
            name="policy",  # parts open under either policy; whoever starts later wants the second
            stages=(
                [capture("a", "scan"), policy(SCAN_ALONE), capture("b", "scan")],
                [capture("a", "rgb"), capture("c", "rgb")],
            ),
            successors_line=SCAN_ALONE,
        ),
        Workload(
            name="operator",  # forced, named, and forced without a part
            stages=(
                [capture("a", "rgb"), force("a"), force("nobody")],
                [alias("a", "real"), capture("a", "scan")],
            ),
            ends_early=True,
        ),
    )
}


def random_workload(seed: int) -> Workload:
    """A longer one: several parts, some complete, some short, late, retaken, repeated, broken."""
    rng = random.Random(seed)
    ids = [f"p{number}" for number in range(rng.randint(2, 6))] + ["poison"]
    steps: list[Step] = []
    for _ in range(rng.randint(6, 24)):
        part_id = rng.choice(ids)
        steps.append(
            rng.choices(
                [
                    capture(part_id, rng.choice(("rgb", "scan")), rng.choice((1, 1, 1, 2, 3))),
                    rng.choice((0.02, 0.3, 1.2, BEYOND_S)),
                    rubbish,
                    force(part_id),
                    alias(part_id, rng.choice(("real", "other"))),
                    policy(rng.choice((LINE, SCAN_ALONE))),
                ],
                weights=(70, 14, 4, 4, 4, 4),
            )[0]
        )
    cuts = sorted(rng.sample(range(len(steps)), k=rng.randint(1, 4)))
    stages = [steps[start:end] for start, end in pairwise((0, *cuts, len(steps)))]
    return Workload(
        name=f"random:{seed}",
        stages=tuple(stage for stage in stages if stage),
        preloaded=rng.random() < 0.5,
        slow=rng.random() < 0.5,
        ends_early=rng.random() < 0.5,
        successors_line=rng.choice((LINE, SCAN_ALONE)),
    )
