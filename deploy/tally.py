"""The tables of the ledger: pure functions from parts, as judged so far, to rows and rates.

Rows per subset of modalities and AUROCs are over first revisions: the sensors that the line had
when it had to judge. An AUROC over several products or subsets compares scores within each only
(`deploy/rates.py`).
"""

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from connectors.messages import Disposition
from deploy.rates import Stratum, auroc, auroc_interval, rate, rate_interval
from training.promise_check import Catch, catch_rate


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """What the ledger keeps of one committed verdict."""

    content: bytes
    disposition: Disposition
    promise_valid: bool
    false_reject_rate: float
    real: tuple[str, ...]
    hallucinated: bool
    score: float | None
    score_without: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """What the ledger keeps of the plant's truth about one part."""

    defective: bool
    defect: str | None
    events: frozenset[str]
    due_ms: int


@dataclass(slots=True)
class TrackedPart:
    """A part with its verdicts by revision, the records that they know, and the truth if told."""

    product: str
    revisions: dict[int, Judged] = field(default_factory=dict)
    events: set[str] = field(default_factory=set)
    items: dict[str, str] = field(default_factory=dict)
    sent: Sent | None = None

    @property
    def first(self) -> Judged:
        """The earliest revision, which the promise covers."""
        return self.revisions[min(self.revisions)]

    @property
    def latest(self) -> Judged:
        """The revision that stands."""
        return self.revisions[max(self.revisions)]

    @property
    def skipped(self) -> int:
        """Revisions between the first one seen and the latest one that are not there."""
        return max(self.revisions) - min(self.revisions) + 1 - len(self.revisions)

    @property
    def defective(self) -> bool | None:
        """The truth; None when no plant has told it."""
        return None if self.sent is None else self.sent.defective


def dispositions(parts: Iterable[TrackedPart]) -> dict[str, int]:
    """How many parts stand at each disposition."""
    counted = Counter(p.latest.disposition.value for p in parts)
    return {d.value: counted[d.value] for d in Disposition}


def false_rejects(parts: Iterable[TrackedPart]) -> dict[str, Any]:
    """Good parts rejected under a valid promise: at the first, the latest and at any revision."""
    good = [p for p in parts if p.defective is False]
    first = [p.first for p in good if p.first.promise_valid]
    latest = [p.latest for p in good if p.latest.promise_valid]
    ever = [p for p in good if any(r.promise_valid for r in p.revisions.values())]
    promised = [r.false_reject_rate for r in first]
    return {
        "good": len(good),
        "promised": sum(promised) / len(promised) if promised else None,
        "first": _tally([_rejects(r) for r in first]),
        "latest": _tally([_rejects(r) for r in latest]),
        "any": _tally([any(_rejects(r) for r in p.revisions.values()) for p in ever]),
    }


def _rejects(judged: Judged) -> bool:
    return judged.disposition is Disposition.REJECT


def _tally(rejected: list[bool]) -> dict[str, Any]:
    hits, n = sum(rejected), len(rejected)
    return {"n": n, "rejected": hits, "rate": rate(hits, n), "interval": rate_interval(hits, n)}


def escapes(parts: Iterable[TrackedPart]) -> dict[str, Any]:
    """Defective parts that were accepted, and which defects they had."""
    defective = [p for p in parts if p.defective]
    kinds: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for part in defective:
        assert part.sent is not None
        kinds[part.sent.defect or "unnamed"][part.latest.disposition.value] += 1
    return {
        "defective": len(defective),
        "accepted_first": sum(p.first.disposition is Disposition.ACCEPT for p in defective),
        "accepted": sum(p.latest.disposition is Disposition.ACCEPT for p in defective),
        "by_defect": {
            kind: {"n": c.total(), "accepted": c["accept"], "held": c["hold"]}
            for kind, c in sorted(kinds.items())
        },
    }


def catches(parts: Iterable[TrackedPart]) -> dict[str, Any]:
    """What the line does at its first verdicts: defective parts caught, good ones stopped.

    A defective part that is held or undecidable is missed, a good one is stopped.
    """
    found = _catch(parts)
    caught, stopped = found.caught, found.false_stops
    return {
        "defective": caught.n,
        "caught": caught.hits,
        "rate": caught.rate,
        "interval": caught.interval,
        "good": stopped.n,
        "stopped": stopped.hits,
        "stop_rate": stopped.rate,
        "stop_interval": stopped.interval,
    }


