"""The simplest of several scores is taken unless another is clearly better."""

import numpy as np

from training.choice import least_as_good


def drawn(separations, *, seed: int = 0):
    rng = np.random.default_rng(seed)
    defective = np.arange(400) >= 200
    noise = rng.normal(size=400)
    return np.array([noise + gap * defective for gap in separations]), defective


def test_a_choice_that_is_clearly_better_is_taken() -> None:
    """A later choice wins when it separates far better than those before it."""
    scores, defective = drawn([0.2, 0.2, 2.0])
    assert least_as_good(scores, defective, seed=0, resamples=100) == 2


def test_the_first_of_equally_good_choices_is_taken() -> None:
    """Equal, or better by less than two standard errors: the simplest."""
    scores, defective = drawn([1.0, 1.0])
    assert least_as_good(scores, defective, seed=0, resamples=100) == 0
    shaken = scores.copy()
    shaken[1] += np.random.default_rng(1).normal(0, 0.7, 400)
    shaken[1, 399] += 5
    assert least_as_good(shaken, defective, seed=0, resamples=100) == 0


def test_a_choice_that_ranks_wrongly_is_never_taken() -> None:
    """A score below chance loses against one above it, wherever it stands."""
    scores, defective = drawn([-1.0, 1.0])
    assert least_as_good(scores, defective, seed=0, resamples=100) == 1
    assert least_as_good(scores[::-1], defective, seed=0, resamples=100) == 0
