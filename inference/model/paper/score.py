"""From patch distances to an image score and a pixel map, as the authors compute them.

Source: Roth et al., "Towards total recall in industrial anomaly detection" (PatchCore), CVPR 2022,
equation 7 (re-weighting); Sui et al., CMDIAD, arXiv:2405.13571, and its code.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Self

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from inference.model.bank import Bank
from inference.model.search import Nearest

REWEIGHTED: Final = 3
"""Nearest rows of the most unusual patch's match, itself among them."""
BLUR_SIGMA: Final = 4.0
"""Standard deviation of the map's blur, pixels of a 224 x 224 map."""
_LEVELS: Final = 255
_PASSES: Final = 3
_FIXED: Final = 24
"""Bits after the point of the weights of a box."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Worst:
    """The most unusual patch of each part, and how far it is from what its match lies near.

    Args:
        distance: To the nearest row, its match.
        others: To the rows nearest to the match, itself not among them.
        dim: Features a patch.
    """

    distance: Float[Tensor, " parts"]
    others: Float[Tensor, "parts near"]
    dim: int

    @classmethod
    def of(
        cls, queries: Sequence[Float[Tensor, "patches dim"]], found: Sequence[Nearest], bank: Bank
    ) -> Self:
        """Look at each part's patches and their nearest rows in `bank`."""
        worst = [each.distances[:, 0].argmax() for each in found]
        pairs = list(zip(found, worst, strict=True))
        match = torch.stack([each.rows[at, 0] for each, at in pairs])
        patch = torch.stack([each[at] for each, at in zip(queries, worst, strict=True)])
        near = bank.nearest(bank.at(match), min(REWEIGHTED, len(bank))).rows[:, 1:]
        return cls(
            distance=torch.stack([each.distances[at, 0] for each, at in pairs]),
            others=(patch[:, None] - bank.at(near)).square().sum(2).sqrt(),
            dim=patch.shape[1],
        )

    def scores(self, *, spread: float = 1.0) -> Float[Tensor, " parts"]:
        """The largest distance, weighted by how alone its match is; all in units of `spread`.

        The weight 1 - exp(a) / sum(exp(b)) is computed so that nothing overflows.
        """
        unit = spread * math.sqrt(self.dim)
        share = torch.exp(self.distance / unit - torch.logsumexp(self.others / unit, 1))
        return (1 - share) * self.distance / spread


def pixel_map(distances: Float[Tensor, " patches"], *, side: int = 224) -> Float[Tensor, "s s"]:
    """Patch distances of a square grid at `side` x `side` pixels, bilinear."""
    grid = math.isqrt(len(distances))
    grown: Tensor = F.interpolate(
        distances.view(1, 1, grid, grid), size=side, mode="bilinear", align_corners=False
    )
    return grown[0, 0]


def blurred(pixels: Float[Tensor, "height width"], *, sigma: float = BLUR_SIGMA) -> Tensor:
    """A Gaussian blur in floating point: what the quantised one only comes near."""
    radius = math.ceil(4 * sigma)
    reach = torch.arange(-radius, radius + 1, dtype=pixels.dtype, device=pixels.device)
    taps = torch.exp(-0.5 * (reach / sigma).square())
    taps = (taps / taps.sum()).view(1, 1, 1, -1)
    wide = F.pad(pixels[None, None], (radius,) * 4, mode="replicate")
    smooth: Tensor = F.conv2d(F.conv2d(wide, taps), taps.transpose(2, 3))
    return smooth[0, 0]


def blurred_in_bytes(pixels: Float[Tensor, "height width"], *, sigma: float = BLUR_SIGMA) -> Tensor:
    """The blur of the authors: of bytes scaled by the map's own maximum, as Pillow blurs them.

    Three passes of a box along each axis in fixed point, rounded to a byte after each. All but the
    floor to bytes is Pillow's `GaussianBlur`, to the bit.
    """
    highest = pixels.max()
    levels = (pixels / highest * _LEVELS).to(torch.uint8).long()
    radius = _box_radius(sigma)
    for _ in range(2):
        for _ in range(_PASSES):
            levels = _box(levels, radius)
        levels = levels.t()
    return levels / _LEVELS * highest


def _box_radius(sigma: float) -> float:
    """The radius at which `_PASSES` boxes have the variance of a Gaussian.

    Source: Gwosdek et al., "Theoretical foundations of Gaussian convolution by extended box
    filtering", SSVM 2011.
    """
    variance = sigma**2 / _PASSES
    whole = math.floor((math.sqrt(12 * variance + 1) - 1) / 2)
    edge = (2 * whole + 1) * (whole * (whole + 1) - 3 * variance)
    return whole + edge / (6 * (variance - (whole + 1) ** 2))


def _box(levels: Tensor, radius: float) -> Tensor:
    """Mean along each row over 2 x `radius` + 1 levels, those at the border going on."""
    whole = int(radius)
    width = levels.shape[1]
    inside = int((1 << _FIXED) / (radius * 2 + 1))
    outside = ((1 << _FIXED) - (whole * 2 + 1) * inside) // 2
    column = torch.arange(-whole - 1, width + whole + 1, device=levels.device).clamp(0, width - 1)
    spread = levels[:, column]
    total = F.pad(spread.cumsum(1), (1, 0))
    span = 2 * whole + 1
    middle = total[:, span + 1 : span + 1 + width] - total[:, 1 : 1 + width]
    ends = spread[:, :width] + spread[:, span + 1 : span + 1 + width]
    return (middle * inside + ends * outside + (1 << (_FIXED - 1))) >> _FIXED
