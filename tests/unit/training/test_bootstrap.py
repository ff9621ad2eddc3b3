"""Intervals by bootstrap: right values, right width, right coverage, and pairs kept together."""

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from connectors.errors import Poison
from training.bootstrap import auroc, auroc_interval, mean_interval, paired_gain


def _scores(rng: np.random.Generator, *, good: int, defective: int, shift: float):
    truths = np.arange(good + defective) >= good
    return rng.normal(size=truths.size) + shift * truths, truths


def _placements_error(scores, truths) -> float:
    """Standard error of the AUROC after DeLong et al. (1988), from placements."""
    good, bad = scores[~truths], scores[truths]
    wins = (bad[:, None] > good[None, :]) + 0.5 * (bad[:, None] == good[None, :])
    return float(
        np.sqrt(wins.mean(1).var(ddof=1) / bad.size + wins.mean(0).var(ddof=1) / good.size)
    )


def test_the_value_is_the_area_under_the_curve_ties_included() -> None:
    """Rounded scores tie often; a tie counts half, as scikit-learn counts it."""
    rng = np.random.default_rng(0)
    for decimals in (0, 1, 8):
        scores, truths = _scores(rng, good=150, defective=70, shift=1.0)
        scores = scores.round(decimals)
        assert auroc(scores, truths) == pytest.approx(roc_auc_score(truths, scores), abs=1e-12)


def test_each_resample_is_the_area_of_the_parts_drawn() -> None:
    """A resample by counts equals scikit-learn on the parts repeated as often as drawn."""
    from training.bootstrap import _Ranking

    rng = np.random.default_rng(1)
    scores, truths = _scores(rng, good=40, defective=30, shift=0.7)
    scores = scores.round(1)
    good, bad = rng.integers(40, size=40), rng.integers(30, size=30)
    counted = (
        np.bincount(good, minlength=40)[None].astype(float),
        np.bincount(bad, minlength=30)[None].astype(float),
    )
    drawn = np.concatenate((scores[~truths][good], scores[truths][bad]))
    wanted = roc_auc_score(np.arange(70) >= 40, drawn)
    assert _Ranking(scores, truths).aurocs(*counted)[0] == pytest.approx(wanted, abs=1e-12)


def test_the_interval_is_as_wide_as_placements_say() -> None:
    """Its half width is 1.96 standard errors, computed by another road."""
    scores, truths = _scores(np.random.default_rng(2), good=400, defective=300, shift=1.0)
    interval = auroc_interval(scores, truths, seed=0, resamples=2000)
    half = (interval.high - interval.low) / 2
    assert half == pytest.approx(1.96 * _placements_error(scores, truths), rel=0.08)
    assert interval.low < interval.lower_bound < interval.value < interval.high


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    """Over 300 repetitions 95 % intervals cover, and one-sided bounds stay below, about 95 %."""
    truth = norm.cdf(1.0 / np.sqrt(2))
    rng = np.random.default_rng(3)
    covered, below = 0, 0
    for seed in range(300):
        scores, truths = _scores(rng, good=80, defective=80, shift=1.0)
        interval = auroc_interval(scores, truths, seed=seed, resamples=300)
        covered += interval.low <= truth <= interval.high
        below += interval.lower_bound <= truth
    assert 0.90 <= covered / 300 <= 0.985
    assert 0.91 <= below / 300 <= 0.985


def test_a_difference_is_taken_on_the_same_parts() -> None:
    """Scorers that share how hard each part is differ far more surely than either is known."""
    rng = np.random.default_rng(4)
    scores, truths = _scores(rng, good=300, defective=300, shift=1.0)
    nearly = scores + 0.05 * rng.normal(size=scores.size)
    gain = paired_gain(nearly, scores, truths, seed=0)
    alone = auroc_interval(scores, truths, seed=0)
    assert gain.value == pytest.approx(auroc(nearly, truths) - auroc(scores, truths))
    assert gain.high - gain.low < 0.2 * (alone.high - alone.low)
    same = paired_gain(scores, 3 * scores + 1, truths, seed=0)
    assert (same.value, same.low, same.high) == (0.0, 0.0, 0.0)


def test_a_gain_changes_sign_with_its_order() -> None:
    """The better scorer's gain over the worse is above zero, and the other way round below."""
    rng = np.random.default_rng(5)
    scores, truths = _scores(rng, good=300, defective=300, shift=1.5)
    worse = scores + 2 * rng.normal(size=scores.size)
    assert paired_gain(scores, worse, truths, seed=0).lower_bound > 0
    assert paired_gain(worse, scores, truths, seed=0).high < 0


def test_the_same_seed_gives_the_same_interval() -> None:
    """A report can be made again to the last digit."""
    scores, truths = _scores(np.random.default_rng(6), good=50, defective=50, shift=1.0)
    first = auroc_interval(scores, truths, seed=7, resamples=100)
    assert first == auroc_interval(scores, truths, seed=7, resamples=100)
    assert first != auroc_interval(scores, truths, seed=8, resamples=100)


def test_the_interval_of_a_mean_is_as_wide_as_its_standard_error() -> None:
    """A mean of 200 values: 1.96 standard errors on each side."""
    values = np.random.default_rng(8).normal(loc=3.0, size=200)
    interval = mean_interval(values, seed=0, resamples=4000)
    assert interval.value == pytest.approx(values.mean())
    half = (interval.high - interval.low) / 2
    assert half == pytest.approx(1.96 * values.std() / np.sqrt(200), rel=0.08)


@pytest.mark.parametrize(
    ("scores", "truths", "field"),
    [
        ([1.0, 2.0], [True, True], "defective"),
        ([1.0, 2.0], [False, False], "defective"),
        ([1.0, 2.0, 3.0], [True, False], "scores"),
        ([1.0, float("nan")], [True, False], "scores"),
    ],
)
def test_what_cannot_be_ranked_is_refused_by_name(scores, truths, field) -> None:
    """One class, another number of truths or a score that is no number: the field is named."""
    with pytest.raises(Poison) as refusal:
        auroc_interval(scores, truths, seed=0)
    assert refusal.value.field == field
    with pytest.raises(Poison):
        paired_gain(scores, scores, truths, seed=0)


def test_a_mean_of_nothing_is_refused() -> None:
    """No value has no mean."""
    with pytest.raises(Poison):
        mean_interval([], seed=0)
