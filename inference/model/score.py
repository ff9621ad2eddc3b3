"""From patch distances to an image score, a heat map and the regions in it."""

from dataclasses import dataclass
from typing import Final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from inference.model.grid import GRID

_BLUR_SIGMA: Final = 1.0  # in patches


@dataclass(frozen=True, slots=True)
class Box:
    """A region of the grid, as fractions of its height and width, and its highest value."""

    top: float
    left: float
    height: float
    width: float
    score: float
    peak: int


def image_score(patch_map: Float[Tensor, " patches"]) -> Float[Tensor, ""]:
    """The highest value of the smoothed map: steadier than the highest patch, as local."""
    return smooth_map(patch_map).max()


def smooth_map(patch_map: Float[Tensor, " patches"]) -> Float[Tensor, " patches"]:
    """Gaussian blur of `_BLUR_SIGMA` patches, unquantised."""
    reach = torch.arange(-3.0, 4.0)
    taps = torch.exp(-reach.square() / (2 * _BLUR_SIGMA**2)).to(patch_map)
    taps = taps / taps.sum()
    image = F.pad(patch_map.view(1, 1, GRID, GRID), (3, 3, 3, 3), mode="replicate")
    image = F.conv2d(F.conv2d(image, taps.view(1, 1, 1, 7)), taps.view(1, 1, 7, 1))
    return image.flatten()


def upsample_map(patch_map: Float[Tensor, " patches"], side: int) -> Float[Tensor, "side side"]:
    """The map at `side` x `side` pixels, bilinear."""
    image = patch_map.view(1, 1, GRID, GRID)
    grown: Tensor = F.interpolate(image, size=side, mode="bilinear", align_corners=False)
    return grown[0, 0]


def regions(patch_map: Float[Tensor, " patches"], *, threshold: float, limit: int) -> list[Box]:
    """The connected regions above `threshold`, highest first, at most `limit`."""
    labels = _components((patch_map > threshold).view(GRID, GRID)).flatten()
    boxes = []
    for label in torch.unique(labels).tolist():
        if label == 0:
            continue
        inside = torch.where(labels == label, patch_map, -torch.inf)
        boxes.append(_box(inside.view(GRID, GRID)))
    return sorted(boxes, key=lambda box: -box.score)[:limit]


def _components(mask: Bool[Tensor, "rows columns"]) -> Int[Tensor, "rows columns"]:
    """Label 8-connected components by spreading the highest index until nothing changes."""
    labels = torch.arange(1.0, mask.numel() + 1).view(1, 1, *mask.shape) * mask
    while True:
        spread = F.max_pool2d(labels, kernel_size=3, stride=1, padding=1) * mask
        if torch.equal(spread, labels):
            return labels[0, 0].long()
        labels = spread


def _box(inside: Float[Tensor, "rows columns"]) -> Box:
    rows = torch.isfinite(inside).any(1).nonzero().flatten()
    columns = torch.isfinite(inside).any(0).nonzero().flatten()
    top, left = int(rows[0]), int(columns[0])
    return Box(
        top=top / GRID,
        left=left / GRID,
        height=(int(rows[-1]) - top + 1) / GRID,
        width=(int(columns[-1]) - left + 1) / GRID,
        score=float(inside.max()),
        peak=int(inside.argmax()),
    )
