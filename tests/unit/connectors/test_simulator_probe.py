"""The probe for shortcuts: it finds one that is there, and says how sure it is."""

import dataclasses

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from connectors.simulator.parts import SHAM, make_part
from connectors.simulator.population import population
from connectors.simulator.probe import LIMIT, numbers_of, plan_numbers, rows_of
from connectors.simulator.statistics import auroc, one_numbers, upper_bound


def test_auroc_agrees_with_the_usual_one_and_its_error_with_resampling():
    """The value is scikit-learn's, ties included; DeLong's error is that of fresh draws."""
    rng = np.random.default_rng(1)
    good, bad = rng.normal(0, 1, 90).round(1), rng.normal(0.5, 1, 60).round(1)
    value, error = auroc(good, bad)
    label = np.array([0] * 90 + [1] * 60)
    assert value == pytest.approx(roc_auc_score(label, np.concatenate([good, bad])), abs=1e-12)
    again = [auroc(rng.normal(0, 1, 90), rng.normal(0.5, 1, 60))[0] for _ in range(400)]
    assert error == pytest.approx(np.std(again), rel=0.15)


def test_the_bound_counts_both_tails():
    """A statistic that is lower in defective parts is as much of a shortcut."""
    rng = np.random.default_rng(2)
    good, bad = rng.normal(0, 1, 300), rng.normal(1, 1, 300)
    assert upper_bound(good, bad) == pytest.approx(upper_bound(-good, -bad))
    assert upper_bound(-good, -bad)[1] > LIMIT


def test_a_planted_shortcut_is_found_and_named():
    """One grey level more on every defective picture breaks the limit, and the row says which."""
    specs = population(product="can", good=24, defective=24, seed=3, kinds=[SHAM])
    groups: tuple[list, list] = ([], [])
    for spec in specs:
        part = spec.make()
        if spec.defect is not None:
            heat = part.captures["thermal"] + np.float32(3.0)
            part = dataclasses.replace(part, captures={**part.captures, "thermal": heat})
        groups[spec.defect is not None].append(numbers_of(part))
    rows = {r.modality: r for r in rows_of("can", SHAM, good=groups[0], bad=groups[1])}
    assert rows["thermal"].upper > 0.9
    assert rows["thermal"].auroc > rows["scan"].auroc


def test_every_modality_is_reduced_to_finite_numbers():
    """Each capture gives its statistics, its size in bytes, and holes make none of them NaN."""
    part = make_part(product="can", seed=2)
    numbers = numbers_of(part)
    assert set(numbers) == {"rgb", "scan", "thermal", "ct", "line"}
    for values in numbers.values():
        assert np.isfinite(list(values.values())).all()
    assert numbers["scan"]["hole share"] == np.isnan(part.captures["scan"][..., 2]).mean()
    assert numbers["rgb"]["bytes"] > 10_000
    flat = one_numbers("thermal", np.full((128, 128), 20.0, np.float32))
    assert flat["sd"] == flat["skew"] == flat["gradient max"] == 0.0


def test_ids_times_and_faults_are_no_shortcut():
    """Nothing that a plan says of a part before it is judged tells whether it is defective."""
    good, bad = plan_numbers(450)
    assert len(good) + len(bad) == 900
    (row,) = rows_of("all", "any", good=good, bad=bad)
    assert row.upper <= LIMIT