def _catch(parts: Iterable[TrackedPart]) -> Catch:
    known = [p for p in parts if p.defective is not None]
    return catch_rate([p.first.disposition for p in known], [bool(p.defective) for p in known])


def hallucination(parts: Iterable[TrackedPart], *, intervals: bool) -> dict[str, Any]:
    """Parts judged without a sensor, ranked with and without what was hallucinated."""
    known = [p for p in parts if p.first.hallucinated and _has_both_scores(p)]
    return {
        "n": len(known),
        "defective": sum(bool(p.defective) for p in known),
        **_auroc("auroc_with", known, intervals=intervals),
        **_auroc("auroc_without", known, without=True, intervals=intervals),
    }


def subsets(parts: Iterable[TrackedPart], *, intervals: bool) -> list[dict[str, Any]]:
    """A row for each product and subset of modalities that parts were first judged with."""
    groups: defaultdict[tuple[str, tuple[str, ...]], list[TrackedPart]] = defaultdict(list)
    for part in parts:
        groups[part.product, part.first.real].append(part)
    return [
        {"product": product, "subset": list(subset), **_subset_row(members, intervals=intervals)}
        for (product, subset), members in sorted(groups.items())
    ]


def _subset_row(parts: list[TrackedPart], *, intervals: bool) -> dict[str, Any]:
    good = [p.first for p in parts if p.defective is False and p.first.promise_valid]
    bad = [p.first for p in parts if p.defective]
    states = Counter(p.first.disposition for p in parts)
    newest, rejected = parts[-1].first, sum(_rejects(r) for r in good)
    catch = _catch(parts)
    return {
        "n": len(parts),
        "defective": len(bad),
        **_auroc("image_auroc", parts, intervals=intervals),
        "promised": newest.false_reject_rate if newest.promise_valid else None,
        "good_with_promise": len(good),
        "rejected_good": rejected,
        "observed_false_reject_rate": rate(rejected, len(good)),
        "observed_interval": rate_interval(rejected, len(good)),
        "escapes": sum(r.disposition is Disposition.ACCEPT for r in bad),
        "caught": catch.caught.hits,
        "good": catch.false_stops.n,
        "stopped_good": catch.false_stops.hits,
        "held": states[Disposition.HOLD],
        "undecidable": states[Disposition.UNDECIDABLE],
    }


def main_modalities(parts: Iterable[TrackedPart], *, intervals: bool) -> list[dict[str, Any]]:
    """Parts that only one sensor saw, ranked by it alone and with the others hallucinated.

    Beside them, other parts of the product that every sensor saw.
    """
    products: defaultdict[str, list[TrackedPart]] = defaultdict(list)
    for part in parts:
        products[part.product].append(part)
    rows = []
    for product, members in sorted(products.items()):
        everything = sorted({m for p in members for m in p.first.real})
        whole = [p for p in members if p.first.real == tuple(everything)]
        for modality in everything if len(everything) > 1 else ():
            alone = [p for p in members if p.first.real == (modality,) and _has_both_scores(p)]
            rows.append(
                {
                    "product": product,
                    "modality": modality,
                    "n": len(alone),
                    **_auroc("auroc_alone", alone, without=True, intervals=intervals),
                    **_auroc("auroc_with_hallucination", alone, intervals=intervals),
                    "n_all_real": len(whole),
                    **_auroc("auroc_all_real", whole, intervals=intervals),
                }
            )
    return rows


def _has_both_scores(part: TrackedPart) -> bool:
    first = part.first
    scored = first.score is not None and first.score_without is not None
    return scored and part.defective is not None


def _auroc(
    name: str, parts: Iterable[TrackedPart], *, without: bool = False, intervals: bool
) -> dict[str, Any]:
    apart = _strata(parts, without=without)
    figure: dict[str, Any] = {name: auroc(apart)}
    return figure | {f"{name}_interval": auroc_interval(apart)} if intervals else figure


def _strata(parts: Iterable[TrackedPart], *, without: bool) -> list[Stratum]:
    """(score, defective) of parts of known truth, apart for each product and subset."""
    apart: defaultdict[tuple[str, tuple[str, ...]], list[tuple[float, bool]]] = defaultdict(list)
    for part in parts:
        score = part.first.score_without if without else part.first.score
        if score is not None and part.defective is not None:
            apart[part.product, part.first.real].append((score, part.defective))
    return list(apart.values())
