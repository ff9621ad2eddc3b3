"""From a score to a disposition, with its reasons: the rules of the verdict, and nothing else."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from connectors.clock import Clock
from connectors.messages import (
    Disposition,
    Evidence,
    Region,
    Verdict,
    View,
    WhenShort,
    verdict_id_of,
)
from inference.bundle import Bundle
from inference.model.product import Judged, subset_name
from inference.model.promise import Ranked, parts_needed, rejection_rank

_REASON_LENGTH_MAX: Final = 240


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A verdict in the making: its evidence, the reasons so far, and how long each stage took."""

    evidence: Evidence
    clock: Clock
    reasons: list[str] = field(default_factory=list)
    timings_ms: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add the time spent inside to `stage`."""
        start_s = self.clock.monotonic_s()
        try:
            yield
        finally:
            spent_ms = (self.clock.monotonic_s() - start_s) * 1e3
            self.timings_ms[stage] = self.timings_ms.get(stage, 0.0) + spent_ms


def undecidable(draft: Draft, *reasons: str) -> Verdict:
    """The verdict on a part of which nothing could be scored."""
    draft.reasons.extend(reasons)
    return _verdict(draft, disposition=Disposition.UNDECIDABLE, promise_valid=False)


def decided(
    draft: Draft,
    bundle: Bundle,
    *,
    judged: Judged,
    present: Iterable[str],
    views: Sequence[View],
    regions: Sequence[Region],
) -> Verdict:
    """The verdict on a scored part: p-value, disposition and reasons under its policy."""
    real = tuple(sorted(present))
    name = subset_name(real)
    score = float(judged.score)
    entry = bundle.manifest.subsets[name]
    ranked = bundle.model.subsets[name].calibration.rank(score)
    limit = rejection_rank(n=ranked.n, rate=draft.evidence.policy.false_reject_rate)
    promised = limit > 0 and entry.withdrawn is None
    return _verdict(
        draft,
        disposition=_disposition(draft, ranked=ranked, limit=limit, withdrawn=entry.withdrawn),
        promise_valid=promised,
        p_value=ranked.p_value,
        rejects_at=limit / (ranked.n + 1) if promised else None,
        score=score,
        score_without_hallucination=float(judged.score_without_hallucination),
        scores={modality: float(each) for modality, each in judged.scores.items()},
        real=real,
        hallucinated=tuple(sorted(bundle.model.eyes.keys() - set(real))),
        regions=tuple(regions),
        views=tuple(views),
        model_digest=bundle.digest,
        calibration_digest=entry.calibration_digest,
    )


def _disposition(draft: Draft, *, ranked: Ranked, limit: int, withdrawn: str | None) -> Disposition:
    """Reject, accept or hold; why is added to the draft's reasons."""
    policy = draft.evidence.policy
    came = {item.modality for item in draft.evidence.items}
    short = sorted(set(policy.minimum) - came)
    draft.reasons.extend(f"missing:{item}" for item in draft.evidence.missing)
    draft.reasons.extend(f"minimum_missing:{item}" for item in short)
    if limit == 0:
        needed = parts_needed(policy.false_reject_rate)
        draft.reasons.append(f"no_promise:n={ranked.n}<{needed}")
    if withdrawn is not None:
        draft.reasons.append(f"promise_withdrawn:{withdrawn}")
    if limit == 0 or withdrawn is not None or (short and policy.when_short is WhenShort.HOLD):
        return Disposition.HOLD
    if ranked.rank <= limit:
        draft.reasons.append(f"suspicious:rank={ranked.rank}<={limit}_of_{ranked.n + 1}")
        return Disposition.REJECT
    return Disposition.ACCEPT


def _verdict(draft: Draft, *, disposition: Disposition, **found: Any) -> Verdict:
    evidence = draft.evidence
    earlier = evidence.revision - 1
    return Verdict(
        verdict_id=verdict_id_of(evidence.part, evidence.revision),
        part=evidence.part,
        revision=evidence.revision,
        product=evidence.product,
        disposition=disposition,
        reasons=tuple(reason[:_REASON_LENGTH_MAX] for reason in draft.reasons),
        false_reject_rate=evidence.policy.false_reject_rate,
        evidence_digest=evidence.digest,
        supersedes=verdict_id_of(evidence.part, earlier) if earlier else None,
        evidence=evidence,
        timings_ms={stage: round(spent, 3) for stage, spent in draft.timings_ms.items()},
        **found,
    )
