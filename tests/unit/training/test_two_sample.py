"""Two sets of parts are told apart when they differ, and only as often as stated when not."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, false_discovery_control, ks_2samp

from connectors.errors import Poison
from training.two_sample import LotScores, _drawn, compare, holm

RUNS = 200


def lots_of(rng, *, lots: int, parts: int, shift: float = 0.0, alike: float = 1.0) -> LotScores:
    """Scores of `lots` lots of `parts` parts, whose lots differ as much as parts within one."""
    scores = alike * rng.normal(size=(lots, 1)) + rng.normal(size=(lots, parts)) + shift
    return LotScores.of(scores.ravel().tolist(), np.repeat(np.arange(lots), parts).tolist())


@pytest.mark.parametrize(("parts", "rounded"), [((5, 3), False), ((2, 2), True)])
def test_alike_sets_are_called_different_no_more_often_than_stated(
    monkeypatch, parts, rounded
) -> None:
    """With lots that are alike inside, of unequal sizes, and with ties: 5 % at most."""
    monkeypatch.setattr("training.two_sample.ROUNDS", 199)
    rng = np.random.default_rng(1)
    found = []
    for seed in range(RUNS):
        first, second = (lots_of(rng, lots=20, parts=each) for each in parts)
        if rounded:
            first, second = (LotScores(e.scores.round(), e.lots) for e in (first, second))
        found.append(compare(first, second, seed=seed))
    most = binom.ppf(0.999, RUNS, 0.05)
    for name in ("higher", "lower", "either"):
        assert sum(getattr(each, name) <= 0.05 for each in found) <= most, name


@given(st.lists(st.integers(1, 5), min_size=1, max_size=8), st.integers(0, 9))
def test_as_many_parts_of_every_lot_as_the_smallest_lot_has(sizes, seed) -> None:
    """Each row is of one lot, every lot has its row, and no part is drawn twice."""
    lots = np.repeat(np.arange(len(sizes)), sizes)
    order = np.random.default_rng(seed).permutation(len(lots))
    scores = 100.0 * lots + np.arange(len(lots))
    found = LotScores.of(scores[order].tolist(), lots[order].tolist())
    drawn = _drawn(found, size=min(sizes), rng=np.random.default_rng(seed))
    assert drawn.shape == (len(sizes), min(sizes))
    assert (drawn // 100 == np.arange(len(sizes))[:, None]).all()
    assert len(np.unique(drawn)) == drawn.size


def test_lots_of_which_some_are_small_are_compared_by_as_many_parts() -> None:
    """The smallest lot of both sets decides, so that every lot weighs the same."""
    rng = np.random.default_rng(6)
    first = LotScores.of(rng.normal(size=41).tolist(), [*np.repeat(range(20), 2).tolist(), 20])
    with pytest.MonkeyPatch.context() as patch:
        sizes = []
        patch.setattr(
            "training.two_sample._drawn",
            lambda found, *, size, rng: sizes.append(size) or _drawn(found, size=size, rng=rng),
        )
        compare(first, lots_of(rng, lots=20, parts=3))
    assert sizes == [1, 1]


def test_a_test_that_takes_parts_for_independent_would_cry_wolf() -> None:
    """Why lots move as one: part by part, alike sets are told apart far too often."""
    rng = np.random.default_rng(2)
    hits = 0
    for _ in range(RUNS):
        first, second = (lots_of(rng, lots=20, parts=5) for _ in range(2))
        hits += ks_2samp(first.scores, second.scores).pvalue <= 0.05
    assert hits > 3 * 0.05 * RUNS


@pytest.mark.parametrize(("shift", "higher"), [(1.0, True), (-1.0, False)])
def test_a_shift_is_seen_with_its_direction(shift, higher) -> None:
    """One standard deviation with 25 against 150 lots."""
    rng = np.random.default_rng(3)
    first = lots_of(rng, lots=150, parts=1, alike=0)
    second = lots_of(rng, lots=25, parts=1, alike=0, shift=shift)
    found = compare(first, second)
    assert (found.higher <= 0.05) is higher
    assert (found.lower <= 0.05) is not higher
    assert found.either <= 0.05


def test_a_tail_alone_is_seen() -> None:
    """A third of the parts far out, the others unchanged: the promise is about just these."""
    rng = np.random.default_rng(4)
    second = rng.normal(size=60)
    second[:20] += 6
    found = compare(LotScores.of(rng.normal(size=200)), LotScores.of(second))
    assert found.higher <= 0.01
    assert found.lower > 0.05


@settings(deadline=None, max_examples=20)
@given(
    st.lists(st.integers(-3, 3), min_size=3, max_size=20),
    st.lists(st.integers(-3, 3), min_size=3, max_size=20),
)
def test_swapping_and_mirroring_change_only_the_direction(first, second) -> None:
    """Scores that are all alike say nothing at all, and p-values are between 0 and 1."""
    one, other = LotScores.of(first), LotScores.of(second)
    found = compare(one, other)
    mirrored = compare(LotScores(-one.scores, one.lots), LotScores(-other.scores, other.lots))
    assert 0 < found.higher <= 1
    assert 0 < found.lower <= 1
    assert (mirrored.lower, mirrored.higher) == (found.higher, found.lower)
    constant = compare(LotScores.of([2.0] * len(first)), LotScores.of([2.0] * len(second)))
    assert constant.higher == constant.lower == constant.either == 1.0


def test_the_same_scores_give_the_same_answer() -> None:
    """The seed decides all that is random."""
    rng = np.random.default_rng(5)
    first, second = lots_of(rng, lots=9, parts=4), lots_of(rng, lots=12, parts=2)
    assert compare(first, second, seed=7) == compare(first, second, seed=7)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_holm_keeps_order_and_never_lowers_a_p_value(found) -> None:
    """Between the single p-value and Bonferroni's, and monotone."""
    adjusted = holm(dict(enumerate(found)))
    assert list(adjusted) == list(range(len(found)))
    for key, value in adjusted.items():
        assert found[key] <= value <= min(1.0, len(found) * found[key])
    by_size = sorted(adjusted, key=lambda key: found[key])
    assert [adjusted[k] for k in by_size] == sorted(adjusted.values())
    discovery = false_discovery_control(found)
    assert all(adjusted[k] >= discovery[k] - 1e-12 for k in adjusted)


def test_what_cannot_be_compared_is_refused() -> None:
    """An empty set, a lot too few, a score that is no number."""
    some = LotScores.of([1.0, 2.0])
    with pytest.raises(Poison, match="empty"):
        compare(some, LotScores.of([]))
    with pytest.raises(Poison, match="lots"):
        LotScores.of([1.0, 2.0], ["a"])
    with pytest.raises(Poison, match="finite"):
        LotScores.of([float("nan")])
