"""From groups of a cloud to patches of the common grid, as one linear operator per cloud.

The authors interpolate the features of groups to points, lay these out as an image, average over
3 x 3 pixels without padding, and pool to the grid. All of it is linear, and what it does depends on
the points alone: a matrix of patches x groups, instead of an image of 768 channels.
"""

from functools import lru_cache
from typing import Final

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from inference.model.grid import GRID
from inference.model.paper.neighbours import has_kernels
from inference.model.paper.points import Clouds

NEIGHBOURS: Final = 3
EPSILON: Final = 1e-8
"""Added to squared distances (m^2) before they are inverted: a centre is its own point."""

_WINDOW: Final = 3
_BLOCK: Final = 512
"""Points at a time on a processor: their distances to all groups stay in the cache."""


def pooling_operator(
    clouds: Clouds, centres: Int[Tensor, "batch groups"], *, grid: int = GRID
) -> Float[Tensor, "batch {grid}*{grid} groups"]:
    """What each group contributes to each patch; rows of patches without a point are zero.

    A row is not normalised where a patch has pixels without points: these count as zeros, as they
    do for the authors. Multiplied with group features it gives those of the patches.
    """
    axis = _axis_shares(clouds.side, grid, clouds.points.device)
    operators = []
    for points, pixels, chosen in zip(clouds.each(), clouds.pixels, centres, strict=True):
        patches, weights = _patches_of(pixels[: len(points)], axis, grid)
        groups, shares = interpolation(points, points[chosen])
        places = patches[:, :, None] * len(chosen) + groups[:, None]
        values = weights[:, :, None] * shares[:, None]
        operator = torch.zeros(grid * grid * len(chosen), device=points.device)
        _add(operator, places.flatten(), values.flatten())
        operators.append(operator.view(grid * grid, len(chosen)))
    return torch.stack(operators)


def interpolation(
    points: Float[Tensor, "points 3"], centres: Float[Tensor, "groups 3"]
) -> tuple[Int[Tensor, "points nearest"], Float[Tensor, "points nearest"]]:
    """The three centres nearest to each point, and their shares in it, which add up to 1.

    Shares are those of the inverse squared distances; these are computed from differences, where
    the authors expand the square and lose most digits. With fewer than three centres all share.
    """
    if has_kernels(points):
        from inference.model.paper.point_kernels import three_nearest  # needs Triton

        some = slice(min(NEIGHBOURS, len(centres)))
        nearest, squared = (each[:, some] for each in three_nearest(points, centres))
    else:
        step = len(points) if points.is_cuda else _BLOCK
        blocks = [_nearest(points[i : i + step], centres) for i in range(0, len(points), step)]
        nearest, squared = (torch.cat(each) for each in zip(*blocks, strict=True))
    inverse = 1 / (squared + EPSILON)
    return nearest, inverse / inverse.sum(1, keepdim=True)


def _nearest(points: Tensor, centres: Tensor) -> tuple[Tensor, Tensor]:
    """Indices and squared distances of the nearest centres; ties go to the lower index."""
    squared = (points[:, :1] - centres[:, 0]).square_()
    for axis in (1, 2):
        squared += (points[:, axis, None] - centres[:, axis]).square_()
    indices, values = [], []
    for _ in range(min(NEIGHBOURS, len(centres))):
        index = _argmin(squared)[:, None]
        indices.append(index)
        values.append(squared.gather(1, index))
        squared.scatter_(1, index, torch.inf)
    return torch.cat(indices, 1), torch.cat(values, 1)


def _argmin(values: Float[Tensor, "rows columns"]) -> Int[Tensor, " rows"]:
    if values.is_cuda:
        return values.argmin(1)
    return torch.from_numpy(values.numpy().argmin(axis=1))  # vectorised, unlike torch's


@lru_cache(maxsize=16)
def _axis_shares(
    side: int, grid: int, device: torch.device
) -> tuple[Int[Tensor, "{side} some"], Float[Tensor, "{side} some"]]:
    """The patches that each pixel counts in along one axis, and its share (some of no weight).

    Both poolings, of single pixels. Kept: it takes a while, and `some` has to be read back.
    """
    single = torch.eye(side)[:, None]
    axis = F.adaptive_avg_pool1d(F.avg_pool1d(single, _WINDOW, stride=1), grid)[:, 0]
    weights, patches = axis.topk(int((axis != 0).sum(1).max()), dim=1)
    return patches.to(device), weights.to(device)


def _patches_of(
    pixels: Int[Tensor, " points"], axis: tuple[Tensor, Tensor], grid: int
) -> tuple[Int[Tensor, "points some"], Float[Tensor, "points some"]]:
    """The patches that each pixel counts in, and its share in them (some of no weight)."""
    patches, weights = axis
    side = len(patches)
    row, column = pixels // side, pixels % side
    both = weights[row][:, :, None] * weights[column][:, None]
    places = patches[row][:, :, None] * grid + patches[column][:, None]
    return places.flatten(1), both.flatten(1)


def _add(sums: Float[Tensor, " places"], places: Int[Tensor, " n"], values: Tensor) -> None:
    """Each place of `sums` has its values added, always in the same order."""
    if sums.is_cuda:
        sums.index_put_((places,), values, accumulate=True)  # sorts; index_add_ uses atomics here
    else:
        sums.index_add_(0, places, values)  # serial; index_put_ uses atomics here
