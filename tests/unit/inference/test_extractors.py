"""Every extractor gives 3136 patch features, the same each time; what was not measured has none."""

import numpy as np
import pytest
import timm
import torch

from connectors.errors import Poison
from inference.extractors import build_extractor, load_weights
from inference.model.filter_bank import filter_bank_dim
from inference.model.grid import GRID, PATCHES
from inference.model.surface import SURFACE_DIM

RNG = np.random.default_rng(0)
COLOUR = RNG.integers(0, 255, (70, 90, 3), np.uint8)
GREY = RNG.normal(30, 1, (70, 90)).astype(np.float32)


def cloud(tilt: float = 0.0) -> np.ndarray:
    y, x = np.mgrid[0:96, 0:96].astype(np.float32)
    z = np.sin(x / 9) + tilt * x + 2 * tilt * y
    points = np.stack((x, y, z), axis=-1)
    points[5:9, 20:30] = np.nan
    return points


@pytest.mark.parametrize(
    ("name", "capture", "dim"),
    [
        ("filter-bank", COLOUR, filter_bank_dim(3)),
        ("filter-bank", GREY, filter_bank_dim(1)),
        ("filter-bank", cloud()[..., 2], filter_bank_dim(1)),
        ("surface", cloud(), SURFACE_DIM),
        ("surface", cloud()[..., 2], SURFACE_DIM),
        ("surface", cloud()[:20, :30], SURFACE_DIM),
    ],
)
def test_a_capture_becomes_patch_features(name, capture, dim) -> None:
    """Whatever the size, colours or holes: patches x dim, finite, repeatable to the bit."""
    extractor = build_extractor(name, {})
    features = extractor.extract(capture)
    assert features.shape == (PATCHES, dim)
    measured = torch.isfinite(features).all(1)
    holes = np.isnan(capture).any()
    assert measured.float().mean() > (0.8 if holes else 0.9999)
    assert torch.isnan(features[~measured]).all()
    assert torch.equal(features[measured], extractor.extract(capture.copy())[measured])


def test_patches_at_a_hole_tell_nothing_and_single_holes_do_no_harm() -> None:
    """Rows 5-8 and columns 20-29 of 96 are missing: those patches, with the ring around them."""
    extractor = build_extractor("surface", {})
    lacking = torch.isnan(extractor.extract(cloud())).all(1).view(56, 56)
    assert lacking[3:5, 12:17].all()
    assert not lacking[8:].any()
    assert not lacking[:, :10].any()
    speckled = cloud()
    speckled[np.random.default_rng(1).random((96, 96)) < 0.1] = np.nan
    more = torch.isnan(extractor.extract(speckled)).all(1).float().mean() - lacking.float().mean()
    assert more < 0.05


def test_the_plane_of_a_part_does_not_matter() -> None:
    """A tilted part has (nearly) the same surface features as a flat one."""
    extractor = build_extractor("surface", {})
    flat, tilted = extractor.extract(cloud()), extractor.extract(cloud(tilt=0.02))
    assert (flat - tilted).abs().nanmean() < 0.02 * flat.abs().nanmean()


def test_a_dent_shows_where_it_is() -> None:
    """Features change at the dent's patches and hardly elsewhere."""
    extractor = build_extractor("surface", {})
    dented = cloud()
    dented[60:66, 40:46, 2] -= 3
    change = (extractor.extract(dented) - extractor.extract(cloud())).abs().sum(1).view(56, 56)
    inside = change[35:39, 23:27]
    assert inside.mean() > 20 * change.nanmedian()


def test_timm_weights_come_from_the_caller() -> None:
    """Two networks with the same weights agree; weights that do not fit are named."""
    torch.manual_seed(0)
    weights = timm.create_model("resnet10t", features_only=True, out_indices=(2, 3)).state_dict()
    first = build_extractor("timm-resnet10t", weights)
    again = build_extractor("timm-resnet10t", weights)
    assert torch.equal(first.extract(COLOUR), again.extract(COLOUR))
    assert torch.isfinite(first.extract(GREY)).all()
    weights.pop("conv1.0.weight")
    with pytest.raises(Poison, match=r"conv1\.0\.weight"):
        build_extractor("timm-resnet10t", weights)


@pytest.mark.parametrize("name", ["nonesuch", "timm-nonesuch"])
def test_an_unknown_extractor_is_refused_by_name(name) -> None:
    """The error says what was asked for."""
    with pytest.raises(Poison, match="nonesuch"):
        build_extractor(name, {})


def test_a_missing_weights_file_is_named(tmp_path) -> None:
    """The path is in the error."""
    with pytest.raises(Poison, match="absent"):
        load_weights(tmp_path / "absent.safetensors")


def test_a_vision_transformer_is_an_extractor_of_a_line() -> None:
    """Tokens of its own grid stand on the common one; the same capture gives the same features."""
    torch.manual_seed(0)
    weights = timm.create_model("vit_tiny_patch16_224", num_classes=0).state_dict()
    extractor = build_extractor("timm-vit_tiny_patch16_224", weights)
    features = extractor.extract(COLOUR)
    assert features.shape == (PATCHES, 192)
    assert torch.equal(features[0], features[1 + GRID])  # 4 x 4 patches share a token of 14 x 14
    assert torch.equal(features, extractor.extract(COLOUR))
    assert torch.isfinite(extractor.extract(GREY)).all()
    with pytest.raises(Poison, match=r"norm\.weight"):
        build_extractor("timm-vit_tiny_patch16_224", weights | {"norm.weight": torch.ones(3)})


def test_point_mae_is_an_extractor_of_a_line_whatever_its_units(authors_state) -> None:
    """Clouds in millimetres and in metres give the same features; holes give none."""
    extractor = build_extractor("point-mae", authors_state("PointTransformer", gain=1.0))
    scan = cloud()
    scan[:40, :40] = np.nan
    features = extractor.extract(scan)
    assert features.shape == (PATCHES, 768)
    lacking = ~torch.isfinite(features).all(1).view(GRID, GRID)
    assert lacking[:8, :8].all()
    assert not lacking[26:, 26:].any()
    # Not to the digit: rounding decides which of equally far points becomes a centre.
    apart = (extractor.extract(scan / 1000) - features).nan_to_num(0.0)
    assert apart.norm() < 0.1 * features.nan_to_num(0.0).norm()
    with pytest.raises(Poison, match="point-mae-running: weights do not fit"):
        build_extractor("point-mae-running", {})
