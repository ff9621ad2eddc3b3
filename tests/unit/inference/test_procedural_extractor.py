"""The packaged network is the recorded one, reads every image kind, and keeps what it promises."""

from pathlib import Path

import numpy as np
import pytest
import torch

from connectors.errors import Poison
from inference import weights
from inference.extractors import build_extractor
from inference.model.evening import evened
from inference.model.grid import GRID, PATCHES
from inference.model.texture_net import CHANNELS

RNG = np.random.default_rng(0)
GRAIN = RNG.normal(0, 12, (180, 200))
GREY = np.clip(120 + GRAIN, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def extractor():
    return build_extractor("procedural", {})


@pytest.mark.parametrize(
    "capture",
    [
        GREY,
        np.stack((GREY, GREY // 2, 255 - GREY), axis=2),
        (GREY.astype(np.uint16) * 200),
        (30 + GRAIN / 40).astype(np.float32),
        np.full((60, 60), 7, np.uint8),
        np.where(RNG.random((90, 90)) < 0.1, np.nan, GRAIN[:90, :90]).astype(np.float32),
    ],
    ids=["grey", "colour", "16 bit", "degrees", "constant", "height map with holes"],
)
def test_every_image_kind_becomes_finite_patch_features(extractor, capture) -> None:
    """One size of features, finite but for patches among holes, repeatable to the bit."""
    features = extractor.extract(capture)
    assert features.shape == (PATCHES, sum(CHANNELS[:3]))
    measured = torch.isfinite(features).all(1)
    assert measured.float().mean() > (0.98 if np.isnan(capture).any() else 0.9999)
    assert torch.equal(features[measured], extractor.extract(capture.copy())[measured])


def test_light_counts_for_less_than_a_crack(extractor) -> None:
    """Half the light with a gradient changes patches less than a thin dark line changes its own."""
    plain = extractor.extract(GREY)
    gradient = np.linspace(0.4, 0.7, GREY.shape[1])
    dim = extractor.extract((GREY * gradient).astype(np.uint8))
    cracked = GREY.copy()
    cracked[60:120, 100:102] = 30
    changed = (extractor.extract(cracked) - plain).norm(dim=1).view(GRID, GRID)
    assert changed[20:36, 27:30].median() > 1.5 * (dim - plain).norm(dim=1).median()


def test_a_defect_changes_nothing_far_from_it() -> None:
    """Evening looks at the surroundings alone: the other half of the picture stays as it was."""
    picture = torch.from_numpy(GREY[:176, :176].copy()).float().expand(1, 3, -1, -1) / 255
    marked = picture.clone()
    marked[..., :20, :20] = 1
    assert torch.equal(evened(picture)[..., 120:, 120:], evened(marked)[..., 120:, 120:])
    assert not torch.equal(evened(picture)[..., :30, :30], evened(marked)[..., :30, :30])


def test_the_packaged_weights_are_the_recorded_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They load; one changed byte is noticed; other extractors have none."""
    assert weights.default_weights("procedural")
    assert weights.default_weights("filter-bank") == {}
    folder = Path(weights.__file__).parent
    data = bytearray((folder / "procedural.safetensors").read_bytes())
    assert len(data) < 10_000_000
    data[-1] ^= 1
    (tmp_path / "procedural.safetensors").write_bytes(data)
    (tmp_path / "procedural.json").write_text((folder / "procedural.json").read_text())
    monkeypatch.setattr(weights, "_FOLDER", tmp_path)
    with pytest.raises(RuntimeError, match="install it anew"):
        weights.default_weights("procedural")


def test_weights_that_do_not_fit_are_refused() -> None:
    """The first misfit is named."""
    tensors = weights.default_weights("procedural")
    tensors.pop("layer2.0.conv1.weight")
    with pytest.raises(Poison, match=r"layer2\.0\.conv1\.weight"):
        build_extractor("procedural", tensors)
