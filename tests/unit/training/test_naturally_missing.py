"""A promise made by masking is withdrawn where parts that really lack a sensor are other parts."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binom

from inference.bundle import Bundle
from training.datasets import Role, role_of
from training.naturally_missing import (
    LOTS_MIN,
    by_subset,
    hold_against_masked,
    natural_score,
    withdrawn,
)
from training.two_sample import LotScores

SUBSETS = ("a", "b", "a+b")


def normal(rng, count: int, shift: float = 0.0) -> LotScores:
    return LotScores.of(rng.normal(shift, 1, count).tolist())


def test_at_random_missing_sensors_leave_every_promise_standing(monkeypatch) -> None:
    """Over many bundles, any of their promises is withdrawn in 5 % of bundles at most."""
    monkeypatch.setattr("training.two_sample.ROUNDS", 299)
    rng = np.random.default_rng(11)
    runs, gone = 100, 0
    for seed in range(runs):
        masked = {f"subset-{i}": normal(rng, 100) for i in range(7)}
        natural = {name: normal(rng, 25) for name in masked}
        found = withdrawn(masked, natural, seed=seed)
        gone += any(each.withdrawn is not None for each in found.values())
    assert gone <= binom.ppf(0.999, runs, 0.05)


def test_a_scanner_that_fails_on_shiny_parts_costs_the_promise() -> None:
    """Only of the subset where parts that lack it score higher; the reason has p and counts."""
    rng = np.random.default_rng(12)
    masked = {name: normal(rng, 150) for name in SUBSETS}
    natural = {"a": normal(rng, 40, shift=1.0), "b": normal(rng, 40)}
    found = withdrawn(masked, natural)
    assert found["a"].withdrawn is not None
    assert "40 lots against 150, p = 0.0" in found["a"].withdrawn
    assert found["a"].told.endswith("withdrawn")
    assert found["b"].withdrawn is None
    assert found["b"].told.endswith("the promise stands")
    assert found["a+b"].told.startswith("not checked: 0 lots")


def test_parts_that_score_lower_keep_the_promise_and_are_named() -> None:
    """Fewer good parts are rejected than promised: no broken promise, but defects may pass."""
    rng = np.random.default_rng(13)
    (found,) = withdrawn({"a": normal(rng, 150)}, {"a": normal(rng, 40, shift=-1.0)}).values()
    assert found.withdrawn is None
    assert found.lower <= 0.05
    assert "defects pass" in found.told


@pytest.mark.parametrize(("lots", "checked"), [(LOTS_MIN - 1, False), (LOTS_MIN, True)])
def test_too_few_lots_say_nothing_however_many_parts_they_have(lots, checked) -> None:
    """Ten parts of each of 19 lots are 19, not 190; that, and the count, is recorded."""
    rng = np.random.default_rng(14)
    names = np.repeat(np.arange(lots), 10).tolist()
    natural = LotScores.of(rng.normal(9, 1, len(names)).tolist(), names)
    (found,) = withdrawn({"a": normal(rng, 150)}, {"a": natural}).values()
    assert (found.withdrawn is not None) is checked
    assert found.told.startswith("not checked: 19 lots") is not checked


def test_the_bundle_records_what_the_check_came_to(bundle_path, make_sample, tmp_path) -> None:
    """Shiny parts that came without scan withdraw rgb+thermal; other subsets are not checked."""
    bundle = Bundle.load(bundle_path)
    shiny = [make_sample(2000 + i, defect=True) for i in range(LOTS_MIN)]
    parts = [
        replace(s, captures={n: s.captures[n] for n in ("rgb", "thermal")}, label="good")
        for s in shiny
    ]
    natural = by_subset(parts, [natural_score(each, bundle=bundle) for each in parts])
    assert list(natural) == ["rgb+thermal"]
    path = hold_against_masked(bundle_path, folder=tmp_path, natural=natural)
    subsets = Bundle.load(path).manifest.subsets
    assert path.name != bundle_path.name
    assert [name for name, each in subsets.items() if each.withdrawn] == ["rgb+thermal"]
    assert subsets["rgb"].masking_check.startswith("not checked: 0 lots")
    assert subsets["rgb+scan+thermal"].masking_check is None


def test_a_naturally_missing_part_scores_as_a_masked_one(bundle_path, make_sample) -> None:
    """The same part, its scan lost or masked: one score, so only real differences are seen."""
    bundle = Bundle.load(bundle_path)
    seed = next(i for i in range(60) if role_of(f"L{i}") is Role.CALIBRATE)
    sample = make_sample(seed)
    lost = replace(sample, captures={n: sample.captures[n] for n in ("rgb", "thermal")})
    name, score = natural_score(lost, bundle=bundle)
    assert name == "rgb+thermal"
    masked = bundle.model.subsets[name].calibration.scores
    assert np.abs(masked - score).min() <= 1e-5 * score
