"""The simulated worlds are what they are called: checks find what is wrong there, little else."""

from training.promise_power import false_rejects, likeness, masking, power


def test_what_is_badly_wrong_is_found() -> None:
    """Too high a rank, parts of another kind, and parts that really lack a sensor."""
    assert power(false_rejects(shift=2.0), runs=20) == 1.0
    assert power(likeness(shift=1.5), runs=4) == 1.0
    assert power(masking(lots=40, shift=3.0), runs=4) == 1.0


def test_where_nothing_is_wrong_little_is_found() -> None:
    """At most 5 % of runs, give or take what 60 runs can tell; the same seed, the same share."""
    found = power(false_rejects(), runs=60)
    assert found <= 0.15
    assert power(false_rejects(), runs=60) == found
    assert power(likeness(), runs=8) <= 0.25
    assert power(masking(lots=40, shift=0.0), runs=8) <= 0.25
