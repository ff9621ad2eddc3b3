"""Does the promised false-reject rate hold, per product and subset, and what does it catch?"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from inference.model.product import subset_name, subsets_of
from inference.model.promise import rejection_rank
from training.evaluation.accuracy import Arms, Flags, Scores, fused, seen_by
from training.evaluation.run import Scored
from training.naturally_missing import masked_scores, withdrawn
from training.promise_check import (
    LEVEL,
    Counted,
    Recalibration,
    Share,
    Uniformity,
    any_revision_rate,
    catch_rate,
    check_cells,
    recalibrated,
    uniform,
)
from training.promise_check import Cell as CheckedCell
from training.two_sample import LotScores, holm

RATES: Final = (0.01, 0.05)
"""Promised false-reject rates that are tried."""
RECALIBRATIONS: Final = 100
"""How often the same good parts are dealt anew; all cells of a product by the same dealing."""

_Key = tuple[str, tuple[str, ...], float]


@dataclass(frozen=True, slots=True, kw_only=True)
class PromiseCell:
    """One product, one subset, one promised rate."""

    product: str
    present: tuple[str, ...]
    rate: float
    calibration: int
    """Parts that calibrated."""
    rank: int
    """Up to which is rejected; 0: no promise."""
    rejected: Share
    """Of fresh good parts, masked to the subset."""
    p_holm: float
    """How unlikely so many are if the promise is kept; over all cells."""
    recalibration: Recalibration | None
    p_recalibration: float
    """How unlikely it is if the promise is kept, by Holm over all cells; 1 without any."""
    uniformity: Uniformity
    caught: Share
    """Of all defective parts; held ones are missed."""
    caught_plain: Share
    """Of defects from d' = 4 on that leave a trace in the subset."""
    false_stops: Share
    """Good parts that were not accepted."""

    @property
    def holds(self) -> bool:
        """Whether no check speaks against the promise."""
        return min(self.p_holm, self.p_recalibration) > LEVEL and self.uniformity.holds


