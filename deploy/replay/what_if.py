"""What another line file would have made of the parts of a time: nothing is written anywhere."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from connectors.errors import MalformedMessage, Poison
from connectors.line import Line
from connectors.messages import Closed, DeadLetter, Evidence, LinePolicy, Verdict
from connectors.ports import Log, LogRecord
from deploy.replay.again import Judge
from deploy.replay.chronicle import Chronicle, Chronicler
from deploy.replay.life import Life, live
from deploy.replay.punctual import PunctualTicks, gathered, spread
from deploy.replay.scan import Progress, scan
from ingest.joiner import Capture
from ingest.policies import PolicyBook

RECORDS_MAX: Final = 500_000
"""Records of the parts of one time that are held in memory, about 1 KiB each."""
_SLACK_MS: Final = 60_000
"""A broker's clock may step back so far without a part being missed."""
_UNREADABLE: Final = "payload_unreadable:"

Judged = Callable[[int, int], None]
"""Takes how many parts are judged anew, and of how many."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """What was made of one part, or would have been."""

    revisions: int
    closed: str | None
    """Why its first revision was closed; None: it was not."""
    waited_ms: int | None
    """From its first record to its first revision, broker time."""
    disposition: str | None
    """Of its last revision."""
    p_value: float | None
    refused: int
    """Its records that became dead letters."""
    unscored: str | None = None
    """Why it could not be judged anew."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One part."""

    part: str
    product: str
    was: Course
    would: Course

    @property
    def changed(self) -> tuple[str, ...]:
        """The names of what would have been otherwise."""
        was, would = asdict(self.was), asdict(self.would)
        return tuple(name for name in was if was[name] != would[name])


