"""Is the promised false-reject rate kept, and what is caught at it? Checks of arrays of scores.

The promise is checked by laws of scipy's, not by the code that makes it. Each check says how
unlikely it is to see so much if the promise is kept; of many, the adjusted p-value counts.

Source: Vovk, "Conditional validity of inductive conformal predictors", 2012: given a calibration of
n parts, rejecting at rank <= k rejects Beta(k, n + 1 - k) of all good parts, so of m of them
BetaBinomial(m, k, n + 1 - k).
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Generic, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.stats import betabinom, binom, binomtest

from connectors.errors import Poison
from inference.model.promise import DOUBT, Calibration, rejection_rank
from training.two_sample import LotScores, compare, holm

LEVEL: Final = 0.05
"""How often correct code is called broken, over all cells together."""
REPEATS_MIN: Final = 20

_K = TypeVar("_K", bound=Hashable)
Rejected = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """Good test parts of one cell: one product, one subset of modalities, one promised rate."""

    rejected: int
    good: int
    n_calibration: int
    rate: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell(Generic[_K]):
    """What a cell's count of false rejects says of its promise."""

    key: _K
    counted: Counted
    k: int
    """The rank up to which the promise allows to reject; 0: no promise."""
    p_value: float
    adjusted: float
    """By Holm, over all cells."""
    verdict: Literal["holds", "broken", "no promise"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recalibration:
    """Good parts dealt anew into calibration and test, again and again."""

    repeats: int
    n_calibration: int
    n_test: int
    mean: float
    """Of the observed false-reject rate over the repeats."""
    sd: float
    expected: float
    """The mean that a kept promise has: below the promised rate, which is an upper bound."""
    exceeded: float
    """Share of repeats in which more was rejected than promised."""
    exceeded_expected: float
    """The same share if the promise is kept: 5 %, and what so few test parts add."""
    p_mean: float
    p_exceeded: float
    """How unlikely so high a mean, so high a share are if the promise is kept."""

    @property
    def p_value(self) -> float:
        """How unlikely the less likely of the two is; both are looked at, so it counts twice."""
        return min(1.0, 2 * min(self.p_mean, self.p_exceeded))


@dataclass(frozen=True, slots=True, kw_only=True)
class Uniformity:
    """Whether fresh good parts of a cell score like those that calibrated it."""

    p_value: float
    adjusted: float
    """By Holm, over all cells."""

    @property
    def holds(self) -> bool:
        """Whether no difference was found."""
        return self.adjusted > LEVEL


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """How many of how many, with an exact 95 % interval."""

    hits: int
    n: int

    @property
    def rate(self) -> float | None:
        """None of none is no rate."""
        return self.hits / self.n if self.n else None

    @property
    def interval(self) -> tuple[float, float]:
        """Clopper-Pearson."""
        if not self.n:
            return 0.0, 1.0
        found = binomtest(self.hits, self.n).proportion_ci(0.95, method="exact")
        return float(found.low), float(found.high)


@dataclass(frozen=True, slots=True, kw_only=True)
class Revisions:
    """Good parts rejected at the revision that the promise covers, and at any."""

    deadline: Share
    any: Share


@dataclass(frozen=True, slots=True, kw_only=True)
class Catch:
    """What a line gets for its promise."""

    caught: Share
    """Defective parts that were rejected; held and undecidable ones are misses."""
    false_stops: Share
    """Good parts that were not accepted: rejected, held or undecidable."""


def promised_rank(*, n: int, rate: float) -> int:
    """The largest rank that a promise of `rate` allows to reject at, by scipy's binomial; or 0."""
    return int((binom.cdf(np.arange(n), n, rate) <= DOUBT).sum())


def excess_bound(rejected: int, n_test: int, *, n_calibration: int, k: int) -> float:
    """How unlikely `rejected` or more of `n_test` good parts are if the promise is kept.

    Args:
        rejected: False rejects.
        n_test: Good parts, of other lots than those that calibrated.
        n_calibration: Parts that calibrated.
        k: The rank up to which is rejected; 0 rejects nothing.
    """
    if k == 0:
        return 1.0 if rejected == 0 else 0.0
    return float(_false_rejects(n_test, n_calibration=n_calibration, k=k)[rejected:].sum())


def check_cells(cells: Mapping[_K, Counted]) -> list[Cell[_K]]:
    """A verdict on each cell, in which all cells together err in 5 % of checks at most."""
    ranks = {
        key: promised_rank(n=each.n_calibration, rate=each.rate) for key, each in cells.items()
    }
    single = {
        key: excess_bound(each.rejected, each.good, n_calibration=each.n_calibration, k=ranks[key])
        for key, each in cells.items()
    }
    adjusted = holm(single)
    return [
        Cell(
            key=key,
            counted=counted,
            k=ranks[key],
            p_value=single[key],
            adjusted=adjusted[key],
            verdict=_verdict(adjusted[key], k=ranks[key]),
        )
        for key, counted in cells.items()
    ]


def recalibrated(
    good: LotScores, *, n_calibration: int, rate: float, repeats: int = REPEATS_MIN, seed: int = 0
) -> Recalibration | None:
    """What the promise comes to when the same good parts are dealt anew, whole lots at a time.

    Args:
        good: Good parts that nothing was fitted on.
        n_calibration: How many of them calibrate.
        rate: What is promised.
        repeats: How often, at least `REPEATS_MIN`.
        seed: Of the dealing.

    Returns:
        None if there are too few parts for a promise, or for a test of one part beside it.

    Raises:
        Poison: Fewer repeats: they say nothing.
    """
    if repeats < REPEATS_MIN:
        raise Poison("repeats", f"{repeats} recalibrations say nothing, {REPEATS_MIN} are needed")
    largest = int(good.lot_sizes.max(initial=0))
    n_test = len(good.scores) - n_calibration - max(0, largest - 1)
    k = promised_rank(n=n_calibration, rate=rate)
    if k == 0 or n_test < 1:
        return None
    rng = np.random.default_rng(seed)
    dealt = [
        _dealt(good, n_calibration=n_calibration, n_test=n_test, rng=rng) for _ in range(repeats)
    ]
    counts = np.array([_rejected(*each, rate=rate) for each in dealt])
    law = _false_rejects(n_test, n_calibration=n_calibration, k=k)
    above = counts > rate * n_test
    odds = float(law[np.arange(n_test + 1) > rate * n_test].sum())
    return Recalibration(
        repeats=repeats,
        n_calibration=n_calibration,
        n_test=n_test,
        mean=float(counts.mean() / n_test),
        sd=float(counts.std(ddof=1) / n_test),
        expected=k / (n_calibration + 1),
        exceeded=float(above.mean()),
        exceeded_expected=odds,
        p_mean=_sum_at_least(int(counts.sum()), law=law, terms=repeats),
        p_exceeded=float(binom.sf(above.sum() - 1, repeats, odds)),
    )


def uniform(
    cells: Mapping[_K, tuple[LotScores, LotScores]], *, seed: int = 0
) -> dict[_K, Uniformity]:
    """Per cell, whether fresh good parts score like those that calibrated.

    If they do, their p-values are uniform. That is not tried against the uniform law itself: the
    calibration is a sample too, and such a test rejects valid p-values in 44 % of cases.

    Args:
        cells: Calibration and fresh good parts of each.
        seed: Of the permutations.
    """
    single = {
        key: compare(calibration, fresh, seed=seed).either
        for key, (calibration, fresh) in cells.items()
    }
    adjusted = holm(single)
    return {key: Uniformity(p_value=p, adjusted=adjusted[key]) for key, p in single.items()}


def any_revision_rate(rejected: Rejected) -> Revisions:
    """How many good parts were rejected at their deadline's revision, and at any.

    Args:
        rejected: Revisions x parts, the deadline's first; a part without a later revision keeps
            what it had.
    """
    n = rejected.shape[1]
    return Revisions(
        deadline=Share(hits=int(rejected[0].sum()), n=n),
        any=Share(hits=int(rejected.any(axis=0).sum()), n=n),
    )


def catch_rate(dispositions: Sequence[str], defective: Sequence[bool]) -> Catch:
    """Which defective parts are caught, and which good ones stopped, as the line would act.

    Args:
        dispositions: Of each part: accept, reject, hold or undecidable.
        defective: The truth about each.
    """
    judged = list(zip(dispositions, defective, strict=True))
    bad = [disposition for disposition, wrong in judged if wrong]
    good = [disposition for disposition, wrong in judged if not wrong]
    return Catch(
        caught=Share(hits=sum(each == "reject" for each in bad), n=len(bad)),
        false_stops=Share(hits=sum(each != "accept" for each in good), n=len(good)),
    )


def _verdict(adjusted: float, *, k: int) -> Literal["holds", "broken", "no promise"]:
    if adjusted <= LEVEL:
        return "broken"
    return "holds" if k else "no promise"


def _false_rejects(n_test: int, *, n_calibration: int, k: int) -> NDArray[np.float64]:
    """P(0), P(1), ... P(n_test) false rejects if the promise is kept."""
    law: NDArray[np.float64] = betabinom.pmf(
        np.arange(n_test + 1), n_test, k, n_calibration + 1 - k
    )
    return law


def _sum_at_least(total: int, *, law: NDArray[np.float64], terms: int) -> float:
    """P(sum of `terms` draws of `law` >= total), by convolution."""
    size = terms * (len(law) - 1) + 1
    of_sum = np.fft.irfft(np.fft.rfft(law, size) ** terms, size)
    return float(np.clip(of_sum[total:].sum(), 0, 1))


def _dealt(
    good: LotScores, *, n_calibration: int, n_test: int, rng: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Scores to calibrate and to test with, of different lots."""
    place = rng.permutation(len(good.lot_sizes))
    order = np.argsort(place[good.lots], kind="stable")
    last = good.lots[order[n_calibration - 1]]
    later = order[n_calibration:]
    return good.scores[order[:n_calibration]], good.scores[later[good.lots[later] != last][:n_test]]


def _rejected(calibration: NDArray[np.float64], test: NDArray[np.float64], *, rate: float) -> int:
    """How many of `test` the line would reject, by the very code that judges."""
    ranked = Calibration.of(calibration.astype(np.float32))
    limit = rejection_rank(n=len(calibration), rate=rate)
    return sum(ranked.rank(float(score)).rank <= limit for score in test)
