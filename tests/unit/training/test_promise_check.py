"""The checks pass correct code at their stated level, and catch promises that are broken."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import beta, binom, norm

import inference.model.promise
from connectors.errors import Poison
from inference.model.promise import rejection_rank
from training.promise_check import (
    LEVEL,
    REPEATS_MIN,
    Counted,
    _dealt,
    any_revision_rate,
    catch_rate,
    check_cells,
    excess_bound,
    promised_rank,
    recalibrated,
    uniform,
)
from training.two_sample import LotScores

CELLS = [(n, rate) for n in (299, 473, 700) for rate in (0.01, 0.05)]


def rejects(rng, *, n: int, k: int, good: int) -> int:
    """False rejects of `good` fresh parts after one calibration of `n` parts, by real ranks."""
    limit = np.sort(rng.random(n))[n - k]
    return int((rng.random(good) > limit).sum())


@settings(deadline=None)
@given(n=st.integers(1, 1500), rate=st.sampled_from([0.005, 0.01, 0.05, 0.2]))
def test_two_laws_allow_the_same_rank(n, rate) -> None:
    """Scipy's binomial and our own sum of logarithms agree for every n."""
    assert promised_rank(n=n, rate=rate) == rejection_rank(n=n, rate=rate)


@given(n=st.integers(20, 400), m=st.integers(1, 400), data=st.data())
def test_the_bound_is_a_mean_of_binomials_over_calibrations(n, m, data) -> None:
    """P(rejected or more) averaged over the Beta law of the rate, by quadrature."""
    k = data.draw(st.integers(1, max(1, n // 20)))
    rejected = data.draw(st.integers(0, m))
    levels = (np.arange(4000) + 0.5) / 4000
    mean = binom.sf(rejected - 1, m, beta.ppf(levels, k, n + 1 - k)).mean()
    found = excess_bound(rejected, m, n_calibration=n, k=k)
    assert found == pytest.approx(mean, abs=2e-3)


def test_correct_code_is_called_broken_in_one_check_of_twenty_at_most() -> None:
    """All six cells together; a plain binomial interval would cry wolf in a third of checks."""
    rng = np.random.default_rng(21)
    runs, broken, naive = 400, 0, 0
    for _ in range(runs):
        counted = {
            (n, rate): Counted(
                rejected=rejects(rng, n=n, k=promised_rank(n=n, rate=rate), good=600),
                good=600,
                n_calibration=n,
                rate=rate,
            )
            for n, rate in CELLS
        }
        broken += any(cell.verdict == "broken" for cell in check_cells(counted))
        naive += any(
            binom.sf(c.rejected - 1, c.good, promised_rank(n=n, rate=r) / (n + 1)) < 0.05 / 6
            for (n, r), c in counted.items()
        )
    assert broken <= binom.ppf(0.999, runs, 0.05)
    assert naive > 0.1 * runs


def test_cells_name_the_broken_promise() -> None:
    """A subset that rejects 4 % at a promised 1 % is found among sound ones and unpromised ones."""
    rng = np.random.default_rng(22)
    sound = {
        f"subset-{i}": Counted(
            rejected=rejects(rng, n=473, k=1, good=1000), good=1000, n_calibration=473, rate=0.01
        )
        for i in range(5)
    }
    wrong = {"leak": Counted(rejected=40, good=1000, n_calibration=473, rate=0.01)}
    none = {"few": Counted(rejected=0, good=1000, n_calibration=298, rate=0.01)}
    unpromised = {"made anyway": Counted(rejected=1, good=1000, n_calibration=298, rate=0.01)}
    found = {cell.key: cell.verdict for cell in check_cells(sound | wrong | none | unpromised)}
    assert found == {
        **dict.fromkeys(sound, "holds"),
        "leak": "broken",
        "few": "no promise",
        "made anyway": "broken",
    }


def test_recalibrations_of_sound_code_pass_at_their_level() -> None:
    """Whatever the scores' law, ties too: over many pools of good parts 5 % at most fail."""
    rng = np.random.default_rng(23)
    pools = 80
    failed = 0
    for seed in range(pools):
        good = LotScores.of(rng.standard_t(3, 700).round(2).tolist())
        found = recalibrated(good, n_calibration=299, rate=0.01, seed=seed)
        failed += found.p_value <= LEVEL
    assert failed <= binom.ppf(0.999, pools, 0.05)
    assert found.expected == 1 / 300
    assert found.repeats == REPEATS_MIN


def test_a_rank_off_by_one_at_the_smallest_promise_is_caught(monkeypatch) -> None:
    """n = 299 at 1 %: rank 2 instead of 1 keeps 1 % on average, and yet breaks the promise."""
    good = LotScores.of(np.random.default_rng(24).normal(size=1299).tolist())
    assert recalibrated(good, n_calibration=299, rate=0.01, repeats=40).p_value > LEVEL
    monkeypatch.setattr("training.promise_check.rejection_rank", lambda *, n, rate: 2)
    found = recalibrated(good, n_calibration=299, rate=0.01, repeats=40)
    assert found.mean < 0.01
    assert found.p_value <= LEVEL
    assert found.exceeded > found.exceeded_expected


def test_ties_that_count_for_the_part_are_caught(monkeypatch) -> None:
    """Coarse scores: a part that equals calibration parts must rank behind them, not before."""
    good = LotScores.of(np.random.default_rng(25).normal(size=900).round(1).tolist())
    assert recalibrated(good, n_calibration=299, rate=0.05).p_value > LEVEL

    def optimistic(self, score):
        below = int(np.searchsorted(self.scores, np.float32(score), side="right"))
        return inference.model.promise.Ranked(rank=1 + len(self.scores) - below, n=len(self.scores))

    monkeypatch.setattr(inference.model.promise.Calibration, "rank", optimistic)
    assert recalibrated(good, n_calibration=299, rate=0.05).p_value <= LEVEL


def test_lots_that_are_alike_break_the_promise_and_it_shows() -> None:
    """A calibration of 30 lots of ten is worth less than 300 parts: the share exceeded says so."""
    rng = np.random.default_rng(26)
    scores = rng.normal(size=(100, 1)) + 0.2 * rng.normal(size=(100, 10))
    good = LotScores.of(scores.ravel().tolist(), np.repeat(np.arange(100), 10).tolist())
    found = recalibrated(good, n_calibration=300, rate=0.05, repeats=60)
    assert found.p_value <= LEVEL
    assert found.exceeded > 0.1


@given(st.lists(st.integers(1, 4), min_size=8, max_size=30), st.integers(0, 9))
def test_no_lot_calibrates_and_tests_in_one_dealing(sizes, seed) -> None:
    """A lot that is cut in two by the count of calibration parts is in the test with none."""
    lots = np.repeat(np.arange(len(sizes)), sizes).tolist()
    good = LotScores.of([float(lot) for lot in lots], lots)
    n_test = len(lots) - 5 - (max(sizes) - 1)
    if n_test < 1:
        return
    rng = np.random.default_rng(seed)
    calibration, test = _dealt(good, n_calibration=5, n_test=n_test, rng=rng)
    assert (len(calibration), len(test)) == (5, n_test)
    assert not set(calibration) & set(test)


def test_too_few_parts_or_repeats_are_not_enough() -> None:
    """No promise to try, nothing left to test, or too few repeats to say anything."""
    few = LotScores.of([float(i) for i in range(300)])
    assert recalibrated(few, n_calibration=298, rate=0.01) is None
    assert recalibrated(few, n_calibration=300, rate=0.01) is None
    assert recalibrated(few, n_calibration=299, rate=0.01).n_test == 1
    with pytest.raises(Poison, match="19"):
        recalibrated(few, n_calibration=299, rate=0.01, repeats=19)


def clustered(rng, *, lots: int, shift: float = 0.0) -> LotScores:
    scores = rng.normal(size=(lots, 1)) + rng.normal(size=(lots, 3)) + shift
    return LotScores.of(scores.ravel().tolist(), np.repeat(np.arange(lots), 3).tolist())


def test_fresh_parts_like_those_that_calibrated_are_uniform(monkeypatch) -> None:
    """Six cells, lots alike inside: 5 % of checks at most find a difference."""
    monkeypatch.setattr("training.two_sample.ROUNDS", 299)
    rng = np.random.default_rng(27)
    runs, found = 60, 0
    for seed in range(runs):
        cells = {i: (clustered(rng, lots=40), clustered(rng, lots=60)) for i in range(6)}
        found += not all(each.holds for each in uniform(cells, seed=seed).values())
    assert found <= binom.ppf(0.999, runs, 0.05)


def test_calibration_parts_that_the_bank_has_seen_are_not_uniform() -> None:
    """One calibration part of three in the bank, and fresh parts score higher than they."""
    rng = np.random.default_rng(28)
    calibration, fresh, bank = (rng.normal(size=(150, 8)) for _ in range(3))

    def scores(parts, *, leaked: int) -> LotScores:
        known = np.concatenate([bank, calibration[:leaked]])
        return LotScores.of(np.linalg.norm(parts[:, None] - known, axis=2).min(axis=1).tolist())

    found = uniform({n: (scores(calibration, leaked=n), scores(fresh, leaked=n)) for n in (0, 50)})
    assert found[0].holds
    assert not found[50].holds


def test_calibrating_on_suspected_parts_is_not_uniform() -> None:
    """The count of false rejects cannot show it, as it falls; the two samples can."""
    rng = np.random.default_rng(29)
    random, suspected = rng.normal(size=100), norm.isf(0.05 * rng.random(100))
    chosen = LotScores.of([*random, *suspected])
    fresh = LotScores.of(rng.normal(size=300).tolist())
    (found,) = uniform({"a": (chosen, fresh)}).values()
    assert not found.holds
    limit = np.sort(chosen.scores)[-promised_rank(n=200, rate=0.05)]
    rejected = int((fresh.scores > limit).sum())
    (cell,) = check_cells({"a": Counted(rejected=rejected, good=300, n_calibration=200, rate=0.05)})
    assert cell.verdict == "holds"


@given(st.lists(st.lists(st.booleans(), min_size=3, max_size=3), min_size=1, max_size=12))
def test_any_revision_rejects_at_least_what_the_deadline_does(parts) -> None:
    """Both rates are over the same good parts; one revision makes them equal."""
    rejected = np.array(parts).T
    found = any_revision_rate(rejected)
    assert found.any.n == found.deadline.n == len(parts)
    assert found.any.hits >= found.deadline.hits
    assert found.any.hits == sum(any(part) for part in parts)
    only = any_revision_rate(rejected[:1])
    assert only.any == only.deadline


def test_nested_revisions_reject_more_than_one_promise() -> None:
    """Three revisions at 1 %, each with one view more, reject twice as many at least once."""
    rng = np.random.default_rng(30)
    views = rng.normal(size=(3, 40_000))
    nested = np.cumsum(views, axis=0) / np.sqrt(np.arange(1, 4))[:, None]
    found = any_revision_rate(nested > norm.isf(0.01))
    assert found.deadline.rate == pytest.approx(0.01, abs=0.002)
    assert 0.018 < found.any.rate < 0.026


def test_hold_and_undecidable_are_misses_and_false_stops() -> None:
    """A line that holds everything catches nothing and stops every good part."""
    found = catch_rate(
        ["reject", "accept", "hold", "undecidable", "reject", "accept", "hold", "undecidable"],
        [True] * 4 + [False] * 4,
    )
    assert (found.caught.hits, found.caught.n) == (1, 4)
    assert (found.false_stops.hits, found.false_stops.n) == (3, 4)
    held = catch_rate(["hold"] * 6, [True] * 3 + [False] * 3)
    assert (held.caught.rate, held.false_stops.rate) == (0.0, 1.0)
    nothing = catch_rate([], [])
    assert (nothing.caught.rate, nothing.caught.interval) == (None, (0.0, 1.0))


@given(n=st.integers(1, 60), data=st.data())
def test_intervals_are_exact(n, data) -> None:
    """Clopper-Pearson: at each end the count seen has a probability of 2.5 %."""
    hits = data.draw(st.integers(0, n))
    low, high = catch_rate(["reject"] * hits + ["hold"] * (n - hits), [True] * n).caught.interval
    assert low <= hits / n <= high
    if 0 < hits < n:
        assert binom.sf(hits - 1, n, low) == pytest.approx(0.025, abs=1e-6)
        assert binom.cdf(hits, n, high) == pytest.approx(0.025, abs=1e-6)
