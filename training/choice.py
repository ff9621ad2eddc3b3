"""Choose the simplest of several scores that is as good as the best one."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

_ERRORS: Final = 2
"""Standard errors of the difference below which a choice counts as not worse."""


def least_as_good(
    scores: NDArray[np.float64], defective: NDArray[np.bool_], *, seed: int, resamples: int
) -> int:
    """Index of the first row of `scores` whose AUROC is not clearly worse than the best row's.

    Clearly: by more than two standard errors of the difference, over parts resampled within each
    label, the same ones for every row.

    Args:
        scores: Choices x parts, the simplest choice first; higher is more anomalous.
        defective: Which parts are defective; both labels occur.
        seed: Of the resamples.
        resamples: How many.

    Source: Breiman et al., "Classification and regression trees", 1984, by one standard
    error; two, because several choices are tried at once.
    """
    wins = _wins(scores, defective)
    rng = np.random.default_rng(seed)
    areas = np.empty((resamples, len(scores)))
    for row in range(resamples):
        bad = _counts(rng, wins.shape[1])
        good = _counts(rng, wins.shape[2])
        areas[row] = np.einsum("cbg,b,g->c", wins, bad, good, optimize=True)
    best = int(wins.mean(axis=(1, 2)).argmax())
    for choice, area in enumerate(wins.mean(axis=(1, 2))):
        error = float((areas[:, best] - areas[:, choice]).std())
        if wins[best].mean() - area <= _ERRORS * error:
            return choice
    return best


def _wins(scores: NDArray[np.float64], defective: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Choices x defective x good: 1 where the defective part scores higher, one half if equal."""
    bad, good = scores[:, defective, None], scores[:, None, ~defective]
    return np.asarray((bad > good) + 0.5 * (bad == good), np.float64)


def _counts(rng: np.random.Generator, size: int) -> NDArray[np.float64]:
    """How often each of `size` parts is drawn, as shares."""
    return np.bincount(rng.integers(size, size=size), minlength=size) / size
