"""Scores, maps and fusion of the paper against the authors' own numbers."""

import math

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter

from inference.model.bank import Bank
from inference.model.paper.score import Worst, blurred, blurred_in_bytes, pixel_map


def rel(found: torch.Tensor, wanted: np.ndarray) -> float:
    return float(abs(found.double() - torch.from_numpy(wanted).double()).max())


@pytest.mark.parametrize("name", ["e_score_28", "e_score_56"])
def test_distances_scores_and_maps_are_those_of_the_authors(golden, name) -> None:
    """Nearest rows exact, distances and image score to 1e-4, maps within the stated levels."""
    arrays = golden(name)
    queries, rows = (torch.from_numpy(arrays[key]) for key in ("query", "bank"))
    bank = Bank.of(rows)
    found = bank.nearest(queries)
    assert found.rows[:, 0].tolist() == arrays["min_idx"].tolist()
    assert rel(found.distances[:, 0], arrays["min_val"]) < 1e-4
    score = float(Worst.of([queries], [found], bank).scores())
    assert score == pytest.approx(float(arrays["s"]), rel=1e-5)
    pixels = pixel_map(found.distances[:, 0])
    step = 224 // len(arrays["up_sub"])
    assert rel(pixels[::step, ::step], arrays["up_sub"]) < 1e-4
    level = float(pixels.max()) / 255
    step = 224 // len(arrays["s_map_sub"])
    assert rel(blurred_in_bytes(pixels)[::step, ::step], arrays["s_map_sub"]) <= level * 1.001
    assert rel(blurred(pixels)[::step, ::step], arrays["s_map_sub"]) <= 4 * level


@pytest.mark.parametrize("sigma", [2.0, 4.0, 7.3])
def test_the_blur_in_bytes_is_pillows_to_the_bit(sigma) -> None:
    """Bytes after our blur equal those of ImageFilter.GaussianBlur."""
    levels = np.random.default_rng(0).integers(0, 256, (90, 70)).astype(np.uint8)
    levels[0, 0] = 255
    wanted = np.asarray(Image.fromarray(levels).filter(ImageFilter.GaussianBlur(sigma)))
    found = blurred_in_bytes(torch.from_numpy(levels / 255 + 1e-9), sigma=sigma) * 255
    assert np.array_equal(found.round().numpy().astype(np.uint8), wanted)


def test_a_lonely_match_counts_for_less(golden) -> None:
    """The weight is 1 - exp(s / sqrt D) over the sum for the match's two neighbours."""
    rows = torch.tensor([[0.0, 0.0], [1.0, 0.0], [5.0, 5.0], [9.0, 9.0]])
    bank = Bank.of(rows)
    query = torch.tensor([[0.0, -2.0]])
    found = bank.nearest(query)
    root = math.sqrt(2)
    near, far = math.hypot(1, 2), math.hypot(5, 7)
    weight = 1 - math.exp(2 / root) / (math.exp(near / root) + math.exp(far / root))
    assert float(Worst.of([query], [found], bank).scores()) == pytest.approx(2 * weight, rel=1e-5)


def test_a_unit_of_distances_is_that_of_scaled_features(golden) -> None:
    """The scores in units of a spread are those of features divided by it, shifted or not."""
    arrays = golden("e_score_56")
    queries, rows = (torch.from_numpy(arrays[key]) for key in ("query", "bank"))
    bank, scaled = Bank.of(rows), Bank.of((rows - 0.3) / 1.7)
    shifted = (queries - 0.3) / 1.7
    wanted = Worst.of([shifted], [scaled.nearest(shifted)], scaled).scores()
    found = Worst.of([queries], [bank.nearest(queries)], bank).scores(spread=1.7)
    torch.testing.assert_close(found, wanted)


def test_very_large_distances_do_not_overflow() -> None:
    """A score stays finite where exp of the distance would not."""
    bank = Bank.of(torch.zeros(4, 4))
    query = torch.full((1, 4), 1e4)
    assert math.isfinite(float(Worst.of([query], [bank.nearest(query)], bank).scores()))
