"""Are parts that really lack a modality like complete ones that are masked? Else: no promise.

A subset's promise is calibrated by masking complete parts. If a sensor fails more often on some
parts than on others, the parts that come without it are other parts, and what was promised of
masked ones says nothing of them. Where good ones of them score higher, more would be rejected than
promised: the promise for that subset is withdrawn.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch

from inference.bundle import Bundle, amend_bundle
from inference.model.product import subset_name
from inference.model.promise import Calibration
from training.datasets import PartSample
from training.two_sample import LotScores, compare, holm

LOTS_MIN: Final = 20
"""Lots with naturally missing good parts below which nothing is said: see `training/LOG.md`."""
LEVEL: Final = 0.05
"""How often, over all subsets of a bundle, a promise is withdrawn though nothing differs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Withdrawal:
    """What holding a subset's naturally missing good parts against masked ones came to."""

    natural_lots: int
    masked_lots: int
    higher: float | None = None
    """p-value against them scoring higher than masked ones, after Holm; None: not checked."""
    lower: float | None = None
    """p-value against them scoring lower, after Holm."""

    @property
    def withdrawn(self) -> str | None:
        """Why nothing is promised of such parts; None: the promise stands."""
        if self.higher is None or self.higher > LEVEL:
            return None
        return (
            f"good parts that really lack the others score higher than masked ones "
            f"({self.natural_lots} lots against {self.masked_lots}, p = {self.higher:.4f})"
        )

    @property
    def told(self) -> str:
        """The outcome in words."""
        if self.higher is None or self.lower is None:
            return (
                f"not checked: {self.natural_lots} lots of naturally missing good parts, "
                f"{LOTS_MIN} are needed"
            )
        where = f"{self.natural_lots} lots of naturally missing good parts against "
        figures = f"{self.masked_lots} masked ones: p = {self.higher:.4f} higher, {self.lower:.4f}"
        so = "withdrawn" if self.withdrawn else "the promise stands"
        if self.lower <= LEVEL:
            so += ", but lower scores let more defects pass"
        return f"{where}{figures} lower; {so}"


def withdrawn(
    masked: Mapping[str, LotScores], natural: Mapping[str, LotScores], *, seed: int = 0
) -> dict[str, Withdrawal]:
    """For each subset of `masked`, whether its promise must be withdrawn.

    Holm's adjustment is over the subsets that have enough lots to be checked, for each direction.

    Args:
        masked: Per subset, scores of complete good parts as if only the subset had come.
        natural: Per subset, scores of good parts, chosen at random, that came with no more.
        seed: Of the permutations.
    """
    lots = {
        name: (len(natural[name].lot_sizes) if name in natural else 0, len(each.lot_sizes))
        for name, each in masked.items()
    }
    checked = {
        name: compare(masked[name], natural[name], seed=seed)
        for name, (natural_lots, masked_lots) in lots.items()
        if min(natural_lots, masked_lots) >= LOTS_MIN
    }
    higher = holm({name: each.higher for name, each in checked.items()})
    lower = holm({name: each.lower for name, each in checked.items()})
    return {
        name: Withdrawal(
            natural_lots=natural_lots,
            masked_lots=masked_lots,
            higher=higher.get(name),
            lower=lower.get(name),
        )
        for name, (natural_lots, masked_lots) in lots.items()
    }


def natural_score(sample: PartSample, *, bundle: Bundle) -> tuple[str, float]:
    """The subset that the part came with, and its score under `bundle`."""
    with torch.inference_mode():
        raw = {n: bundle.extractors[n].extract(sample.captures[n]) for n in sample.captures}
        score = float(bundle.model.judge(bundle.model.normalised(raw)).score)
    return subset_name(raw), score


def by_subset(
    samples: Sequence[PartSample], scored: Sequence[tuple[str, float]]
) -> dict[str, LotScores]:
    """What `natural_score` says of each of `samples`, with its lot, per subset."""
    return {
        name: LotScores.of(
            [score for subset, score in scored if subset == name],
            [s.lot for s, (subset, _) in zip(samples, scored, strict=True) if subset == name],
        )
        for name in sorted({subset for subset, _ in scored})
    }


def hold_against_masked(path: Path, *, folder: Path, natural: Mapping[str, LotScores]) -> Path:
    """A bundle like that in `path`, with what the check came to, is under `folder`; its own folder.

    Args:
        path: A bundle as fitted.
        folder: Where the new one is written.
        natural: Of `by_subset`; of lots that no role but calibrate has.
    """
    bundle = Bundle.load(path)
    entries = bundle.manifest.subsets
    masked = {
        name: masked_scores(bundle.model.subsets[name].calibration)
        for name, entry in entries.items()
        if len(entry.present) < len(bundle.manifest.eyes)
    }
    checks = withdrawn(masked, natural)
    return amend_bundle(
        path,
        folder=folder,
        subsets={
            name: entries[name].model_copy(
                update={"withdrawn": check.withdrawn, "masking_check": check.told}
            )
            for name, check in checks.items()
        },
    )


def masked_scores(calibration: Calibration) -> LotScores:
    """What calibrated a subset: scores of complete parts, masked, with their lots."""
    lots = None if calibration.lots is None else calibration.lots.tolist()
    return LotScores.of(calibration.scores.tolist(), lots)
