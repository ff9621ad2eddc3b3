"""Nominal parts are spoilt at one place, in some modalities, the same way every time."""

import numpy as np

from training.pseudo_defects import spoilt_samples


def changed(before, after):
    return {
        name
        for name in before.captures
        if not np.array_equal(before.captures[name], after.captures[name], equal_nan=True)
    }


def test_damage_is_local_and_repeatable(make_sample) -> None:
    """At least one modality changes, most pixels do not, holes stay holes, kinds of number too."""
    parts = [make_sample(seed) for seed in range(24)]
    spoilt = spoilt_samples(parts, seed=0)
    again = spoilt_samples(parts, seed=0)
    for part, bad, same in zip(parts, spoilt, again, strict=True):
        assert changed(part, bad)
        assert not changed(bad, same)
        assert bad.label == "defective"
        for name, before in part.captures.items():
            after = bad.captures[name]
            assert after.dtype == before.dtype
            assert after.shape == before.shape
            assert np.array_equal(np.isnan(before * 1.0), np.isnan(after * 1.0))
            gap = np.abs(np.nan_to_num(after * 1.0) - np.nan_to_num(before * 1.0))
            assert np.mean(gap > 0.02 * np.ptp(np.nan_to_num(before * 1.0))) < 0.2


def test_modalities_are_spoilt_in_all_combinations(make_sample) -> None:
    """Some damage is seen by one sensor alone, some by several; none by no sensor."""
    parts = [make_sample(seed) for seed in range(60)]
    pairs = zip(parts, spoilt_samples(parts, seed=1), strict=True)
    seen = [changed(part, bad) for part, bad in pairs]
    assert {len(each) for each in seen} == {1, 2, 3}


def test_points_move_in_height_alone(make_sample) -> None:
    """x and y of a cloud are where they were."""
    parts = [make_sample(seed) for seed in range(12)]
    for part, bad in zip(parts, spoilt_samples(parts, seed=2), strict=True):
        before, after = part.captures["scan"], bad.captures["scan"]
        assert np.array_equal(before[..., :2], after[..., :2], equal_nan=True)
