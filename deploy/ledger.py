"""What committed verdicts add up to: counters that must stay zero, rates, AUROC, latency.

The ledger is pure: it is fed with what the logs hold and answers with one JSON-able snapshot. It
believes nothing but committed records, so the page, the demo's summary and the tests count the
same things in the same way.

- *lost*: a record that the plant published and that neither a verdict of its part nor a dead
  letter knows, counted once the part's deadline and late horizon have passed on the log's clock;
  and a revision that was skipped (verdict n + 1 without n).
- *duplicate*: the same (part, revision) committed again with the same bytes.
- *conflicting*: the same (part, revision) committed again with other bytes.
- *first* is the revision that the promise covers (frozen at completion or deadline), *latest* the
  one that stands, *any* says whether a part was rejected at any revision.
"""

import base64
import json
from collections import Counter, OrderedDict, defaultdict, deque
from hashlib import sha256
from typing import Any, Final

from connectors.line import Line
from connectors.messages import PROCESS_ITEM, Closed, DeadLetter, Verdict
from connectors.simulator.truth import PlantTruth
from deploy.rates import percentiles, rate
from deploy.tally import (
    Judged,
    Sent,
    TrackedPart,
    catches,
    dispositions,
    escapes,
    false_rejects,
    hallucination,
    main_modalities,
    subsets,
)

PARTS_MAX: Final = 100_000
_LATENCIES_MAX: Final = 10_000
_STRIP: Final = 24
_THROUGHPUT_WINDOW_MS: Final = 60_000
_GRACE_MS: Final = 10_000
"""How long a record may be on its way beyond deadline and horizon before it counts as lost."""


