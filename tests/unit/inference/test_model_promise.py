"""The promised false-reject rate holds with confidence, or is not promised."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import beta, binom

from inference.model.promise import (
    DOUBT,
    Calibration,
    excess_probability,
    parts_needed,
    rejection_rank,
)


@given(n=st.integers(1, 400), rate=st.sampled_from([0.005, 0.01, 0.05, 0.2]), data=st.data())
def test_the_excess_is_the_beta_law_of_conformal_ranks(n, rate, data) -> None:
    """Our binomial sum is P(Beta(k, n + 1 - k) > rate), as scipy has it."""
    k = data.draw(st.integers(1, n))
    assert excess_probability(n=n, k=k, rate=rate) == pytest.approx(
        beta.sf(rate, k, n + 1 - k), rel=1e-7, abs=1e-12
    )


@pytest.mark.parametrize(("rate", "needed"), [(0.01, 299), (0.05, 59)])
def test_no_promise_below_the_stated_number_of_parts(rate, needed) -> None:
    """299 parts at 1 %, 59 at 5 %: one fewer and there is no rank to reject at."""
    assert parts_needed(rate) == needed
    assert rejection_rank(n=needed, rate=rate) == 1
    assert rejection_rank(n=needed - 1, rate=rate) == 0


def test_the_rate_is_exceeded_in_at_most_one_calibration_of_twenty() -> None:
    """Over many calibrations, the true reject rate is above 5 % in at most 5 % of them."""
    rng = np.random.default_rng(7)
    n, rate, runs = 150, 0.05, 4000
    k = rejection_rank(n=n, rate=rate)
    thresholds = np.sort(rng.random((runs, n)), axis=1)[:, n - k]
    exceeded = np.mean(1 - thresholds > rate)
    assert k == 3
    assert exceeded <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / runs)


@given(st.lists(st.integers(-5, 5), min_size=1, max_size=30), st.integers(-6, 6))
def test_the_rank_counts_calibration_scores_at_least_as_high(scores, score) -> None:
    """Rank is 1 + #{s_i >= s}, ties against the part; the p-value is rank / (n + 1)."""
    calibration = Calibration(np.sort(np.asarray(scores, np.float32)))
    ranked = calibration.rank(float(score))
    assert ranked.rank == 1 + sum(each >= score for each in scores)
    assert ranked.p_value == ranked.rank / (len(scores) + 1)


def test_each_score_keeps_its_lot_when_sorted() -> None:
    """Scores come in any order; equal lots stay equal, and no lots means each is its own."""
    scores = np.asarray([3, 1, 2, 1], np.float32)
    calibration = Calibration.of(scores, ["b", "a", "b", "c"])
    assert calibration.scores.tolist() == [1, 1, 2, 3]
    assert calibration.lots.tolist() == [0, 2, 1, 1]
    assert Calibration.of(scores).lots is None


@pytest.mark.parametrize("rate", [0.002, 0.01, 0.05, 0.1])
def test_the_rank_is_the_largest_that_scipys_binomial_allows(rate) -> None:
    """P(Binomial(n, rate) < k) <= 5 %: never a rank lower than could be, never one higher."""
    for n in (1, 58, 59, 60, 298, 299, 300, 473, 1000, 2500):
        below = binom.cdf(np.arange(n), n, rate)  # of k = 1 .. n
        assert rejection_rank(n=n, rate=rate) == int((below <= DOUBT).sum())
