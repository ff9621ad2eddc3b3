"""Do two sets of parts score alike? Exact permutation tests, in which a lot moves as one.

Parts of one lot are alike, so they never count as independent: as many parts of every lot as the
smallest lot has are drawn, and whole lots are dealt anew between the two sets. That is exact for
any scores, ties too, as long as lots are exchangeable when nothing differs.

Source: Good, "Permutation, Parametric and Bootstrap Tests of Hypotheses", 2005, 3.2 (a test of the
smaller of several p-values from the same permutations); Holm, "A simple sequentially rejective
multiple test procedure", 1979.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from connectors.errors import Poison

ROUNDS: Final = 1999
"""Permutations: the smallest p-value is 1 / 2000."""

_CHUNK: Final = 250
_K = TypeVar("_K", bound=Hashable)


@dataclass(frozen=True, slots=True)
class LotScores:
    """Scores of parts, and of which lot each is."""

    scores: NDArray[np.float64]
    lots: NDArray[np.int64]
    """The lot of each score, as a number from 0."""

    @classmethod
    def of(cls, scores: Sequence[float], lots: Sequence[str | int] | None = None) -> "LotScores":
        """As told; without lots each part is its own.

        Raises:
            Poison: Not one lot per score, or a score is not finite.
        """
        values = np.asarray(scores, dtype=np.float64)
        if not np.isfinite(values).all():
            raise Poison("scores", "every score must be finite")
        if lots is None:
            return cls(values, np.arange(len(values)))
        if len(lots) != len(values):
            raise Poison("lots", f"{len(lots)} lots for {len(values)} scores; tell one for each")
        return cls(values, np.unique(np.asarray(lots), return_inverse=True)[1])

    @property
    def lot_sizes(self) -> NDArray[np.int64]:
        """How many parts each lot has."""
        return np.bincount(self.lots)


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """How unlikely the second set's scores are if both sets are alike."""

    higher: float
    """p-value against the second set scoring higher."""
    lower: float
    """p-value against the second set scoring lower."""
    either: float
    """p-value against any difference."""


def compare(first: LotScores, second: LotScores, *, seed: int = 0) -> Difference:
    """Whether `second` scores otherwise than `first`: a shift, or one tail alone.

    Each p-value is of the smaller of two: the largest gap of the distributions (Kolmogorov-Smirnov)
    and the sum of ranks (Mann-Whitney).

    Args:
        first: What it is held against.
        second: What is asked about.
        seed: Of parts drawn from large lots, and of permutations.

    Raises:
        Poison: One of the sets is empty.
    """
    if not len(first.scores) or not len(second.scores):
        raise Poison("scores", "one of the two sets is empty: nothing to compare")
    rng = np.random.default_rng(seed)
    size = int(min(first.lot_sizes.min(), second.lot_sizes.min()))
    drawn = [_drawn(each, size=size, rng=rng) for each in (first, second)]
    moved = np.arange(len(drawn[0]) + len(drawn[1])) >= len(drawn[0])
    dealt = np.concatenate([moved[None], rng.permuted(np.tile(moved, (ROUNDS, 1)), axis=1)])
    values = np.concatenate(drawn)
    found = [_statistics(values, dealt[i : i + _CHUNK]) for i in range(0, len(dealt), _CHUNK)]
    above, below, shift = np.concatenate(found, axis=1)
    return Difference(
        higher=_p_value(above, shift),
        lower=_p_value(below, -shift),
        either=_p_value(np.maximum(above, below), np.abs(shift)),
    )


def holm(p_values: Mapping[_K, float]) -> dict[_K, float]:
    """Each p-value, adjusted for all that were looked at: below 5 %, it is so with 95 % in all."""
    adjusted: dict[_K, float] = {}
    least = 0.0
    for done, key in enumerate(sorted(p_values, key=lambda key: p_values[key])):
        least = max(least, min(1.0, (len(p_values) - done) * p_values[key]))
        adjusted[key] = least
    return {key: adjusted[key] for key in p_values}


def _drawn(found: LotScores, *, size: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """`size` random parts of every lot: lots x size."""
    order = rng.permutation(len(found.scores))
    order = order[np.argsort(found.lots[order], kind="stable")]
    starts = np.cumsum(found.lot_sizes) - found.lot_sizes
    chosen: NDArray[np.float64] = found.scores[order[starts[:, None] + np.arange(size)]]
    return chosen


def _statistics(values: NDArray[np.float64], dealt: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Per dealing: largest gap up, largest gap down, sum of centred ranks; all whole numbers.

    Args:
        values: Lots x parts.
        dealt: Dealings x lots, True where a lot is in the second set.
    """
    parts = values.shape[1]
    flat = values.ravel()
    order = np.argsort(flat, kind="stable")
    second = dealt[:, order // parts].astype(np.float64)
    ends = np.flatnonzero(np.diff(flat[order], append=np.inf))
    n_second = parts * int(dealt[0].sum())
    n_first = flat.size - n_second
    up_to = np.cumsum(second, axis=1)[:, ends]
    gap = n_second * (ends + 1 - up_to) - n_first * up_to
    centred = 2 * rankdata(flat)[order] - (flat.size + 1)
    return np.stack([gap.max(axis=1), -gap.min(axis=1), second @ centred])


def _p_value(*statistics: NDArray[np.float64]) -> float:
    """The p-value of the smallest p-value; the first of each statistic is the observed one."""
    smallest = np.min([rankdata(-each, method="max") for each in statistics], axis=0)
    return float(np.mean(smallest <= smallest[0]))