@dataclass(frozen=True, slots=True, kw_only=True)
class WhatIf:
    """Every part that opened in the time."""

    from_ms: int
    to_ms: int
    policy_digest: str
    rows: list[Row]

    def totals(self, side: str) -> dict[str, Any]:
        """Sums of ``was`` or of ``would``."""
        courses: list[Course] = [getattr(row, side) for row in self.rows]
        waited = sorted(each.waited_ms for each in courses if each.waited_ms is not None)
        return {
            "revisions": sum(each.revisions for each in courses),
            "deadlines_met": sum(each.closed == Closed.COMPLETE for each in courses),
            "deadlines_passed": sum(each.closed == Closed.DEADLINE for each in courses),
            "not_closed": sum(each.closed is None for each in courses),
            "dispositions": dict(Counter(each.disposition or "none" for each in courses)),
            "records_refused": sum(each.refused for each in courses),
            "unscored": sum(each.unscored is not None for each in courses),
            "waited_ms_p50": _quantile(waited, 0.5),
            "waited_ms_p99": _quantile(waited, 0.99),
        }

    def as_json(self) -> dict[str, Any]:
        """All of it, for a machine."""
        return {
            "from_ms": self.from_ms,
            "to_ms": self.to_ms,
            "policy_digest": self.policy_digest,
            "parts": len(self.rows),
            "changed": sum(bool(row.changed) for row in self.rows),
            "was": self.totals("was"),
            "would": self.totals("would"),
            "rows": [{**asdict(row), "changed": row.changed} for row in self.rows],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class _Told:
    """The verdicts of one part, by revision, and the policy it opened under."""

    verdicts: list[Verdict]

    @property
    def opened_offset(self) -> int:
        return self.verdicts[0].evidence.opened_offset

    @property
    def opened_at_ms(self) -> int:
        return self.verdicts[0].evidence.opened_at_ms


class Supposing:
    """Replays the parts of a time under the policies of another line file.

    Args:
        log: The broker; it is only read.
        line: The line as it is.
        other: The line as it might be.
        judge: Judges anew where the evidence or the policy is another one.
        progress: Told how far reading has come.

    Raises:
        Poison: `other` is the file of another line.
    """

    def __init__(
        self, *, log: Log, line: Line, other: Line, judge: Judge, progress: Progress
    ) -> None:
        for name in ("site", "area", "line"):
            ours, theirs = getattr(line, name), getattr(other, name)
            if ours != theirs:
                raise Poison(name, f"the new line file says {theirs!r}, this line is {ours!r}")
        self._log = log
        self._line = line
        self._judge = judge
        self._progress = progress
        self._policy = other.policy()
        self._policies = PolicyBook(log=log, topic=line.topic("policies"), own=self._policy)

    def between(self, from_ms: int, to_ms: int, *, judged: Judged) -> WhatIf:
        """What would have changed for the parts that opened from `from_ms` on, before `to_ms`.

        A deadline or horizon that the part had keeps to the ticks in the log; another one is
        reached on time, as a worker would then have written its tick.

        Raises:
            Poison: More records than fit; says to ask for less.
            Unavailable: Broker or payload store cannot be reached.
        """
        count = self._log.partition_count(self._line.topic("records"))
        refused = self._refused(from_ms)
        asked: list[tuple[str, Chronicle, _Told | None, set[int]]] = []
        for partition in range(count):
            told = self._told(partition, from_ms)
            chronicle = self._chronicle(
                partition, (from_ms, to_ms), told=told, refused=refused.get(partition, set())
            )
            dead = refused.get(partition, set())
            for key, records in chronicle.records.items():
                known = told.get(key)
                opened_ms = records[0].timestamp_ms if known is None else known.opened_at_ms
                lost = known is None and records[0].offset in dead
                if from_ms <= opened_ms < to_ms and not lost:
                    asked.append((key, chronicle, known, dead))
        rows = []
        for done, (key, chronicle, known, dead) in enumerate(asked, start=1):
            rows.append(self._row(key, chronicle, known, dead))
            judged(done, len(asked))
        rows.sort(key=lambda row: row.part)
        return WhatIf(from_ms=from_ms, to_ms=to_ms, policy_digest=self._policy.digest, rows=rows)

    def _span_ms(self) -> int:
        """How long a part can have state at most, under either file."""
        policies = (self._policy, self._line.policy())
        return max(p.deadline_ms + p.late_horizon_ms for y in policies for p in y.products.values())

    def _scan(self, entity: str, partition: int, since_ms: int) -> Iterator[LogRecord]:
        return scan(
            self._log,
            self._line.topic(entity),
            partition,
            since_ms=since_ms,
            progress=self._progress,
        )

    def _refused(self, from_ms: int) -> dict[int, set[int]]:
        """Offsets of records with a dead letter, by partition."""
        refused: dict[int, set[int]] = {}
        topic = self._line.topic("dead-letters")
        for partition in range(self._log.partition_count(topic)):
            for record in self._scan("dead-letters", partition, from_ms - _SLACK_MS):
                letter = DeadLetter.from_bytes(record.value or b"")
                if letter.topic == self._line.topic("records"):
                    refused.setdefault(letter.partition, set()).add(letter.offset)
        return refused

    def _told(self, partition: int, from_ms: int) -> dict[str, _Told]:
        """The verdicts of parts that had state in the time or after it."""
        told: dict[str, _Told] = {}
        ids: set[str] = set()
        since_ms = max(0, from_ms - self._span_ms() - _SLACK_MS)
        for record in self._scan("verdicts", partition, since_ms):
            try:
                verdict = Verdict.from_bytes(record.value or b"")
            except MalformedMessage:
                continue  # no worker of ours wrote it
            if verdict.verdict_id in ids:
                continue
            ids.add(verdict.verdict_id)
            told.setdefault(str(verdict.part), _Told(verdicts=[])).verdicts.append(verdict)
        return told

    def _chronicle(
        self, partition: int, window: tuple[int, int], *, told: dict[str, _Told], refused: set[int]
    ) -> Chronicle:
        count = self._log.partition_count(self._line.topic("records"))
        chronicler = Chronicler(line=self._line, partitions=count, policies=self._policies)
        from_ms, to_ms = window

        def means(key: str) -> bool:
            known = told.get(key)
            return known is None or from_ms <= known.opened_at_ms < to_ms

        return chronicler.write(
            _bounded(self._scan("records", partition, max(0, from_ms - _SLACK_MS))),
            means=means,
            refused=refused,
            until_ms=to_ms + self._span_ms() + _SLACK_MS,
        )

    def _row(self, key: str, chronicle: Chronicle, told: _Told | None, dead: set[int]) -> Row:
        offsets = [record.offset for record in chronicle.records[key]]
        opened = offsets[0] if told is None else told.opened_offset
        own = [chronicle.events[offset] for offset in offsets if offset >= opened]
        product = next((event.product for event in own if isinstance(event, Capture)), "")
        before = None if told is None else told.verdicts[0].evidence.policy_digest
        if self._keeps_time(product, before):
            life = live(
                key, own, policy=self._policy, policies=self._policies, ticks=chronicle.ticks
            )
            evidences = life.evidences
        else:
            punctual = PunctualTicks(chronicle.ended_at_ms)
            life = live(
                key, spread(own), policy=self._policy, policies=self._policies, ticks=punctual
            )
            evidences = [gathered(each) for each in life.evidences]
        verdicts = [] if told is None else told.verdicts
        refused = sum(offset in dead for offset in offsets if offset >= opened)
        return Row(
            part=key,
            product=product,
            was=_course([v.evidence for v in verdicts], verdicts, refused=refused),
            would=self._would(evidences, verdicts, life),
        )

    def _keeps_time(self, product: str, digest: str | None) -> bool:
        """Whether the new policy has the deadline and the horizon that the part had."""
        found = self._line.policy() if digest is None else self._policies.find(digest)
        return found is not None and _times(found, product) == _times(self._policy, product)

    def _would(
        self, evidences: Sequence[Evidence], verdicts: Sequence[Verdict], life: Life
    ) -> Course:
        refused = len(life.letters)
        anew: list[Verdict] = []
        for evidence in evidences:
            same = (each for each in verdicts if _weighs(each.evidence) == _weighs(evidence))
            known = next(same, None)
            try:
                anew.append(known or self._judged(evidence, verdicts))
            except Poison as error:
                unscored = f"{error.field}: {error.reason}"
                return _course(evidences, [], refused=refused, unscored=unscored)
        return _course(evidences, anew, refused=refused)

    def _judged(self, evidence: Evidence, verdicts: Sequence[Verdict]) -> Verdict:
        named = [each.model_digest for each in verdicts if each.model_digest is not None]
        digest = named[-1] if named else self._judge.champion(evidence.product)
        verdict = self._judge.judge(evidence, digest)
        lost = [reason for reason in verdict.reasons if reason.startswith(_UNREADABLE)]
        known = any(r.startswith(_UNREADABLE) for each in verdicts for r in each.reasons)
        if lost and not known:
            raise Poison("payload", lost[0].removeprefix(_UNREADABLE))
        return verdict


def _bounded(records: Iterator[LogRecord]) -> Iterator[LogRecord]:
    for number, record in enumerate(records):
        if number == RECORDS_MAX:
            raise Poison("--to", f"over {RECORDS_MAX:,} records of a partition: ask for less time")
        yield record


def _times(policy: LinePolicy, product: str) -> tuple[int, int] | None:
    found = policy.products.get(product)
    return None if found is None else (found.deadline_ms, found.late_horizon_ms)


def _weighs(evidence: Evidence) -> tuple[Any, ...]:
    """What of evidence a verdict depends on, beside part and revision."""
    policy = evidence.policy
    return (
        evidence.items,
        evidence.missing,
        policy.minimum,
        policy.when_short,
        policy.false_reject_rate,
    )


def _course(
    evidences: Sequence[Evidence],
    verdicts: Sequence[Verdict],
    *,
    refused: int,
    unscored: str | None = None,
) -> Course:
    first = evidences[0] if evidences else None
    last = verdicts[-1] if verdicts else None
    return Course(
        revisions=len(evidences),
        closed=None if first is None else str(first.closed),
        waited_ms=None if first is None else first.closed_at_ms - first.opened_at_ms,
        disposition=None if last is None else str(last.disposition),
        p_value=None if last is None else last.p_value,
        refused=refused,
        unscored=unscored,
    )


def _quantile(ordered: Sequence[int], share: float) -> int | None:
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else None
