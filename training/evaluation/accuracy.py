"""How well parts are told apart: per subset of modalities, kind of defect and grade."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.stats import mannwhitneyu

from inference.model.product import pairs_of, subset_name, subsets_of
from training.bootstrap import Interval, auroc_interval
from training.calibrate import subset_scores
from training.evaluation.parts import GOOD, SHAM, LabelledPart
from training.evaluation.run import Scored

PLAIN_GRADE: Final = 4.0
"""Defects from this d' on are plain to an ideal observer: the floors are about them."""

Flags = NDArray[np.bool_]
Scores = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """Good parts against the defective ones of one kind and grade, judged by one subset."""

    present: tuple[str, ...]
    kind: str
    grade: float | None
    """None: all grades, or nobody knows."""
    defective: int
    seen: bool
    """Whether any modality present carries a trace of the kind."""
    auroc: Interval
    chance_p: float
    """Two-sided p-value of 'no better than chance' (Mann-Whitney)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SubsetAccuracy:
    """Good parts against defective ones of every kind that the subset sees."""

    present: tuple[str, ...]
    weights: dict[str, float]
    plain: Interval | None
    """Of grades from `PLAIN_GRADE` on (of all where grades are unknown); None without any."""
    every: Interval | None
    """Of all defective parts, those too that no modality present can see."""
    reference: Interval | None
    """The reference network's plain memory on the parts of `plain`; single images only."""
    sham: Interval | None
    """Sham against good: one half, if the code path itself leaves no trace."""


@dataclass(frozen=True, slots=True)
class Arms:
    """Which parts are good, which are what, as columns over the parts."""

    good: Flags
    defective: Flags
    sham: Flags
    plain: Flags
    kinds: NDArray[np.str_]
    grades: NDArray[np.float64]

    @classmethod
    def of(cls, parts: Sequence[LabelledPart]) -> "Arms":
        """Of the parts, in their order."""
        kinds = np.array([part.kind for part in parts])
        grades = np.array([np.nan if p.grade is None else p.grade for p in parts])
        defective = np.array([part.defective for part in parts])
        return cls(
            good=kinds == GOOD,
            defective=defective,
            sham=kinds == SHAM,
            plain=defective & ~(grades < PLAIN_GRADE),
            kinds=kinds,
            grades=grades,
        )


def subset_accuracies(scored: Scored, *, seed: int) -> list[SubsetAccuracy]:
    """One row per non-empty subset of the product's modalities, small ones first."""
    arms, found = Arms.of(scored.parts), []
    for present in subsets_of(scored.bundle.model.eyes):
        scores = fused(scored, present)
        plain = arms.plain & seen_by(scored.parts, present)
        reference = scored.table.reference(present[0]) if len(present) == 1 else None
        found.append(
            SubsetAccuracy(
                present=present,
                weights=dict(scored.bundle.manifest.subsets[subset_name(present)].weights),
                plain=against(scores, good=arms.good, bad=plain, seed=seed),
                every=against(scores, good=arms.good, bad=arms.defective, seed=seed),
                reference=None
                if reference is None
                else against(reference, good=arms.good, bad=plain, seed=seed),
                sham=against(scores, good=arms.good, bad=arms.sham, seed=seed),
            )
        )
    return found


def cells(scored: Scored, *, seed: int) -> list[Cell]:
    """Every subset x kind, for all grades together and for each."""
    arms = Arms.of(scored.parts)
    kinds = sorted(set(arms.kinds[arms.defective].tolist()))
    found = []
    for present in subsets_of(scored.bundle.model.eyes):
        scores, seen = fused(scored, present), seen_by(scored.parts, present)
        for kind, grade in _kinds_and_grades(arms, kinds):
            bad = arms.kinds == kind
            if grade is not None:
                bad &= arms.grades == grade
            auroc = against(scores, good=arms.good, bad=bad, seed=seed)
            assert auroc is not None, "every product has good parts and every kind has parts"
            found.append(
                Cell(
                    present=present,
                    kind=kind,
                    grade=grade,
                    defective=int(bad.sum()),
                    seen=bool(seen[bad].any()),
                    auroc=auroc,
                    chance_p=float(mannwhitneyu(scores[bad], scores[arms.good]).pvalue),
                )
            )
    return found


def _kinds_and_grades(arms: Arms, kinds: Sequence[str]) -> Iterator[tuple[str, float | None]]:
    """Each kind with all its grades together, then with each that occurs."""
    for kind in kinds:
        grades = arms.grades[arms.kinds == kind]
        yield kind, None
        for grade in sorted(set(grades[~np.isnan(grades)].tolist())):
            yield kind, float(grade)


def fused(
    scored: Scored, present: Sequence[str], *, counted: Sequence[str] | None = None
) -> Scores:
    """Every part's fused score as if only `present` had come; see `subset_scores`."""
    model = scored.bundle.model
    seen = scored.table.image_scores(sorted(model.eyes), pairs_of(model.eyes))
    return subset_scores(model, seen, present=present, counted=counted)


def against(scores: Scores, *, good: Flags, bad: Flags, seed: int) -> Interval | None:
    """AUROC of the `bad` parts against the `good` ones that have a score; None without any."""
    scored = ~np.isnan(scores)
    good, bad = good & scored, bad & scored
    if not good.any() or not bad.any():
        return None
    chosen = good | bad
    return auroc_interval(scores[chosen], bad[chosen], seed=seed)


def seen_by(parts: Sequence[LabelledPart], present: Sequence[str]) -> Flags:
    """Whether any of `present` carries a trace of each part's defect; yes where nobody knows."""
    return np.array([not part.shows or bool(part.shows.keys() & set(present)) for part in parts])
