"""Does hallucination help beyond its controls, and is the promised false-reject rate kept?

Hallucinated features are a function of those that are there: they add no information. A gain over
the main modality alone counts as cross-modal only if it is also above every one of `CONTROLS`, each
with as many rows and scores as hallucination has. That is several conditions at once, so no
correction for their number is needed; verdicts on single classes are not corrected for the number
of classes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import numpy as np
from numpy.typing import NDArray

from connectors.errors import Poison
from inference.model.promise import Calibration, parts_needed, rejection_rank
from training.bootstrap import Interval
from training.cmdiad.metrics import METRICS
from training.cmdiad.resampling import MEAN, Resampled
from training.promise_check import Counted, Share, check_cells

CONTROLS: Final = ("two banks", "self-distilled", "shuffled pairs", "random head")
"""The main modality with a second bank of as many rows; a head main -> main; a head taught with
other images' targets; a head that was never trained. All of as many rows. In the authors' protocol
a machine weighs each by the size of its scores, as it does hallucination; ours scales all alike."""


class Finding(StrEnum):
    """What a gain comes to."""

    CROSS_MODAL = "cross-modal gain"
    GAIN = "gain, not shown to be cross-modal"
    NONE = "no gain shown"
    HARM = "harm"


class Promise(StrEnum):
    """What fresh good images say of a promised false-reject rate."""

    KEPT = "kept"
    """Nothing speaks against it."""
    BROKEN = "broken"
    IMPOSSIBLE = "cannot be promised"
    """Too few images calibrated."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Names of methods that are held against each other."""

    main: str
    """The modality that came alone."""
    fused: str
    """The method that adds hallucination to it."""
    alone: str
    """The method of the main modality alone."""
    controls: Mapping[str, str]
    """By name of the control, its method; without all of `CONTROLS` nothing is cross-modal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rival:
    """One control."""

    name: str
    gain: Interval
    """The control minus the main modality alone."""
    lead: Interval
    """Hallucination minus the control."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gain:
    """What hallucination adds to a main modality, in one figure, on the same images."""

    main: str
    method: str
    metric: str
    category: str
    """A class, or ``mean``: over classes, which are drawn too."""
    alone: float
    gain: Interval
    """With hallucination minus the main modality alone."""
    rivals: tuple[Rival, ...]
    finding: Finding

    @property
    def beaten(self) -> tuple[str, ...]:
        """The controls that hallucination is above with 95 % confidence."""
        return tuple(each.name for each in self.rivals if each.lead.lower_bound > 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class SubsetScores:
    """Scores of good images of one subset of modalities, and what is promised about it."""

    calibration: NDArray[np.float32]
    """Of images that nothing else was fitted on."""
    fresh: NDArray[np.float32]
    """Of good images that nothing has seen."""
    rate: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PromiseCheck:
    """What came of one promise."""

    category: str
    subset: str
    rate: float
    calibration: int
    """Images that calibrated."""
    needed: int
    """How many a promise takes."""
    rank: int
    """Up to which is rejected; 0: nothing can be promised."""
    rejected: Share
    p_value: float
    """How unlikely so many are if the promise is kept, by Holm over all cells."""
    verdict: Promise


def gains(
    resampled: Resampled, comparisons: Sequence[Comparison], *, metrics: Sequence[str] = METRICS
) -> tuple[Gain, ...]:
    """A verdict on every comparison, figure and class, and on the mean over classes.

    What was not scored has no row; a control that was not scored is not there.
    """
    return tuple(
        _gain(resampled, each, metric=metric, category=category)
        for each in comparisons
        for metric in metrics
        for category in (*resampled.categories, MEAN)
        if all(resampled.has(m, metric, category) for m in (each.fused, each.alone))
    )


def judged(gain: Interval, leads: Mapping[str, Interval]) -> Finding:
    """The verdict on a gain over the main modality alone, with the lead over each control.

    Harm is shown where the whole two-sided interval is below zero.
    """
    if gain.lower_bound > 0:
        above = {name for name, lead in leads.items() if lead.lower_bound > 0}
        whole = above >= set(CONTROLS) and above == set(leads)
        return Finding.CROSS_MODAL if whole else Finding.GAIN
    return Finding.HARM if gain.high < 0 else Finding.NONE


def promise_checks(
    cells: Mapping[tuple[str, str], SubsetScores],
) -> tuple[PromiseCheck, ...]:
    """Whether each promise is kept; over all cells, correct ones are called broken in 5 % at most.

    Args:
        cells: By class and subset.

    Raises:
        Poison: A score is not finite, or a cell has no calibration score or no fresh one.
    """
    counted = {key: _counted(each, name=" of ".join(key[::-1])) for key, each in cells.items()}
    return tuple(
        PromiseCheck(
            category=cell.key[0],
            subset=cell.key[1],
            rate=cell.counted.rate,
            calibration=cell.counted.n_calibration,
            needed=parts_needed(cell.counted.rate),
            rank=cell.k,
            rejected=Share(hits=cell.counted.rejected, n=cell.counted.good),
            p_value=cell.adjusted,
            verdict=_PROMISES[cell.verdict],
        )
        for cell in check_cells(counted)
    )


_PROMISES: Final = {
    "holds": Promise.KEPT,
    "broken": Promise.BROKEN,
    "no promise": Promise.IMPOSSIBLE,
}


def _gain(resampled: Resampled, each: Comparison, *, metric: str, category: str) -> Gain:
    def minus(a: str, b: str) -> Interval:
        return resampled.difference(a, b, metric=metric, category=category)

    rivals = tuple(
        Rival(name=name, gain=minus(method, each.alone), lead=minus(each.fused, method))
        for name, method in each.controls.items()
        if resampled.has(method, metric, category)
    )
    gain = minus(each.fused, each.alone)
    return Gain(
        main=each.main,
        method=each.fused,
        metric=metric,
        category=category,
        alone=resampled.value(each.alone, metric, category),
        gain=gain,
        rivals=rivals,
        finding=judged(gain, {rival.name: rival.lead for rival in rivals}),
    )


def _counted(each: SubsetScores, *, name: str) -> Counted:
    """False rejects by the very code that judges."""
    for scores in (each.calibration, each.fresh):
        if not scores.size or not np.isfinite(scores).all():
            raise Poison("scores", f"{name}: finite scores are needed, to calibrate and to test")
    calibration = Calibration.of(each.calibration)
    limit = rejection_rank(n=len(each.calibration), rate=each.rate)
    return Counted(
        rejected=sum(calibration.rank(float(score)).rank <= limit for score in each.fresh),
        good=len(each.fresh),
        n_calibration=len(each.calibration),
        rate=each.rate,
    )
