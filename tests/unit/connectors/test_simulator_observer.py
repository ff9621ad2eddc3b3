"""The ideal observer: what d' means, what no trace means, and who sees more than whom."""

import numpy as np
import pytest

from connectors.simulator.bodies import Making
from connectors.simulator.calibrate_strengths import looks, makings, mean_d, sightings, solved
from connectors.simulator.defects import Strength
from connectors.simulator.observer import Observer, sighting, straightened, twins, view
from connectors.simulator.parts import make_part
from connectors.simulator.strengths import strength


@pytest.fixture(scope="module")
def thermographer() -> Observer:
    """Knows nominal thermograms of plates."""
    return Observer.of("plate", "thermal", parts=24)


def test_d_prime_is_the_distance_in_spreads_when_there_is_one_place_and_one_band():
    """Without search and internal noise d' is the signal over the spread of the responses."""
    noise = np.random.default_rng(1).normal(0, 2.0, (20_000, 1, 1))
    found = sighting(np.array([6.0]), noise, internal=0.0)
    assert found.local == pytest.approx(3.0, rel=0.03)
    assert found.d_prime == pytest.approx(3.0, rel=0.03)
    assert found.auroc == pytest.approx(0.983, abs=0.004)


def test_searching_many_places_costs_visibility():
    """The same local signal is seen worse among 48 places than where one knows the place."""
    noise = np.random.default_rng(2).normal(0, 1.0, (2_000, 48, 1))
    alone = sighting(np.array([3.0]), noise[:, :1], internal=0.0)
    searched = sighting(np.array([3.0]), noise, internal=0.0)
    assert searched.d_prime < 0.6 * alone.d_prime


def test_correlated_bands_are_weighed_by_their_covariance():
    """A band that only carries the other's noise helps: the noise is subtracted."""
    rng = np.random.default_rng(3)
    common = rng.normal(0, 1.0, (5_000, 1))
    own = rng.normal(0, 0.2, (5_000, 1))
    noise = np.stack([common + own, common], axis=2)
    found = sighting(np.array([1.0, 0.0]), noise, internal=0.0)
    assert found.local == pytest.approx(5.0, rel=0.05)


def test_internal_noise_only_ever_hides():
    """The inspector with internal noise sees less than the ideal observer."""
    noise = np.random.default_rng(4).normal(0, 1.0, (200, 10, 3))
    signal = np.array([5.0, 1.0, 3.0])
    assert sighting(signal, noise).d_prime < sighting(signal, noise, internal=0.0).d_prime


def test_no_trace_is_no_visibility(thermographer):
    """A defect without heat has d' 0 and AUROC one half in the thermogram, exactly."""
    parts = makings("plate", count=2, seed=9)
    seen = looks(thermographer, "contamination", Strength(tone=2.0), parts=parts)
    assert mean_d(seen) == 0.0
    assert {s.auroc for s in sightings(seen)} == {0.5}


def test_a_solved_strength_has_the_grade_asked_for(thermographer):
    """On the parts that it was solved on, d' is the grade within a few per cent."""
    parts = makings("plate", count=3, seed=9)
    amount = solved(
        thermographer,
        "delamination",
        "heat",
        given=Strength(),
        grade=4.0,
        parts=parts,
        guess=0.2,
    )
    seen = looks(thermographer, "delamination", Strength(heat=amount), parts=parts)
    assert mean_d(seen) == pytest.approx(4.0, rel=0.06)
    weak = looks(thermographer, "delamination", Strength(heat=amount / 2), parts=parts)
    assert mean_d(weak) < 0.6 * mean_d(seen)


def test_twins_are_those_of_make_part():
    """The observer judges the very captures that the plant makes."""
    making = Making(product="can", seed=3, lot="L9")
    how = strength("can", "dent", 8.0)
    good, bad = (
        make_part(product="can", seed=3, lot="L9", defect=kind, grade=8.0, masks=False)
        for kind in (None, "dent")
    )
    wanted = view("scan", bad.captures["scan"]) - view("scan", good.captures["scan"])
    found = twins(making, kind="dent", strength=how, modality="scan")
    assert np.array_equal(found, straightened(wanted, making.pose()))


def test_a_straightened_capture_lies_as_in_the_part_s_own_frame():
    """Turn and shift are undone: on the part two takes agree better than as they were taken."""
    makings_ = [Making(product="can", seed=3, lot="L9", take=take) for take in (1, 2)]
    takes = [
        view("scan", make_part(product="can", seed=3, lot="L9", take=m.take).captures["scan"])
        for m in makings_
    ]
    laid = [straightened(stack, m.pose()) for stack, m in zip(takes, makings_, strict=True)]
    lid = np.s_[:, 36:92, 12:116]  # the rails beside it do not move with the part
    apart = [np.abs(a - b)[lid].mean() for a, b in (laid, takes)]
    assert apart[0] < 0.7 * apart[1]
