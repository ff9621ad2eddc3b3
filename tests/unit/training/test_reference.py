"""The plain protocol gives what its definition says, whatever the order of reading."""

import numpy as np
import pytest
import torch

from connectors.errors import Poison
from inference.model.grid import PATCHES
from training.reference import reference_bank, reference_scores


class Pixels:
    """A patch's feature is its own value, twice."""

    def extract(self, capture: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(capture).float().reshape(-1, 1).repeat(1, 2)


def captures(seed: int, count: int) -> list[np.ndarray]:
    return list(np.random.default_rng(seed).normal(size=(count, 56, 56)).astype(np.float32))


def test_the_score_is_the_largest_distance_to_the_memory() -> None:
    """With a memory of every patch, it is what a full search finds."""
    nominal, test = captures(0, 2), captures(1, 3)
    scores = reference_scores(Pixels(), nominal=nominal, test=test, rows=2 * PATCHES)
    known = np.concatenate([n.ravel() for n in nominal])
    wanted = [
        np.sqrt(2) * max(np.abs(known - value).min() for value in image.ravel()) for image in test
    ]
    np.testing.assert_allclose(scores, wanted, rtol=1e-5)


def test_the_memory_draws_from_all_captures_alike() -> None:
    """One pass keeps a uniform choice: no capture has more than its share; seeds repeat."""
    features = [torch.full((PATCHES, 1), float(i)) for i in range(8)]
    rows = reference_bank(iter(features), rows=4_000, seed=3).rows
    counts = torch.bincount(rows[:, 0].long(), minlength=8)
    assert len(rows) == 4_000
    assert (counts - 500).abs().max() < 5 * (500 * 7 / 8) ** 0.5
    assert torch.equal(rows, reference_bank(iter(features), rows=4_000, seed=3).rows)
    assert not torch.equal(rows, reference_bank(iter(features), rows=4_000, seed=4).rows)


def test_no_nominal_capture_is_refused() -> None:
    """The error says what is missing."""
    with pytest.raises(Poison, match="nominal"):
        reference_scores(Pixels(), nominal=[], test=captures(1, 1))
