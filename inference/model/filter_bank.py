"""The built-in image extractor: oriented derivative energies and local means at four scales.

It needs no weights. It does not stand in for a pretrained network on real images (see
`training/LOG.md` for how far it gets); it makes a line work before there is one.

Source: Varma and Zisserman, "A statistical approach to texture classification", IJCV 2005 (filter
banks); Simoncelli and Freeman, "The steerable pyramid", 1995 (oriented energies over a pyramid).
"""

from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from inference.model.grid import GRID, to_grid, to_patches, to_side

SIDE: Final = 4 * GRID
LEVELS_LUMINANCE: Final = 4
LEVELS_COLOUR: Final = 3
_BINOMIAL: Final = (1 / 16, 4 / 16, 6 / 16, 4 / 16, 1 / 16)  # a Gaussian of sigma 1


def filter_bank_dim(channels: int) -> int:
    """Features per patch for captures of 1 or 3 channels."""
    luminance = 6 * LEVELS_LUMINANCE + 1
    return luminance if channels == 1 else luminance + 2 * (2 * LEVELS_COLOUR + 1)


def filter_bank(image: Float[Tensor, "channels height width"]) -> Float[Tensor, "patches dim"]:
    """Describe each patch by what its neighbourhood looks like at sigma 1, 2, 4 and 8 pixels.

    Args:
        image: 1 or 3 channels (red, green, blue) of finite values, at any scale: the bundle's
            normalisation takes units out.
    """
    image = to_side(image, SIDE)
    if image.shape[0] == 1:
        return to_patches(torch.cat(_luminance_features(image)))
    red, green, blue = image
    luminance = (red + green + blue)[None] / 3
    opponents = torch.stack(((red - green) / 2, (red + green) / 4 - blue / 2))
    return to_patches(torch.cat([*_luminance_features(luminance), *_colour_features(opponents)]))


def _luminance_features(channel: Float[Tensor, "1 side side"]) -> list[Tensor]:
    features = []
    level = channel
    for _ in range(LEVELS_LUMINANCE):
        level = _smooth(level)
        dx, dy = _gradients(level)
        laplacian = _laplacian(level)
        energies = torch.cat((dx, dy, (dx + dy) / 2, (dx - dy) / 2, laplacian)).square()
        features += [to_grid(energies).sqrt(), to_grid(laplacian)]
        level = F.avg_pool2d(level, 2)
    return [*features, to_grid(level)]


def _colour_features(opponents: Float[Tensor, "2 side side"]) -> list[Tensor]:
    features = []
    level = opponents
    for _ in range(LEVELS_COLOUR):
        level = _smooth(level)
        dx, dy = _gradients(level)
        energies = torch.cat((dx.square() + dy.square(), _laplacian(level).square()))
        features.append(to_grid(energies).sqrt())
        level = F.avg_pool2d(level, 2)
    return [*features, to_grid(level)]


def _smooth(level: Float[Tensor, "channels side side"]) -> Tensor:
    taps = level.new_tensor(_BINOMIAL)
    padded = F.pad(level[:, None], (2, 2, 2, 2), mode="replicate")
    rows = F.conv2d(padded, taps.view(1, 1, 1, 5))
    smooth: Tensor = F.conv2d(rows, taps.view(1, 1, 5, 1))[:, 0]
    return smooth


def _gradients(level: Float[Tensor, "channels side side"]) -> tuple[Tensor, Tensor]:
    padded = F.pad(level[None], (1, 1, 1, 1), mode="replicate")[0]
    dx = (padded[:, 1:-1, 2:] - padded[:, 1:-1, :-2]) / 2
    dy = (padded[:, 2:, 1:-1] - padded[:, :-2, 1:-1]) / 2
    return dx, dy


def _laplacian(level: Float[Tensor, "channels side side"]) -> Tensor:
    padded = F.pad(level[None], (1, 1, 1, 1), mode="replicate")[0]
    cross = padded[:, 1:-1, 2:] + padded[:, 1:-1, :-2] + padded[:, 2:, 1:-1] + padded[:, :-2, 1:-1]
    return cross - 4 * level
