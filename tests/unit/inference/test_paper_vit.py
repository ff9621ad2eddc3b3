"""The eye of images, against the authors' features and on other grids."""

import numpy as np
import pytest
import torch
from PIL import Image

from inference.model.paper.eyes import ImageEye
from inference.model.paper.vit import DINO, VisionTransformer, repeat_to_grid

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
TINY = "vit_tiny_patch16_224"


@pytest.fixture(scope="module")
def tiny() -> dict[str, torch.Tensor]:
    import timm

    torch.manual_seed(0)
    return timm.create_model(TINY, num_classes=0).state_dict()


def images(count: int, side: int) -> torch.Tensor:
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(1))


def test_features_are_those_of_the_authors(golden, authors_state) -> None:
    """DINO's ViT-B/8 on the image as they load it: bicubic, 224 pixels, ImageNet's scale."""
    image = Image.fromarray(golden("f_rgb")["rgb_in"]).resize((224, 224), Image.Resampling.BICUBIC)
    scaled = ((np.asarray(image, dtype=np.float32) / 255 - MEAN) / STD).astype(np.float32)
    eye = VisionTransformer(authors_state("ViT", gain=0.5), name=DINO)
    tokens = eye(torch.from_numpy(scaled).permute(2, 0, 1)[None])[0]
    assert (tokens.shape, eye.grid, eye.dim) == ((784, 768), (28, 28), 768)
    expected = golden("b1_vit")
    mean_std_absmax = [float(tokens.mean()), float(tokens.std()), float(tokens.abs().max())]
    np.testing.assert_allclose(mean_std_absmax, expected["feat_mean_std_absmax"], rtol=1e-3)
    mine, theirs = tokens.t().unflatten(1, eye.grid)[::12, ::3, ::3].numpy(), expected["feat_sub"]
    assert np.linalg.norm(mine - theirs) / np.linalg.norm(theirs) < 1e-5


def test_an_image_alone_looks_as_it_does_among_others(tiny) -> None:
    """Bit for bit, whatever is beside it."""
    eye = VisionTransformer(tiny, name=TINY)
    batch = images(3, 224)
    assert torch.equal(eye(batch)[1], eye(batch[1:2])[0])


def test_the_grid_is_that_of_the_model_and_its_input() -> None:
    """Registers and the class token are no patches, and a larger image has more of them."""
    import timm

    name = "vit_small_patch14_reg4_dinov2"
    network = timm.create_model(name, num_classes=0, global_pool="").eval()
    eye = VisionTransformer(network.state_dict(), name=name, side=112)
    assert (eye.grid, eye.dim) == ((8, 8), 384)
    batch = images(1, 112)
    network.set_input_size(img_size=112)
    with torch.no_grad():
        expected = network.forward_features(batch)[:, 5:]
    torch.testing.assert_close(eye(batch), expected)


def test_the_first_misfit_is_named(tiny) -> None:
    """Wrong weights never make a silent eye, nor does a network that has no tokens."""
    with pytest.raises(ValueError, match=r"weights do not fit: norm\.weight is missing"):
        VisionTransformer({k: v for k, v in tiny.items() if k != "norm.weight"}, name=TINY)
    with pytest.raises(ValueError, match=r"head\.bias has no place"):
        VisionTransformer(tiny | {"head.bias": torch.zeros(2)}, name=TINY)
    with pytest.raises(ValueError, match="resnet18 is no vision transformer"):
        VisionTransformer({}, name="resnet18")


def test_tokens_are_repeated_as_the_authors_repeat_them(golden) -> None:
    """Two by two patches of the common grid show one token; its own grid stays as it is."""
    expected = golden("b_rgb_patch")
    tokens = torch.from_numpy(expected["patch28"])[None]
    np.testing.assert_array_equal(repeat_to_grid(tokens)[0], expected["patch56"])
    assert torch.equal(repeat_to_grid(tokens, 28), tokens)


def test_tokens_of_a_grid_that_does_not_divide_are_interpolated() -> None:
    """A slope stays a slope."""
    slope = torch.arange(37.0).expand(37, 37).reshape(1, -1, 1)
    rows = repeat_to_grid(slope, 56).reshape(56, 56)
    torch.testing.assert_close(rows[0], rows[-1])
    steps = rows[0, 2:-2].diff()
    torch.testing.assert_close(steps, torch.full_like(steps, 37 / 56), rtol=1e-4, atol=1e-4)


def test_an_eye_of_any_grid_gives_patches_that_fit_the_common_one() -> None:
    """A grid that divides 56 stays as it is; another one is interpolated."""
    torch.manual_seed(0)
    for side, grid in ((224, 14), (256, 56)):
        eye = ImageEye(VisionTransformer(None, name="vit_tiny_patch16_224", side=side))
        (patches,) = eye.see(torch.rand(1, 3, side, side))
        assert patches.grid == grid
        assert len(patches.at_grid(56).place) == 56 * 56
