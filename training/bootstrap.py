"""Intervals of AUROCs, of their differences and of means, by bootstrap over parts.

Good and defective parts are drawn separately, and two scorers are always compared on the same
drawn parts: how hard a part is cancels in the difference. Where every resample gives the same
value (an AUROC of exactly 1), the interval has no width and says nothing about rarer parts.

Source: Efron and Tibshirani, "An introduction to the bootstrap", 1993 (percentile intervals).
"""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from connectors.errors import Poison

RESAMPLES: Final = 1_000
_TWO_SIDED: Final = (0.025, 0.975)
_ONE_SIDED: Final = 0.05
_BLOCK: Final = 64
"""Resamples drawn at once: what bounds the memory."""

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Interval:
    """A measured value with what chance among parts leaves open.

    Args:
        value: As measured on all parts.
        low: Lower end of the two-sided 95 % interval.
        high: Its upper end.
        lower_bound: The one-sided 95 % lower bound: the value is above it with 95 % confidence.
    """

    value: float
    low: float
    high: float
    lower_bound: float


def auroc(scores: ArrayLike, defective: ArrayLike) -> float:
    """The chance that a defective part scores above a good one; a tie counts half.

    Raises:
        Poison: See `auroc_interval`.
    """
    values, is_defective = _checked(scores, defective)
    return float(_Ranking(values, is_defective).auroc)


def auroc_interval(
    scores: ArrayLike, defective: ArrayLike, *, seed: int, resamples: int = RESAMPLES
) -> Interval:
    """The AUROC and its interval over parts.

    Args:
        scores: One per part, higher is odder.
        defective: The truth of each part.
        seed: Of the resamples.
        resamples: How many; 1,000 of 2,000 parts take about a tenth of a second.

    Raises:
        Poison: Scores and truths differ in number, a score is not finite, or one class is missing.
    """
    values, is_defective = _checked(scores, defective)
    ranking = _Ranking(values, is_defective)
    drawn = _resampled((ranking,), seed=seed, resamples=resamples)
    return _interval(float(ranking.auroc), drawn[0])


def paired_gain(
    a: ArrayLike, b: ArrayLike, defective: ArrayLike, *, seed: int, resamples: int = RESAMPLES
) -> Interval:
    """AUROC of `a` minus AUROC of `b` on the same parts, and its interval.

    Args:
        a: Scores of the scorer that is put forward, one per part.
        b: Scores of the one it is held against, of the same parts in the same order.
        defective: The truth of each part.
        seed: Of the resamples.
        resamples: How many.

    Raises:
        Poison: See `auroc_interval`.
    """
    forward, is_defective = _checked(a, defective)
    against, _ = _checked(b, defective)
    rankings = (_Ranking(forward, is_defective), _Ranking(against, is_defective))
    drawn = _resampled(rankings, seed=seed, resamples=resamples)
    return _interval(float(rankings[0].auroc - rankings[1].auroc), drawn[0] - drawn[1])


def mean_interval(values: ArrayLike, *, seed: int, resamples: int = RESAMPLES) -> Interval:
    """The mean of one value per part (such as a paired difference), and its interval.

    Raises:
        Poison: No value, or one that is not finite.
    """
    given = np.asarray(values, dtype=np.float64)
    if given.ndim != 1 or not given.size or not np.isfinite(given).all():
        raise Poison("values", "one finite value per part is needed, of one part at least")
    rng = np.random.default_rng(seed)
    drawn = np.concatenate(
        [_counts(rng, given.size, block) @ given for block in _blocks(resamples)]
    )
    return _interval(float(given.mean()), drawn / given.size)


class _Ranking:
    """Where each defective part falls among the good ones, so that resampling need not rank."""

    def __init__(self, scores: Array, defective: NDArray[np.bool_]) -> None:
        good = scores[~defective]
        self.order = np.argsort(good, kind="stable")
        ordered = good[self.order]
        self._below = np.searchsorted(ordered, scores[defective], side="left")
        self._up_to = np.searchsorted(ordered, scores[defective], side="right")
        self.good, self.defective = good.size, scores.size - good.size

    @property
    def auroc(self) -> np.float64:
        ones = np.ones((1, self.good)), np.ones((1, self.defective))
        return np.float64(self.aurocs(*ones)[0])

    def aurocs(self, good: Array, defective: Array) -> Array:
        """One AUROC per row of how often each good and each defective part was drawn."""
        passed = np.zeros((good.shape[0], self.good + 1))
        np.cumsum(good[:, self.order], axis=1, out=passed[:, 1:])
        wins = (passed[:, self._below] + passed[:, self._up_to]) / 2
        won: Array = np.einsum("rd,rd->r", wins, defective)
        return won / (self.good * self.defective)


def _resampled(rankings: tuple[_Ranking, ...], *, seed: int, resamples: int) -> Array:
    """Rankings x resamples: every ranking's AUROC on the same drawn parts."""
    rng = np.random.default_rng(seed)
    blocks = []
    for block in _blocks(resamples):
        good = _counts(rng, rankings[0].good, block)
        defective = _counts(rng, rankings[0].defective, block)
        blocks.append(np.stack([each.aurocs(good, defective) for each in rankings]))
    return np.concatenate(blocks, axis=1)


def _blocks(resamples: int) -> list[int]:
    return [min(_BLOCK, resamples - start) for start in range(0, resamples, _BLOCK)]


def _counts(rng: np.random.Generator, parts: int, resamples: int) -> Array:
    """How often each part is drawn, when as many are drawn as there are, with replacement."""
    drawn = rng.integers(parts, size=(resamples, parts)) + parts * np.arange(resamples)[:, None]
    counts = np.bincount(drawn.ravel(), minlength=resamples * parts)
    return counts.reshape(resamples, parts).astype(np.float64)


def _interval(value: float, drawn: Array) -> Interval:
    low, high, bound = np.quantile(drawn, (*_TWO_SIDED, _ONE_SIDED))
    return Interval(value=value, low=float(low), high=float(high), lower_bound=float(bound))


def _checked(scores: ArrayLike, defective: ArrayLike) -> tuple[Array, NDArray[np.bool_]]:
    values: NDArray[Any] = np.asarray(scores, dtype=np.float64)
    truths = np.asarray(defective, dtype=np.bool_)
    if values.ndim != 1 or values.shape != truths.shape:
        raise Poison("scores", f"{values.shape} scores for {truths.shape} truths: one each")
    if not np.isfinite(values).all():
        raise Poison("scores", f"{int((~np.isfinite(values)).sum())} are not finite")
    if truths.all() or not truths.any():
        raise Poison("defective", "an AUROC needs good parts and defective ones")
    return values, truths
