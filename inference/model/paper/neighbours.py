"""The nearest points of a cloud to given centres, exact, in two ways with one result.

A squared distance is (dx * dx + dy * dy) + dz * dz of the differences in float32. Together with a
point's index it makes one integer key, so that no two points are ever equally near.
"""

from importlib.util import find_spec
from typing import Any, Final

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

_TILE: Final = 16
"""Points of a tile: neighbours in space that are kept or discarded together."""

_BLOCK: Final = 128
"""Centres searched at once: bounds the memory, and what a few lonely ones among them can cost."""

_CELLS: Final = 1 << 10
"""Cells along each axis for bringing points into an order in which neighbours are close."""

Array = NDArray[Any]


def has_kernels(points: Tensor) -> bool:
    """Whether what is asked about these points is answered by kernels: on CUDA, with Triton."""
    return points.is_cuda and find_spec("triton") is not None


def nearest_of_all(
    points: Float[Tensor, "points 3"], centres: Float[Tensor, "groups 3"], count: int
) -> Int[Tensor, "groups {count}"]:
    """Indices of the `count` nearest points, nearest first, by looking at all of them."""
    found = []
    for block in torch.split(centres, _BLOCK):
        squared = torch.zeros(len(block), len(points), device=points.device)
        for axis in range(3):
            squared += (points[:, axis] - block[:, axis, None]).square_()
        keys = squared.view(torch.int32).long() << 32
        keys |= torch.arange(len(points), device=points.device)
        found.append(keys.topk(count, dim=1, largest=False, sorted=True).values & 0xFFFFFFFF)
    return torch.cat(found)


def nearest_of_tiles(
    points: Float[Tensor, "points 3"], centres: Float[Tensor, "groups 3"], count: int
) -> Int[Tensor, "groups {count}"]:
    """Indices of the `count` nearest points, nearest first, on the processor.

    Points are sorted into tiles. Those tiles whose farthest corners are nearest hold enough points
    within some radius; only tiles that reach into it are looked into. The bounds are rounded as the
    distances are, operation by operation, so they hold exactly.
    """
    order, columns = _tiles(points.numpy())
    boxes = columns.min(axis=2), columns.max(axis=2)
    whole = len(points) // _TILE
    found = []
    for block in np.split(centres.numpy(), range(_BLOCK, len(centres), _BLOCK)):
        tiles = _candidates(block, boxes, whole=whole, count=count)
        # What is past the last tile has no coordinates of its own: its indices discard it.
        near = columns[:, tiles.clip(max=columns.shape[1] - 1)]
        found.append(_nearest(block, near, order[tiles], count))
    return torch.from_numpy(np.concatenate(found))


def _tiles(points: Array) -> tuple[Array, Array]:
    """Indices (tiles + 1 x tile) and coordinates (3 x tiles x tile) of points close together.

    Index -1 fills the last tile up, and the one more that stands for no tile at all; as an unsigned
    key it is behind every point.
    """
    least = _CELLS * float(np.finfo(np.float32).tiny)  # where all points are one; still invertible
    span = max(float(np.ptp(points, axis=0).max()), least)
    cells = ((points - points.min(axis=0)) * ((_CELLS - 1) / span)).astype(np.int64)
    curve = _spread_bits()[cells] << np.arange(3)
    order = curve.sum(axis=1).argsort(kind="stable")
    short = -len(points) % _TILE
    filled = np.concatenate((order, np.repeat(order[-1:], short)))
    columns = np.ascontiguousarray(points[filled].T).reshape(3, -1, _TILE)
    order = np.concatenate((order, np.full(short + _TILE, -1)))
    return order.reshape(-1, _TILE), columns


def _spread_bits() -> Array:
    """Numbers below `_CELLS` with two zeros between their bits (for a Morton curve)."""
    numbers = np.arange(_CELLS)
    bits = range(_CELLS.bit_length() - 1)
    spread: Array = np.sum([(numbers >> bit & 1) << 3 * bit for bit in bits], axis=0)
    return spread


def _candidates(centres: Array, boxes: tuple[Array, Array], *, whole: int, count: int) -> Array:
    """The tiles that may hold one of the `count` nearest points, padded by one past the last.

    Args:
        centres: One a row.
        boxes: The lowest and highest coordinates of each tile, 3 x tiles.
        whole: How many tiles, from the first on, are full.
        count: How many points are sought.
    """
    shape = (len(centres), boxes[0].shape[1])
    inner, outer = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    for axis, (low, high) in enumerate(zip(*boxes, strict=True)):
        centre = centres[:, axis, None]
        above, below = low - centre, centre - high
        inner += np.square(np.maximum(np.maximum(above, below), 0))
        outer += np.square(np.maximum(-above, -below))
    tiles = -(-count // _TILE)
    if tiles > whole:
        return np.tile(np.arange(shape[1]), (len(centres), 1))
    radius = np.partition(outer[:, :whole], tiles - 1, axis=1)[:, tiles - 1]
    reaching = inner <= radius[:, None]
    row, tile = reaching.nonzero()
    sizes = reaching.sum(axis=1)
    candidates = np.full((len(centres), sizes.max()), shape[1])
    candidates[row, np.arange(len(row)) - (sizes.cumsum() - sizes)[row]] = tile
    return candidates


def _nearest(centres: Array, points: Array, indices: Array, count: int) -> Array:
    """The nearest of the candidates (3 x groups x tiles x tile) by their keys."""
    squared = np.zeros(indices.shape, np.float32)
    for axis in range(3):
        squared += np.square(points[axis] - centres[:, axis, None, None])
    keys = squared.view(np.uint32).astype(np.uint64) << np.uint64(32)
    keys = (keys | indices.view(np.uint64)).reshape(len(centres), -1)
    keys.partition(count - 1, axis=1)
    nearest = np.sort(keys[:, :count], axis=1)
    return (nearest & np.uint64(0xFFFFFFFF)).astype(np.int64)
