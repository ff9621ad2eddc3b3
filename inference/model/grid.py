"""The common grid: every modality becomes 56 x 56 patches of features.

Captures come in any size; they are resampled to four pixels a patch, so that patch (row, column)
of one modality lies over patch (row, column) of every other.
"""

from typing import Final

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - torch's own convention

GRID: Final = 56
PATCHES: Final = GRID * GRID

_MEASURED: Final = 0.9
"""Share of the pixels in and next to a patch that have to be measured for it to be evidence."""


def to_side(image: Float[Tensor, "channels height width"], side: int) -> Tensor:
    """Resample to `side` x `side` pixels, antialiased; the aspect ratio is not kept."""
    if image.shape[-2:] == (side, side):
        return image
    resized: Tensor = F.interpolate(
        image[None], size=(side, side), mode="bilinear", antialias=True, align_corners=False
    )
    return resized[0]


def to_grid(maps: Float[Tensor, "channels height width"]) -> Tensor:
    """Average (or, from a coarser map, interpolate) to the common grid."""
    if maps.shape[-1] >= GRID:
        pooled: Tensor = F.adaptive_avg_pool2d(maps[None], GRID)[0]
        return pooled
    grown: Tensor = F.interpolate(maps[None], size=GRID, mode="bilinear", align_corners=False)
    return grown[0]


def to_patches(maps: Float[Tensor, "dim rows columns"]) -> Float[Tensor, "patches dim"]:
    """One row per patch, row-major over the grid."""
    return maps.flatten(1).t().contiguous()


def unmeasured(valid: Bool[Tensor, "height width"]) -> Bool[Tensor, " patches"]:
    """Patches that tell nothing: more than a tenth of what they and their neighbours show is holes.

    What a hole is filled with depends on what happens to be measured around it, most of all beside
    a step: near holes, features say how the sensor failed. Pixels missing one by one do no harm.
    """
    single = _around(valid.float()) > 1 / 2
    share = to_grid((valid | single)[None].float())[0]
    return _around(share).flatten() < _MEASURED


def _around(values: Float[Tensor, "height width"]) -> Tensor:
    """The mean over 3 x 3."""
    padded = F.pad(values[None, None], (1, 1, 1, 1), mode="replicate")
    mean: Tensor = F.avg_pool2d(padded, 3, stride=1)[0, 0]
    return mean


def fill_holes(
    values: Float[Tensor, "channels height width"], valid: Bool[Tensor, "height width"]
) -> Tensor:
    """Replace invalid pixels by the average of the nearest coarser level that knows it.

    Push-pull over a pyramid: smooth, deterministic, and the valid pixels stay as they are. With
    nothing valid the result is zero.
    """
    weight = valid[None, None].to(values.dtype)
    level = torch.where(valid, values, torch.zeros_like(values))[None] * weight
    stack = [(level, weight)]
    while min(level.shape[-2:]) > 1:
        level = F.avg_pool2d(level, 2, ceil_mode=True, count_include_pad=False)
        weight = F.avg_pool2d(weight, 2, ceil_mode=True, count_include_pad=False)
        stack.append((level, weight))
    level, weight = stack.pop()
    filled = level / weight.clamp_min(1e-6)
    while stack:
        level, weight = stack.pop()
        coarse = F.interpolate(filled, size=level.shape[-2:], mode="bilinear", align_corners=False)
        filled = torch.where(weight > 0, level / weight.clamp_min(1e-6), coarse)
    return filled[0]