@dataclass(frozen=True, slots=True, kw_only=True)
class Missing:
    """Good parts that would really have come without some modality, against masked ones."""

    product: str
    present: tuple[str, ...]
    told: str
    withdrawn: bool
    rejected: dict[float, Share]
    """Of the good parts that really lack the others, by promised rate, if judged all the same."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RevisionRow:
    """Good parts rejected at the first revision of a growing part, and at any."""

    product: str
    rate: float
    sequence: str
    deadline: Share
    any: Share


@dataclass(frozen=True, slots=True, kw_only=True)
class PromiseReport:
    """All checks of all cells."""

    cells: tuple[PromiseCell, ...]
    missing: tuple[Missing, ...]
    revisions: tuple[RevisionRow, ...]


def promise_report(everything: Mapping[str, Scored], *, seed: int) -> PromiseReport:
    """Check every product x subset x rate on the test parts, which no bundle has seen."""
    keys = [
        (product, present, rate)
        for product, scored in everything.items()
        for present in subsets_of(scored.bundle.model.eyes)
        for rate in RATES
    ]
    judged = {key: _judged(everything[key[0]], present=key[1], rate=key[2]) for key in keys}
    checked = check_cells({key: each.counted for key, each in judged.items()})
    alike = uniform({k: (each.calibration, each.fresh) for k, each in judged.items()}, seed=seed)
    dealt = {key: _recalibrated(each, seed=seed) for key, each in judged.items()}
    unlikely = holm({key: each.p_value if each else 1.0 for key, each in dealt.items()})
    return PromiseReport(
        cells=tuple(
            _cell(
                cell,
                judged[cell.key],
                recalibration=dealt[cell.key],
                p_recalibration=unlikely[cell.key],
                uniformity=alike[cell.key],
            )
            for cell in checked
        ),
        missing=tuple(
            row for product, each in everything.items() for row in _missing(product, each)
        ),
        revisions=tuple(
            _revisions(product, scored, rate=rate)
            for product, scored in everything.items()
            for rate in RATES
        ),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Judged:
    """Every test part under one subset and rate."""

    arms: Arms
    seen: Flags
    dispositions: NDArray[np.str_]
    counted: Counted
    calibration: LotScores
    fresh: LotScores


def _judged(scored: Scored, *, present: tuple[str, ...], rate: float) -> _Judged:
    arms = Arms.of(scored.parts)
    scores = fused(scored, present)
    rejected = _rejected(scored, scores, present=present, rate=rate)
    calibration = scored.bundle.model.subsets[subset_name(present)].calibration
    n = len(calibration.scores)
    acts = "accept" if rejection_rank(n=n, rate=rate) else "hold"
    lots = [part.sample.lot for part in scored.parts if part.kind == "good"]
    return _Judged(
        arms=arms,
        seen=seen_by(scored.parts, present),
        dispositions=np.where(rejected, "reject", acts),
        counted=Counted(
            rejected=int(rejected[arms.good].sum()),
            good=int(arms.good.sum()),
            n_calibration=n,
            rate=rate,
        ),
        calibration=masked_scores(calibration),
        fresh=LotScores.of(list(map(float, scores[arms.good])), lots),
    )


def _rejected(scored: Scored, scores: Scores, *, present: Sequence[str], rate: float) -> Flags:
    calibration = scored.bundle.model.subsets[subset_name(present)].calibration
    limit = rejection_rank(n=len(calibration.scores), rate=rate)
    return np.array([calibration.rank(float(score)).rank <= limit for score in scores])


def _recalibrated(judged: _Judged, *, seed: int) -> Recalibration | None:
    calibration, fresh = judged.calibration, judged.fresh
    pooled = LotScores(
        scores=np.concatenate([calibration.scores, fresh.scores]),
        lots=np.concatenate([calibration.lots, fresh.lots + calibration.lots.max() + 1]),
    )
    counted = judged.counted
    return recalibrated(
        pooled,
        n_calibration=counted.n_calibration,
        rate=counted.rate,
        repeats=RECALIBRATIONS,
        seed=seed,
    )


def _cell(
    checked: CheckedCell[_Key],
    judged: _Judged,
    *,
    recalibration: Recalibration | None,
    p_recalibration: float,
    uniformity: Uniformity,
) -> PromiseCell:
    product, present, rate = checked.key
    arms = judged.arms
    good_or = {name: arms.good | bad for name, bad in _bad(judged).items()}
    catches = {
        name: catch_rate(judged.dispositions[chosen].tolist(), arms.defective[chosen].tolist())
        for name, chosen in good_or.items()
    }
    return PromiseCell(
        product=product,
        present=present,
        rate=rate,
        calibration=checked.counted.n_calibration,
        rank=checked.k,
        rejected=Share(hits=checked.counted.rejected, n=checked.counted.good),
        p_holm=checked.adjusted,
        recalibration=recalibration,
        p_recalibration=p_recalibration,
        uniformity=uniformity,
        caught=catches["all"].caught,
        caught_plain=catches["plain"].caught,
        false_stops=catches["all"].false_stops,
    )


def _bad(judged: _Judged) -> dict[str, Flags]:
    return {"all": judged.arms.defective, "plain": judged.arms.plain & judged.seen}


def _missing(product: str, scored: Scored) -> list[Missing]:
    """A row per subset that good test parts would really have come with."""
    model, names = scored.bundle.model, set(scored.bundle.model.eyes)
    arms = Arms.of(scored.parts)
    really = [tuple(sorted(names - set(part.lacks))) for part in scored.parts]
    rows: dict[tuple[str, ...], LotScores] = {}
    for present in sorted({r for r in really if 0 < len(r) < len(names)}):
        chosen = arms.good & np.array([r == present for r in really])
        lots = [p.sample.lot for p, hit in zip(scored.parts, chosen, strict=True) if hit]
        rows[present] = LotScores.of(list(map(float, fused(scored, present)[chosen])), lots)
    names_of = [subset_name(present) for present in rows]
    masked = {name: masked_scores(model.subsets[name].calibration) for name in names_of}
    checks = withdrawn(masked, {subset_name(present): each for present, each in rows.items()})
    return [
        Missing(
            product=product,
            present=present,
            told=checks[subset_name(present)].told,
            withdrawn=checks[subset_name(present)].withdrawn is not None,
            rejected={
                rate: _share(
                    _rejected(scored, natural.scores.astype(np.float32), present=present, rate=rate)
                )
                for rate in RATES
            },
        )
        for present, natural in rows.items()
    ]


def _revisions(product: str, scored: Scored, *, rate: float) -> RevisionRow:
    """As if a part were closed with one modality, and the others came late, one by one."""
    names = sorted(scored.bundle.model.eyes)
    steps = [tuple(names[: count + 1]) for count in range(len(names))]
    arms = Arms.of(scored.parts)
    rejected = np.stack(
        [
            _rejected(scored, fused(scored, present), present=present, rate=rate)[arms.good]
            for present in steps
        ]
    )
    found = any_revision_rate(rejected)
    return RevisionRow(
        product=product,
        rate=rate,
        sequence=" -> ".join(" + ".join(present) for present in steps),
        deadline=found.deadline,
        any=found.any,
    )


def _share(flags: Flags) -> Share:
    return Share(hits=int(flags.sum()), n=len(flags))
