"""Networks are compared picture by picture, and only pixels of the object count."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from inference.model.grid import GRID
from training import pretrain_selection as module
from training.pretrain_selection import Result, assess, difference


class Brightness:
    """A patch's feature is its mean value."""

    def extract(self, capture: np.ndarray) -> torch.Tensor:
        grey = torch.from_numpy(capture.astype(np.float32)).reshape(*capture.shape[:2], -1).mean(2)
        return torch.nn.functional.adaptive_avg_pool2d(grey[None, None], GRID).reshape(-1, 1)


def test_the_difference_is_paired_by_picture() -> None:
    """Against itself it is nothing at all; a gain on every picture is certain, whatever the
    pictures' own spread."""
    rng = np.random.default_rng(0)
    values = rng.uniform(0.1, 0.8, 40)
    one = Result({"a": np.zeros((4, 5))}, {"c": values + 0.1})
    other = Result({"a": np.zeros((4, 5))}, {"c": values})
    assert difference(other, other)["localisation"] == (0, 0, 0)
    assert difference(one, other)["localisation"] == pytest.approx((0.1, 0.1, 0.1))
    worse = Result({"a": np.zeros((4, 5))}, {"c": values + rng.normal(0, 0.2, 40)})
    mean, low, high = difference(worse, other)["localisation"]
    assert low < mean < high


def test_only_object_pixels_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bright spot on a grey part is found perfectly, though the dark table is as unusual."""
    monkeypatch.setattr(module, "PRODUCTS", ())
    part = np.zeros((56, 56, 3), np.uint8)
    part[10:40, 10:40] = 100
    marked, mask = part.copy(), np.zeros((56, 56), np.uint8)
    marked[20:24, 20:24], mask[20:24, 20:24] = 250, 255
    marked[50:, 50:] = 39  # no good part has such a table
    for name, pictures in (
        ("train/good/0", {"rgb": part}),
        ("test/spot/1", {"rgb": marked, "rgb_mask": mask}),
    ):
        folder = tmp_path / "cube" / name
        folder.mkdir(parents=True)
        for kind, picture in pictures.items():
            Image.fromarray(picture).save(folder / f"{kind}.png")
    result = assess(Brightness(), seed=0, masks=tmp_path)
    assert result.masked["cube"].tolist() == [1.0]
    assert result.localisation == 1.0
