"""What share of good parts is rejected, promised with confidence.

Split conformal: a part's p-value is its rank among nominal parts that nothing else was fitted on.
The usual rule (reject at p <= alpha) keeps the rate only on average over calibrations; with 99
parts and 1 % it is exceeded in 37 % of them. Here the rate holds with 95 % confidence over
calibrations, or no promise is made. All decisions are on integer ranks.

Source: Vovk, "Conditional validity of inductive conformal predictors", 2012: given the
calibration, the rate of rejecting at rank <= k is Beta(k, n + 1 - k).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

DOUBT: Final = 0.05
"""How often, over calibrations, the promised rate may be exceeded."""


def excess_probability(*, n: int, k: int, rate: float) -> float:
    """P(Beta(k, n + 1 - k) > rate) = P(Binomial(n, rate) < k), summed in logarithms."""
    terms = (
        math.lgamma(n + 1)
        - math.lgamma(i + 1)
        - math.lgamma(n - i + 1)
        + i * math.log(rate)
        + (n - i) * math.log1p(-rate)
        for i in range(k)
    )
    return math.fsum(math.exp(term) for term in terms)


@lru_cache(maxsize=1024)
def rejection_rank(*, n: int, rate: float) -> int:
    """The largest k for which rejecting at rank <= k keeps `rate` with confidence, or 0."""
    k = 0
    while k < n and excess_probability(n=n, k=k + 1, rate=rate) <= DOUBT:
        k += 1
    return k


def parts_needed(rate: float) -> int:
    """How many calibration parts any promise at `rate` takes: 299 at 1 %, 59 at 5 %."""
    return math.ceil(math.log(DOUBT) / math.log1p(-rate))


@dataclass(frozen=True, slots=True)
class Ranked:
    """Where one score falls among the calibration scores."""

    rank: int
    n: int

    @property
    def p_value(self) -> float:
        """(1 + how many calibration scores are at least as high) / (n + 1)."""
        return self.rank / (self.n + 1)


@dataclass(frozen=True, slots=True)
class Calibration:
    """Scores of nominal parts for one subset of modalities, ascending."""

    scores: NDArray[np.float32]
    lots: NDArray[np.int32] | None = None
    """Which lot each score is from, as a number; None: each is its own."""

    @classmethod
    def of(cls, scores: NDArray[np.float32], lots: Sequence[str] | None = None) -> "Calibration":
        """The scores in any order, each with the name of its lot."""
        order = np.argsort(scores, kind="stable")
        if lots is None:
            return cls(scores[order])
        _, numbers = np.unique(np.asarray(lots), return_inverse=True)
        return cls(scores[order], numbers[order].astype(np.int32))

    def rank(self, score: float) -> Ranked:
        """The integer rank of `score`: 1 when it is above every calibration score."""
        below = int(np.searchsorted(self.scores, np.float32(score), side="left"))
        n = len(self.scores)
        return Ranked(rank=1 + n - below, n=n)
