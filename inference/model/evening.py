"""Even out light: what a picture shows relative to its surroundings.

Only the surroundings count, never the whole picture: a defect changes nothing far from it.
"""

from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - torch's own convention

_COARSE: Final = 4
"""Surroundings are found at a quarter of the resolution."""
_MEAN_REACH: Final = 3.0
_SPREAD_REACH: Final = 6.0
"""Standard deviations of the surroundings, in coarse pixels."""
_NOISE: Final = 0.01
"""Spread, as a share of full scale, that a smooth surface has from noise alone."""


def evened(images: Float[Tensor, "batch channels height width"]) -> Tensor:
    """Each channel less its local mean, by the local spread of all channels: about -2 to 2."""
    rest = images - _surroundings(images, _MEAN_REACH)
    power = _surroundings(rest.square().mean(1, keepdim=True), _SPREAD_REACH)
    return (rest / (power + _NOISE**2).sqrt()).clamp(-6, 6)


def _surroundings(images: Tensor, reach: float) -> Tensor:
    """A Gaussian average; beyond the border, what lies at the border goes on."""
    coarse = F.avg_pool2d(images, _COARSE)
    radius = int(3 * reach)
    line = torch.arange(-radius, radius + 1, dtype=images.dtype, device=images.device)
    weights = torch.exp(-0.5 * (line / reach).square())
    kernel = (weights / weights.sum()).expand(images.shape[1], 1, 1, -1)
    wide = F.pad(coarse, (radius, radius, radius, radius), mode="replicate")
    across = F.conv2d(wide, kernel, groups=images.shape[1])
    smooth = F.conv2d(across, kernel.transpose(2, 3), groups=images.shape[1])
    grown: Tensor = F.interpolate(
        smooth, size=images.shape[-2:], mode="bilinear", align_corners=False
    )
    return grown