class Ledger:
    """Counts committed verdicts against each other and, where a plant tells it, against the truth.

    Not safe for use by several threads at once. Beyond `limit` parts the oldest are forgotten:
    counters keep what they counted, rates are then over the parts that remain.

    Args:
        line: The line whose verdicts these are.
        limit: How many parts are kept.
    """

    def __init__(self, line: Line, *, limit: int = PARTS_MAX) -> None:
        self._line = line
        self._limit = limit
        self._parts: OrderedDict[str, TrackedPart] = OrderedDict()
        self._unsettled: dict[str, None] = {}
        self._refused: OrderedDict[str, None] = OrderedDict()
        self._latencies: defaultdict[str, deque[float]] = defaultdict(
            lambda: deque(maxlen=_LATENCIES_MAX)
        )
        self._judged_at_ms: deque[int] = deque(maxlen=_LATENCIES_MAX)
        self._counts: Counter[str] = Counter()
        self._seen: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self._read_to: dict[int, int] = {}
        self._now_ms = 0
        self._ended = False

    def add_verdict(
        self, verdict: Verdict, *, partition: int, offset: int, logged_at_ms: int
    ) -> bool:
        """`verdict` is counted; False if its (part, revision) was known before.

        Args:
            verdict: A committed verdict.
            partition: Where its record lies; reading the same record again changes nothing.
            offset: See `partition`.
            logged_at_ms: The broker's timestamp of the record.
        """
        if offset <= self._read_to.get(partition, -1):
            return False
        self._read_to[partition] = offset
        self._now_ms = max(self._now_ms, logged_at_ms)
        part = self._part(str(verdict.part), verdict.product)
        judged = _judged(verdict)
        known = part.revisions.get(verdict.revision)
        if known is not None:
            same = known.content == judged.content
            self._counts["duplicate" if same else "conflicting"] += 1
            return False
        if not part.revisions:
            self._counts["parts"] += 1
            self._judged_at_ms.append(logged_at_ms)
            self._count_stations(verdict)
        part.revisions[verdict.revision] = judged
        part.items = _item_states(verdict)
        part.events.update(i.event_id for i in verdict.evidence.items)
        part.events.update(verdict.evidence.superseded)
        self._counts["verdicts"] += 1
        self._count_latencies(verdict, logged_at_ms)
        return True

    def add_truth(self, truth: PlantTruth, *, logged_at_ms: int) -> None:
        """What the plant knows of a part, and which records it sent; the later word counts."""
        self._now_ms = max(self._now_ms, logged_at_ms)
        key = str(truth.part)
        part = self._part(key, truth.product)
        if part.sent is None:
            self._counts["sent_parts"] += 1
        else:
            self._counts["sent_records"] -= len(part.sent.events)
        policy = self._line.products.get(truth.product)
        wait_ms = policy.deadline_ms + policy.late_horizon_ms if policy is not None else 0
        part.sent = Sent(
            defective=truth.label == "defective",
            defect=truth.defect,
            events=frozenset(truth.sent),
            due_ms=logged_at_ms + wait_ms + _GRACE_MS,
        )
        self._unsettled[key] = None
        self._counts["sent_records"] += len(part.sent.events)

    def add_dead_letter(self, letter: DeadLetter) -> None:
        """A record that the line refused, with its reason: it is not lost."""
        self._now_ms = max(self._now_ms, letter.logged_at_ms)
        for name in (letter.letter_id, _event_id_in(letter)):
            if name is not None and name not in self._refused:
                self._refused[name] = None
                self._counts["dead_letters"] += name == letter.letter_id
        while len(self._refused) > 2 * self._limit:
            self._refused.popitem(last=False)

    def end(self) -> None:
        """Nothing more will come: every record still on its way counts as lost from now on."""
        self._ended = True

    def snapshot(self, *, intervals: bool = False) -> dict[str, Any]:
        """All counts, rates and latencies as of now, JSON-able.

        Args:
            intervals: Whether AUROCs come with a bootstrap interval, which takes seconds.
        """
        lost_records, waiting = self._settle()
        judged = [p for p in self._parts.values() if p.revisions]
        skipped = self._counts["skipped"] + sum(p.skipped for p in judged)
        return {
            **{name: self._counts[name] for name in ("sent_parts", "sent_records")},
            **{name: self._counts[name] for name in ("parts", "verdicts", "dead_letters")},
            "revisions": self._counts["verdicts"] - self._counts["parts"],
            "duplicate": self._counts["duplicate"],
            "conflicting": self._counts["conflicting"],
            "lost": lost_records + skipped,
            "lost_records": lost_records,
            "lost_verdicts": skipped,
            "waiting_records": waiting,
            "dispositions": dispositions(judged),
            "false_rejects": false_rejects(judged),
            "escapes": escapes(judged),
            "catches": catches(judged),
            "hallucination": hallucination(judged, intervals=intervals),
            "subsets": subsets(judged, intervals=intervals),
            "main_modalities": main_modalities(judged, intervals=intervals),
            "latency_ms": {k: percentiles(v) for k, v in sorted(self._latencies.items())},
            "stations": self._stations(),
            "parts_per_s": self._parts_per_s(),
        }

    def _part(self, key: str, product: str) -> TrackedPart:
        part = self._parts.get(key)
        if part is None:
            part = self._parts[key] = TrackedPart(product)
            if len(self._parts) > self._limit:
                self._forget()
        return part

    def _forget(self) -> None:
        key, part = self._parts.popitem(last=False)
        if part.revisions:
            self._counts["skipped"] += part.skipped
        if key in self._unsettled:
            self._counts["lost_records"] += len(self._missing(part))
            del self._unsettled[key]

    def _count_stations(self, verdict: Verdict) -> None:
        for item, state in _item_states(verdict).items():
            self._seen[item][state] += 1

    def _count_latencies(self, verdict: Verdict, logged_at_ms: int) -> None:
        evidence = verdict.evidence
        for stage, value in verdict.timings_ms.items():
            self._latencies[stage].append(value)
        if evidence.closed is not Closed.LATE:
            self._latencies["join"].append(evidence.closed_at_ms - evidence.opened_at_ms)
        self._latencies["closed_to_committed"].append(logged_at_ms - evidence.closed_at_ms)

    def _settle(self) -> tuple[int, int]:
        """Records lost so far, and records still within their time."""
        lost, waiting = self._counts["lost_records"], 0
        for key in list(self._unsettled):
            part = self._parts[key]
            missing = len(self._missing(part))
            due = self._ended or (part.sent is not None and part.sent.due_ms < self._now_ms)
            if not missing:
                del self._unsettled[key]
            elif due:
                lost += missing
            else:
                waiting += missing
        return lost, waiting

    def _missing(self, part: TrackedPart) -> list[str]:
        sent = part.sent.events if part.sent is not None else frozenset()
        return [e for e in sent if e not in part.events and e not in self._refused]

    def _stations(self) -> list[dict[str, Any]]:
        recent = [p for p in self._last_parts(_STRIP) if p.revisions]
        return [
            {
                "station": station,
                "item": item,
                "seen": self._seen[item]["real"],
                "missing": self._seen[item]["missing"],
                "missing_share": rate(self._seen[item]["missing"], self._seen[item].total()),
                "strip": [p.items.get(item, "not expected") for p in recent],
            }
            for item, station in sorted(self._line.owners().items())
            if item == PROCESS_ITEM or self._line.modalities[item].role == "in-line"
        ]

    def _last_parts(self, count: int) -> list[TrackedPart]:
        newest: list[TrackedPart] = []
        for part in reversed(self._parts.values()):
            if part.revisions:
                newest.append(part)
            if len(newest) == count:
                break
        return newest[::-1]

    def _parts_per_s(self) -> float | None:
        since = self._now_ms - _THROUGHPUT_WINDOW_MS
        recent = [t for t in self._judged_at_ms if t >= since]
        if len(recent) < 2 or recent[-1] == recent[0]:
            return None
        return (len(recent) - 1) * 1000 / (recent[-1] - recent[0])


def _judged(verdict: Verdict) -> Judged:
    return Judged(
        content=sha256(verdict.to_bytes()).digest(),
        disposition=verdict.disposition,
        promise_valid=verdict.promise_valid,
        false_reject_rate=verdict.false_reject_rate,
        real=tuple(sorted(verdict.real)),
        hallucinated=bool(verdict.hallucinated),
        score=verdict.score,
        score_without=verdict.score_without_hallucination,
    )


def _item_states(verdict: Verdict) -> dict[str, str]:
    evidence = verdict.evidence
    states = {item.modality: "real" for item in evidence.items}
    states |= dict.fromkeys(evidence.late, "late")
    return states | dict.fromkeys(evidence.missing, "missing")


def _event_id_in(letter: DeadLetter) -> str | None:
    try:
        body = json.loads(base64.b64decode(letter.raw_base64))
    except ValueError:
        return None
    name = body.get("event_id") if isinstance(body, dict) else None
    return name if isinstance(name, str) else None
